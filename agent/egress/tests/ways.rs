//! Connections by way of proxies, and what is said when there is none.
#![allow(clippy::unwrap_used, missing_docs)]

mod proxies;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::Io;
use egress::{Egress, Error, Selection};
use proxies::{Conduct, Connect, Listen, Packets, Places};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const NAME: &str = "pod.example:80";

/// A server that says everything again, and ends when whoever asks does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

fn egress(connection: &str) -> Egress {
    Egress::parse(&format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
         - {{name: cluster, connection: {connection}}}\n- {{name: etcd, connection: {{proxyProtocol: Direct}}}}\n"
    ))
    .unwrap()
}

fn by_tcp(port: u16) -> Egress {
    egress(&format!("{{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: 'http://127.0.0.1:{port}'}}}}}}"))
}

fn by_socket(protocol: &str, socket: &Path) -> Egress {
    egress(&format!("{{proxyProtocol: {protocol}, transport: {{uds: {{udsName: '{}'}}}}}}", socket.display()))
}

async fn dial(egress: &Egress) -> Result<Box<dyn Io>, Error> {
    let proxy = egress.proxy(Selection::Cluster).unwrap();
    tokio::time::timeout(Duration::from_secs(60), proxy.dial("pod.example", 80)).await.unwrap()
}

async fn refusal(egress: &Egress) -> String {
    dial(egress).await.map(|_| ()).unwrap_err().to_string()
}

/// More than fits into any buffer on the way, there and back.
async fn says_again(stream: Box<dyn Io>) {
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = tokio::io::split(stream);
    let (copy, mut read) = (sent.clone(), vec![0; sent.len()]);
    let writing = tokio::spawn(async move {
        to.write_all(&copy).await.unwrap();
        to
    });
    from.read_exact(&mut read).await.unwrap();
    assert!(read == sent);
    let mut to = writing.await.unwrap();
    to.shutdown().await.unwrap();
    assert_eq!(from.read(&mut read).await.unwrap(), 0);
}

fn count(egress: &Egress, name: &str, labels: &[&str]) -> i64 {
    let families = egress.counts().families();
    let family = families.into_iter().find(|family| family.name == name).unwrap();
    family.values().into_iter().find(|(known, _)| known == labels).map_or(0, |(_, value)| value)
}

/// Dials of a protocol that began, failed with the proxy and behind it, and succeeded.
fn dials(egress: &Egress, spoken: (&'static str, &'static str)) -> [i64; 4] {
    let failures = "apiserver_egress_dialer_dial_failure_count";
    let took = egress.counts().latencies().into_iter().find(|(known, _)| *known == spoken);
    let took = took.and_then(|(_, known)| known.cumulative().last()).map_or(0, |(_, count)| count);
    [
        count(egress, "apiserver_egress_dialer_dial_start_total", &[spoken.0, spoken.1]),
        count(egress, failures, &[spoken.0, "connect", spoken.1]),
        count(egress, failures, &[spoken.0, "proxy", spoken.1]),
        i64::try_from(took).unwrap(),
    ]
}

#[tokio::test]
async fn a_proxy_that_knows_connect_leads_to_names() {
    let places = Places::of(&[(NAME, echo().await)]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let proxy = Connect::start(Listen::Tcp(None), places.clone(), Conduct::Lead).await;
    Connect::start(Listen::Socket(socket.clone()), places.clone(), Conduct::Lead).await;
    for (egress, transport) in [(by_tcp(proxy.port), "tcp"), (by_socket("HTTPConnect", &socket), "uds")] {
        says_again(dial(&egress).await.unwrap()).await;
        assert_eq!(dials(&egress, ("http_connect", transport)), [1, 0, 0, 1]);
        assert!(egress.proxy(Selection::Etcd).is_none() && egress.names(Selection::Etcd));
        assert!(egress.proxy(Selection::ControlPlane).is_none() && !egress.names(Selection::ControlPlane));
    }
    assert_eq!(places.asked(), [NAME, NAME]);
}

/// A proxy with TLS that wants a certificate, and the files of who has one.
struct Secured {
    folder: tempfile::TempDir,
    port: u16,
}

impl Secured {
    async fn start(places: Arc<Places>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "konnectivity");
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(params, ca_key);
        let signed = |names: Vec<String>| {
            let key = rcgen::KeyPair::generate().unwrap();
            (rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap(), key)
        };
        let (server, server_key) = signed(vec!["konnectivity.example".to_owned()]);
        let (client, client_key) = signed(vec![]);
        let alone = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        for (name, text) in [
            ("ca", ca.pem()),
            ("cert", client.pem()),
            ("key", client_key.serialize_pem()),
            ("other-cert", alone.cert.pem()),
            ("other-key", alone.signing_key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(vec![server.der().clone()], server_key.into())
            .unwrap();
        let proxy = Connect::start(Listen::Tcp(Some(Arc::new(tls))), places, Conduct::Lead).await;
        Self { folder, port: proxy.port }
    }

    fn egress(&self, bundle: &str, identity: &str, server_name: &str) -> Egress {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let tls = format!(
            "{{caBundle: {}, clientCert: {}, clientKey: {}, tlsServerName: {server_name}}}",
            path(bundle),
            path(&format!("{identity}cert")),
            path(&format!("{identity}key")),
        );
        let tcp = format!("{{tcp: {{url: 'https://127.0.0.1:{}', tlsConfig: {tls}}}}}", self.port);
        egress(&format!("{{proxyProtocol: HTTPConnect, transport: {tcp}}}"))
    }
}

#[tokio::test]
async fn a_proxy_is_trusted_by_its_certificate_and_trusts_by_ours() {
    let places = Places::of(&[(NAME, echo().await)]);
    let proxy = Secured::start(places.clone()).await;
    says_again(dial(&proxy.egress("ca", "", "konnectivity.example")).await.unwrap()).await;
    let wrong_name = refusal(&proxy.egress("ca", "", "")).await;
    assert!(wrong_name.starts_with("tls: failed to verify certificate: x509: "), "{wrong_name}");
    let wrong_issuer = refusal(&proxy.egress("other-cert", "", "konnectivity.example")).await;
    assert_eq!(wrong_issuer, "tls: failed to verify certificate: x509: certificate signed by unknown authority");
    let strangers = proxy.egress("ca", "other-", "konnectivity.example");
    assert!(dial(&strangers).await.is_err());
    assert_eq!(places.asked().len(), 1);
}

#[tokio::test]
async fn what_a_proxy_answers_instead_is_told() {
    let told = async |conduct: Conduct| {
        let proxy = Connect::start(Listen::Tcp(None), Places::of(&[]), conduct).await;
        let egress = by_tcp(proxy.port);
        let text = refusal(&egress).await.replace(&format!("127.0.0.1:{}", proxy.port), "PROXY");
        assert_eq!(dials(&egress, ("http_connect", "tcp")), [1, 0, 1, 0]);
        text
    };
    let refused = "HTTP/1.1 403 Not for you\r\ncontent-length: 0\r\n\r\n".to_owned();
    assert_eq!(
        told(Conduct::Refuse(refused)).await,
        "proxy error from PROXY while dialing pod.example:80, code 403: 403 Not for you"
    );
    assert_eq!(
        told(Conduct::Lead).await,
        "proxy error from PROXY while dialing pod.example:80, code 503: 503 no such host"
    );
    let unread = "reading HTTP response from CONNECT to pod.example:80 via proxy PROXY failed: ";
    assert_eq!(told(Conduct::End).await, format!("{unread}unexpected EOF"));
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(2_000_000));
    assert!(told(Conduct::Refuse(endless)).await.starts_with(unread));
    assert!(told(Conduct::Refuse("nonsense\r\n\r\n".to_owned())).await.starts_with(unread));
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_of() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let egress = by_tcp(free);
    assert_eq!(refusal(&egress).await, format!("dial tcp 127.0.0.1:{free}: connect: connection refused"));
    assert_eq!(dials(&egress, ("http_connect", "tcp")), [1, 1, 0, 0]);
    let egress = by_socket("HTTPConnect", Path::new("/no/such.sock"));
    assert_eq!(refusal(&egress).await, "dial unix /no/such.sock: connect: no such file or directory");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_is_given_up() {
    let proxy = Connect::start(Listen::Tcp(None), Places::of(&[]), Conduct::Hang).await;
    assert!(refusal(&by_tcp(proxy.port)).await.ends_with("failed: i/o timeout"));
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let proxy = Packets::start(&socket, Places::of(&[]), Conduct::Hang);
    let egress = by_socket("GRPC", &socket);
    assert_eq!(refusal(&egress).await, "dial timeout, backstop");
    assert_eq!(count(&egress, "konnectivity_network_proxy_client_dial_failure_total", &["timeout"]), 1);
    assert_eq!(count(&egress, "konnectivity_network_proxy_client_client_connections", &["dialing"]), 0);
    drop(proxy);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_of_packets_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let egress = by_socket("GRPC", &socket);
    let begin = tokio::time::Instant::now();
    let expected = format!(
        "context deadline exceeded: connection error: desc = \"transport: Error while dialing: \
         dial unix {}: connect: no such file or directory\"",
        socket.display()
    );
    assert_eq!(refusal(&egress).await, expected);
    let waited = begin.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(31)).contains(&waited), "{waited:?}");
    assert_eq!(dials(&egress, ("grpc", "uds")), [1, 1, 0, 0]);
    let places = Places::of(&[(NAME, echo().await)]);
    let late = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Packets::start(&socket, places, Conduct::Lead)
    };
    let (stream, _proxy) = tokio::join!(dial(&egress), late);
    says_again(stream.unwrap()).await;
}

#[tokio::test]
async fn packets_carry_a_connection_and_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let places = Places::of(&[(NAME, echo().await)]);
    let proxy = Packets::start(&socket, places.clone(), Conduct::Lead);
    let egress = by_socket("GRPC", &socket);
    says_again(dial(&egress).await.unwrap()).await;
    proxy.have_ended(1).await;
    // Whoever just lets go ends the stream, too.
    let mut stream = dial(&egress).await.unwrap();
    let connections = "konnectivity_network_proxy_client_client_connections";
    assert_eq!(count(&egress, connections, &["ok"]), 1);
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    drop(stream);
    proxy.have_ended(2).await;
    assert_eq!(count(&egress, connections, &["ok"]), 0);
    assert_eq!(places.asked(), [NAME, NAME]);
    assert_eq!(dials(&egress, ("grpc", "uds")), [2, 0, 0, 2]);
    let packets = "konnectivity_network_proxy_client_stream_packets_total";
    assert_eq!(count(&egress, packets, &["DIAL_REQ", "from_client"]), 2);
    assert_eq!(count(&egress, packets, &["DIAL_RSP", "to_client"]), 2);
    assert_eq!(count(&egress, packets, &["CLOSE_REQ", "from_client"]), 1);
}

#[tokio::test]
async fn what_a_proxy_of_packets_says_of_the_server_is_told() {
    for (conduct, expected, reason) in [
        (Conduct::Refuse("dial tcp: no agent".to_owned()), "dial tcp: no agent", "endpoint"),
        (Conduct::Lead, "no such host", "endpoint"),
        (Conduct::End, "dial closed", "dialclosed"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("proxy.sock");
        let _proxy = Packets::start(&socket, Places::of(&[]), conduct);
        let egress = by_socket("GRPC", &socket);
        assert_eq!(refusal(&egress).await, expected);
        assert_eq!(dials(&egress, ("grpc", "uds")), [1, 0, 1, 0]);
        assert_eq!(count(&egress, "konnectivity_network_proxy_client_dial_failure_total", &[reason]), 1);
    }
}

#[tokio::test]
async fn a_dial_that_is_given_up_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let (http, packets) = (folder.path().join("http.sock"), folder.path().join("packets.sock"));
    let places = Places::of(&[]);
    Connect::start(Listen::Socket(http.clone()), places.clone(), Conduct::Hang).await;
    let _proxy = Packets::start(&packets, places.clone(), Conduct::Hang);
    for (protocol, spoken, socket) in [("HTTPConnect", "http_connect", &http), ("GRPC", "grpc", &packets)] {
        let egress = by_socket(protocol, socket);
        let asked = places.asked().len();
        let mut dial = Box::pin(dial(&egress));
        // Its proxy was asked for the way, and does not answer.
        let met = async {
            while places.asked().len() == asked {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = &mut dial => panic!("the proxy does not answer"),
            () = met => {}
        }
        drop(dial);
        assert_eq!(dials(&egress, (spoken, "uds")), [1, 0, 1, 0]);
        let failures = count(&egress, "konnectivity_network_proxy_client_dial_failure_total", &["context"]);
        assert_eq!(failures, i64::from(protocol == "GRPC"));
    }
}

#[tokio::test]
async fn who_does_not_read_stops_who_writes() {
    // A server that says as much as anybody takes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, said) = (listener.local_addr().unwrap(), tokio::sync::watch::Sender::new(0_usize));
    let telling = said.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(&[0; 65_536]).await.is_ok() {
            telling.send_modify(|said| *said += 65_536);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let _proxy = Packets::start(&socket, Places::of(&[(NAME, address)]), Conduct::Lead);
    let mut stream = dial(&by_socket("GRPC", &socket)).await.unwrap();
    let mut said = said.subscribe();
    // It stops when all buffers on the way are full, those of the kernel included.
    while tokio::time::timeout(Duration::from_millis(500), said.changed()).await.is_ok() {
        assert!(*said.borrow_and_update() < 64 << 20, "nothing stops it");
    }
    let before = *said.borrow_and_update();
    assert!(before > 0, "nothing was said at all");
    // It was stopped, and not stuck: who reads on hears on.
    let mut read = vec![0; 1 << 20];
    let on = async {
        while *said.borrow() <= before + (1 << 20) {
            stream.read_exact(&mut read).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), on).await.expect("it goes on");
}
