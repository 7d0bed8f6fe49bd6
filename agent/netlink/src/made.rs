//! Links that are made of others: VLANs, bonds, bridges, tunnels.

use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBond, InfoBridge, InfoData, InfoKind, InfoVlan, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::{Error, Netlink, Result};

pub use rtnetlink::packet_route::link::{BondLacpRate, BondMode, BondXmitHashPolicy as BondHashPolicy};

/// What a link is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// The packets with a tag on the link below.
    Vlan {
        /// The link below.
        below: u32,
        /// The number in the tag.
        id: u16,
    },
    /// Cards that act as one.
    Bond(Bond),
    /// A switch between others.
    Bridge {
        /// Whether the spanning tree protocol keeps loops out.
        stp: bool,
    },
    /// A tunnel; what goes on in it is set by [`Netlink::set_wireguard`].
    Wireguard,
}

/// How a bond works. What is not given is the kernel's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// How packets are distributed.
    pub mode: BondMode,
    /// Milliseconds between looks at the members' signals.
    pub miimon: u32,
    /// How often the other side gives a sign of life; in mode 802.3ad only.
    pub lacp_rate: Option<BondLacpRate>,
    /// What of a packet decides on its way.
    pub hash_policy: Option<BondHashPolicy>,
}

impl Made {
    /// Whether a link that is made like this is what is wanted.
    #[must_use]
    pub fn satisfies(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Bond(own), Self::Bond(wanted)) => {
                let fits = (own.mode, own.miimon) == (wanted.mode, wanted.miimon);
                let rate = wanted.lacp_rate.is_none() || own.lacp_rate == wanted.lacp_rate;
                let policy = wanted.hash_policy.is_none() || own.hash_policy == wanted.hash_policy;
                fits && rate && policy
            }
            (Self::Vlan { .. } | Self::Bond(_) | Self::Bridge { .. } | Self::Wireguard, _) => self == wanted,
        }
    }

    /// Whether a link that is made like this can become what is wanted, and keep its members and addresses.
    #[must_use]
    pub fn can_become(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Bridge { .. }, Self::Bridge { .. }) => true,
            // The kernel changes neither mode nor rate of a bond that is in use.
            (Self::Bond(own), Self::Bond(wanted)) => {
                own.mode == wanted.mode && (wanted.lacp_rate.is_none() || own.lacp_rate == wanted.lacp_rate)
            }
            (Self::Vlan { .. } | Self::Bond(_) | Self::Bridge { .. } | Self::Wireguard, _) => false,
        }
    }

    /// Whether both are of one sort.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn builder(&self, is_new: bool) -> LinkMessageBuilder<LinkUnspec> {
        let (kind, data) = match self {
            Self::Vlan { id, .. } => (InfoKind::Vlan, Some(InfoData::Vlan(vec![InfoVlan::Id(*id)]))),
            Self::Bond(bond) => (InfoKind::Bond, Some(InfoData::Bond(bond.data(is_new)))),
            Self::Bridge { stp } => {
                let state = if *stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
                (InfoKind::Bridge, Some(InfoData::Bridge(vec![InfoBridge::StpState(state)])))
            }
            Self::Wireguard => (InfoKind::Wireguard, None),
        };
        let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind);
        let builder = match data {
            Some(data) => builder.set_info_data(data),
            None => builder,
        };
        match self {
            Self::Vlan { below, .. } if is_new => builder.link(*below),
            Self::Vlan { .. } | Self::Bond(_) | Self::Bridge { .. } | Self::Wireguard => builder,
        }
    }

    fn creation(&self, name: &str) -> LinkMessage {
        self.builder(true).name(name).build()
    }

    /// What the kernel says about a link. `below` is the link that it is on.
    pub(crate) fn from_info(infos: &[LinkInfo], below: Option<u32>) -> Option<Self> {
        let data = infos.iter().find_map(|info| match info {
            LinkInfo::Data(data) => Some(data),
            _ => None,
        })?;
        match data {
            InfoData::Vlan(infos) => {
                let id = infos.iter().find_map(|info| match info {
                    InfoVlan::Id(id) => Some(*id),
                    _ => None,
                });
                Some(Self::Vlan { below: below?, id: id? })
            }
            InfoData::Bond(infos) => Some(Self::Bond(Bond::from_data(infos))),
            InfoData::Bridge(infos) => {
                let runs = |info: &InfoBridge| matches!(info, InfoBridge::StpState(BridgeStpState::KernelStp));
                Some(Self::Bridge { stp: infos.iter().any(runs) })
            }
            _ => None,
        }
    }
}

impl Bond {
    /// The kernel wants the mode first, and takes it and the rate from a new bond only.
    fn data(&self, is_new: bool) -> Vec<InfoBond> {
        let mode = is_new.then_some(InfoBond::Mode(self.mode));
        let rate = self.lacp_rate.filter(|_| is_new).map(InfoBond::AdLacpRate);
        let policy = self.hash_policy.map(InfoBond::XmitHashPolicy);
        mode.into_iter().chain([InfoBond::MiiMon(self.miimon)]).chain(rate).chain(policy).collect()
    }

    fn from_data(infos: &[InfoBond]) -> Self {
        let mut bond = Self { mode: BondMode::BalanceRr, miimon: 0, lacp_rate: None, hash_policy: None };
        for info in infos {
            match info {
                InfoBond::Mode(mode) => bond.mode = *mode,
                InfoBond::MiiMon(millis) => bond.miimon = *millis,
                InfoBond::AdLacpRate(rate) => bond.lacp_rate = Some(*rate),
                InfoBond::XmitHashPolicy(policy) => bond.hash_policy = Some(*policy),
                _ => {}
            }
        }
        bond
    }
}

impl Netlink {
    /// Makes a link. Fails if there is one of this name.
    pub async fn create_made(&self, name: &str, made: &Made) -> Result<()> {
        let done = self.handle.link().add(made.creation(name)).execute().await;
        done.map_err(|e| Error::new("create link", name, e))
    }

    /// Makes of a link what [`Made::can_become`] allows.
    pub async fn change_made(&self, index: u32, made: &Made) -> Result<()> {
        let message = made.builder(false).index(index).build();
        let done = self.handle.link().change(message).execute().await;
        done.map_err(|e| Error::new("change link", index.to_string(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::Emitable;

    /// The attributes behind the header of 16 bytes.
    fn attributes(message: &LinkMessage) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes.split_off(16)
    }

    /// One attribute: length, number, value, filled up to four bytes.
    fn nla(number: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), number.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    // The numbers are those of linux/if_link.h.
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINK: u16 = 5;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;

    fn info(kind: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
        let inside = [nla(IFLA_INFO_KIND, kind), nla(IFLA_INFO_DATA, &data.concat())].concat();
        nla(IFLA_LINKINFO, &inside)
    }

    #[test]
    fn a_vlan_is_asked_for_by_its_number_and_the_link_below() {
        let message = Made::Vlan { below: 7, id: 100 }.creation("v");
        let kind = info(b"vlan\0", &[nla(1, &100_u16.to_ne_bytes())]);
        let parts = [nla(IFLA_IFNAME, b"v\0"), nla(IFLA_LINK, &7_u32.to_ne_bytes()), kind];
        assert_same(&attributes(&message), &parts);
    }

    #[test]
    fn a_tunnel_is_asked_for_by_its_kind_alone() {
        let kind = nla(IFLA_LINKINFO, &nla(IFLA_INFO_KIND, b"wireguard\0"));
        assert_same(&attributes(&Made::Wireguard.creation("w")), &[nla(IFLA_IFNAME, b"w\0"), kind]);
    }

    #[test]
    fn a_bond_is_asked_for_with_its_mode_first() {
        let bond = Bond {
            mode: BondMode::Ieee8023Ad,
            miimon: 50,
            lacp_rate: Some(BondLacpRate::Fast),
            hash_policy: Some(BondHashPolicy::Layer34),
        };
        let message = Made::Bond(bond.clone()).creation("b");
        let data = [nla(1, &[4]), nla(3, &50_u32.to_ne_bytes()), nla(21, &[1]), nla(14, &[1])];
        assert_same(&attributes(&message), &[nla(IFLA_IFNAME, b"b\0"), info(b"bond\0", &data)]);
        let change = Made::Bond(bond).builder(false).index(3).build();
        let data = [nla(3, &50_u32.to_ne_bytes()), nla(14, &[1])];
        assert_same(&attributes(&change), &[info(b"bond\0", &data)]);
    }

    /// The attributes of the outer level may come in any order.
    fn assert_same(found: &[u8], parts: &[Vec<u8>]) {
        let mut found = found.to_vec();
        let mut rest = parts.to_vec();
        while !found.is_empty() {
            let at = rest.iter().position(|part| found.starts_with(part));
            let part = rest.remove(at.unwrap_or_else(|| panic!("{found:?} begins with none of {rest:?}")));
            found.drain(..part.len());
        }
        assert!(rest.is_empty(), "{rest:?} is missing");
    }

    #[test]
    fn what_is_not_asked_for_does_not_count() {
        let asked = Bond { mode: BondMode::ActiveBackup, miimon: 100, lacp_rate: None, hash_policy: None };
        let found =
            Bond { lacp_rate: Some(BondLacpRate::Slow), hash_policy: Some(BondHashPolicy::Layer2), ..asked.clone() };
        let (asked, found) = (Made::Bond(asked), Made::Bond(found));
        assert!(found.satisfies(&asked));
        let slower = Made::Bond(Bond { mode: BondMode::ActiveBackup, miimon: 200, lacp_rate: None, hash_policy: None });
        assert!(!found.satisfies(&slower) && found.can_become(&slower));
        let other = Made::Bond(Bond { mode: BondMode::BalanceRr, miimon: 100, lacp_rate: None, hash_policy: None });
        assert!(!found.can_become(&other) && found.is_like(&other));
        assert!(!Made::Vlan { below: 1, id: 5 }.can_become(&Made::Vlan { below: 1, id: 6 }));
    }
}
