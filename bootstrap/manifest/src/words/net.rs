//! Words of the network: addresses, ranges, URLs.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::names::check_dns_name;
use crate::model::API_PORT;

use super::{Word, WordError, WordFormat, from_str_by_word};

const HTTPS_PORT: u16 = 443;
const DNS_NAME_CHARS: usize = 253;

fn quoted(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}

fn parse_ip(text: &str) -> Result<IpAddr, WordError> {
    text.parse().map_err(|_invalid| match text.split_once('/') {
        Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
            WordError::meant(format!("{} has a prefix length", quoted(text)), address)
        }
        _ => WordError::new(format!("{} is not an IP address", quoted(text))),
    })
}

/// An IP address without a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpWord(pub IpAddr);

impl Word for IpWord {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "IP address",
        expected: "an IPv4 or IPv6 address, such as `10.0.0.1` or `fd00::1`",
        pattern: None,
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        parse_ip(text).map(Self)
    }
}

impl fmt::Display for IpWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
from_str_by_word!(IpWord);

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The six octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Word for MacAddress {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "MAC address",
        expected: "six pairs of hexadecimal digits with `:` between them, such as `52:54:00:12:34:56`",
        pattern: Some("^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let refused = || WordError::new(format!("{} is not a MAC address", quoted(text)));
        if text.contains('-') && !text.contains(':') {
            let colons = text.replace('-', ":");
            return match Self::parse_word(&colons) {
                Ok(_) => Err(WordError::meant(format!("{} has `-` between its pairs", quoted(text)), colons)),
                Err(_) => Err(refused()),
            };
        }
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()));
            *octet = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(refused)?;
        }
        if parts.next().is_some() {
            return Err(refused());
        }
        if octets[0] & 1 == 1 {
            return Err(WordError::new(format!("{} is a multicast address", quoted(text))));
        }
        Ok(Self(octets))
    }
}
from_str_by_word!(MacAddress);

fn parse_net(text: &str, what: &str) -> Result<IpNet, WordError> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(WordError::new(format!("{} has no prefix length: which part of it is the {what}?", quoted(text))));
    }
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(WordError::new(format!("{} is not an address with a prefix length", quoted(text))));
    };
    let address = parse_ip(address)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if prefix <= bits => IpNet::new(address, prefix).map_err(|error| WordError::new(error.to_string())),
        _ => Err(WordError::new(format!("the prefix length {} is not a number from 0 to {bits}", quoted(prefix)))),
    }
}

/// A range of addresses. No bits are set behind the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The range of one address.
    pub(super) fn of(address: IpAddr) -> Self {
        Self(address.into())
    }

    /// The range.
    #[must_use]
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// Whether the range is of IPv4 addresses.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.0.addr().is_ipv4()
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }

    /// The address number `index` of the range, counted from its network address, if there are so many.
    #[must_use]
    pub fn address(self, index: u32) -> Option<IpAddr> {
        let address = match self.0.network() {
            IpAddr::V4(base) => IpAddr::V4(u32::from(base).checked_add(index)?.into()),
            IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(u128::from(index))?.into()),
        };
        self.0.contains(&address).then_some(address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Word for Cidr {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "address range",
        expected: "a network address and a prefix length, such as `10.244.0.0/16` or `fd00:10::/56`",
        pattern: Some("^[0-9A-Fa-f.:]+/[0-9]{1,3}$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let net = parse_net(text, "range")?;
        if net.addr() == net.network() {
            Ok(Self(net))
        } else {
            Err(WordError::meant(format!("{} has bits set behind its prefix", quoted(text)), net.trunc().to_string()))
        }
    }
}
from_str_by_word!(Cidr);

/// An address of an interface with the prefix length of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress(IpNet);

impl InterfaceAddress {
    /// The address and its network.
    #[must_use]
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// The address alone.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Word for InterfaceAddress {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "interface address",
        expected: "an address and the prefix length of its network, such as `192.168.1.10/24` or `fd00::10/64`",
        pattern: Some("^[0-9A-Fa-f.:]+/[0-9]{1,3}$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let net = parse_net(text, "network")?;
        let is_whole_network = net.addr().is_ipv4() && net.prefix_len() < 31 && net.addr() == net.network();
        if is_whole_network {
            return Err(WordError::new(format!("{} is the network's own address", quoted(text))));
        }
        if net.addr().is_multicast() || net.addr().is_unspecified() {
            return Err(WordError::new(format!("{} cannot be the address of an interface", quoted(text))));
        }
        Ok(Self(net))
    }
}
from_str_by_word!(InterfaceAddress);

/// Where a route leads: a range, or everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteDestination {
    /// Everything of the gateway's address family.
    Default,
    /// One range.
    Range(Cidr),
}

impl fmt::Display for RouteDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Range(range) => range.fmt(f),
        }
    }
}

impl Word for RouteDestination {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "route destination",
        expected: "`default`, or a network address and a prefix length, such as `10.20.0.0/16`",
        pattern: Some("^(default|[0-9A-Fa-f.:]+/[0-9]{1,3})$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        match text {
            "default" | "0.0.0.0/0" | "::/0" => Ok(Self::Default),
            _ => Cidr::parse_word(text).map(Self::Range),
        }
    }
}
from_str_by_word!(RouteDestination);

/// A host, by address or by DNS name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Word for Host {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "host",
        expected: "an IP address or a DNS name, such as `192.168.1.10` or `time.example.com`",
        pattern: None,
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let looks_like_ipv4 = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
        if looks_like_ipv4 || text.contains(':') {
            return Err(WordError::new(format!("{} is neither an IP address nor a DNS name", quoted(text))));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        check_dns_name(name, DNS_NAME_CHARS)?;
        Ok(Self::Name(text.to_owned()))
    }
}
from_str_by_word!(Host);

/// Splits `host`, `host:port` or `[v6]:port` and checks both parts.
fn parse_authority(text: &str) -> Result<(Host, Option<u16>), WordError> {
    if text.contains('@') {
        return Err(WordError::new("a user name or a password in an address is not taken here"));
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            let address = parse_ip(host)?;
            let port = match rest {
                "" => None,
                _ => Some(
                    rest.strip_prefix(':').ok_or_else(|| WordError::new("`]` is not followed by `:` and a port"))?,
                ),
            };
            (Host::Ip(address), port)
        }
        None if text.matches(':').count() > 1 => {
            return Err(WordError::meant("an IPv6 address in a URL stands in brackets", format!("[{text}]")));
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Host::parse_word(host)?, Some(port)),
            None => (Host::parse_word(text)?, None),
        },
    };
    let port = match port.map(|text| (text, text.parse::<u16>())) {
        None => None,
        Some((_, Ok(port))) if port != 0 => Some(port),
        Some((text, _)) => return Err(WordError::new(format!("the port {} is not from 1 to 65535", quoted(text)))),
    };
    Ok((host, port))
}

pub(super) fn check_authority(text: &str) -> Result<(), WordError> {
    parse_authority(text).map(drop)
}

/// The address of the cluster's API: an `https` URL without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(address)) => write!(f, "https://[{address}]:{}", self.port),
            host => write!(f, "https://{host}:{}", self.port),
        }
    }
}

impl Word for Endpoint {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "API endpoint",
        expected: "an https URL with host and port, such as `https://192.168.1.10:6443`",
        pattern: Some("^https://[^/\\s]+$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let Some(rest) = text.strip_prefix("https://") else {
            let reason = format!("{} does not begin with `https://`", quoted(text));
            let host = text.strip_prefix("http://").unwrap_or(text);
            return Err(match parse_authority(host) {
                Ok((_, Some(_))) => WordError::meant(reason, format!("https://{host}")),
                Ok((_, None)) => WordError::meant(reason, format!("https://{host}:{API_PORT}")),
                Err(_) => WordError::new(reason),
            });
        };
        if let Some((authority, path)) = rest.split_once('/') {
            let reason = format!("{} has a path: `/{}`", quoted(text), path.escape_debug());
            return Err(WordError::meant(reason, format!("https://{authority}")));
        }
        let (host, port) = parse_authority(rest)?;
        Ok(Self { host, port: port.unwrap_or(HTTPS_PORT) })
    }
}
from_str_by_word!(Endpoint);

/// How a mirror is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorScheme {
    /// Without encryption.
    Http,
    /// With TLS.
    Https,
}

/// The address of a registry mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorUrl {
    /// `http` or `https`.
    pub scheme: MirrorScheme,
    /// Host and perhaps port, as written.
    pub authority: String,
    /// The path, empty or beginning with `/`, without a slash at its end.
    pub path: String,
}

impl fmt::Display for MirrorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            MirrorScheme::Http => "http",
            MirrorScheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Word for MirrorUrl {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "mirror URL",
        expected: "an http or https URL, such as `https://mirror.example.com` or `http://192.168.1.2:5000`",
        pattern: Some("^https?://[^\\s]+$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (MirrorScheme::Http, rest),
            Some(("https", rest)) => (MirrorScheme::Https, rest),
            Some((scheme, _)) => return Err(WordError::new(format!("the scheme {} is unknown", quoted(scheme)))),
            None => {
                return Err(WordError::meant(format!("{} has no scheme", quoted(text)), format!("https://{text}")));
            }
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        check_authority(authority)?;
        if path.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '"')) {
            return Err(WordError::new(format!(
                "the path `/{}` has characters that it cannot have",
                path.escape_debug()
            )));
        }
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { scheme, authority: authority.to_owned(), path })
    }
}
from_str_by_word!(MirrorUrl);
