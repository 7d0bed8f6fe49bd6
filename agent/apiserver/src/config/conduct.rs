//! How a server behaves towards its clients, its store and those who stop it: what operators tune.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::browsers::Browsers;

/// What may be tuned. The defaults are upstream's.
#[derive(Clone, Debug)]
pub struct Conduct {
    /// How the server ends.
    pub stopping: Stopping,
    /// What browsers are told.
    pub browsers: Browsers,
    /// How likely a request over HTTP/2 is the last one of its connection, so that a balancer finds another server for
    /// the next.
    pub goaway_chance: f64,
    /// Streams that a client may open on one HTTP/2 connection.
    pub max_streams: u32,
    /// Whether other processes may listen on the same port.
    pub shares_port: bool,
    /// For how long after its start a server is taken for alive although it has not finished starting.
    pub livez_grace: Duration,
    /// How long a watch that names no timeout lasts at least, and at most twice that; for ever if this is zero.
    pub min_watch: Duration,
    /// How long the store may take to answer whether it is well.
    pub store_health: Duration,
    /// The same, for a server that is to be sent requests.
    pub store_readiness: Duration,
    /// How long the store is waited for before its part of the start counts as done.
    pub store_start: Duration,
    /// Objects of a collection that are deleted at the same time.
    pub collection_workers: usize,
    /// How long pods stay on nodes that are not ready, and on those that are not reached, in seconds.
    pub toleration_seconds: (i64, i64),
    /// What clients elsewhere reach the server by, with or without a port; the address that it tells if this is empty.
    pub external_host: String,
    /// Metrics that are not shown, by their names.
    pub disabled_metrics: BTreeSet<String>,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopping {
    /// For how long it goes on serving while it already says that it is not ready.
    pub delay: Duration,
    /// Whether it then answers new requests by 429 while those in flight are finished, in place of closing its port.
    pub sends_elsewhere: bool,
    /// In which time watches are ended, one after the other; all at once if this is zero.
    pub watch_grace: Duration,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            stopping: Stopping::default(),
            browsers: Browsers::default(),
            goaway_chance: 0.0,
            max_streams: 250,
            shares_port: false,
            livez_grace: Duration::ZERO,
            min_watch: Duration::from_secs(1800),
            store_health: Duration::from_secs(2),
            store_readiness: Duration::from_secs(2),
            store_start: Duration::from_secs(60),
            collection_workers: 1,
            toleration_seconds: (300, 300),
            external_host: String::new(),
            disabled_metrics: BTreeSet::new(),
        }
    }
}

impl super::Config {
    /// Host and port by which clients elsewhere reach the server.
    #[must_use]
    pub fn external_address(&self) -> String {
        let (host, port) = (self.conduct.external_host.as_str(), self.bind.port());
        let has_port = host.rsplit_once(':').is_some_and(|(host, port)| {
            (!host.contains(':') || host.starts_with('[') && host.ends_with(']')) && port.parse::<u16>().is_ok()
        });
        match host {
            "" => std::net::SocketAddr::new(self.advertise, port).to_string(),
            _ if has_port => host.to_owned(),
            _ if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
            _ => format!("{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_host_elsewhere_gets_the_port_unless_it_has_one() {
        for (host, wanted) in [
            ("", "127.0.0.1:6443"),
            ("api.example.com", "api.example.com:6443"),
            ("api.example.com:443", "api.example.com:443"),
            ("2001:db8::1", "[2001:db8::1]:6443"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            let conduct = Conduct { external_host: host.to_owned(), ..Conduct::default() };
            assert_eq!(Config { conduct, ..Config::default() }.external_address(), wanted);
        }
    }
}
