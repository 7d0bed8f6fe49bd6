//! Words of interfaces: how one is named, and what bonds do.

use std::fmt;

use super::choice::choice;
use super::{InterfaceName, MacAddress, Word, WordError, WordFormat, closest, from_str_by_word};

/// How an interface is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceId {
    /// By name.
    Name(InterfaceName),
    /// By MAC address.
    Mac(MacAddress),
}

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
        }
    }
}

impl Word for InterfaceId {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "interface",
        expected: "the `name` or `mac` of another table of `network.interfaces`",
        pattern: None,
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        // No name of an interface has a colon, and every MAC address has some.
        if text.contains(':') {
            MacAddress::parse_word(text).map(Self::Mac)
        } else {
            InterfaceName::parse_word(text).map(Self::Name)
        }
    }
}
from_str_by_word!(InterfaceId);

choice! {
    /// How a bond distributes packets among its members.
    BondMode, "bond mode",
    "`balance-rr`, `active-backup`, `balance-xor`, `broadcast`, `802.3ad`, `balance-tlb` or `balance-alb`", {
        /// One after the other.
        BalanceRr = "balance-rr",
        /// All by one, until its signal is gone.
        ActiveBackup = "active-backup",
        /// By a hash.
        BalanceXor = "balance-xor",
        /// Each packet on all.
        Broadcast = "broadcast",
        /// By a hash, as agreed with the switch.
        Ieee8023Ad = "802.3ad",
        /// By their load, outwards.
        BalanceTlb = "balance-tlb",
        /// By their load, both ways.
        BalanceAlb = "balance-alb",
    }
}

impl BondMode {
    /// Whether a hash decides on the card that a packet takes.
    #[must_use]
    pub const fn hashes(self) -> bool {
        matches!(self, Self::BalanceXor | Self::Ieee8023Ad | Self::BalanceTlb)
    }
}

choice! {
    /// How often the switch is to give a sign of life.
    LacpRate, "LACP rate", "`slow` or `fast`", {
        /// Every 30 seconds.
        Slow = "slow",
        /// Every second.
        Fast = "fast",
    }
}

choice! {
    /// What of a packet is hashed.
    HashPolicy, "hash policy", "`layer2`, `layer2+3`, `layer3+4`, `encap2+3`, `encap3+4` or `vlan+srcmac`", {
        /// MAC addresses.
        Layer2 = "layer2",
        /// MAC and IP addresses.
        Layer23 = "layer2+3",
        /// IP addresses and ports.
        Layer34 = "layer3+4",
        /// MAC and IP addresses, inside of tunnels.
        Encap23 = "encap2+3",
        /// IP addresses and ports, inside of tunnels.
        Encap34 = "encap3+4",
        /// VLAN and the sender's MAC address.
        VlanSrcMac = "vlan+srcmac",
    }
}
