//! IPv4 and UDP headers around DHCP messages, for a socket that has neither.

use std::net::Ipv4Addr;

const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
const UDP: u8 = 17;
const HOPS: u8 = 64;

/// Wraps a client's message; it goes from `source` to everybody on the link.
pub(crate) fn wrap(source: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(UDP_BYTES + message.len()).unwrap_or(u16::MAX);
    let total = u16::try_from(IP_BYTES + UDP_BYTES + message.len()).unwrap_or(u16::MAX);
    let mut ip = [0_u8; IP_BYTES];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[8] = HOPS;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&Ipv4Addr::BROADCAST.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = [0_u8; UDP_BYTES];
    udp[0..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&SERVER_PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
    let mut pseudo = [0_u8; 12];
    pseudo[..8].copy_from_slice(&ip[12..20]);
    pseudo[9] = UDP;
    pseudo[10..12].copy_from_slice(&udp_length.to_be_bytes());
    // Zero would mean "not computed".
    let sum = Some(checksum(&[&pseudo, &udp, message])).filter(|sum| *sum != 0).unwrap_or(u16::MAX);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    [&ip, udp.as_slice(), message].concat()
}

/// The DHCP message for a client in a datagram, if it holds one. The UDP checksum is not looked at: between virtual
/// cards it is often left to hardware that is not there.
pub(crate) fn unwrap(datagram: &[u8]) -> Option<&[u8]> {
    let header_bytes = usize::from(datagram.first()? & 0x0f) * 4;
    let is_ipv4 = datagram[0] >> 4 == 4 && header_bytes >= IP_BYTES && datagram.get(9) == Some(&UDP);
    let total = usize::from(u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?));
    // More fragments to come, or not the first one.
    let fragment = u16::from_be_bytes(datagram.get(6..8)?.try_into().ok()?) & 0x3fff;
    if !is_ipv4 || fragment != 0 {
        return None;
    }
    let udp = datagram.get(header_bytes..total)?;
    let port = u16::from_be_bytes(udp.get(2..4)?.try_into().ok()?);
    (port == CLIENT_PORT).then(|| udp.get(UDP_BYTES..)).flatten()
}

/// A server's datagram, for tests: a client's with the ports traded.
#[cfg(test)]
pub(crate) fn wrap_for_client(source: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut frame = wrap(source, message);
    frame[IP_BYTES..IP_BYTES + 2].copy_from_slice(&SERVER_PORT.to_be_bytes());
    frame[IP_BYTES + 2..IP_BYTES + 4].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    frame
}

/// The Internet checksum over parts; every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_sum_up_to_zero() {
        let frame = wrap(Ipv4Addr::new(10, 0, 0, 5), b"abc");
        assert_eq!(checksum(&[&frame[..IP_BYTES]]), 0);
        assert_eq!(u16::from_be_bytes([frame[2], frame[3]]), 31);
        let mut pseudo = [0_u8; 12];
        pseudo[..8].copy_from_slice(&frame[12..20]);
        pseudo[9] = UDP;
        pseudo[10..12].copy_from_slice(&frame[24..26]);
        assert_eq!(checksum(&[&pseudo, &frame[IP_BYTES..]]), 0);
    }

    #[test]
    fn only_whole_datagrams_for_a_client_are_taken() {
        let mut frame = wrap(Ipv4Addr::UNSPECIFIED, b"abc");
        assert_eq!(unwrap(&frame), None);
        frame[IP_BYTES + 2..IP_BYTES + 4].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        assert_eq!(unwrap(&frame), Some(b"abc".as_slice()));
        frame.extend([0; 10]);
        assert_eq!(unwrap(&frame), Some(b"abc".as_slice()), "padding of the link is not part of it");
        frame[6] = 0x20;
        assert_eq!(unwrap(&frame), None);
        assert_eq!(unwrap(&frame[..10]), None);
        assert_eq!(unwrap(&[]), None);
    }
}
