//! What tells neighbours where the address is now: an ARP request that asks for itself, or a neighbour advertisement
//! that nobody asked for.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The type of ARP among those of Ethernet.
pub(crate) const ARP: u16 = 0x0806;
/// To everybody on the link.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
/// All of IPv6 on the link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Ethernet and IPv4, with the lengths of their addresses, and a request.
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// It counts in place of what was known before.
const OVERRIDE: u8 = 0x20;
/// An option with the link's own address, of one unit of 8 bytes.
const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];

/// A gratuitous ARP request.
pub(crate) fn arp(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    [&ARP_REQUEST[..], &mac, &address.octets(), &[0; 6], &address.octets()].concat()
}

/// An unsolicited neighbour advertisement. The kernel fills in the checksum.
pub(crate) fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let head = [NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    [&head[..], &address.octets(), &TARGET_LINK_ADDRESS, &mac].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_formats() {
        let mac = [2, 0, 0, 0, 0, 9];
        let asked = arp(mac, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(asked[6..14], [0, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!((&asked[14..18], &asked[24..28], asked.len()), (&[10, 0, 0, 5][..], &[10, 0, 0, 5][..], 28));
        let told = advertisement(mac, "fd00::5".parse().unwrap());
        assert_eq!((told[0], told[4], told[8], told[23], told.len()), (136, 0x20, 0xfd, 5, 32));
        assert_eq!(told[24..], [2, 1, 2, 0, 0, 0, 0, 9]);
    }
}
