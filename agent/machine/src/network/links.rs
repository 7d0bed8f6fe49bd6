//! Which links have to be made, changed, joined and removed, so that the manifest's VLANs, bonds, bridges and
//! tunnels are there.
//!
//! Each call decides on what can be done with the links that are there; the caller does it, looks again and asks
//! again, until nothing is left to do. So an interface comes after those that it needs, whenever these come.

use manifest::{BondMode, HashPolicy, Interface, InterfaceKind, LacpRate, Network};
use netlink::{Bond, BondHashPolicy, BondLacpRate, Link, Made};

use crate::network::owned::Owned;
use crate::network::plan::find;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkStep {
    /// Make a link.
    Create { name: String, made: Made },
    /// Take a link over that is as it should be: an earlier process could not write it down, or the kernel made it.
    Adopt { name: String },
    /// Give a link other settings.
    Change { link: u32, name: String, made: Made },
    /// Remove a link.
    Remove { link: u32, name: String },
    /// Put a link into a bridge or bond; a bond takes it only when it is off.
    Attach { link: u32, name: String, controller: u32, owner: String, must_be_off: bool },
    /// Take a link out of its bridge or bond.
    Detach { link: u32, name: String },
    /// Nothing can be done: somebody else has a link of this name.
    Blocked { name: String },
}

impl LinkStep {
    /// The link that it is about.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Create { name, .. }
            | Self::Adopt { name }
            | Self::Change { name, .. }
            | Self::Remove { name, .. }
            | Self::Attach { name, .. }
            | Self::Detach { name, .. }
            | Self::Blocked { name } => name,
        }
    }
}

/// What can be done now.
pub(crate) fn plan_links(network: &Network, links: &[Link], owned: &Owned) -> Vec<LinkStep> {
    let mut steps = leftovers(network, links, owned);
    let mut staying = links.to_vec();
    for interface in network.in_order() {
        // Nothing is put onto or into what is about to go.
        staying.retain(|link| {
            !steps.iter().any(|step| matches!(step, LinkStep::Remove { link: gone, .. } if *gone == link.index))
        });
        let step = own_link(network, interface, &staying, owned);
        if !matches!(step, Some(LinkStep::Remove { .. })) {
            steps.extend(members(network, interface, &staying));
        }
        steps.extend(step);
    }
    steps
}

/// What the manifest does not have any more.
fn leftovers(network: &Network, links: &[Link], owned: &Owned) -> Vec<LinkStep> {
    let named = |name: &str| links.iter().find(|link| link.name == name);
    let is_wanted =
        |name: &str| network.interfaces.iter().any(|it| it.id.to_string() == name && it.kind != InterfaceKind::Card);
    let unwanted = owned.links.iter().filter(|name| !is_wanted(name)).filter_map(|name| named(name));
    let removals = unwanted.map(|link| LinkStep::Remove { link: link.index, name: link.name.clone() });
    let detached = owned.members.iter().filter_map(|(name, owner)| {
        let link = named(name)?;
        let is_member = link.controller.is_some() && link.controller == named(owner).map(|owner| owner.index);
        let stays = network.interfaces.iter().any(|it| {
            it.id.to_string() == *owner
                && it.kind.members().iter().any(|id| find(network, id, links).is_some_and(|it| it.index == link.index))
        });
        (is_member && !stays).then(|| LinkStep::Detach { link: link.index, name: name.clone() })
    });
    detached.chain(removals).collect()
}

fn own_link(network: &Network, interface: &Interface, links: &[Link], owned: &Owned) -> Option<LinkStep> {
    let wanted = made(network, interface, links)?;
    let name = interface.id.to_string();
    let Some(link) = links.iter().find(|link| link.name == name) else {
        return Some(LinkStep::Create { name, made: wanted });
    };
    match &link.made {
        Some(found) if found.satisfies(&wanted) => (!owned.links.contains(&name)).then_some(LinkStep::Adopt { name }),
        Some(found) if found.can_become(&wanted) => Some(LinkStep::Change { link: link.index, name, made: wanted }),
        Some(found) if found.is_like(&wanted) || owned.links.contains(&name) => {
            Some(LinkStep::Remove { link: link.index, name })
        }
        Some(_) | None => Some(LinkStep::Blocked { name }),
    }
}

fn members(network: &Network, interface: &Interface, links: &[Link]) -> Vec<LinkStep> {
    let owner = interface.id.to_string();
    let Some(controller) = links.iter().find(|link| link.name == owner && link.made.is_some()) else {
        return Vec::new();
    };
    let members = interface.kind.members().iter().filter_map(|id| find(network, id, links));
    let apart = members.filter(|member| member.controller != Some(controller.index));
    apart
        .map(|member| LinkStep::Attach {
            link: member.index,
            name: member.name.clone(),
            controller: controller.index,
            owner: owner.clone(),
            must_be_off: matches!(interface.kind, InterfaceKind::Bond(_)),
        })
        .collect()
}

/// What an interface is to be made of, as soon as that is there.
fn made(network: &Network, interface: &Interface, links: &[Link]) -> Option<Made> {
    match &interface.kind {
        InterfaceKind::Card => None,
        InterfaceKind::Vlan(vlan) => {
            find(network, &vlan.link, links).map(|below| Made::Vlan { below: below.index, id: vlan.id })
        }
        InterfaceKind::Bond(bond) => Some(Made::Bond(Bond {
            mode: mode(bond.mode),
            miimon: u32::try_from(bond.miimon.duration().as_millis()).unwrap_or(u32::MAX),
            lacp_rate: bond.lacp_rate.map(rate),
            hash_policy: bond.hash_policy.map(policy),
        })),
        InterfaceKind::Bridge(bridge) => Some(Made::Bridge { stp: bridge.stp }),
        InterfaceKind::Wireguard(_) => Some(Made::Wireguard),
    }
}

fn mode(mode: BondMode) -> netlink::BondMode {
    match mode {
        BondMode::BalanceRr => netlink::BondMode::BalanceRr,
        BondMode::ActiveBackup => netlink::BondMode::ActiveBackup,
        BondMode::BalanceXor => netlink::BondMode::BalanceXor,
        BondMode::Broadcast => netlink::BondMode::Broadcast,
        BondMode::Ieee8023Ad => netlink::BondMode::Ieee8023Ad,
        BondMode::BalanceTlb => netlink::BondMode::BalanceTlb,
        BondMode::BalanceAlb => netlink::BondMode::BalanceAlb,
    }
}

fn rate(rate: LacpRate) -> BondLacpRate {
    match rate {
        LacpRate::Slow => BondLacpRate::Slow,
        LacpRate::Fast => BondLacpRate::Fast,
    }
}

fn policy(policy: HashPolicy) -> BondHashPolicy {
    match policy {
        HashPolicy::Layer2 => BondHashPolicy::Layer2,
        HashPolicy::Layer23 => BondHashPolicy::Layer23,
        HashPolicy::Layer34 => BondHashPolicy::Layer34,
        HashPolicy::Encap23 => BondHashPolicy::Encap23,
        HashPolicy::Encap34 => BondHashPolicy::Encap34,
        HashPolicy::VlanSrcMac => BondHashPolicy::VlanSrcMac,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::network::plan::tests::{link, network};
    use netlink::LinkKind;

    const STACK: &str = "[[network.interfaces]]\nname = \"storage\"\naddresses = [\"10.0.5.2/24\"]\n\
                         vlan = { link = \"bond0\", id = 100 }\n\
                         [[network.interfaces]]\nname = \"bond0\"\n\
                         bond = { members = [\"02:00:00:00:00:02\", \"eth1\"], mode = \"802.3ad\", lacp-rate = \"fast\" }\n\
                         [[network.interfaces]]\nmac = \"02:00:00:00:00:02\"\n[[network.interfaces]]\nname = \"eth1\"\n";

    /// What a kernel would do, with numbers from 10 on.
    fn carry_out(step: &LinkStep, links: &mut Vec<Link>) -> String {
        match step {
            LinkStep::Create { name, made } => {
                let index = links.iter().map(|link| link.index).max().unwrap_or(0).max(9) + 1;
                let kind = match made {
                    Made::Vlan { .. } => LinkKind::Vlan,
                    Made::Bond(_) => LinkKind::Bond,
                    Made::Bridge { .. } => LinkKind::Bridge,
                    Made::Wireguard => LinkKind::Wireguard,
                };
                links.push(Link { made: Some(made.clone()), ..link(index, name, kind) });
                format!("create {name}")
            }
            LinkStep::Change { link, name, made } => {
                links.iter_mut().find(|it| it.index == *link).unwrap().made = Some(made.clone());
                format!("change {name}")
            }
            LinkStep::Remove { link, name } => {
                let is_on_it = |it: &Link| matches!(it.made, Some(Made::Vlan { below, .. }) if below == *link);
                links.retain(|it| it.index != *link && !is_on_it(it));
                links.iter_mut().filter(|it| it.controller == Some(*link)).for_each(|it| it.controller = None);
                format!("remove {name}")
            }
            LinkStep::Attach { link, name, controller, owner, must_be_off } => {
                let member = links.iter_mut().find(|it| it.index == *link).unwrap();
                member.controller = Some(*controller);
                if *must_be_off {
                    // All members of a bond get the address of the first.
                    member.permanent_mac = member.permanent_mac.or(member.mac);
                    member.mac = Some([2, 0, 0, 0, 0, 2]);
                }
                format!("{owner} takes {name}")
            }
            LinkStep::Detach { link, name } => {
                links.iter_mut().find(|it| it.index == *link).unwrap().controller = None;
                format!("detach {name}")
            }
            LinkStep::Adopt { name } => format!("adopt {name}"),
            LinkStep::Blocked { name } => format!("{name} is blocked"),
        }
    }

    fn settle(network: &Network, links: &mut Vec<Link>, owned: &mut Owned) -> Vec<String> {
        let mut log = Vec::new();
        for _round in 0..20 {
            owned.forget_missing(&links.iter().map(|link| link.name.as_str()).collect::<BTreeSet<_>>());
            let steps = plan_links(network, links, owned);
            owned.expect(&steps);
            for step in &steps {
                log.push(carry_out(step, links));
                owned.done(step);
            }
            if steps.iter().all(|step| matches!(step, LinkStep::Blocked { .. })) {
                return log;
            }
        }
        panic!("it never ends: {log:?}");
    }

    fn cards() -> Vec<Link> {
        vec![link(2, "eth0", LinkKind::Physical), link(3, "eth1", LinkKind::Physical)]
    }

    #[test]
    fn an_interface_is_made_after_those_that_it_needs() {
        let (mut links, mut owned) = (cards(), Owned::default());
        let log = settle(&network(STACK), &mut links, &mut owned);
        assert_eq!(log, ["create bond0", "bond0 takes eth0", "bond0 takes eth1", "create storage"]);
        assert!(settle(&network(STACK), &mut links, &mut owned).is_empty());
        // A card that comes later is taken then.
        let (mut late, mut owned) = (vec![cards().remove(0)], Owned::default());
        settle(&network(STACK), &mut late, &mut owned);
        late.push(cards().remove(1));
        assert_eq!(settle(&network(STACK), &mut late, &mut owned), ["bond0 takes eth1"]);
    }

    #[test]
    fn what_is_wanted_no_longer_goes_and_nothing_else() {
        let (mut links, mut owned) = (cards(), Owned::default());
        settle(&network(STACK), &mut links, &mut owned);
        links.push(Link { made: Some(Made::Bridge { stp: false }), ..link(90, "other", LinkKind::Bridge) });
        let without_vlan = STACK.split_once("[[network.interfaces]]\nname = \"bond0\"").unwrap().1;
        let without_vlan = format!("[[network.interfaces]]\nname = \"bond0\"{without_vlan}");
        assert_eq!(settle(&network(&without_vlan), &mut links, &mut owned), ["remove storage"]);
        let fewer = without_vlan.replace(", \"eth1\"]", "]");
        assert_eq!(settle(&network(&fewer), &mut links, &mut owned), ["detach eth1"]);
        assert_eq!(settle(&Network::default(), &mut links, &mut owned), ["detach eth0", "remove bond0"]);
        assert_eq!(links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1", "other"]);
        assert_eq!(owned, Owned::default());
    }

    #[test]
    fn settings_change_in_place_where_the_kernel_can() {
        let (mut links, mut owned) = (cards(), Owned::default());
        settle(&network(STACK), &mut links, &mut owned);
        let faster = STACK.replace("lacp-rate", "miimon = \"50ms\", lacp-rate");
        assert_eq!(settle(&network(&faster), &mut links, &mut owned), ["change bond0"]);
        let slower = faster.replace("fast", "slow");
        let log = settle(&network(&slower), &mut links, &mut owned);
        assert_eq!(log[..2], ["remove bond0", "create bond0"]);
        assert_eq!(log.last().unwrap(), "create storage");
        let other = slower.replace("id = 100", "id = 101");
        assert_eq!(settle(&network(&other), &mut links, &mut owned), ["remove storage", "create storage"]);
    }

    #[test]
    fn links_of_others_are_left_alone() {
        let mut links = cards();
        links.push(link(4, "bond0", LinkKind::Physical));
        let log = settle(&network(STACK), &mut links, &mut Owned::default());
        assert_eq!(log, ["bond0 is blocked"]);
        // The kernel's own first bond is a bond like ours, once its settings are.
        let kernels = Bond { mode: netlink::BondMode::BalanceRr, miimon: 0, lacp_rate: None, hash_policy: None };
        *links.last_mut().unwrap() = Link { made: Some(Made::Bond(kernels)), ..link(4, "bond0", LinkKind::Bond) };
        let log = settle(&network(STACK), &mut links, &mut Owned::default());
        assert_eq!(log[..2], ["remove bond0", "create bond0"]);
    }
}
