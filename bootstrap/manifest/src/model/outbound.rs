//! `[outbound]`

use std::collections::BTreeMap;

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
    User(StoreUser, StoreSecret),
    /// With a token.
    Token(StoreSecret),
}

/// `[outbound.proxy]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundProxy {
    /// Where it is.
    pub url: ProxyUrl,
    /// As whom it is asked.
    pub user: Option<(StoreUser, StoreSecret)>,
    /// For whom it is not asked.
    pub except: Vec<ProxyException>,
}

impl Outbound {
    /// Whatever must not be shown.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let logins = self.servers.values().filter_map(|server| server.login.as_ref());
        let of_servers = logins.map(|(Login::User(_, secret) | Login::Token(secret))| secret);
        let of_proxy = self.proxy.iter().filter_map(|proxy| proxy.user.as_ref()).map(|(_, secret)| secret);
        of_servers.chain(of_proxy).map(StoreSecret::as_str)
    }
}
