//! What earlier manifests gave to links and the one in force does not: that is taken back, and nothing else.

use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink::{Link, Route, Rule};

use crate::dhcp::Lent;
use crate::network::owned::{Configured, Owned, OwnedRoute};
use crate::network::plan::{LinkPlan, NetworkPlan};

/// One thing to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// An address.
    Address { link: u32, net: IpNet },
    /// A rule that chooses a table of routes.
    Rule(Rule),
    /// A route.
    Route(Route),
    /// The size of packets; it was another one before.
    Mtu { link: u32, before: u32 },
    /// What routers gave.
    Routers { link: u32, name: String },
    /// What a DHCP server lent.
    Lent { link: u32, lent: Box<Lent> },
}

/// Decides what is to be taken back. Rules go before the routes that they lead to, and these before the addresses that
/// they may need.
pub(crate) fn plan_leftovers(owned: &Owned, wanted: &NetworkPlan, links: &[Link]) -> Vec<Leftover> {
    let unwanted = owned.rules.iter().filter(|rule| !wanted.rules.contains(rule));
    let mut leftovers: Vec<Leftover> = unwanted.cloned().map(Leftover::Rule).collect();
    for (name, configured) in &owned.configured {
        // What a link had went with it.
        let Some(link) = links.iter().find(|link| link.name == *name).map(|link| link.index) else { continue };
        let plan = wanted.links.iter().find(|plan| plan.link == link);
        let routes = configured.routes.iter().filter(|route| !has_route(plan, route));
        leftovers.extend(routes.map(|route| Leftover::Route(route.on(link))));
        let ended = configured.lent.iter().filter(|(family, _)| !plan.is_some_and(|plan| plan.asks(**family)));
        leftovers.extend(ended.map(|(_, lent)| Leftover::Lent { link, lent: Box::new(lent.clone()) }));
        if configured.listens && !plan.is_some_and(|plan| plan.router_advertisements) {
            leftovers.push(Leftover::Routers { link, name: name.clone() });
        }
        let addresses = configured.addresses.iter().copied();
        let unwanted = addresses.filter(|net| !plan.is_some_and(|plan| plan.addresses.contains(net)));
        leftovers.extend(unwanted.map(|net| Leftover::Address { link, net }));
        if let Some(before) = configured.mtu_before.filter(|_| plan.is_none_or(|plan| plan.mtu.is_none())) {
            leftovers.push(Leftover::Mtu { link, before });
        }
    }
    leftovers
}

fn has_route(plan: Option<&LinkPlan>, route: &OwnedRoute) -> bool {
    plan.is_some_and(|plan| plan.routes.iter().any(|wanted| OwnedRoute::of(wanted) == *route))
}

/// What links have once everything that is wanted was given to them.
pub(crate) fn plan_configured(
    owned: &BTreeMap<String, Configured>,
    wanted: &NetworkPlan,
    links: &[Link],
) -> BTreeMap<String, Configured> {
    let configured = wanted.links.iter().map(|plan| {
        let earlier = owned.get(&plan.name);
        let mtu = links.iter().find(|link| link.index == plan.link).map(|link| link.mtu);
        let configured = Configured {
            addresses: plan.addresses.iter().copied().collect(),
            routes: plan.routes.iter().map(OwnedRoute::of).collect(),
            mtu_before: plan.mtu.and_then(|_| earlier.and_then(|earlier| earlier.mtu_before).or(mtu)),
            listens: plan.router_advertisements,
            lent: earlier.map(|earlier| earlier.lent_to(plan)).unwrap_or_default(),
        };
        (plan.name.clone(), configured)
    });
    configured.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::Family;
    use crate::network::plan::plan;
    use crate::network::plan::tests::{link, network};
    use netlink::LinkKind;

    const BEFORE: &str = "[[network.interfaces]]\nname = \"eth0\"\nmtu = 1400\ndhcp = \"ipv4\"\n\
                          addresses = [\"10.0.0.2/24\", \"10.0.0.3/24\"]\n\
                          routes = [{ to = \"10.9.0.0/16\", via = \"10.0.0.1\" }, { to = \"10.8.0.0/16\" }]\n";

    fn lent() -> Lent {
        Lent { addresses: vec!["10.0.0.9/24".parse().unwrap()], ..Lent::default() }
    }

    /// What a manifest gives.
    fn had(text: &str, links: &[Link]) -> Owned {
        let wanted = plan(&network(text), links);
        let configured = plan_configured(&BTreeMap::new(), &wanted, links);
        Owned { configured, rules: wanted.rules, ..Owned::default() }
    }

    /// What the first manifest leaves when it is replaced by the second.
    fn left_by(before: &str, after: &str, links: &[Link]) -> Vec<String> {
        let mut owned = had(before, links);
        owned.configured.values_mut().for_each(|configured| drop(configured.lent.insert(Family::V4, lent())));
        let wanted = plan(&network(after), links);
        let left = plan_leftovers(&owned, &wanted, links).into_iter().map(|leftover| match leftover {
            Leftover::Address { link, net } => format!("{link} {net}"),
            Leftover::Rule(rule) => format!("rule {}", rule.priority),
            Leftover::Route(route) => format!("route {}", route.destination),
            Leftover::Mtu { link, before } => format!("{link} mtu {before}"),
            Leftover::Routers { name, .. } => format!("{name} routers"),
            Leftover::Lent { lent, .. } => format!("lease {}", lent.addresses[0]),
        });
        let left = left.collect();
        // What is wanted is not left over.
        owned.configured = plan_configured(&owned.configured, &wanted, links);
        owned.rules = wanted.rules.clone();
        assert!(plan_leftovers(&owned, &wanted, links).is_empty());
        left
    }

    #[test]
    fn only_what_is_not_wanted_any_more_is_taken_back() {
        let links = [link(2, "eth0", LinkKind::Physical), link(3, "eth1", LinkKind::Physical)];
        assert!(left_by(BEFORE, BEFORE, &links).is_empty());
        let fewer =
            BEFORE.replace("\"10.0.0.2/24\", ", "").replace("{ to = \"10.9.0.0/16\", via = \"10.0.0.1\" }, ", "");
        assert_eq!(left_by(BEFORE, &fewer, &links), ["route 10.9.0.0/16", "2 10.0.0.2/24"]);
        let fixed = BEFORE.replace("mtu = 1400\ndhcp = \"ipv4\"", "router-advertisements = false");
        assert_eq!(left_by(BEFORE, &fixed, &links), ["lease 10.0.0.9/24", "eth0 routers", "2 mtu 1500"]);
        let other = BEFORE.replace("eth0", "eth1");
        let all = left_by(BEFORE, &other, &links);
        let expected = [
            "route 10.9.0.0/16",
            "route 10.8.0.0/16",
            "lease 10.0.0.9/24",
            "eth0 routers",
            "2 10.0.0.2/24",
            "2 10.0.0.3/24",
            "2 mtu 1500",
        ];
        assert_eq!(all, expected);
        let gone = [link(3, "eth1", LinkKind::Physical)];
        let owned = had(BEFORE, &links);
        assert!(plan_leftovers(&owned, &plan(&network(&other), &gone), &gone).is_empty());
    }

    #[test]
    fn rules_and_tables_go_one_by_one() {
        let links = [link(2, "eth0", LinkKind::Physical)];
        let text = "[network]\nrules = [{ priority = 5, mark = 1, table = 100 }, { priority = 6, to = \"10.0.0.0/8\", table = 254 }]\n\
                    [[network.interfaces]]\nname = \"eth0\"\naddresses = [\"10.0.0.2/24\"]\n\
                    routes = [{ to = \"default\", via = \"10.0.0.1\", table = 100 }, { to = \"default\", via = \"10.0.0.1\" }]\n";
        let other = text.replace("{ priority = 5, mark = 1, table = 100 }, ", "").replace(", table = 100", "");
        // Marks are for both families; the same route is also in the main table.
        assert_eq!(left_by(text, &other, &links), ["rule 5", "rule 5", "route 0.0.0.0/0", "lease 10.0.0.9/24"]);
    }

    #[test]
    fn the_size_of_packets_goes_back_to_what_it_was_first() {
        let mut links = [link(2, "eth0", LinkKind::Physical)];
        let first = plan_configured(&BTreeMap::new(), &plan(&network(BEFORE), &links), &links);
        links[0].mtu = 1400;
        let larger = plan(&network(&BEFORE.replace("1400", "9000")), &links);
        let second = plan_configured(&first, &larger, &links);
        assert_eq!(second["eth0"].mtu_before, Some(1500));
    }
}
