//! The pair of links between a node and a pod, with addresses and routes at both ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ipnet::IpNet;
use netlink::{Netlink, Protocol, Route, Veth, netns};

use crate::cni::result::CniError;
use crate::hostport::LINK_PREFIX;
use crate::lease::Lease;

/// Marks routes to pods of this node.
pub(super) const POD_ROUTES: Protocol = Protocol::Number(74);

const GATEWAY_4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Both ends of a pair.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) node: String,
    pub(super) node_mac: [u8; 6],
    pub(super) pod_mac: [u8; 6],
}

/// The name of the node's end: short enough for the kernel, the same each time for the same attachment.
pub(crate) fn link_name(container: &str, interface: &str) -> String {
    // FNV-1a.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in container.bytes().chain([b'/']).chain(interface.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{LINK_PREFIX}{:012x}", hash & 0xffff_ffff_ffff)
}

/// A locally administered Ethernet address made from a pod's address, which is unique on the node.
fn mac_of(address: Option<&IpAddr>) -> Option<[u8; 6]> {
    let [a, b, c, d] = match address? {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    Some([0x0a, 0x58, a, b, c, d])
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// Connects a pod. On failure the caller detaches.
pub(super) async fn attach(lease: &Lease, mtu: Option<u32>) -> Result<Links, CniError> {
    let namespace = netns::open(&lease.namespace)?;
    let node = Netlink::connect()?;
    let name = link_name(&lease.container, &lease.interface);
    node.delete_link_named(&name).await?;
    let veth = Veth {
        name: &name,
        peer: &lease.interface,
        peer_namespace: Some(namespace.as_fd()),
        mtu,
        peer_mac: mac_of(lease.addresses.first()),
    };
    let near = node.create_veth(&veth).await?;
    node.set_up(near.index).await?;
    let node_mac = near.mac.unwrap_or_default();
    let pod_mac = inside(lease, namespace.as_fd(), node_mac).await?;
    for address in &lease.addresses {
        node.replace_neighbour(near.index, *address, pod_mac).await?;
        node.replace_route(&Route::direct(host(*address), near.index, POD_ROUTES)).await?;
    }
    Ok(Links { node: name, node_mac, pod_mac })
}

/// The pod's end.
async fn inside(lease: &Lease, namespace: BorrowedFd<'_>, node_mac: [u8; 6]) -> Result<[u8; 6], CniError> {
    let pod = Netlink::connect_in(namespace)?;
    let loopback = pod.require_link("lo").await?;
    pod.set_up(loopback.index).await?;
    let link = pod.require_link(&lease.interface).await?;
    for address in &lease.addresses {
        pod.add_address(link.index, host(*address)).await?;
    }
    pod.set_up(link.index).await?;
    for address in &lease.addresses {
        let gateway = if address.is_ipv4() { GATEWAY_4 } else { GATEWAY_6 };
        pod.replace_neighbour(link.index, gateway, node_mac).await?;
        let mut default = Route::via(Route::everywhere(gateway), gateway, Protocol::Static);
        default.link = Some(link.index);
        default.onlink = true;
        pod.replace_route(&default).await?;
    }
    Ok(link.mac.unwrap_or_default())
}

/// Disconnects a pod; with the node's end go the pod's end, both sides' routes and neighbours.
pub(super) async fn detach(container: &str, interface: &str) -> Result<(), CniError> {
    Ok(Netlink::connect()?.delete_link_named(&link_name(container, interface)).await?)
}

/// Whether a pod is still connected as its lease says.
pub(super) async fn check(lease: &Lease) -> Result<(), CniError> {
    let missing = || CniError::NotAttached { container: lease.container.clone() };
    let node = Netlink::connect()?;
    let near = node.link(&link_name(&lease.container, &lease.interface)).await?.ok_or_else(missing)?;
    let namespace = netns::open(&lease.namespace)?;
    let pod = Netlink::connect_in(namespace.as_fd())?;
    let link = pod.link(&lease.interface).await?.ok_or_else(missing)?;
    let held: Vec<IpAddr> = pod.addresses_of(link.index).await?.iter().map(|address| address.net.addr()).collect();
    let all_held = lease.addresses.iter().all(|address| held.contains(address));
    if near.up && link.up && all_held { Ok(()) } else { Err(missing()) }
}

/// Switches a pod's loopback link on.
pub(super) async fn loopback(namespace: &Path) -> Result<(), CniError> {
    let namespace = netns::open(namespace)?;
    let pod = Netlink::connect_in(namespace.as_fd())?;
    let link = pod.require_link("lo").await?;
    Ok(pod.set_up(link.index).await?)
}

/// Lets the node reach the pod's ports by its own 127.0.0.1. A rule keeps the pod from using that way itself.
pub(super) fn allow_loopback(node_link: &str) -> Result<(), CniError> {
    let path = format!("/proc/sys/net/ipv4/conf/{node_link}/route_localnet");
    std::fs::write(&path, "1").map_err(|source| CniError::Sysctl { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_stable_distinct_and_short() {
        let name = link_name("0123456789abcdef", "eth0");
        assert_eq!(name, link_name("0123456789abcdef", "eth0"));
        assert_ne!(name, link_name("0123456789abcdef", "eth1"));
        assert!(name.len() <= 15 && name.starts_with(LINK_PREFIX));
    }
}
