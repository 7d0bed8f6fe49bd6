//! Advertisements on the wire: VRRP version 3, RFC 9568, 5.
//!
//! ```text
//!  0               1               2               3
//! | version, type | router id     | priority      | addresses     |
//! | interval in 1/100 s, 12 bits  | checksum                      |
//! | addresses, 4 or 16 bytes each ...                             |
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The number of VRRP among the protocols of IP.
pub(crate) const PROTOCOL: u8 = 112;
pub(crate) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
pub(crate) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Every router takes one off: what has all of them came from this link.
pub(crate) const HOPS: u8 = 255;
/// Room for the most addresses that can be counted, behind the longest header of IPv4.
pub(crate) const DATAGRAM_BYTES: usize = 60 + HEADER + 255 * 16;

const VERSION_AND_TYPE: u8 = 0x31;
const HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const CENTISECOND: Duration = Duration::from_millis(10);
const MOST_CENTISECONDS: u16 = 0x0fff;

/// What somebody says who has addresses, or gives them up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advertisement {
    pub(crate) router_id: u8,
    pub(crate) priority: u8,
    /// From one to the next.
    pub(crate) interval: Duration,
    /// All of the family of who sends them.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Why a packet is no advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("it has {0} hops left, not {HOPS}: it comes from another link")]
    Hops(u8),
    #[error("it is of version {0}, not 3")]
    Version(u8),
    #[error("it is of type {0}, which is unknown")]
    Type(u8),
    #[error("it is cut off")]
    Short,
    #[error("it names no address")]
    Empty,
    #[error("its interval is 0")]
    Interval,
    #[error("its checksum is wrong")]
    Checksum,
}

impl Advertisement {
    /// As it is sent from an address. Over IPv4 the checksum counts the addresses of both ends, as RFC 5798 has it and
    /// all who are about expect; RFC 9568 does without.
    pub(crate) fn encode(&self, source: IpAddr) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let centiseconds = u16::try_from(self.interval.as_millis() / CENTISECOND.as_millis()).unwrap_or(u16::MAX);
        let mut bytes = vec![VERSION_AND_TYPE, self.router_id, self.priority, count];
        bytes.extend(centiseconds.min(MOST_CENTISECONDS).to_be_bytes());
        bytes.extend([0, 0]);
        for address in self.addresses.iter().take(count.into()) {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        let sum = checksum(&[&pseudo_header(source, bytes.len()), &bytes]);
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads what came from an address with so many hops left. What stands behind it is not looked at.
    pub(crate) fn parse(bytes: &[u8], source: IpAddr, hops: u8) -> Result<Self, Invalid> {
        if hops != HOPS {
            return Err(Invalid::Hops(hops));
        }
        let &[version, router_id, priority, count, high, low, ..] = bytes else { return Err(Invalid::Short) };
        match (version >> 4, version & 0x0f) {
            (3, 1) => {}
            (3, kind) => return Err(Invalid::Type(kind)),
            (version, _) => return Err(Invalid::Version(version)),
        }
        let size = if source.is_ipv4() { 4 } else { 16 };
        let message = bytes.get(..HEADER + usize::from(count) * size).ok_or(Invalid::Short)?;
        let is_whole = checksum(&[&pseudo_header(source, message.len()), message]) == 0
            || (source.is_ipv4() && checksum(&[message]) == 0);
        if !is_whole {
            return Err(Invalid::Checksum);
        }
        let centiseconds = u16::from_be_bytes([high, low]) & MOST_CENTISECONDS;
        match (count, centiseconds) {
            (0, _) => Err(Invalid::Empty),
            (_, 0) => Err(Invalid::Interval),
            _ => {
                let addresses = message[HEADER..].chunks_exact(size).filter_map(address).collect();
                Ok(Self { router_id, priority, interval: CENTISECOND * u32::from(centiseconds), addresses })
            }
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The sender, the hops that were left and the content of a whole datagram of IPv4.
pub(crate) fn unwrap_ipv4(datagram: &[u8]) -> Option<(Ipv4Addr, u8, &[u8])> {
    let header: &[u8; IPV4_HEADER] = datagram.first_chunk()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let is_whole = header[0] >> 4 == 4 && length >= IPV4_HEADER && header[9] == PROTOCOL;
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    is_whole.then(|| datagram.get(length..)).flatten().map(|content| (source, header[8], content))
}

/// What the checksum counts beside the message.
fn pseudo_header(source: IpAddr, length: usize) -> Vec<u8> {
    let short = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    match source {
        IpAddr::V4(source) => [&source.octets()[..], &GROUP_V4.octets(), &[0, PROTOCOL], &short].concat(),
        IpAddr::V6(source) => {
            [&source.octets()[..], &GROUP_V6.octets(), &[0, 0], &short, &[0, 0, 0, PROTOCOL]].concat()
        }
    }
}

/// The Internet checksum over parts of even length; 0 over what contains its own.
fn checksum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn advertisement(address: &str) -> Advertisement {
        let addresses = vec![ip(address)];
        Advertisement { router_id: 51, priority: 100, interval: Duration::from_secs(1), addresses }
    }

    /// Sums calculated by hand: 3133 + 6401 + 0064 + 0000 + 0a00 + 0005, and the ends 0a00 0002 e000 0012 0070 000c.
    #[test]
    fn bytes_are_those_of_the_format() {
        let v4 = advertisement("10.0.0.5").encode(ip("10.0.0.2"));
        assert_eq!(v4, [0x31, 51, 100, 1, 0, 100, 0x75, 0xd1, 10, 0, 0, 5]);
        let v6 = advertisement("fd00::5").encode(ip("fe80::2"));
        assert_eq!(v6[..6], [0x31, 51, 100, 1, 0, 100]);
        assert_eq!((v6[8], v6[23], v6.len()), (0xfd, 5, 24));
        assert_eq!(Advertisement::parse(&v6, ip("fe80::2"), 255), Ok(advertisement("fd00::5")));
        // Over IPv6 the ends are always counted.
        assert_eq!(Advertisement::parse(&v6, ip("fe80::3"), 255), Err(Invalid::Checksum));
    }

    #[test]
    fn over_ipv4_both_checksums_are_taken() {
        let mut bytes = advertisement("10.0.0.5").encode(ip("10.0.0.2"));
        assert_eq!(Advertisement::parse(&bytes, ip("10.0.0.2"), 255), Ok(advertisement("10.0.0.5")));
        bytes[6..8].copy_from_slice(&[0, 0]);
        let sum = checksum(&[&bytes]);
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Advertisement::parse(&bytes, ip("10.0.0.2"), 255), Ok(advertisement("10.0.0.5")));
        bytes[6] ^= 1;
        assert_eq!(Advertisement::parse(&bytes, ip("10.0.0.2"), 255), Err(Invalid::Checksum));
    }

    #[test]
    fn what_is_no_advertisement_says_why() {
        let source = ip("10.0.0.2");
        let good = advertisement("10.0.0.5").encode(source);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes[6..8].copy_from_slice(&[0, 0]);
            let sum = checksum(&[&pseudo_header(source, bytes.len()), &bytes]);
            bytes[6..8].copy_from_slice(&sum.to_be_bytes());
            Advertisement::parse(&bytes, source, 255)
        };
        assert_eq!(Advertisement::parse(&good, source, 254), Err(Invalid::Hops(254)));
        assert_eq!(changed(0, 0x21), Err(Invalid::Version(2)));
        assert_eq!(changed(0, 0x32), Err(Invalid::Type(2)));
        assert_eq!(changed(3, 2), Err(Invalid::Short));
        assert_eq!(changed(5, 0), Err(Invalid::Interval));
        assert_eq!(Advertisement::parse(&good[..5], source, 255), Err(Invalid::Short));
        let empty = Advertisement { addresses: Vec::new(), ..advertisement("10.0.0.5") }.encode(source);
        assert_eq!(Advertisement::parse(&empty, source, 255), Err(Invalid::Empty));
    }

    #[test]
    fn the_content_stands_behind_the_header_and_its_options() {
        let mut datagram =
            vec![0x46, 0, 0, 0, 0, 0, 0, 0, 255, PROTOCOL, 0, 0, 10, 0, 0, 2, 224, 0, 0, 18, 1, 1, 1, 1, 7];
        assert_eq!(unwrap_ipv4(&datagram), Some((Ipv4Addr::new(10, 0, 0, 2), 255, &[7][..])));
        datagram[9] = 17;
        assert_eq!(unwrap_ipv4(&datagram), None);
        assert_eq!(unwrap_ipv4(&datagram[..19]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (router_id, priority) in (1_u8.., any::<u8>()),
            centiseconds in 1_u32..=4095,
            (is_ipv4, count) in (any::<bool>(), 1_usize..=255),
        ) {
            let (source, address) = if is_ipv4 { ("10.0.0.2", "10.0.0.5") } else { ("fe80::2", "fd00::5") };
            let interval = CENTISECOND * centiseconds;
            let written = Advertisement { router_id, priority, interval, addresses: vec![ip(address); count] };
            prop_assert_eq!(Advertisement::parse(&written.encode(ip(source)), ip(source), 255), Ok(written));
        }

        #[test]
        fn nothing_that_comes_is_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200), is_ipv4 in any::<bool>()) {
            let source = if is_ipv4 { ip("10.0.0.2") } else { ip("fe80::2") };
            let inner = unwrap_ipv4(&bytes).map_or(&bytes[..], |(_, _, content)| content);
            for bytes in [&bytes[..], inner] {
                if let Ok(read) = Advertisement::parse(bytes, source, 255) {
                    prop_assert!(!read.interval.is_zero() && !read.addresses.is_empty());
                }
            }
        }
    }
}
