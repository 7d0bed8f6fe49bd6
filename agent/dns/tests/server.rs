//! Questions over real sockets on loopback, answered from a directory in memory and from an upstream of the test's
//! own.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::core::v1::{Service, ServicePort};
use api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use dns::{Config, Directory, Server};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use lifecycle::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

#[derive(Default)]
struct Memory {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    is_incomplete: bool,
}

impl Memory {
    fn add_service(&mut self, name: &str, kind: &str, addresses: &[&str]) -> &mut Service {
        let mut service = Service::default();
        (service.metadata.namespace, service.metadata.name) = ("ns".into(), name.into());
        service.spec.r#type = kind.into();
        service.spec.cluster_ips = addresses.iter().map(|text| (*text).to_owned()).collect();
        service.spec.cluster_ip = addresses.first().copied().unwrap_or_default().into();
        service.spec.ports =
            vec![ServicePort { name: "http".into(), protocol: "TCP".into(), port: 80, ..Default::default() }];
        self.services.push(Arc::new(service));
        Arc::get_mut(self.services.last_mut().unwrap()).unwrap()
    }

    fn add_slice(&mut self, service: &str, endpoints: &[(&str, Option<&str>, bool)]) {
        let mut slice = EndpointSlice::default();
        slice.metadata.namespace = "ns".into();
        slice.metadata.labels.insert("kubernetes.io/service-name".into(), service.into());
        slice.ports = vec![EndpointPort {
            name: Some("http".into()),
            protocol: Some("TCP".into()),
            port: Some(8080),
            ..Default::default()
        }];
        for (address, hostname, is_ready) in endpoints {
            let mut endpoint = Endpoint { addresses: vec![(*address).into()], ..Default::default() };
            endpoint.hostname = hostname.map(str::to_owned);
            endpoint.conditions.ready = Some(*is_ready);
            slice.endpoints.push(endpoint);
        }
        self.slices.push(Arc::new(slice));
    }
}

impl Directory for Memory {
    fn is_complete(&self) -> bool {
        !self.is_incomplete
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let is_it = |service: &&Arc<Service>| service.metadata.namespace == namespace && service.metadata.name == name;
        self.services.iter().find(is_it).cloned()
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "ns"
    }

    fn slices(&self, _namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let is_it = |slice: &&Arc<EndpointSlice>| slice.metadata.labels["kubernetes.io/service-name"] == service;
        self.slices.iter().filter(is_it).cloned().collect()
    }

    fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        self.services.iter().find(|service| service.spec.cluster_ips.contains(&address.to_string())).cloned()
    }

    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let has = |slice: &&Arc<EndpointSlice>| {
            slice.endpoints.iter().any(|endpoint| endpoint.addresses.contains(&address.to_string()))
        };
        self.slices.iter().filter(has).cloned().collect()
    }
}

fn memory() -> Memory {
    let mut memory = Memory::default();
    memory.add_service("web", "ClusterIP", &["10.96.0.7", "fd00:96::7"]);
    memory.add_service("four", "ClusterIP", &["10.96.0.8"]);
    memory.add_service("db", "ClusterIP", &["None"]);
    memory.add_slice(
        "db",
        &[("10.244.1.2", Some("db-0"), true), ("10.244.1.3", None, true), ("10.244.1.4", None, false)],
    );
    memory.add_service("early", "ClusterIP", &["None"]).spec.publish_not_ready_addresses = true;
    memory.add_slice("early", &[("10.244.1.9", None, false)]);
    memory.add_service("empty", "ClusterIP", &["None"]);
    memory.add_service("many", "ClusterIP", &["None"]);
    let many: Vec<String> = (0..200).map(|number| format!("10.244.9.{number}")).collect();
    memory.add_slice("many", &many.iter().map(|address| (address.as_str(), None, true)).collect::<Vec<_>>());
    memory.add_service("inside", "ExternalName", &[]).spec.external_name = "web.ns.svc.cluster.local".into();
    memory.add_service("outside", "ExternalName", &[]).spec.external_name = "www.example.com".into();
    memory
}

struct Dns {
    address: SocketAddr,
    shutdown: Shutdown,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl Dns {
    async fn start(memory: Memory, upstreams: Vec<SocketAddr>) -> Self {
        let all = vec![machine_api::NameServers::from(upstreams)];
        let config =
            Config { listen: vec!["127.0.0.1:0".parse().unwrap()], upstreams: all.into(), ..Config::default() };
        let server = Server::bind(&config, Box::new(memory)).await.unwrap();
        let address = server.addresses()[0];
        let shutdown = Shutdown::new();
        tokio::spawn(server.serve(shutdown.clone()));
        Self { address, shutdown }
    }

    async fn udp(&self, question: &Message) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&question.to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).await.unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!((answer.metadata.id, &answer.queries), (question.metadata.id, &question.queries));
        answer
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.udp(&question(name, kind)).await
    }

    /// The answer's records as text, sorted; or the code if it is not success.
    async fn text(&self, name: &str, kind: RecordType) -> Vec<String> {
        let answer = self.ask(name, kind).await;
        if answer.metadata.response_code != ResponseCode::NoError {
            return vec![format!("{:?}", answer.metadata.response_code)];
        }
        let text = |record: &Record| format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data);
        let mut lines: Vec<String> = answer.answers.iter().map(text).collect();
        lines.sort();
        lines
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

const NOTHING: &[&str] = &[];

#[tokio::test]
async fn names_stand_for_what_the_specification_says() {
    use RecordType::{A, AAAA, ANY, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    let dns = Dns::start(memory(), Vec::new()).await;
    let table: &[(&str, RecordType, &[&str])] = &[
        ("web.ns.svc.cluster.local.", A, &["web.ns.svc.cluster.local. 5 A 10.96.0.7"]),
        ("web.ns.svc.cluster.local.", AAAA, &["web.ns.svc.cluster.local. 5 AAAA fd00:96::7"]),
        ("WEB.ns.SVC.Cluster.Local.", A, &["WEB.ns.SVC.Cluster.Local. 5 A 10.96.0.7"]),
        ("four.ns.svc.cluster.local.", AAAA, NOTHING),
        ("four.ns.svc.cluster.local.", MX, NOTHING),
        ("none.ns.svc.cluster.local.", A, &["NXDomain"]),
        ("web.other.svc.cluster.local.", A, &["NXDomain"]),
        ("x.web.ns.svc.cluster.local.", A, &["NXDomain"]),
        ("ns.svc.cluster.local.", A, NOTHING),
        ("other.svc.cluster.local.", A, &["NXDomain"]),
        ("nonsense.cluster.local.", A, &["NXDomain"]),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            SRV,
            &["_http._tcp.web.ns.svc.cluster.local. 5 SRV 0 100 80 web.ns.svc.cluster.local."],
        ),
        ("_http._tcp.web.ns.svc.cluster.local.", A, NOTHING),
        ("_http._udp.web.ns.svc.cluster.local.", SRV, &["NXDomain"]),
        (
            "db.ns.svc.cluster.local.",
            A,
            &["db.ns.svc.cluster.local. 5 A 10.244.1.2", "db.ns.svc.cluster.local. 5 A 10.244.1.3"],
        ),
        ("db-0.db.ns.svc.cluster.local.", A, &["db-0.db.ns.svc.cluster.local. 5 A 10.244.1.2"]),
        ("10-244-1-3.db.ns.svc.cluster.local.", ANY, &["10-244-1-3.db.ns.svc.cluster.local. 5 A 10.244.1.3"]),
        ("10-244-1-4.db.ns.svc.cluster.local.", A, &["NXDomain"]),
        (
            "_http._tcp.db.ns.svc.cluster.local.",
            SRV,
            &[
                "_http._tcp.db.ns.svc.cluster.local. 5 SRV 0 50 8080 10-244-1-3.db.ns.svc.cluster.local.",
                "_http._tcp.db.ns.svc.cluster.local. 5 SRV 0 50 8080 db-0.db.ns.svc.cluster.local.",
            ],
        ),
        ("early.ns.svc.cluster.local.", A, &["early.ns.svc.cluster.local. 5 A 10.244.1.9"]),
        ("empty.ns.svc.cluster.local.", A, NOTHING),
        ("7.0.96.10.in-addr.arpa.", PTR, &["7.0.96.10.in-addr.arpa. 5 PTR web.ns.svc.cluster.local."]),
        ("2.1.244.10.in-addr.arpa.", PTR, &["2.1.244.10.in-addr.arpa. 5 PTR db-0.db.ns.svc.cluster.local."]),
        ("10-244-7-7.ns.pod.cluster.local.", A, &["10-244-7-7.ns.pod.cluster.local. 5 A 10.244.7.7"]),
        ("fd00--7.ns.pod.cluster.local.", AAAA, &["fd00--7.ns.pod.cluster.local. 5 AAAA fd00::7"]),
        ("nonsense.ns.pod.cluster.local.", A, &["NXDomain"]),
        ("dns-version.cluster.local.", TXT, &["dns-version.cluster.local. 5 TXT 1.1.0"]),
        ("outside.ns.svc.cluster.local.", CNAME, &["outside.ns.svc.cluster.local. 5 CNAME www.example.com."]),
        ("outside.ns.svc.cluster.local.", A, &["outside.ns.svc.cluster.local. 5 CNAME www.example.com."]),
        (
            "inside.ns.svc.cluster.local.",
            A,
            &[
                "inside.ns.svc.cluster.local. 5 CNAME web.ns.svc.cluster.local.",
                "web.ns.svc.cluster.local. 5 A 10.96.0.7",
            ],
        ),
        ("www.example.com.", A, &["ServFail"]),
    ];
    for (name, kind, expected) in table {
        assert_eq!(dns.text(name, *kind).await, *expected, "{name} {kind}");
    }
    assert_eq!(dns.text("cluster.local.", SOA).await.len(), 1);
    assert_eq!(dns.text("cluster.local.", NS).await, ["cluster.local. 5 NS ns.dns.cluster.local."]);
}

#[tokio::test]
async fn answers_say_whose_they_are_and_how_long_a_missing_name_stays_missing() {
    let dns = Dns::start(memory(), Vec::new()).await;
    let found = dns.ask("_http._tcp.web.ns.svc.cluster.local.", RecordType::SRV).await;
    assert!(found.metadata.authoritative && found.metadata.recursion_available && found.metadata.recursion_desired);
    assert_eq!(found.additionals.len(), 2);
    let missing = dns.ask("none.ns.svc.cluster.local.", RecordType::A).await;
    assert_eq!((missing.authorities[0].record_type(), missing.authorities[0].ttl), (RecordType::SOA, 5));
    let mut update = question("web.ns.svc.cluster.local.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(dns.udp(&update).await.metadata.response_code, ResponseCode::NotImp);
    let mut future = question("web.ns.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(9);
    future.set_edns(edns);
    // 16 has two names, by where it stands.
    assert_eq!(u16::from(dns.udp(&future).await.metadata.response_code), u16::from(ResponseCode::BADVERS));
}

#[tokio::test]
async fn nothing_is_denied_before_everything_is_known() {
    let mut memory = memory();
    memory.is_incomplete = true;
    let dns = Dns::start(memory, Vec::new()).await;
    assert_eq!(dns.text("none.ns.svc.cluster.local.", RecordType::A).await, ["ServFail"]);
}

#[tokio::test]
async fn what_does_not_fit_is_cut_by_udp_and_whole_by_tcp() {
    let dns = Dns::start(memory(), Vec::new()).await;
    let name = "many.ns.svc.cluster.local.";
    let plain = dns.ask(name, RecordType::A).await;
    assert!(plain.metadata.truncation && !plain.answers.is_empty() && plain.to_vec().unwrap().len() <= 512);
    let mut extended = question(name, RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    extended.set_edns(edns);
    let more = dns.udp(&extended).await;
    assert!(more.metadata.truncation && more.answers.len() > plain.answers.len() && more.edns.is_some());

    let mut stream = TcpStream::connect(dns.address).await.unwrap();
    for _ in 0..2 {
        let bytes = question(name, RecordType::A).to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut buffer).await.unwrap();
        let whole = Message::from_vec(&buffer).unwrap();
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
    }
}

/// Answers each question once: by UDP cut short, by TCP with one address; counts.
async fn upstream() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let answer = |question: &Message, is_tcp: bool| {
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        let query = question.queries[0].clone();
        answer.add_query(query.clone());
        if is_tcp {
            let data = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, 1));
            answer.add_answer(Record::from_rdata(query.name().clone(), 300, data));
        } else {
            answer.metadata.truncation = true;
        }
        answer.to_vec().unwrap()
    };
    tokio::spawn(async move {
        // Once only: a second question would find nobody, so the second answer has to come from the cache.
        let mut buffer = [0; 4096];
        let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        udp.send_to(&answer(&question, false), from).await.unwrap();
        let (mut stream, _) = tcp.accept().await.unwrap();
        let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut buffer).await.unwrap();
        let bytes = answer(&Message::from_vec(&buffer).unwrap(), true);
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    address
}

#[tokio::test]
async fn other_names_are_asked_upstream_once_and_remembered() {
    // The first resolver is nobody.
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dns = Dns::start(memory(), vec![dead, upstream().await]).await;
    let expected = ["WWW.example.com. 300 A 192.0.2.1"];
    assert_eq!(dns.text("WWW.example.com.", RecordType::A).await, expected);
    let again = dns.text("www.example.com.", RecordType::A).await;
    assert!(again[0].contains("A 192.0.2.1"), "{again:?}");
    let alias = dns.text("outside.ns.svc.cluster.local.", RecordType::A).await;
    assert_eq!(alias.len(), 2, "{alias:?}");
    assert!(!dns.ask("www.example.com.", RecordType::A).await.metadata.authoritative);
}
