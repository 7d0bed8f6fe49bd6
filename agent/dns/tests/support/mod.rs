//! Resolvers of the tests' own, and caches that ask them.
#![allow(dead_code, reason = "no test file needs all of it")]

pub(crate) mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dns::{Server, Upstreams, View};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lifecycle::Shutdown;
use machine_api::NameServers;
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// A resolver that says the same about every name, and how often it was asked.
pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Resolver {
    pub(crate) async fn start(code: ResponseCode, address: [u8; 4]) -> Self {
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

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

pub(crate) fn answer(question: &Message, code: ResponseCode, [a, b, c, d]: [u8; 4]) -> Message {
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

/// These, asked without TLS about all names.
pub(crate) fn all(addresses: &[SocketAddr]) -> NameServers {
    addresses.to_vec().into()
}

/// These, asked without TLS about a domain.
pub(crate) fn about(domain: &str, addresses: &[SocketAddr]) -> NameServers {
    NameServers { domains: vec![domain.to_owned()], ..all(addresses) }
}

/// A cache that runs until it is dropped.
pub(crate) struct Cache {
    pub(crate) address: SocketAddr,
    pub(crate) view: View,
    sender: watch::Sender<Vec<NameServers>>,
    shutdown: Shutdown,
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl Cache {
    pub(crate) async fn start(groups: Vec<NameServers>) -> Self {
        let (sender, receiver) = watch::channel(groups);
        let server = Server::cache("127.0.0.1:0".parse().unwrap(), Upstreams::from(receiver)).await.unwrap();
        let (address, view, shutdown) = (server.addresses()[0], server.view(), Shutdown::new());
        tokio::spawn(server.serve(shutdown.clone()));
        Self { address, view, sender, shutdown }
    }

    /// Other servers are asked from now on.
    pub(crate) fn tell(&self, groups: Vec<NameServers>) {
        self.sender.send_replace(groups);
    }

    /// The address of a name, or the code.
    pub(crate) async fn ask(&self, name: &str) -> String {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(&question.to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).await.unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.authoritative), (7, false));
        let code = answer.metadata.response_code;
        answer.answers.first().map_or(format!("{code:?}"), |record| record.data.to_string())
    }
}
