//! Rules of WireGuard tunnels.

use std::collections::BTreeMap;

use super::Rules;
use super::links::place;
use crate::model::{Interface, InterfaceKind, Wireguard};
use crate::words::DhcpMode;

/// The kernel counts them in 16 bits.
const KEEPALIVE_SECONDS: std::ops::RangeInclusive<u64> = 1..=65_535;

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(network) = &rules.parts.network else { return };
    if rules.has(&format!("network.interfaces[{}]", network.interfaces.len())) {
        return;
    }
    let mut ports = BTreeMap::new();
    for (index, interface) in network.interfaces.iter().enumerate() {
        let InterfaceKind::Wireguard(wireguard) = &interface.kind else { continue };
        let at = place(index);
        if interface.dhcp != DhcpMode::None {
            rules
                .error(&format!("{at}.dhcp"), "no server is asked by a tunnel")
                .expected("`addresses`, as agreed with the peers");
        }
        if let Some(port) = wireguard.listen_port
            && let Some(earlier) = ports.insert(port, &interface.id)
        {
            let key = format!("{at}.wireguard.listen-port");
            rules.error(&key, format!("`{earlier}` listens on port {port}, too")).expected("one port per tunnel");
        }
        peers(rules, &format!("{at}.wireguard"), interface, wireguard);
    }
}

fn peers(rules: &mut Rules<'_>, at: &str, interface: &Interface, wireguard: &Wireguard) {
    if rules.has(&format!("{at}.peers[{}]", wireguard.peers.len())) {
        return;
    }
    let mut keys = BTreeMap::new();
    let mut ranges = BTreeMap::new();
    for (index, peer) in wireguard.peers.iter().enumerate() {
        let at = format!("{at}.peers[{index}]");
        if let Some(earlier) = keys.insert(peer.public_key, index) {
            let reason = format!("peer {earlier} of `{}` has this key, too", interface.id);
            rules.error(&format!("{at}.public-key"), reason).expected("one table per peer");
        }
        for (nth, range) in peer.allowed.iter().enumerate() {
            if let Some(earlier) = ranges.insert(range, index) {
                let reason = format!("`{range}` leads to peer {earlier} already");
                rules.error(&format!("{at}.allowed[{nth}]"), reason).expected("each range at one peer");
            }
        }
        if let Some(keepalive) = peer.keepalive
            && !KEEPALIVE_SECONDS.contains(&keepalive.duration().as_secs())
        {
            let reason = format!("signs of life are not sent every `{keepalive}`");
            rules.error(&format!("{at}.keepalive"), reason).expected("at least `1s`, at most `18h`");
        }
        if peer.allowed.is_empty() && !rules.has(&format!("{at}.allowed[0]")) {
            rules
                .warning(&at, "nothing is sent to this peer, and nothing is taken from it: it has no `allowed` ranges");
        }
    }
}
