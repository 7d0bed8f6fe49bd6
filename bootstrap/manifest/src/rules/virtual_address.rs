//! Rules of `[cluster.virtual-address]`: nobody else has it, and it is where the masters are.

use std::net::IpAddr;

use super::Rules;
use super::cluster::in_cluster_range;
use super::links::place;
use crate::model::{Interface, Network, VirtualAddress};
use crate::words::{InterfaceId, Role};

const AT: &str = "cluster.virtual-address";
const ADDRESS: &str = "cluster.virtual-address.address";
const INTERFACE: &str = "cluster.virtual-address.interface";

pub(super) fn check(rules: &mut Rules<'_>) {
    let parts = rules.parts;
    let Some(wanted) = parts.cluster.as_ref().and_then(|cluster| cluster.virtual_address.as_ref()) else { return };
    if parts.machine.as_ref().is_some_and(|machine| machine.role == Role::Worker) {
        rules.warning(AT, format!("`{AT}` has no effect on a worker"));
    }
    let address = wanted.address;
    if !can_be_shared(address) {
        let expected = "a free address in the network of the masters";
        rules.error(ADDRESS, format!("`{address}` cannot be an address of the API")).expected(expected);
    }
    in_cluster_range(rules, ADDRESS, address);
    let owned = format!("`{address}` is one master's alone");
    let members = parts.etcd.iter().flat_map(|etcd| etcd.members.iter().map(|member| member.address));
    let nodes = parts.kubelet.iter().flat_map(|kubelet| kubelet.node_addresses.iter().copied());
    for (key, mut all) in [
        ("etcd.members", Box::new(members) as Box<dyn Iterator<Item = IpAddr>>),
        ("kubelet.node-addresses", Box::new(nodes)),
    ] {
        if all.any(|other| other == address) {
            rules.error(ADDRESS, format!("{owned}: it is in `{key}`")).expected("an address that no machine has");
        }
    }
    if let Some(network) = &parts.network {
        interfaces(rules, wanted, network);
    }
}

fn can_be_shared(address: IpAddr) -> bool {
    let is_ordinary = !address.is_loopback() && !address.is_unspecified() && !address.is_multicast();
    is_ordinary
        && match address {
            IpAddr::V4(address) => !address.is_broadcast() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        }
}

fn interfaces(rules: &mut Rules<'_>, wanted: &VirtualAddress, network: &Network) {
    let address = wanted.address;
    // Without tables every card is ours; with some that could not be read nothing can be said.
    if network.interfaces.is_empty() || rules.has(&place(network.interfaces.len())) {
        return;
    }
    for (index, interface) in network.interfaces.iter().enumerate() {
        if interface.addresses.iter().any(|own| own.address() == address) {
            rules
                .error(ADDRESS, format!("`{address}` is also in `{}.addresses`", place(index)))
                .expected("an address that no machine has");
        }
    }
    let by_name = |name: &str| {
        let is_that = |id: &InterfaceId| matches!(id, InterfaceId::Name(own) if own.as_str() == name);
        network.interfaces.iter().find(|interface| is_that(&interface.id))
    };
    let has_macs = network.interfaces.iter().any(|interface| matches!(interface.id, InterfaceId::Mac(_)));
    match &wanted.interface {
        Some(name) if by_name(name.as_str()).is_none() && !has_macs => {
            rules.error(INTERFACE, format!("no table of `network.interfaces` is about `{name}`"));
        }
        None if !network.interfaces.iter().any(|interface| may_hold(interface, address)) => {
            rules
                .error(ADDRESS, format!("`{address}` is in no network of this machine"))
                .expected("an address in the network of an interface, or `interface` with its name");
        }
        Some(_) | None => {}
    }
}

/// Whether an address is, or could come to be, in a network of an interface.
fn may_hold(interface: &Interface, address: IpAddr) -> bool {
    let by_others = match address {
        IpAddr::V4(_) => interface.dhcp.ipv4(),
        IpAddr::V6(_) => interface.dhcp.ipv6() || interface.router_advertisements,
    };
    by_others || interface.addresses.iter().any(|own| own.net().contains(&address))
}
