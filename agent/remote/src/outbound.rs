//! Servers that are known by more than their names, and the way to all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;
use url::{Host, Url};

use crate::access::{Access, Trust, basic, bearer};
use crate::error::Error;
use crate::{is_private, shown};

/// As whom a server is asked.
#[derive(Clone, Debug)]
pub enum Login {
    /// As a user, with a password.
    User(HeaderValue),
    /// With a token.
    Token(HeaderValue),
}

impl Login {
    /// Whoever has a user name and a password; `None` if no header can hold them.
    #[must_use]
    pub fn user(name: &str, password: &str) -> Option<Self> {
        basic(name, password).map(Self::User)
    }

    /// Whoever has a token; `None` if no header can hold it.
    #[must_use]
    pub fn token(token: &str) -> Option<Self> {
        bearer(token).map(Self::Token)
    }
}

/// What is known of a server.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Whom to believe, if others than the host does.
    pub trust: Option<Trust>,
    /// As whom to ask.
    pub login: Option<Login>,
}

/// The way to servers.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Where it is.
    pub url: Url,
    /// As whom it is asked.
    pub authorization: Option<HeaderValue>,
    /// For whom it is not asked.
    pub except: Vec<Exception>,
}

impl Proxy {
    /// What proves to it who asks.
    #[must_use]
    pub fn authorization(user: &str, password: &str) -> Option<HeaderValue> {
        basic(user, password)
    }

    /// It, for people.
    pub(crate) fn name(&self) -> String {
        format!("the proxy {}", shown(&self.url).trim_end_matches('/'))
    }

    fn leads_to(&self, url: &Url) -> bool {
        let address = match url.host() {
            None => return false,
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                return name != "localhost" && !self.except.iter().any(|except| except.has_name(&name));
            }
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
        };
        let is_in = |except: &Exception| matches!(except, Exception::Range(range) if range.contains(&address));
        !address.is_loopback() && !self.except.iter().any(is_in)
    }
}

/// Servers for which a proxy is not asked. It is the machine itself besides.
#[derive(Clone, Debug)]
pub enum Exception {
    /// Those that are named by an address in a range.
    Range(IpNet),
    /// A domain, with all that is in it.
    Domain(String),
    /// What is in a domain.
    Below(String),
}

impl Exception {
    fn has_name(&self, name: &str) -> bool {
        let is_below = |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match self {
            Self::Range(_) => false,
            Self::Domain(domain) => name == domain.to_ascii_lowercase() || is_below(&domain.to_ascii_lowercase()),
            Self::Below(domain) => is_below(&domain.to_ascii_lowercase()),
        }
    }
}

/// How servers elsewhere are reached. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    servers: Arc<BTreeMap<String, Known>>,
    proxy: Option<Arc<Proxy>>,
}

/// A server: whom to believe there, as whom to ask it, and how others are reached where it sends us.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Whom to believe.
    pub trust: Trust,
    /// As whom to ask.
    pub access: Access,
    /// The others.
    pub outbound: Outbound,
}

impl Outbound {
    /// `servers` are by host and, unless it is that of `https`, port.
    ///
    /// # Errors
    /// When a host is none.
    pub fn new(servers: impl IntoIterator<Item = (String, Known)>, proxy: Option<Proxy>) -> Result<Self, Error> {
        let mut known = BTreeMap::new();
        for (host, server) in servers {
            let host = cri::host_of(&host);
            let url: Result<Url, _> = format!("https://{host}").parse();
            let url = url.map_err(|error| Error::Address { text: host.to_owned(), reason: error.to_string() })?;
            known.insert(authority(&url), server);
        }
        Ok(Self { servers: Arc::new(known), proxy: proxy.map(Arc::new) })
    }

    /// A web server.
    #[must_use]
    pub fn web(&self, url: &Url) -> Peer {
        let trust = self.trust(url);
        let access = match self.login(url, &trust) {
            None => Access::Nobody,
            Some(Login::User(value) | Login::Token(value)) => Access::Header(value),
        };
        self.peer(trust, access)
    }

    /// A registry, or a mirror of one. Whom to believe may be said elsewhere.
    #[must_use]
    pub fn registry(&self, url: &Url, trust: Option<Trust>) -> Peer {
        let trust = trust.unwrap_or_else(|| self.trust(url));
        let access = match self.login(url, &trust) {
            None => Access::Registry(None),
            Some(Login::User(value)) => Access::Registry(Some(value)),
            Some(Login::Token(value)) => Access::Header(value),
        };
        self.peer(trust, access)
    }

    /// A server of which all is known.
    #[must_use]
    pub fn peer(&self, trust: Trust, access: Access) -> Peer {
        Peer { trust, access, outbound: self.clone() }
    }

    /// Whom to believe at this address.
    #[must_use]
    pub fn trust(&self, url: &Url) -> Trust {
        self.own_trust(url).unwrap_or_default()
    }

    /// The same, if that is not whom the host believes.
    pub(crate) fn own_trust(&self, url: &Url) -> Option<Trust> {
        self.servers.get(&authority(url)).and_then(|known| known.trust.clone())
    }

    /// A password is told to nobody who is not known to be who they should be.
    fn login(&self, url: &Url, trust: &Trust) -> Option<Login> {
        let known = self.servers.get(&authority(url)).filter(|_| is_private(url, trust));
        known.and_then(|known| known.login.clone())
    }

    /// The proxy, if it is the way to this address.
    pub(crate) fn proxy(&self, url: &Url) -> Option<&Proxy> {
        self.proxy.as_deref().filter(|proxy| proxy.leads_to(url))
    }
}

/// Host and, unless it is the scheme's own, port.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_known_of_a_server_counts_for_it_alone_and_its_password_goes_by_tls_only() {
        let known = |login| Known { login, trust: None };
        let servers = [
            ("R.example.com:443".to_owned(), known(Login::user("u", "p"))),
            ("r.example.com:5000".to_owned(), known(Login::token("t"))),
            ("docker.io".to_owned(), known(Login::user("hub", "p"))),
        ];
        let outbound = Outbound::new(servers, None).unwrap();
        let registry = |text: &str| outbound.registry(&url(text), None).access;
        assert!(matches!(registry("https://r.example.com/v2/"), Access::Registry(Some(_))));
        assert!(matches!(registry("https://registry-1.docker.io"), Access::Registry(Some(_))));
        assert!(matches!(registry("https://r.example.com:5000"), Access::Header(_)));
        assert!(matches!(outbound.web(&url("https://r.example.com")).access, Access::Header(_)));
        for stranger in ["http://r.example.com", "http://r.example.com:5000", "https://r.example.com:8443"] {
            assert!(matches!(registry(stranger), Access::Registry(None)), "{stranger}");
            assert!(matches!(outbound.web(&url(stranger)).access, Access::Nobody), "{stranger}");
        }
        let anybody = outbound.registry(&url("https://r.example.com"), Some(Trust::Anybody));
        assert!(matches!(anybody.access, Access::Registry(None)), "whoever is there gets no password");
        let shown = format!("{outbound:?}");
        assert!(!shown.contains("Basic") && !shown.contains("Bearer"), "{shown}");
        assert!(Outbound::new([("a b".to_owned(), Known::default())], None).is_err());
    }

    #[test]
    fn exceptions_are_asked_without_the_proxy() {
        let except = vec![
            Exception::Range("10.0.0.0/8".parse().unwrap()),
            Exception::Domain("example.com".to_owned()),
            Exception::Below("Example.org".to_owned()),
        ];
        let proxy = Proxy { url: url("http://proxy:3128"), authorization: None, except };
        let outbound = Outbound::new([], Some(proxy)).unwrap();
        for direct in [
            "https://10.1.2.3/",
            "http://example.com",
            "https://a.b.EXAMPLE.com:5000",
            "https://a.example.org",
            "http://localhost:1",
            "http://127.0.0.2",
            "https://[::1]:5000",
        ] {
            assert!(outbound.proxy(&url(direct)).is_none(), "{direct}");
        }
        for by_proxy in ["https://11.1.2.3", "https://notexample.com", "http://example.org", "https://[fd00::1]"] {
            assert!(outbound.proxy(&url(by_proxy)).is_some(), "{by_proxy}");
        }
    }

    proptest! {
        #[test]
        fn no_name_of_a_server_breaks_it(host in ".{0,60}") {
            let _any = Outbound::new([(host, Known::default())], None);
        }
    }
}
