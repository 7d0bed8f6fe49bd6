//! WireGuard tunnels, by generic netlink.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::attributes::{Writer, double, read, word};
use crate::generic::{Call, Family};
use crate::{Netlink, Result};

/// A key.
pub type Key = [u8; 32];

/// A key that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Key);

impl Secret {
    /// Hides a key.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self(key)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a tunnel is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wireguard {
    /// Its own key.
    pub private_key: Secret,
    /// UDP port; the kernel's choice if not given.
    pub listen_port: Option<u16>,
    /// Who is at the other ends.
    pub peers: Vec<WireguardPeer>,
}

/// The other end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireguardPeer {
    /// Its key.
    pub public_key: Key,
    /// A further key that both have.
    pub preshared_key: Option<Secret>,
    /// Where it is, as far as that is known beforehand.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between signs of life; 0 for none.
    pub keepalive: u16,
    /// What is sent to it and taken from it.
    pub allowed: Vec<IpNet>,
}

/// What a tunnel is like, without its secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// The key that others know it by.
    pub public_key: Option<Key>,
    /// UDP port.
    pub listen_port: u16,
    /// The other ends.
    pub peers: Vec<TunnelPeer>,
}

/// The other end of a tunnel, as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Its key.
    pub public_key: Key,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// When both last agreed on keys, in seconds since 1970; 0 for never.
    pub last_handshake: u64,
    /// Bytes that came from it.
    pub received: u64,
    /// Bytes that were sent to it.
    pub sent: u64,
}

const FAMILY: &str = "wireguard";
// The numbers are those of linux/wireguard.h.
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

mod device {
    pub(super) const NAME: u16 = 2;
    pub(super) const PRIVATE_KEY: u16 = 3;
    pub(super) const PUBLIC_KEY: u16 = 4;
    pub(super) const LISTEN_PORT: u16 = 6;
    pub(super) const PEERS: u16 = 8;
}

mod peer {
    pub(super) const PUBLIC_KEY: u16 = 1;
    pub(super) const PRESHARED_KEY: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const ENDPOINT: u16 = 4;
    pub(super) const KEEPALIVE: u16 = 5;
    pub(super) const LAST_HANDSHAKE: u16 = 6;
    pub(super) const RECEIVED: u16 = 7;
    pub(super) const SENT: u16 = 8;
    pub(super) const ALLOWED: u16 = 9;
    /// Flags.
    pub(super) const REMOVE_ME: u32 = 1;
    pub(super) const REPLACE_ALLOWED: u32 = 2;
    pub(super) const UPDATE_ONLY: u32 = 4;
}

mod allowed {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const ADDRESS: u16 = 2;
    pub(super) const PREFIX: u16 = 3;
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

impl Netlink {
    /// Gives a tunnel its settings, in the network namespace of the calling thread. Peers that stay keep what they
    /// agreed on.
    ///
    /// # Errors
    /// The kernel refuses, or has no WireGuard.
    pub fn set_wireguard(name: &str, wanted: &Wireguard) -> Result<()> {
        let family = Family::connect(FAMILY)?;
        let present = look(&family, name)?;
        for message in changes(name, wanted, &present) {
            family.call(("set up tunnel", name), SET_DEVICE, Call::Do, message)?;
        }
        Ok(())
    }

    /// What a tunnel is like, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses, or has no WireGuard.
    pub fn wireguard(name: &str) -> Result<Tunnel> {
        look(&Family::connect(FAMILY)?, name)
    }
}

fn look(family: &Family, name: &str) -> Result<Tunnel> {
    let wanted = device(name);
    let answers = family.call(("look at tunnel", name), GET_DEVICE, Call::Dump, wanted)?;
    let mut tunnel = Tunnel::default();
    answers.iter().for_each(|answer| tunnel.take(answer));
    Ok(tunnel)
}

fn device(name: &str) -> Writer {
    Writer::default().put(device::NAME, format!("{name}\0").as_bytes())
}

/// The attributes of the calls that make a tunnel what it is to be: one for itself, and one for each peer, as all
/// together may be too long.
fn changes(name: &str, wanted: &Wireguard, present: &Tunnel) -> Vec<Writer> {
    let mut own = device(name).put(device::PRIVATE_KEY, &wanted.private_key.0);
    if let Some(port) = wanted.listen_port {
        own = own.put(device::LISTEN_PORT, &port.to_ne_bytes());
    }
    let about = |peer: Writer| device(name).nest(device::PEERS, Writer::default().nest(0, peer));
    let is_wanted = |key: &Key| wanted.peers.iter().any(|peer| peer.public_key == *key);
    let gone = present.peers.iter().filter(|peer| !is_wanted(&peer.public_key)).map(|peer| {
        let flags = peer::REMOVE_ME | peer::UPDATE_ONLY;
        Writer::default().put(peer::PUBLIC_KEY, &peer.public_key).put(peer::FLAGS, &flags.to_ne_bytes())
    });
    let peers = gone.chain(wanted.peers.iter().map(WireguardPeer::attributes));
    [own].into_iter().chain(peers.map(about)).collect()
}

impl WireguardPeer {
    fn attributes(&self) -> Writer {
        // A key of zeros is none.
        let preshared = self.preshared_key.as_ref().map_or([0; 32], |key| key.0);
        let ranges =
            self.allowed.iter().fold(Writer::default(), |ranges, range| ranges.nest(0, range_attributes(*range)));
        let peer = Writer::default()
            .put(peer::PUBLIC_KEY, &self.public_key)
            .put(peer::FLAGS, &peer::REPLACE_ALLOWED.to_ne_bytes())
            .put(peer::PRESHARED_KEY, &preshared)
            .put(peer::KEEPALIVE, &self.keepalive.to_ne_bytes());
        let peer = match self.endpoint {
            Some(endpoint) => peer.put(peer::ENDPOINT, &socket_address(endpoint)),
            None => peer,
        };
        peer.nest(peer::ALLOWED, ranges)
    }
}

fn range_attributes(range: IpNet) -> Writer {
    let (family, address) = match range.addr() {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    Writer::default()
        .put(allowed::FAMILY, &family.to_ne_bytes())
        .put(allowed::ADDRESS, &address)
        .put(allowed::PREFIX, &[range.prefix_len()])
}

/// A `sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(address) => [&AF_INET.to_ne_bytes()[..], &port, &address.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(address) => {
            let (flow, scope) = (address.flowinfo().to_be_bytes(), address.scope_id().to_ne_bytes());
            [&AF_INET6.to_ne_bytes()[..], &port, &flow, &address.ip().octets(), &scope].concat()
        }
    }
}

fn parse_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match word(bytes, 0)? {
        AF_INET => {
            let address: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::from((Ipv4Addr::from(address), port)))
        }
        AF_INET6 => {
            let address: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(SocketAddr::from((Ipv6Addr::from(address), port)))
        }
        _ => None,
    }
}

impl Tunnel {
    /// Takes in one message of several.
    fn take(&mut self, answer: &[u8]) {
        for (number, value) in read(answer) {
            match number {
                device::PUBLIC_KEY => self.public_key = value.try_into().ok(),
                device::LISTEN_PORT => self.listen_port = word(value, 0).unwrap_or_default(),
                device::PEERS => {
                    for (_, value) in read(value) {
                        self.take_peer(value);
                    }
                }
                _ => {}
            }
        }
    }

    /// A peer with many ranges comes in parts, of which the first has everything else.
    fn take_peer(&mut self, value: &[u8]) {
        let mut found = TunnelPeer::default();
        for (number, value) in read(value) {
            match number {
                peer::PUBLIC_KEY => found.public_key = value.try_into().unwrap_or_default(),
                peer::ENDPOINT => found.endpoint = parse_socket_address(value),
                peer::LAST_HANDSHAKE => found.last_handshake = quad(value),
                peer::RECEIVED => found.received = quad(value),
                peer::SENT => found.sent = quad(value),
                _ => {}
            }
        }
        if !self.peers.iter().any(|peer| peer.public_key == found.public_key) {
            self.peers.push(found);
        }
    }
}

fn quad(value: &[u8]) -> u64 {
    let halves = (double(value, 0), double(value, 4));
    let (Some(first), Some(second)) = halves else { return 0 };
    let bytes = [first.to_ne_bytes(), second.to_ne_bytes()].concat();
    bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::message;
    use proptest::prelude::*;

    fn peer(key: u8) -> WireguardPeer {
        WireguardPeer { public_key: [key; 32], preshared_key: None, endpoint: None, keepalive: 0, allowed: Vec::new() }
    }

    /// One attribute, as linux/netlink.h has it.
    fn nla(number: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &number.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    const NESTED: u16 = 0x8000;

    #[test]
    fn a_tunnel_is_set_up_by_one_message_and_one_for_each_peer() {
        let wanted = Wireguard {
            private_key: Secret::new([7; 32]),
            listen_port: Some(51820),
            peers: vec![WireguardPeer {
                preshared_key: Some(Secret::new([9; 32])),
                endpoint: Some("192.0.2.1:51821".parse().unwrap()),
                keepalive: 25,
                allowed: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
                ..peer(1)
            }],
        };
        let present = Tunnel {
            peers: [1, 2].map(|key| TunnelPeer { public_key: [key; 32], ..TunnelPeer::default() }).to_vec(),
            ..Tunnel::default()
        };
        let found: Vec<Vec<u8>> =
            changes("wg0", &wanted, &present).into_iter().map(|it| it.finish().unwrap()).collect();
        let name = nla(2, b"wg0\0");
        let own = [name.clone(), nla(3, &[7; 32]), nla(6, &51820_u16.to_ne_bytes())].concat();
        let about = |peer: Vec<u8>| [name.clone(), nla(8 | NESTED, &nla(NESTED, &peer))].concat();
        let gone = about([nla(1, &[2; 32]), nla(3, &5_u32.to_ne_bytes())].concat());
        let range = |family: u16, address: &[u8]| {
            nla(NESTED, &[nla(1, &family.to_ne_bytes()), nla(2, address), nla(3, &[8])].concat())
        };
        let fd00 = [&[0xfd_u8][..], &[0; 15]].concat();
        let endpoint = [&2_u16.to_ne_bytes()[..], &51821_u16.to_be_bytes(), &[192, 0, 2, 1], &[0; 8]].concat();
        let stays = about(
            [
                nla(1, &[1; 32]),
                nla(3, &2_u32.to_ne_bytes()),
                nla(2, &[9; 32]),
                nla(5, &25_u16.to_ne_bytes()),
                nla(4, &endpoint),
                nla(9 | NESTED, &[range(2, &[10, 0, 0, 0]), range(10, &fd00)].concat()),
            ]
            .concat(),
        );
        assert_eq!(found, [own, gone, stays]);
        assert!(!format!("{wanted:?}").contains('7'), "{wanted:?}");
    }

    #[test]
    fn a_message_names_its_family_command_and_version() {
        let bytes = message(0x1c, SET_DEVICE, Call::Do, device("w")).unwrap();
        let expected = [
            &28_u32.to_ne_bytes()[..],
            &0x1c_u16.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
            &1_u32.to_ne_bytes(),
            &[0; 4],
            &[1, 1, 0, 0],
            &nla(2, b"w\0"),
        ];
        assert_eq!(bytes, expected.concat());
        let mut many = peer(1);
        many.allowed = vec!["10.0.0.0/8".parse().unwrap(); 5000];
        assert!(many.attributes().finish().is_none());
    }

    #[test]
    fn a_tunnel_is_read_from_several_messages() {
        let endpoint = [&10_u16.to_ne_bytes()[..], &7_u16.to_be_bytes(), &[0; 4], &[1; 16], &[0; 4]].concat();
        let inside = [nla(1, &[1; 32]), nla(4, &endpoint), nla(6, &[5_u64.to_ne_bytes(); 2].concat())].concat();
        let first = [nla(4, &[3; 32]), nla(6, &9_u16.to_ne_bytes()), nla(8 | NESTED, &nla(NESTED, &inside))].concat();
        let more = nla(8 | NESTED, &nla(NESTED, &nla(1, &[1; 32])));
        let mut tunnel = Tunnel::default();
        tunnel.take(&first);
        tunnel.take(&more);
        assert_eq!((tunnel.public_key, tunnel.listen_port, tunnel.peers.len()), (Some([3; 32]), 9, 1));
        assert_eq!(
            tunnel.peers[0].endpoint.map(|it| it.to_string()).as_deref(),
            Some("[101:101:101:101:101:101:101:101]:7")
        );
        assert_eq!(tunnel.peers[0].last_handshake, 5);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_passed_over(bytes in any::<Vec<u8>>()) {
            let mut tunnel = Tunnel::default();
            tunnel.take(&bytes);
            tunnel.take(&nla(8, &nla(0, &bytes)));
            prop_assert!(parse_socket_address(&bytes).is_none_or(|_| bytes.len() >= 8));
        }
    }
}
