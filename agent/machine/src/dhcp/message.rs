//! DHCP messages on the wire (RFC 2131, 2132, 3442).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The fixed part of a message, before the cookie.
const HEADER_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Relays and old servers drop messages that are shorter.
const LEAST_BYTES: usize = 300;
/// Answers go to everybody: we cannot receive for an address that we do not have yet.
const BROADCAST: [u8; 2] = [0x80, 0];

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover,
    Offer,
    Request,
    Ack,
    Nak,
}

const KINDS: [(Kind, u8); 5] =
    [(Kind::Discover, 1), (Kind::Offer, 2), (Kind::Request, 3), (Kind::Ack, 5), (Kind::Nak, 6)];

/// A message of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) kind: Kind,
    pub(crate) transaction: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) seconds: u16,
    /// The address in use, when renewing.
    pub(crate) current: Option<Ipv4Addr>,
    /// The address asked for.
    pub(crate) requested: Option<Ipv4Addr>,
    /// The server whose offer is taken.
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) hostname: String,
}

impl Query {
    pub(crate) fn encode(&self) -> Vec<u8> {
        /// Mask, router, name servers, host name, domain, MTU, lease, T1, T2, time servers, search list, routes.
        const WANTED: [u8; 12] = [1, 3, 6, 12, 15, 26, 51, 58, 59, 42, 119, 121];
        let mut bytes = vec![0_u8; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[10..12].copy_from_slice(&BROADCAST);
        bytes[12..16].copy_from_slice(&self.current.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        bytes[28..34].copy_from_slice(&self.mac);
        bytes.extend(COOKIE);
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, number)| *number);
        option(&mut bytes, 53, &[kind]);
        option(&mut bytes, 61, &[&[1], self.mac.as_slice()].concat());
        option(&mut bytes, 57, &1500_u16.to_be_bytes());
        for (code, address) in [(50, self.requested), (54, self.server)] {
            if let Some(address) = address {
                option(&mut bytes, code, &address.octets());
            }
        }
        if !self.hostname.is_empty() {
            option(&mut bytes, 12, self.hostname.as_bytes());
        }
        option(&mut bytes, 55, &WANTED);
        bytes.push(255);
        bytes.resize(bytes.len().max(LEAST_BYTES), 0);
        bytes
    }
}

fn option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    // A host name has at most 63 characters; nothing else here is longer.
    if let Ok(length) = u8::try_from(value.len()) {
        bytes.extend([code, length]);
        bytes.extend(value);
    }
}

/// A message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: Kind,
    pub(crate) transaction: u32,
    pub(crate) mac: [u8; 6],
    /// The address for us.
    pub(crate) yours: Ipv4Addr,
    pub(crate) options: Options,
}

/// What a server says about the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) mask: Option<Ipv4Addr>,
    pub(crate) routers: Vec<Ipv4Addr>,
    /// Routes by destination; they replace the routers.
    pub(crate) routes: Vec<(Ipv4Net, Ipv4Addr)>,
    pub(crate) dns_servers: Vec<Ipv4Addr>,
    pub(crate) ntp_servers: Vec<Ipv4Addr>,
    pub(crate) domain: Option<String>,
    pub(crate) mtu: Option<u16>,
    pub(crate) lease_seconds: Option<u32>,
    pub(crate) renew_seconds: Option<u32>,
    pub(crate) rebind_seconds: Option<u32>,
    pub(crate) message: Option<String>,
}

impl Reply {
    /// Reads a server's message; anything else is nothing.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        if header[0] != 2 || bytes.get(HEADER_BYTES..HEADER_BYTES + 4)? != COOKIE {
            return None;
        }
        let mut kind = None;
        let mut options = Options::default();
        let mut rest = &bytes[HEADER_BYTES + 4..];
        while let Some((&code, tail)) = rest.split_first() {
            match code {
                0 => rest = tail,
                255 => break,
                _ => {
                    let (&length, tail) = tail.split_first()?;
                    let value = tail.get(..usize::from(length))?;
                    rest = &tail[usize::from(length)..];
                    if code == 53 {
                        kind = KINDS.iter().find(|(_, number)| value == [*number]).map(|(kind, _)| *kind);
                    }
                    options.take(code, value);
                }
            }
        }
        Some(Self {
            kind: kind?,
            transaction: u32::from_be_bytes(header[4..8].try_into().ok()?),
            mac: header[28..34].try_into().ok()?,
            yours: address(&header[16..20])?,
            options,
        })
    }
}

impl Options {
    fn take(&mut self, code: u8, value: &[u8]) {
        match code {
            1 => self.mask = address(value),
            3 => self.routers = addresses(value),
            6 => self.dns_servers = addresses(value),
            15 => self.domain = text(value),
            26 => self.mtu = value.try_into().ok().map(u16::from_be_bytes),
            42 => self.ntp_servers = addresses(value),
            51 => self.lease_seconds = value.try_into().ok().map(u32::from_be_bytes),
            54 => self.server = address(value),
            56 => self.message = text(value),
            58 => self.renew_seconds = value.try_into().ok().map(u32::from_be_bytes),
            59 => self.rebind_seconds = value.try_into().ok().map(u32::from_be_bytes),
            121 => self.routes = routes(value).unwrap_or_default(),
            _ => {}
        }
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn addresses(bytes: &[u8]) -> Vec<Ipv4Addr> {
    bytes.chunks_exact(4).filter_map(address).collect()
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    (!text.is_empty()).then_some(text)
}

/// Each route is the length of a prefix, as many bytes of it as that needs, and a gateway.
fn routes(mut bytes: &[u8]) -> Option<Vec<(Ipv4Net, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let Some((&length, tail)) = bytes.split_first() {
        let significant = usize::from(length).div_ceil(8);
        let mut prefix = [0_u8; 4];
        prefix.get_mut(..significant)?.copy_from_slice(tail.get(..significant)?);
        let gateway = address(tail.get(significant..significant + 4)?)?;
        routes.push((Ipv4Net::new(Ipv4Addr::from(prefix), length).ok()?, gateway));
        bytes = &tail[significant + 4..];
    }
    Some(routes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A server's message, made from the parts a test cares for.
    pub(crate) fn reply(kind: Kind, transaction: u32, yours: [u8; 4], extra: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0_u8; HEADER_BYTES];
        bytes[0] = 2;
        bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
        bytes[16..20].copy_from_slice(&yours);
        bytes[28..34].copy_from_slice(&MAC);
        bytes.extend(COOKIE);
        let number = KINDS.iter().find(|(known, _)| *known == kind).unwrap().1;
        option(&mut bytes, 53, &[number]);
        for (code, value) in extra {
            option(&mut bytes, *code, value);
        }
        bytes.push(255);
        bytes
    }

    #[test]
    fn a_query_has_its_fields_in_their_places() {
        let query = Query {
            kind: Kind::Request,
            transaction: 0x0102_0304,
            mac: MAC,
            seconds: 7,
            current: None,
            requested: Some(Ipv4Addr::new(10, 0, 0, 5)),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
            hostname: "m1".into(),
        };
        let bytes = query.encode();
        assert_eq!(bytes.len(), LEAST_BYTES);
        assert_eq!(&bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 7, 0x80, 0]);
        assert_eq!(&bytes[236..243], [99, 130, 83, 99, 53, 1, 3]);
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(has(&[50, 4, 10, 0, 0, 5]) && has(&[54, 4, 10, 0, 0, 1]) && has(&[12, 2, b'm', b'1']));
    }

    #[test]
    fn a_reply_is_read_with_its_options() {
        let extra: [(u8, &[u8]); 6] = [
            (1, &[255, 255, 255, 0]),
            (6, &[1, 1, 1, 1, 8, 8, 8, 8]),
            (26, &[5, 220]),
            (51, &[0, 0, 14, 16]),
            (54, &[10, 0, 0, 1]),
            (121, &[0, 10, 0, 0, 1, 16, 172, 16, 10, 0, 0, 2]),
        ];
        let found = Reply::decode(&reply(Kind::Ack, 9, [10, 0, 0, 5], &extra)).unwrap();
        assert_eq!((found.kind, found.transaction, found.yours), (Kind::Ack, 9, Ipv4Addr::new(10, 0, 0, 5)));
        assert_eq!(found.options.dns_servers.len(), 2);
        assert_eq!((found.options.mtu, found.options.lease_seconds), (Some(1500), Some(3600)));
        let routes = [
            ("0.0.0.0/0".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 1)),
            ("172.16.0.0/16".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 2)),
        ];
        assert_eq!(found.options.routes, routes);
    }

    #[test]
    fn damaged_replies_are_nothing() {
        let whole = reply(Kind::Offer, 9, [10, 0, 0, 5], &[(121, &[40, 1, 2]), (51, &[1])]);
        for length in 0..whole.len() {
            // Whatever is cut off: no panic, and nothing that was not there.
            if let Some(found) = Reply::decode(&whole[..length]) {
                assert!(found.options.routes.is_empty());
            }
        }
    }
}
