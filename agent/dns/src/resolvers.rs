//! Who is asked about which name: those of the longest domain that it is in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;
use machine_api::{NameServer, NameServers};

use crate::clock::Clock;
use crate::counters::UpstreamCounters;
use crate::upstream::Upstream;

/// Name servers that know the same names.
#[derive(Default)]
pub(crate) struct Group {
    told: NameServers,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
}

impl Group {
    /// Those that answered last before those that did not, each kind as it was given.
    pub(crate) fn in_order(&self) -> Vec<&Arc<Upstream>> {
        let mut all: Vec<_> = self.upstreams.iter().collect();
        all.sort_by_key(|upstream| upstream.has_failed());
        all
    }
}

/// All of them, by the domains that they are asked about; the root's are asked about all others.
#[derive(Default)]
pub(crate) struct Resolvers {
    by_domain: HashMap<Name, Arc<Group>>,
}

impl Resolvers {
    /// Those who are told of now. What stays the same keeps its connections, and what it said.
    pub(crate) fn follow(&mut self, told: &[NameServers], clock: &Clock) {
        let before = std::mem::take(&mut self.by_domain);
        let servers = before.values().flat_map(|group| &group.upstreams);
        let mut counters: HashMap<SocketAddr, Arc<UpstreamCounters>> =
            servers.map(|known| (known.server().address, known.counters().clone())).collect();
        for told in told {
            let same = before.values().find(|group| group.told == *told).cloned();
            let group = same.unwrap_or_else(|| {
                let known = before.values().chain(self.by_domain.values()).flat_map(|group| &group.upstreams);
                let upstream = |server: &NameServer| {
                    let same = known.clone().find(|known| known.server() == server).cloned();
                    same.unwrap_or_else(|| {
                        let counters = counters.entry(server.address).or_default().clone();
                        Arc::new(Upstream::new(server, clock, counters))
                    })
                };
                Arc::new(Group { told: told.clone(), upstreams: told.servers.iter().map(upstream).collect() })
            });
            for domain in domains(told) {
                self.by_domain.entry(domain).or_insert_with(|| group.clone());
            }
        }
    }

    /// Who is asked about a name.
    pub(crate) fn of(&self, name: &Name) -> Option<&Arc<Group>> {
        let labels = name.iter().len();
        (0..=labels).rev().find_map(|length| self.by_domain.get(&name.trim_to(length)))
    }

    /// Each server once. Those at one address, which differ in the certificate that they have to show, are together.
    pub(crate) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        let mut all: Vec<_> = self.by_domain.values().flat_map(|group| group.upstreams.iter().cloned()).collect();
        all.sort_by(|one, other| one.server().cmp(other.server()));
        all.dedup_by(|one, other| one.server() == other.server());
        all
    }
}

/// The domains as names; the root where none is given.
fn domains(told: &NameServers) -> Vec<Name> {
    if told.domains.is_empty() {
        return vec![Name::root()];
    }
    let name = |text: &String| {
        let mut name = Name::from_ascii(text).ok()?;
        name.set_fqdn(true);
        Some(name)
    };
    told.domains.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use machine_api::NameServerTls;
    use proptest::prelude::*;

    use super::*;

    fn told(domains: &[&str], address: &str) -> NameServers {
        let all = NameServers::from(vec![address.parse().unwrap()]);
        NameServers { domains: domains.iter().map(|domain| (*domain).to_owned()).collect(), ..all }
    }

    fn resolvers() -> Resolvers {
        let mut resolvers = Resolvers::default();
        resolvers.follow(
            &[
                told(&[], "192.0.2.1:53"),
                told(&["corp.example", "10.in-addr.arpa"], "192.0.2.2:53"),
                told(&["lab.corp.example"], "192.0.2.3:53"),
            ],
            &Clock::new(true),
        );
        resolvers
    }

    fn asked(resolvers: &Resolvers, name: &str) -> String {
        let group = resolvers.of(&Name::from_ascii(name).unwrap()).unwrap();
        group.upstreams[0].server().address.ip().to_string()
    }

    #[tokio::test]
    async fn the_longest_domain_of_a_name_counts() {
        let resolvers = resolvers();
        for (name, server) in [
            ("example.com.", "192.0.2.1"),
            ("example.", "192.0.2.1"),
            (".", "192.0.2.1"),
            ("corp.example.", "192.0.2.2"),
            ("WWW.Corp.Example.", "192.0.2.2"),
            ("*.corp.example.", "192.0.2.2"),
            ("notcorp.example.", "192.0.2.1"),
            ("lab.corp.example.", "192.0.2.3"),
            ("a.b.lab.corp.example.", "192.0.2.3"),
            ("mylab.corp.example.", "192.0.2.2"),
            ("lab.corp.example.com.", "192.0.2.1"),
            ("4.3.2.10.in-addr.arpa.", "192.0.2.2"),
            ("4.3.2.110.in-addr.arpa.", "192.0.2.1"),
        ] {
            assert_eq!(asked(&resolvers, name), server, "{name}");
        }
        // Where nobody is asked about all names, nobody is asked about others.
        let mut some = Resolvers::default();
        some.follow(&[told(&["corp.example"], "192.0.2.2:53")], &Clock::new(true));
        assert!(some.of(&Name::from_ascii("example.com.").unwrap()).is_none());
    }

    #[tokio::test]
    async fn what_stays_the_same_is_kept() {
        let mut resolvers = resolvers();
        let of = |resolvers: &Resolvers, name: &str| resolvers.of(&Name::from_ascii(name).unwrap()).unwrap().clone();
        let (all, corp) = (of(&resolvers, "example.com."), of(&resolvers, "corp.example."));
        let next = [told(&["corp.example", "10.in-addr.arpa"], "192.0.2.2:53"), told(&[], "192.0.2.9:53")];
        resolvers.follow(&next, &Clock::new(true));
        assert!(Arc::ptr_eq(&corp, &of(&resolvers, "corp.example.")) && !Arc::ptr_eq(&all, &of(&resolvers, "a.com.")));
        assert_eq!(asked(&resolvers, "lab.corp.example."), "192.0.2.2");
        // The same server, asked about other names: its connection is kept, its answers are not.
        resolvers.follow(&[told(&[], "192.0.2.2:53")], &Clock::new(true));
        assert!(Arc::ptr_eq(&corp.upstreams[0], &of(&resolvers, "corp.example.").upstreams[0]));
        assert_eq!(resolvers.upstreams().len(), 1);
    }

    #[tokio::test]
    async fn servers_at_one_address_are_told_apart_and_counted_together() {
        let named = |domain: &str, name: &str| {
            let mut told = told(&[domain], "192.0.2.2:853");
            told.servers[0].tls = Some(NameServerTls { name: name.to_owned(), ca: None });
            told
        };
        let mut resolvers = Resolvers::default();
        let (one, other) = (named("a.example", "one.example"), named("b.example", "other.example"));
        resolvers.follow(&[one.clone(), other, named("c.example", "one.example")], &Clock::new(true));
        let all = resolvers.upstreams();
        let names: Vec<_> = all.iter().filter_map(|upstream| Some(&*upstream.server().tls.as_ref()?.name)).collect();
        assert_eq!(names, ["one.example", "other.example"]);
        assert!(Arc::ptr_eq(all[0].counters(), all[1].counters()));
        // What was counted stays when one of them is somebody else.
        resolvers.follow(&[named("d.example", "third.example")], &Clock::new(true));
        assert!(Arc::ptr_eq(all[0].counters(), resolvers.upstreams()[0].counters()));
    }

    proptest! {
        #[test]
        fn any_name_finds_somebody(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..10), 0..20)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _entered = runtime.enter();
            let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            prop_assert!(resolvers().of(&name).is_some());
        }
    }
}
