//! Rules of `[network]`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Rules;
use super::cluster::in_cluster_range;
use crate::model::{Interface, InterfaceKind, Route};
use crate::words::{DhcpMode, Host, RouteDestination};

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(network) = &rules.parts.network else {
        return;
    };
    identity(rules);
    addresses(rules);
    for (index, server) in network.ntp_servers.iter().enumerate() {
        if matches!(server, Host::Name(name) if name.starts_with("*.")) {
            let key = format!("network.ntp-servers[{index}]");
            rules.error(&key, format!("`{server}` is a pattern")).expected("one host");
        }
    }
    let sync_off = rules.parts.time.is_some_and(|time| !time.sync);
    if sync_off && !network.ntp_servers.is_empty() {
        rules.warning("network.ntp-servers", "the time servers are not asked, as `time.sync` is false");
    }
    // Elements that could not be read are missing from the list, so that positions are only right without them.
    if rules.has(&format!("network.interfaces[{}]", network.interfaces.len())) {
        return;
    }
    for (index, interface) in network.interfaces.iter().enumerate() {
        routes(rules, &format!("network.interfaces[{index}]"), interface);
    }
}

fn identity(rules: &mut Rules<'_>) {
    let mut index = 0;
    while rules.has(&format!("network.interfaces[{index}]")) {
        let at = format!("network.interfaces[{index}]");
        match (rules.has(&format!("{at}.name")), rules.has(&format!("{at}.mac"))) {
            (false, false) => {
                rules.error(&at, "neither `name` nor `mac` says which interface this is").expected("one of them");
            }
            (true, true) => {
                rules.error(&format!("{at}.mac"), "both `name` and `mac` are given").expected("one of them");
            }
            (true, false) | (false, true) => {}
        }
        index += 1;
    }
}

fn addresses(rules: &mut Rules<'_>) {
    let Some(network) = &rules.parts.network else {
        return;
    };
    if rules.has(&format!("network.interfaces[{}]", network.interfaces.len())) {
        return;
    }
    let mut ids = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (index, interface) in network.interfaces.iter().enumerate() {
        let at = format!("network.interfaces[{index}]");
        if let Some(earlier) = ids.insert(&interface.id, index) {
            let reason = format!("`{}` is configured twice, here and in `network.interfaces[{earlier}]`", interface.id);
            rules.error(&at, reason).expected("one table per interface");
        }
        for (nth, address) in interface.addresses.iter().enumerate() {
            let key = format!("{at}.addresses[{nth}]");
            if let Some(earlier) = seen.insert(address.address(), at.clone()) {
                rules.error(&key, format!("`{}` is given twice, the first time in `{earlier}`", address.address()));
            }
            in_cluster_range(rules, &key, address.address());
        }
        let nothing = interface.dhcp == DhcpMode::None && !interface.router_advertisements;
        // A bridge may be for others only.
        let is_for_others = network.carries_others(&interface.id) || matches!(interface.kind, InterfaceKind::Bridge(_));
        if nothing && !is_for_others && interface.addresses.is_empty() && !rules.has(&format!("{at}.addresses[0]")) {
            rules.warning(&at, format!("`{}` gets no address", interface.id));
        }
    }
}

fn routes(rules: &mut Rules<'_>, at: &str, interface: &Interface) {
    for (index, route) in interface.routes.iter().enumerate() {
        let at = format!("{at}.routes[{index}]");
        match (route.to, route.via) {
            (RouteDestination::Default, None) => {
                rules.error(&at, "a default route needs a gateway").expected("`via` with the gateway's address");
            }
            (RouteDestination::Range(range), Some(via)) if range.is_ipv4() != via.is_ipv4() => {
                rules
                    .error(&format!("{at}.via"), format!("the gateway `{via}` cannot lead to `{range}`"))
                    .expected("a gateway of the range's address family");
            }
            (RouteDestination::Default | RouteDestination::Range(_), Some(via)) => {
                reachable(rules, &at, interface, route, via);
            }
            (RouteDestination::Range(_), None) => {}
        }
    }
}

fn reachable(rules: &mut Rules<'_>, at: &str, interface: &Interface, route: &Route, via: IpAddr) {
    let by_server = match via {
        IpAddr::V4(_) => interface.dhcp.ipv4(),
        IpAddr::V6(via) => interface.dhcp.ipv6() || interface.router_advertisements || via.is_unicast_link_local(),
    };
    let on_link = interface.addresses.iter().any(|address| address.net().contains(&via))
        || interface.routes.iter().any(|other| match other.to {
            RouteDestination::Range(range) => other.via.is_none() && range.net().contains(&via),
            RouteDestination::Default => false,
        });
    if !by_server && !on_link {
        rules
            .error(&format!("{at}.via"), format!("the gateway `{via}` is in no network of `{}`", interface.id))
            .expected("an address that the interface reaches directly");
    }
    if interface.addresses.iter().any(|address| address.address() == via) {
        let reason = format!("the gateway of `{}` is this machine's own address `{via}`", route.to);
        rules.error(&format!("{at}.via"), reason).expected("the address of another machine");
    }
}
