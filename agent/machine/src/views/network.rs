//! Interfaces, routes and connections, as the kernel has them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machine_api::{Connection, Interface, Peer, RouteStatus, Traffic, Tunnel};
use netlink::{Link, LinkKind, Netlink, Protocol};
use stdx::chain;
use sys::{Linux, System};

use super::{ROWS, pids, text};

fn words(error: netlink::Error) -> String {
    chain(&error).to_string()
}

pub(super) async fn interfaces() -> Result<Vec<Interface>, String> {
    let netlink = Netlink::connect().map_err(words)?;
    let links = netlink.links().await.map_err(words)?;
    let addresses = netlink.addresses().await.map_err(words)?;
    let own = |link: &Link| {
        let own = addresses.iter().filter(|address| address.link == link.index);
        own.map(|address| address.net.to_string()).collect()
    };
    Ok(links.iter().take(ROWS).map(|link| interface(&Linux, link, own(link))).collect())
}

fn interface(system: &dyn System, link: &Link, addresses: Vec<String>) -> Interface {
    let count = |file: String| {
        let text = text(system, format!("/sys/class/net/{}/statistics/{file}", link.name));
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let traffic = |way: &str| Traffic {
        bytes: count(format!("{way}_bytes")),
        packets: count(format!("{way}_packets")),
        errors: count(format!("{way}_errors")),
        dropped: count(format!("{way}_dropped")),
    };
    let kind = match link.kind {
        LinkKind::Loopback => "loopback",
        LinkKind::Physical => "physical",
        LinkKind::Veth => "veth",
        LinkKind::Bridge => "bridge",
        LinkKind::Dummy => "dummy",
        LinkKind::Vxlan => "vxlan",
        LinkKind::Vlan => "vlan",
        LinkKind::Bond => "bond",
        LinkKind::Wireguard => "wireguard",
        _ => "other",
    };
    let mac = link.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")).unwrap_or_default();
    Interface {
        name: link.name.clone(),
        index: link.index,
        kind: kind.to_owned(),
        is_up: link.up,
        has_carrier: link.carrier,
        mac,
        mtu: link.mtu,
        addresses,
        received: Some(traffic("rx")),
        sent: Some(traffic("tx")),
        tunnel: (link.kind == LinkKind::Wireguard).then(|| tunnel(&link.name)),
    }
}

/// Without the secret keys, which the kernel would tell, too.
fn tunnel(name: &str) -> Tunnel {
    let found = Netlink::wireguard(name).unwrap_or_else(|error| {
        tracing::debug!(name, error = words(error), "tunnel not looked at");
        netlink::Tunnel::default()
    });
    let peer = |peer: &netlink::TunnelPeer| Peer {
        public_key: STANDARD.encode(peer.public_key),
        endpoint: peer.endpoint.map(|it| it.to_string()),
        last_handshake_seconds: (peer.last_handshake > 0).then_some(peer.last_handshake),
        received_bytes: peer.received,
        sent_bytes: peer.sent,
    };
    Tunnel {
        public_key: found.public_key.map(|key| STANDARD.encode(key)).unwrap_or_default(),
        listen_port: found.listen_port.into(),
        peers: found.peers.iter().take(ROWS).map(peer).collect(),
    }
}

/// The routes of the main table.
pub(crate) async fn routes() -> Result<Vec<RouteStatus>, String> {
    let netlink = Netlink::connect().map_err(words)?;
    let links = netlink.links().await.map_err(words)?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let routes = netlink.routes().await.map_err(words)?;
    let status = |route: &netlink::Route| RouteStatus {
        destination: if route.destination.prefix_len() == 0 {
            "default".to_owned()
        } else {
            route.destination.to_string()
        },
        gateway: route.gateway.map(|it| it.to_string()),
        interface: route.link.and_then(name).unwrap_or_default(),
        source: route.source.map(|it| it.to_string()),
        metric: route.metric,
        protocol: match route.protocol {
            Protocol::Kernel => "kernel".to_owned(),
            Protocol::Static => "static".to_owned(),
            Protocol::Dhcp => "dhcp".to_owned(),
            Protocol::RouterAdvertisement => "router".to_owned(),
            Protocol::Number(number) => number.to_string(),
        },
    };
    Ok(routes.iter().take(ROWS).map(status).collect())
}

/// Sockets of the machine's own network, with the processes that have them.
pub(super) fn connections(system: &dyn System) -> Result<Vec<Connection>, String> {
    let owners = owners(system);
    let mut found = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let table = text(system, format!("/proc/net/{protocol}"));
        for (mut connection, inode) in table.lines().skip(1).filter_map(|line| parse_socket(protocol, line)) {
            if let Some((pid, name)) = owners.get(&inode) {
                connection.pid = Some(*pid);
                connection.process.clone_from(name);
            }
            found.push(connection);
        }
    }
    found.truncate(ROWS);
    found.sort_by(|a, b| {
        (a.state != "listen", &a.protocol, &a.local).cmp(&(b.state != "listen", &b.protocol, &b.local))
    });
    Ok(found)
}

/// Processes by the sockets that they have open.
fn owners(system: &dyn System) -> BTreeMap<u64, (u32, String)> {
    let mut owners = BTreeMap::new();
    for pid in pids(system) {
        let folder = std::path::PathBuf::from(format!("/proc/{pid}/fd"));
        let mut name = None;
        for descriptor in system.list(&folder).unwrap_or_default() {
            let target = system.read_link(&folder.join(descriptor)).unwrap_or_default();
            let inode =
                target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                let name = name.get_or_insert_with(|| text(system, format!("/proc/{pid}/comm")).trim().to_owned());
                owners.insert(inode, (pid, name.clone()));
            }
        }
    }
    owners
}

/// A line of the kernel's table, and the number of its socket.
fn parse_socket(protocol: &str, line: &str) -> Option<(Connection, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (unsent, unread) = words.get(4)?.split_once(':')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let connection = Connection {
        protocol: protocol.to_owned(),
        state: state(protocol, words.get(3)?),
        local: parse_address(words.get(1)?)?.to_string(),
        remote: parse_address(words.get(2)?)?.to_string(),
        unread_bytes: number(unread)?,
        unsent_bytes: number(unsent)?,
        ..Connection::default()
    };
    Some((connection, words.get(9)?.parse().ok()?))
}

fn state(protocol: &str, code: &str) -> String {
    let known = match code {
        "01" => "established",
        "02" => "syn-sent",
        "03" => "syn-received",
        "04" => "fin-wait-1",
        "05" => "fin-wait-2",
        "06" => "time-wait",
        "07" if protocol.starts_with("udp") => "open",
        "07" => "closed",
        "08" => "close-wait",
        "09" => "last-ack",
        "0A" => "listen",
        "0B" => "closing",
        other => other,
    };
    known.to_owned()
}

/// Addresses are words of 32 bits in the machine's own order, ports are not.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Option<Vec<u32>> = (0..address.len() / 8)
        .map(|index| address.get(index * 8..index * 8 + 8).and_then(|word| u32::from_str_radix(word, 16).ok()))
        .collect();
    let bytes: Vec<u8> = words?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_more) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn sockets_are_read_with_whom_they_belong_to() {
        let system = FakeSystem::new();
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let tcp = "   0: 0100007F:0BC7 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
                   1: 0100007F:0BC7 0200007F:D431 01 0000001F:00000002 00:00000000 00000000     0        0 0 1 0\n";
        let udp6 = "  1: 00000000000000000000000001000000:0044 00000000000000000000000000000000:0000 07 \
                    00000000:00000000 00:00000000 00000000 0 0 12 2 0\nbroken\n";
        system.file("/proc/net/tcp", format!("{head}{tcp}"));
        system.file("/proc/net/udp6", format!("{head}{udp6}"));
        system.file("/proc/31/fd/3", "");
        system.link("/proc/31/fd/3", "socket:[4711]");
        system.file("/proc/31/comm", "etcd\n");
        let found = connections(&system).unwrap();
        let lines: Vec<String> = found
            .iter()
            .map(|it| format!("{} {} {} {} {}", it.protocol, it.state, it.local, it.remote, it.process))
            .collect();
        let expected = [
            "tcp listen 127.0.0.1:3015 0.0.0.0:0 etcd",
            "tcp established 127.0.0.1:3015 127.0.0.2:54321 ",
            "udp6 open [::1]:68 [::]:0 ",
        ];
        assert_eq!(lines, expected);
        assert_eq!((found[0].pid, found[1].unsent_bytes, found[1].unread_bytes), (Some(31), 31, 2));
    }
}
