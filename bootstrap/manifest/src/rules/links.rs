//! Rules of interfaces that are made of others: VLANs, bonds, bridges, tunnels.

use std::collections::{BTreeMap, BTreeSet};

use super::Rules;
use crate::model::{Bond, Interface, InterfaceKind, Network};
use crate::words::{BondMode, DhcpMode, InterfaceId, closest};

/// A shorter interval is work, with a longer one too many packets are lost.
const MIIMON_MILLIS: std::ops::RangeInclusive<u128> = 10..=10_000;

/// The tables that make an interface.
const KINDS: [&str; 4] = ["vlan", "bond", "bridge", "wireguard"];

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(network) = &rules.parts.network else { return };
    if !kinds(rules) || rules.has(&format!("network.interfaces[{}]", network.interfaces.len())) {
        return;
    }
    let mut owners = BTreeMap::new();
    let mut vlans = BTreeMap::new();
    for (index, interface) in network.interfaces.iter().enumerate() {
        let at = place(index);
        if let InterfaceKind::Bond(wanted) = &interface.kind {
            bond(rules, &at, wanted);
        }
        if let InterfaceKind::Vlan(vlan) = &interface.kind {
            if let Some(earlier) = vlans.insert((&vlan.link, vlan.id), &interface.id) {
                let reason = format!("VLAN {} of `{}` is `{earlier}` already", vlan.id, vlan.link);
                rules.error(&format!("{at}.vlan.id"), reason).expected("one interface per VLAN");
            }
            packets_fit(rules, network, &at, interface, &vlan.link);
            if network.interface(&vlan.link).is_some_and(|link| matches!(link.kind, InterfaceKind::Wireguard(_))) {
                let reason = format!("`{}` is a tunnel, which carries no frames", vlan.link);
                rules.error(&format!("{at}.vlan.link"), reason).expected("a card, a bond or a bridge");
            }
        }
        for (key, id) in references(&at, &interface.kind) {
            let Some(part) = network.interface(id) else {
                unknown(rules, network, &key, id);
                continue;
            };
            if interface.kind.members().contains(id) {
                member(rules, &key, interface, part);
                if let Some(earlier) = owners.insert(id, &interface.id) {
                    rules.error(&key, format!("`{id}` belongs to `{earlier}` already")).expected("one place for each");
                }
            }
        }
    }
    for (index, interface) in network.interfaces.iter().enumerate() {
        if let Some(owner) = owners.get(&interface.id) {
            has_no_addresses(rules, &place(index), interface, owner);
        }
    }
    circles(rules, network);
}

pub(super) fn place(index: usize) -> String {
    format!("network.interfaces[{index}]")
}

/// Every interface is one thing, and has a name if it is made. Answers whether that is so.
fn kinds(rules: &mut Rules<'_>) -> bool {
    let mut is_good = true;
    for at in (0..).map(place).take_while(|at| rules.has(at)).collect::<Vec<_>>() {
        let given: Vec<&str> = KINDS.into_iter().filter(|kind| rules.has(&format!("{at}.{kind}"))).collect();
        match given.as_slice() {
            [] => {}
            [kind] => {
                if rules.has(&format!("{at}.mac")) {
                    is_good = false;
                    let reason = format!("a {kind} is made by the machine and has no MAC address before");
                    rules.error(&format!("{at}.mac"), reason).expected("`name`, the name to make it under");
                }
            }
            [first, second, ..] => {
                is_good = false;
                let reason = format!("the interface is a {first} already");
                rules
                    .error(&format!("{at}.{second}"), reason)
                    .expected("one of `vlan`, `bond`, `bridge` and `wireguard`");
            }
        }
    }
    is_good
}

/// The keys that name other interfaces, with what they name.
fn references<'a>(at: &str, kind: &'a InterfaceKind) -> Vec<(String, &'a InterfaceId)> {
    let table = match kind {
        InterfaceKind::Card | InterfaceKind::Wireguard(_) => return Vec::new(),
        InterfaceKind::Vlan(vlan) => return vec![(format!("{at}.vlan.link"), &vlan.link)],
        InterfaceKind::Bond(_) => "bond",
        InterfaceKind::Bridge(_) => "bridge",
    };
    let members = kind.members().iter().enumerate();
    members.map(|(nth, id)| (format!("{at}.{table}.members[{nth}]"), id)).collect()
}

fn unknown(rules: &mut Rules<'_>, network: &Network, key: &str, id: &InterfaceId) {
    let known: Vec<String> = network.interfaces.iter().map(|interface| interface.id.to_string()).collect();
    let meant = closest(&id.to_string(), known.iter().map(String::as_str));
    let finding = rules.error(key, format!("there is no table for the interface `{id}`"));
    finding.expected("the `name` or `mac` of another table of `network.interfaces`");
    match meant {
        Some(meant) => finding.did_you_mean(Some(meant)),
        None => finding.help("a card has a table, too, with its `name` or `mac` alone"),
    };
}

fn bond(rules: &mut Rules<'_>, at: &str, bond: &Bond) {
    if bond.members.is_empty()
        && !rules.has(&format!("{at}.bond.members[0]"))
        && rules.has(&format!("{at}.bond.members"))
    {
        rules.error(&format!("{at}.bond.members"), "a bond needs a card").expected("at least one member");
    }
    if !MIIMON_MILLIS.contains(&bond.miimon.duration().as_millis()) {
        let reason = format!("signals are not looked at every `{}`", bond.miimon);
        rules.error(&format!("{at}.bond.miimon"), reason).expected("at least `10ms`, at most `10s`");
    }
    if bond.lacp_rate.is_some() && bond.mode != BondMode::Ieee8023Ad {
        let reason = format!("a bond in mode `{}` does not talk to its switch", bond.mode);
        rules.error(&format!("{at}.bond.lacp-rate"), reason).expected("mode `802.3ad` with this key");
    }
    if bond.hash_policy.is_some() && !bond.mode.hashes() {
        let reason = format!("nothing is hashed in mode `{}`", bond.mode);
        let modes = "one of the modes `balance-xor`, `802.3ad` and `balance-tlb` with this key";
        rules.error(&format!("{at}.bond.hash-policy"), reason).expected(modes);
    }
}

/// What travels on a link is not larger than what the link takes.
fn packets_fit(rules: &mut Rules<'_>, network: &Network, at: &str, interface: &Interface, link: &InterfaceId) {
    let below = network.interface(link).and_then(|below| below.mtu);
    if let (Some(mtu), Some(most)) = (interface.mtu, below)
        && mtu > most
    {
        let reason = format!("packets of {mtu} bytes do not fit through `{link}`");
        rules.error(&format!("{at}.mtu"), reason).expected(format!("at most {most}, the `mtu` of `{link}`"));
    }
}

fn member(rules: &mut Rules<'_>, key: &str, owner: &Interface, part: &Interface) {
    let refused = match owner.kind {
        InterfaceKind::Bond(_) if part.kind != InterfaceKind::Card => "a bond is made of cards",
        InterfaceKind::Bridge(_) if matches!(part.kind, InterfaceKind::Bridge(_)) => {
            "a bridge is no part of another one"
        }
        InterfaceKind::Bridge(_) if matches!(part.kind, InterfaceKind::Wireguard(_)) => "a tunnel carries no frames",
        InterfaceKind::Card
        | InterfaceKind::Vlan(_)
        | InterfaceKind::Bond(_)
        | InterfaceKind::Bridge(_)
        | InterfaceKind::Wireguard(_) => return,
    };
    rules.error(key, format!("`{}` cannot belong to `{}`: {refused}", part.id, owner.id));
}

/// What belongs to another interface leaves the addresses to it.
fn has_no_addresses(rules: &mut Rules<'_>, at: &str, interface: &Interface, owner: &InterfaceId) {
    let given = [
        ("addresses", !interface.addresses.is_empty()),
        ("dhcp", interface.dhcp != DhcpMode::None),
        ("routes", !interface.routes.is_empty()),
    ];
    for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
        let reason = format!("`{}` belongs to `{owner}`, which has the addresses", interface.id);
        rules.error(&format!("{at}.{key}"), reason).expected(format!("`{key}` at `{owner}`"));
    }
}

/// Nothing is made of itself, not even by way of others.
fn circles(rules: &mut Rules<'_>, network: &Network) {
    let mut told = BTreeSet::new();
    for (index, interface) in network.interfaces.iter().enumerate() {
        if told.contains(&&interface.id) {
            continue;
        }
        for (key, id) in references(&place(index), &interface.kind) {
            if let Some(way) = way(network, id, &interface.id, &mut BTreeSet::new()) {
                let names: Vec<String> = way.iter().map(|id| format!("`{id}`")).collect();
                rules
                    .error(&key, format!("`{}` needs itself: it needs {}", interface.id, names.join(", which needs ")))
                    .expected("interfaces that can be made one after the other");
                told.extend(way);
                break;
            }
        }
    }
}

/// The interfaces from `from` to `to`, both included, each needing the next.
fn way<'a>(
    network: &'a Network,
    from: &'a InterfaceId,
    to: &'a InterfaceId,
    seen: &mut BTreeSet<&'a InterfaceId>,
) -> Option<Vec<&'a InterfaceId>> {
    if from == to {
        return Some(vec![from]);
    }
    if !seen.insert(from) {
        return None;
    }
    let parts = network.interface(from)?.kind.parts();
    let mut rest = parts.iter().find_map(|part| way(network, part, to, seen))?;
    rest.insert(0, from);
    Some(rest)
}
