//! The cache of a machine's own look-ups, over real sockets: who is asked, how often, and whom it asks instead.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dns::{Server, Upstreams};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lifecycle::Shutdown;
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// A resolver that says the same about every name, and how often it was asked.
struct Resolver {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Resolver {
    async fn start(code: ResponseCode, address: [u8; 4]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (own, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let question = Message::from_vec(&buffer[..length]).unwrap();
                socket.send_to(&answer(&question, code, address).to_vec().unwrap(), from).await.unwrap();
            }
        });
        Self { address: own, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn answer(question: &Message, code: ResponseCode, [a, b, c, d]: [u8; 4]) -> Message {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.response_code = code;
    let query = question.queries[0].clone();
    match code {
        ResponseCode::NoError => {
            answer.add_answer(Record::from_rdata(query.name().clone(), 300, RData::A(A::new(a, b, c, d))));
        }
        ResponseCode::NXDomain => {
            let zone = Name::from_ascii("example.com.").unwrap();
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, 60);
            answer.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
        }
        _ => {}
    }
    answer.add_query(query);
    answer
}

/// A cache that asks these, and what tells it of others.
async fn cache(upstreams: Vec<SocketAddr>) -> (SocketAddr, watch::Sender<Vec<SocketAddr>>, Shutdown) {
    let (sender, receiver) = watch::channel(upstreams);
    let server = Server::cache("127.0.0.1:0".parse().unwrap(), Upstreams::from(receiver)).await.unwrap();
    let (address, shutdown) = (server.addresses()[0], Shutdown::new());
    tokio::spawn(server.serve(shutdown.clone()));
    (address, sender, shutdown)
}

/// The address of a name, or the code.
async fn ask(cache: SocketAddr, name: &str) -> String {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(cache).await.unwrap();
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.authoritative), (7, false));
    answer.answers.first().map_or(format!("{:?}", answer.metadata.response_code), |record| record.data.to_string())
}

#[tokio::test]
async fn what_was_answered_is_not_asked_again_also_that_there_is_nothing() {
    let found = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    let (address, _sender, _shutdown) = cache(vec![found.address]).await;
    for name in ["registry.example.com.", "REGISTRY.example.com."] {
        assert_eq!(ask(address, name).await, "192.0.2.1");
    }
    // A cluster's names are nobody's here.
    assert_eq!(ask(address, "web.ns.svc.cluster.local.").await, "192.0.2.1");
    assert_eq!(found.asked(), 2);
    let missing = Resolver::start(ResponseCode::NXDomain, [0; 4]).await;
    let (address, _sender, _shutdown) = cache(vec![missing.address]).await;
    for _ in 0..2 {
        assert_eq!(ask(address, "typo.example.com.").await, "NXDomain");
    }
    assert_eq!(missing.asked(), 1);
}

#[tokio::test]
async fn one_that_refuses_or_is_silent_gives_way_to_the_next() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let bad = Resolver::start(code, [0; 4]).await;
        let good = Resolver::start(ResponseCode::NoError, [192, 0, 2, 2]).await;
        let (address, _sender, _shutdown) = cache(vec![bad.address, good.address]).await;
        assert_eq!(ask(address, "registry.example.com.").await, "192.0.2.2");
        assert_eq!(ask(address, "registry.example.com.").await, "192.0.2.2");
        assert_eq!((bad.asked(), good.asked()), (1, 1));
        // Where nobody knows better, it is told, and kept by nobody.
        let (address, _sender, _shutdown) = cache(vec![bad.address]).await;
        for _ in 0..2 {
            assert_eq!(ask(address, "registry.example.com.").await, format!("{code:?}"));
        }
        assert_eq!(bad.asked(), 3);
    }
    let good = Resolver::start(ResponseCode::NoError, [192, 0, 2, 3]).await;
    let (address, _sender, _shutdown) = cache(vec![silent.local_addr().unwrap(), good.address]).await;
    assert_eq!(ask(address, "registry.example.com.").await, "192.0.2.3");
}

#[tokio::test]
async fn other_resolvers_are_asked_as_soon_as_they_are_known() {
    let (address, sender, shutdown) = cache(Vec::new()).await;
    assert_eq!(ask(address, "registry.example.com.").await, "ServFail");
    let one = Resolver::start(ResponseCode::NoError, [192, 0, 2, 1]).await;
    sender.send(vec![one.address]).unwrap();
    assert_eq!(ask(address, "registry.example.com.").await, "192.0.2.1");
    // In another network the same name may be another machine's.
    let other = Resolver::start(ResponseCode::NoError, [10, 0, 0, 1]).await;
    sender.send(vec![other.address]).unwrap();
    assert_eq!(ask(address, "registry.example.com.").await, "10.0.0.1");
    assert_eq!((one.asked(), other.asked()), (1, 1));
    shutdown.trigger();
}
