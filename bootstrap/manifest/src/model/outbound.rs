//! `[outbound]`

use std::collections::BTreeMap;

use crate::secret::Secret;
use crate::words::{PemCertificates, ProxyException, ProxyUrl, ServerHost, StoreSecret, StoreUser};

/// `[outbound]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbound {
    /// What is known of servers.
    pub servers: BTreeMap<ServerHost, OutboundServer>,
    /// The way to them.
    pub proxy: Option<OutboundProxy>,
}

/// `[outbound.servers.HOST]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundServer {
    /// As whom it is asked.
    pub login: Option<Login>,
    /// Its CAs.
    pub ca: Option<PemCertificates>,
}

/// As whom a server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// As a user, with a password.
    User(StoreUser, Secret<StoreSecret>),
    /// With a token.
    Token(Secret<StoreSecret>),
}

/// `[outbound.proxy]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundProxy {
    /// Where it is.
    pub url: ProxyUrl,
    /// As whom it is asked.
    pub user: Option<(StoreUser, Secret<StoreSecret>)>,
    /// For whom it is not asked.
    pub except: Vec<ProxyException>,
}
