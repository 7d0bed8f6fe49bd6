//! Ways from the API server to others: straight over the network, or by a proxy for each part of it.
//!
//! ```text
//! EgressSelectorConfiguration ─▶ Egress ─┬─ controlplane ─▶ straight ────────────────────────────▶ TCP
//!                                        ├─ cluster ──────▶ Proxy: HTTP CONNECT over TLS, TCP, a socket
//!                                        └─ etcd ─────────▶ Proxy: gRPC over a socket, packets DIAL_REQ, DATA, …
//! ```
//!
//! A [`Proxy`] makes one connection with the proxy for each connection by way of it, so that no slow reader holds up
//! others, and none outlives what it was made for. Messages are upstream's, because they end up in answers to clients.
//!
//! Invariants: every step of a dial has a deadline, what a proxy answers is limited, and what is on its way between a
//! proxy and a reader is bounded. Every dial is counted, under upstream's names ([`Counts`]).
//!
//! It does not know which traffic goes which way: whoever opens a connection says so by a [`Selection`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod counts;
mod error;
mod grpc;
mod http_connect;
mod packet;
mod proxy;
mod tls;
mod tunnel;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use config::ConfigError;
pub use counts::{Counts, Family};
pub use error::{Error, network_text, tls_text};
pub use proxy::Proxy;
pub use tls::{Trust, client_config};

/// A part of the network that is reached in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selection {
    /// What runs beside this server: webhooks by URL, and those that authenticate, authorize and record.
    ControlPlane,
    /// Nodes, pods and services.
    Cluster,
    /// The store.
    Etcd,
}

impl Selection {
    /// All of them, in the order of their names.
    const ALL: [Self; 3] = [Self::Cluster, Self::ControlPlane, Self::Etcd];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Cluster => "cluster",
            Self::Etcd => "etcd",
        }
    }

    /// By its name in lower case.
    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|selection| selection.name() == name)
    }
}

/// How one part of the network is reached.
#[derive(Clone, Debug)]
enum Route {
    Straight,
    Proxy(Arc<Proxy>),
}

/// Which part of the network is reached how.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    routes: BTreeMap<Selection, Route>,
    is_configured: bool,
    counts: Arc<Counts>,
}

impl Egress {
    /// Reads a configuration file, and the certificates that it names.
    ///
    /// # Errors
    /// When it cannot be used, with everything that is wrong.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&config::read(path)?)
    }

    /// Reads a configuration, and the certificates that it names.
    ///
    /// # Errors
    /// When it cannot be used, with everything that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let counts = Arc::new(Counts::default());
        let routes = config::parse(text)?.into_iter().map(|(selection, plan)| {
            let route = match plan {
                None => Route::Straight,
                Some(plan) => Route::Proxy(Arc::new(Proxy::new(plan, counts.clone()))),
            };
            (selection, route)
        });
        Ok(Self { routes: routes.collect(), is_configured: true, counts })
    }

    /// The proxy for a part of the network; none where it is reached straight.
    #[must_use]
    pub fn proxy(&self, selection: Selection) -> Option<Arc<Proxy>> {
        match self.routes.get(&selection)? {
            Route::Straight => None,
            Route::Proxy(proxy) => Some(proxy.clone()),
        }
    }

    /// The same for clients.
    #[must_use]
    pub fn way(&self, selection: Selection) -> Option<Arc<dyn client::Way>> {
        self.proxy(selection).map(|proxy| proxy as _)
    }

    /// Whether there is a configuration at all.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.is_configured
    }

    /// Whether a configuration says how this part of the network is reached.
    #[must_use]
    pub fn names(&self, selection: Selection) -> bool {
        self.routes.contains_key(&selection)
    }

    /// What was dialled by proxies.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
