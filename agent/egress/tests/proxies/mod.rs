//! Proxies that lead to servers of a test, by names that nobody but them knows.

mod connect;
mod packets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) use connect::{Connect, Listen};
pub(crate) use packets::Packets;
use parking_lot::Mutex;

/// What a proxy does when it is asked.
#[derive(Clone)]
pub(crate) enum Conduct {
    /// Leads on.
    Lead,
    /// Says no with this: an HTTP answer, or an error.
    Refuse(String),
    /// Says nothing.
    Hang,
    /// Ends the connection.
    End,
}

/// Where names lead, and what was asked for.
#[derive(Default)]
pub(crate) struct Places {
    known: Mutex<HashMap<String, SocketAddr>>,
    asked: Mutex<Vec<String>>,
}

impl Places {
    /// Those who know this name, as `host:port`.
    pub(crate) fn of(known: &[(&str, SocketAddr)]) -> Arc<Self> {
        let known = known.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        Arc::new(Self { known: Mutex::new(known), asked: Mutex::default() })
    }

    /// Makes a name known.
    #[allow(dead_code, reason = "not every test does")]
    pub(crate) fn learn(&self, name: &str, address: SocketAddr) {
        self.known.lock().insert(name.to_owned(), address);
    }

    /// What was asked for so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// Notes a question that is never answered.
    async fn leave_open<T>(&self, name: &str) -> T {
        self.asked.lock().push(name.to_owned());
        std::future::pending().await
    }

    /// Notes a question, and answers it; an address that is none of the names is itself.
    async fn find(&self, name: &str) -> std::io::Result<tokio::net::TcpStream> {
        self.asked.lock().push(name.to_owned());
        let known = self.known.lock().get(name).copied();
        match known.or_else(|| name.parse().ok()) {
            Some(address) => tokio::net::TcpStream::connect(address).await,
            None => Err(std::io::Error::other("no such host")),
        }
    }
}
