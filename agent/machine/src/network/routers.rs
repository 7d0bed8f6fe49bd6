//! Name servers and search domains that routers advertise, for as long as they hold.
//!
//! What was said is kept in a file that no start of the machine outlives: routers say it again only every few minutes,
//! and a new process has to know it until then. Times are those of the clock that runs since the start.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use netlink::{Advertised, AdvertisedNames};
use serde::{Deserialize, Serialize};
use sys::{Linux, System};

const FILE: &str = "network-routers.json";
/// Whoever says more names than these on one link is not listened to further; the C library takes 3 servers.
const SERVERS: usize = 8;
const DOMAINS: usize = 8;
/// A router that has not said it again for so long is gone, whatever it said.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What one router said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said<T> {
    link: u32,
    router: IpAddr,
    what: T,
    until: Duration,
}

/// What all of them said, the earliest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Routers {
    servers: Vec<Said<IpAddr>>,
    domains: Vec<Said<String>>,
}

impl Routers {
    /// What an earlier process heard.
    pub(crate) fn load(run: &Path) -> Self {
        let text = Linux.read(&run.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Keeps it for the next process.
    pub(crate) fn save(&self, run: &Path) {
        let text = serde_json::to_vec(self).unwrap_or_default();
        if let Err(error) = Linux.replace(&run.join(FILE), &text, 0o600) {
            tracing::warn!(error = %stdx::chain(&error), "what routers advertise is not kept");
        }
    }

    /// Takes in what a router says at the time `now`.
    pub(crate) fn hear(&mut self, advertised: &Advertised, now: Duration) {
        let Advertised { link, router, lifetime, names } = advertised;
        let until = now + Duration::from_secs(u64::from(*lifetime)).min(LONGEST);
        let said = |what| Said { link: *link, router: *router, what, until };
        match names {
            AdvertisedNames::Servers(servers) => {
                // One that is known on its link only cannot be asked by an address alone.
                let usable = servers.iter().filter(|server| !server.is_unicast_link_local());
                usable.for_each(|server| note(&mut self.servers, said(IpAddr::from(*server)), SERVERS));
            }
            AdvertisedNames::Domains(domains) => {
                let said = |what| Said { link: *link, router: *router, what, until };
                domains.iter().for_each(|domain| note(&mut self.domains, said(domain.clone()), DOMAINS));
            }
        }
        self.forget(now, |_| true);
    }

    /// Forgets what does not hold any more, and what was said on links that nobody listens on.
    pub(crate) fn forget(&mut self, now: Duration, listens: impl Fn(u32) -> bool) {
        self.servers.retain(|said| said.until > now && listens(said.link));
        self.domains.retain(|said| said.until > now && listens(said.link));
    }

    /// When the next thing ends.
    pub(crate) fn next_end(&self) -> Option<Duration> {
        let servers = self.servers.iter().map(|said| said.until);
        servers.chain(self.domains.iter().map(|said| said.until)).min()
    }

    /// The servers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = IpAddr> {
        self.servers.iter().map(|said| said.what)
    }

    /// The domains.
    pub(crate) fn domains(&self) -> impl Iterator<Item = String> {
        self.domains.iter().map(|said| said.what.clone())
    }
}

/// What is said again holds from now on, at its old place; what is new comes last, while there is room on its link.
fn note<T: PartialEq>(all: &mut Vec<Said<T>>, new: Said<T>, room: usize) {
    let is_same = |said: &&mut Said<T>| (said.link, said.router) == (new.link, new.router) && said.what == new.what;
    let count = all.iter().filter(|said| said.link == new.link).count();
    match all.iter_mut().find(is_same) {
        Some(said) => said.until = new.until,
        None if count < room => all.push(new),
        None => tracing::debug!(link = new.link, router = %new.router, "too many names are advertised"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn said(link: u32, lifetime: u32, names: AdvertisedNames) -> Advertised {
        Advertised { link, router: "fe80::1".parse().unwrap(), lifetime, names }
    }

    fn servers(texts: &[&str]) -> AdvertisedNames {
        AdvertisedNames::Servers(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn names(routers: &Routers) -> Vec<String> {
        routers.servers().map(|it| it.to_string()).chain(routers.domains()).collect()
    }

    #[test]
    fn names_hold_as_long_as_a_router_says() {
        let mut routers = Routers::default();
        routers.hear(&said(2, 60, servers(&["fd00::1", "fe80::53"])), at(100));
        routers.hear(&said(3, u32::MAX, servers(&["fd00::2"])), at(100));
        routers.hear(&said(2, 30, AdvertisedNames::Domains(vec!["lab.example".into()])), at(100));
        assert_eq!(names(&routers), ["fd00::1", "fd00::2", "lab.example"]);
        assert_eq!(routers.next_end(), Some(at(130)));
        routers.forget(at(131), |_| true);
        assert_eq!(names(&routers), ["fd00::1", "fd00::2"]);
        // Said again, it holds longer and keeps its place; with no time left, it goes at once.
        routers.hear(&said(2, 60, servers(&["fd00::1"])), at(150));
        assert_eq!((names(&routers)[0].as_str(), routers.next_end()), ("fd00::1", Some(at(210))));
        routers.hear(&said(2, 0, servers(&["fd00::1"])), at(151));
        assert_eq!(names(&routers), ["fd00::2"]);
        routers.forget(at(152), |link| link != 3);
        assert_eq!(routers.next_end(), None);
    }

    #[test]
    fn nobody_fills_the_list() {
        let mut routers = Routers::default();
        for number in 0..100 {
            let server = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number);
            routers.hear(&said(2, 60, AdvertisedNames::Servers(vec![server])), at(1));
        }
        routers.hear(&said(3, 60, servers(&["fd00::1:1"])), at(1));
        assert_eq!(names(&routers).len(), SERVERS + 1);
        routers.hear(&said(3, u32::MAX, servers(&["fd00::1:1"])), at(1));
        assert!(routers.servers.iter().all(|said| said.until <= at(1) + LONGEST));
    }
}
