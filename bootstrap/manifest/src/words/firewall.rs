//! Words of the host's firewall.

use std::fmt;

use super::choice::choice;
use super::{Word, WordError, WordFormat, closest, from_str_by_word};

choice! {
    /// What becomes of a packet.
    FirewallAction, "firewall action", "`accept` or `block`", {
        /// It reaches the host.
        Accept = "accept",
        /// It is dropped.
        Block = "block",
    }
}

choice! {
    /// What a packet carries.
    FirewallProtocol, "protocol", "`tcp`, `udp` or `icmp`", {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP and ICMPv6: requests, as messages about errors and neighbours are always accepted.
        Icmp = "icmp",
    }
}

impl FirewallProtocol {
    /// Whether its packets are for ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// One port, or all from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`, both included.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// The first port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether some port is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether all of the other's ports are in this one.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Word for PortRange {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "range of ports",
        expected: "a port, or the first and the last one, such as `\"9100\"` or `\"30000-32767\"`",
        pattern: Some("^[0-9]{1,5}(-[0-9]{1,5})?$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let port = |text: &str| {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0 && text.chars().all(|c| c.is_ascii_digit()));
            port.ok_or_else(|| WordError::new(format!("`{}` is not a port from 1 to 65535", text.escape_debug())))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(WordError::meant(format!("`{text}` ends before it begins"), format!("{last}-{first}")));
        }
        Ok(Self { first, last })
    }
}
from_str_by_word!(PortRange);
