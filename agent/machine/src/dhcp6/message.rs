//! DHCPv6 messages on the wire (RFC 8415, 3646, 5908).

use std::net::Ipv6Addr;

const CLIENT: u16 = 1;
const SERVER: u16 = 2;
const ADDRESSES: u16 = 3;
const ADDRESS: u16 = 5;
const WANTED: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
const DNS_SERVERS: u16 = 23;
const DOMAINS: u16 = 24;
const TIME_SERVERS: u16 = 56;

/// A longer identifier is none (RFC 8415, 11.1: 128 bytes behind its type).
const DUID_BYTES: usize = 130;
/// More than these nobody needs, and a datagram holds hundreds.
const LISTED: usize = 16;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Solicit,
    Advertise,
    Request,
    Renew,
    Rebind,
    Reply,
}

const KINDS: [(Kind, u8); 6] = [
    (Kind::Solicit, 1),
    (Kind::Advertise, 2),
    (Kind::Request, 3),
    (Kind::Renew, 5),
    (Kind::Rebind, 6),
    (Kind::Reply, 7),
];

/// A message of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) kind: Kind,
    /// 24 bits.
    pub(crate) transaction: u32,
    pub(crate) mac: [u8; 6],
    /// Hundredths of a second since the exchange began.
    pub(crate) elapsed: u16,
    /// The server that is meant, where one is.
    pub(crate) server: Option<Vec<u8>>,
    /// The addresses asked for.
    pub(crate) addresses: Vec<Ipv6Addr>,
}

/// Who the client is: the type of identifier that is a link's address, with Ethernet's number.
pub(crate) fn identity(mac: [u8; 6]) -> Vec<u8> {
    [&[0, 3, 0, 1], mac.as_slice()].concat()
}

/// The number of the client's set of addresses on the link: any will do that stays the same.
fn association(mac: [u8; 6]) -> [u8; 4] {
    [mac[2], mac[3], mac[4], mac[5]]
}

impl Query {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, number)| *number);
        let mut bytes = self.transaction.to_be_bytes().to_vec();
        bytes[0] = kind;
        option(&mut bytes, CLIENT, &identity(self.mac));
        if let Some(server) = &self.server {
            option(&mut bytes, SERVER, server);
        }
        option(&mut bytes, ELAPSED, &self.elapsed.to_be_bytes());
        option(&mut bytes, WANTED, &[DNS_SERVERS, DOMAINS, TIME_SERVERS].map(u16::to_be_bytes).concat());
        // When to renew is the server's choice, and so is how long the addresses are lent.
        let mut inside = [association(self.mac).as_slice(), &[0; 8]].concat();
        for address in self.addresses.iter().take(LISTED) {
            option(&mut inside, ADDRESS, &[address.octets().as_slice(), &[0; 8]].concat());
        }
        option(&mut bytes, ADDRESSES, &inside);
        bytes
    }
}

fn option(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Nothing here is longer than some hundred bytes.
    if let Ok(length) = u16::try_from(value.len()) {
        bytes.extend(code.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(value);
    }
}

/// A message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: Kind,
    pub(crate) transaction: u32,
    /// Whom it is for.
    pub(crate) client: Vec<u8>,
    /// Who sent it.
    pub(crate) server: Vec<u8>,
    pub(crate) preference: u8,
    pub(crate) addresses: Vec<Lent>,
    /// When the server wants to be asked again, and when any server is; 0 is our choice.
    pub(crate) renew_seconds: u32,
    pub(crate) rebind_seconds: u32,
    /// Whether the server refused.
    pub(crate) is_refusal: bool,
    pub(crate) dns_servers: Vec<Ipv6Addr>,
    pub(crate) domains: Vec<String>,
    pub(crate) ntp_servers: Vec<String>,
}

/// An address for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lent {
    pub(crate) address: Ipv6Addr,
    pub(crate) preferred_seconds: u32,
    pub(crate) valid_seconds: u32,
}

impl Reply {
    /// Reads a server's message to the client with this address; anything else is nothing.
    pub(crate) fn decode(bytes: &[u8], mac: [u8; 6]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let kind = KINDS.iter().find(|(_, number)| *number == head[0]).map(|(kind, _)| *kind)?;
        let mut reply = Self {
            kind,
            transaction: u32::from_be_bytes([0, head[1], head[2], head[3]]),
            client: Vec::new(),
            server: Vec::new(),
            preference: 0,
            addresses: Vec::new(),
            renew_seconds: 0,
            rebind_seconds: 0,
            is_refusal: false,
            dns_servers: Vec::new(),
            domains: Vec::new(),
            ntp_servers: Vec::new(),
        };
        for (code, value) in options(rest)? {
            reply.take(code, value, mac)?;
        }
        let is_identified = !reply.server.is_empty() && reply.server.len() <= DUID_BYTES;
        (is_identified && reply.client == identity(mac)).then_some(reply)
    }

    fn take(&mut self, code: u16, value: &[u8], mac: [u8; 6]) -> Option<()> {
        match code {
            CLIENT => self.client = value.to_vec(),
            SERVER => self.server = value.to_vec(),
            PREFERENCE => self.preference = *value.first()?,
            STATUS => self.is_refusal |= is_refusal(value)?,
            ADDRESSES => self.take_addresses(value, mac)?,
            DNS_SERVERS => self.dns_servers.extend(value.chunks_exact(16).filter_map(address).take(LISTED)),
            DOMAINS => self.domains = names(value)?,
            TIME_SERVERS => self.take_time_servers(value)?,
            _ => {}
        }
        Some(())
    }

    fn take_addresses(&mut self, value: &[u8], mac: [u8; 6]) -> Option<()> {
        let (head, rest) = value.split_first_chunk::<12>()?;
        if head[..4] != association(mac) {
            return Some(());
        }
        (self.renew_seconds, self.rebind_seconds) = (number(&head[4..8])?, number(&head[8..12])?);
        for (code, value) in options(rest)? {
            match code {
                STATUS => self.is_refusal |= is_refusal(value)?,
                ADDRESS if self.addresses.len() < LISTED => {
                    let (head, rest) = value.split_first_chunk::<24>()?;
                    let statuses = options(rest)?;
                    let mut refusals = statuses.iter().filter(|(code, _)| *code == STATUS);
                    if refusals.any(|(_, value)| is_refusal(value) != Some(false)) {
                        continue;
                    }
                    let (preferred_seconds, valid_seconds) = (number(&head[16..20])?, number(&head[20..24])?);
                    // RFC 8415, 21.6: an address whose times contradict each other is passed over.
                    if preferred_seconds <= valid_seconds {
                        let address = address(&head[..16])?;
                        self.addresses.push(Lent { address, preferred_seconds, valid_seconds });
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Time servers come by address (1), by an address of many (2), or by name (3).
    fn take_time_servers(&mut self, value: &[u8]) -> Option<()> {
        for (code, value) in options(value)? {
            match code {
                1 => self.ntp_servers.push(address(value)?.to_string()),
                3 => self.ntp_servers.extend(names(value)?),
                _ => {}
            }
        }
        self.ntp_servers.truncate(LISTED);
        Some(())
    }
}

/// The options one after the other; none if one is cut off.
fn options(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, rest) = rest.split_at_checked(length)?;
        found.push((u16::from_be_bytes([head[0], head[1]]), value));
        bytes = rest;
    }
    Some(found)
}

fn is_refusal(value: &[u8]) -> Option<bool> {
    value.first_chunk::<2>().map(|code| *code != [0, 0])
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

/// Names as DNS writes them, without pointers. One that could not be written into `resolv.conf` is no name.
fn names(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut labels: Vec<String> = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        bytes = rest;
        if label.is_empty() {
            names.push(std::mem::take(&mut labels).join("."));
            continue;
        }
        let is_name = label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if length > 63 || !is_name {
            return None;
        }
        labels.push(String::from_utf8_lossy(label).into_owned());
    }
    names.retain(|name| !name.is_empty() && name.len() <= 253);
    names.truncate(LISTED);
    labels.is_empty().then_some(names)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A server's message with addresses and their valid times.
    pub(crate) fn reply(kind: Kind, transaction: u32, lent: &[(Ipv6Addr, u32)], extra: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = transaction.to_be_bytes().to_vec();
        bytes[0] = KINDS.iter().find(|(known, _)| *known == kind).unwrap().1;
        option(&mut bytes, CLIENT, &identity(MAC));
        option(&mut bytes, SERVER, b"server");
        let mut inside = association(MAC).to_vec();
        inside.extend([0; 8]);
        for (address, valid) in lent {
            let times = [(valid / 2).to_be_bytes(), valid.to_be_bytes()].concat();
            option(&mut inside, ADDRESS, &[address.octets().as_slice(), &times].concat());
        }
        option(&mut bytes, ADDRESSES, &inside);
        for (code, value) in extra {
            option(&mut bytes, *code, value);
        }
        bytes
    }

    fn one() -> Ipv6Addr {
        "fd00:77::9".parse().unwrap()
    }

    #[test]
    fn a_query_has_its_options_in_their_places() {
        let query = Query {
            kind: Kind::Request,
            transaction: 0x0001_0203,
            mac: MAC,
            elapsed: 7,
            server: Some(b"s".to_vec()),
            addresses: vec![one()],
        };
        let mut expected = vec![3, 1, 2, 3];
        expected.extend([0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1]);
        expected.extend([0, 2, 0, 1, b's']);
        expected.extend([0, 8, 0, 2, 0, 7]);
        expected.extend([0, 6, 0, 6, 0, 23, 0, 24, 0, 56]);
        expected.extend([0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24]);
        expected.extend(one().octets());
        expected.extend([0; 8]);
        assert_eq!(query.encode(), expected);
    }

    #[test]
    fn a_reply_is_read_with_its_options() {
        let domains = b"\x07example\x03com\x00\x03lan\x00";
        let time = [&[0, 1, 0, 16][..], &one().octets(), &[0, 3, 0, 6], b"\x04time\x00"].concat();
        let extra: [(u16, &[u8]); 4] = [(7, &[255]), (23, &one().octets()), (24, domains), (56, &time)];
        let found = Reply::decode(&reply(Kind::Reply, 9, &[(one(), 600)], &extra), MAC).unwrap();
        assert_eq!((found.kind, found.transaction, found.preference), (Kind::Reply, 9, 255));
        let lent = Lent { address: one(), preferred_seconds: 300, valid_seconds: 600 };
        assert_eq!((found.addresses, found.is_refusal), (vec![lent], false));
        assert_eq!((found.dns_servers, found.domains), (vec![one()], vec!["example.com".to_owned(), "lan".to_owned()]));
        assert_eq!(found.ntp_servers, ["fd00:77::9", "time"]);
    }

    #[test]
    fn refusals_and_messages_for_others_are_told_apart() {
        let refused = reply(Kind::Reply, 9, &[], &[(13, &[0, 2])]);
        assert!(Reply::decode(&refused, MAC).unwrap().is_refusal);
        let accepted = reply(Kind::Reply, 9, &[], &[(13, &[0, 0, b'o', b'k'])]);
        assert!(!Reply::decode(&accepted, MAC).unwrap().is_refusal);
        assert_eq!(Reply::decode(&accepted, [2, 0, 0, 0, 0, 2]), None);
        // A name that would be another line of a file.
        assert_eq!(Reply::decode(&reply(Kind::Reply, 9, &[], &[(24, b"\x03a\nb\x00")]), MAC), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Reply::decode(&bytes, MAC));
        }

        #[test]
        fn a_message_that_is_cut_or_changed_gives_no_more_than_it_held(
            cut in 0..200_usize, at in 0..200_usize, byte in any::<u8>()
        ) {
            let mut bytes = reply(Kind::Reply, 9, &[(one(), 600)], &[(24, b"\x03lan\x00"), (23, &one().octets())]);
            bytes.truncate(cut.max(4));
            let index = at % bytes.len();
            bytes[index] = byte;
            if let Some(found) = Reply::decode(&bytes, MAC) {
                prop_assert!(found.addresses.len() <= 1 && found.dns_servers.len() <= 1 && found.domains.len() <= 1);
                prop_assert!(found.addresses.iter().all(|lent| lent.preferred_seconds <= lent.valid_seconds));
            }
        }
    }
}
