//! Network links: looking them up, making and changing them.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkDummy, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use crate::error::tolerate;
use crate::{Error, Made, Netlink, Result};

/// What sort of link it is, as far as anybody here cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkKind {
    /// The loopback link.
    Loopback,
    /// A real or paravirtual network card (or anything else that the kernel gives no kind).
    Physical,
    /// One end of a pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A dummy link that only holds addresses.
    Dummy,
    /// A VXLAN tunnel.
    Vxlan,
    /// A VLAN of another link.
    Vlan,
    /// Cards that act as one.
    Bond,
    /// A WireGuard tunnel.
    Wireguard,
    /// Any other virtual link.
    Other,
}

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The number by which every other call names it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its sort.
    pub kind: LinkKind,
    /// Its Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The one that a card was built with: as a member of a bond it has another one.
    pub permanent_mac: Option<[u8; 6]>,
    /// Largest packet.
    pub mtu: u32,
    /// Whether it was switched on.
    pub up: bool,
    /// Whether the wire has a signal.
    pub carrier: bool,
    /// The bridge or bond it belongs to.
    pub controller: Option<u32>,
    /// The other end of a pair (its number in its own namespace), or the link below.
    pub below: Option<u32>,
    /// What it is made of, for VLANs, bonds, bridges and tunnels.
    pub made: Option<Made>,
}

/// A pair of connected links to make.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// Name of the near end.
    pub name: &'a str,
    /// Name of the far end.
    pub peer: &'a str,
    /// The namespace that the far end is born in; the near one's if not given.
    pub peer_namespace: Option<BorrowedFd<'a>>,
    /// Largest packet, of both ends; the kernel's default if not given.
    pub mtu: Option<u32>,
    /// Ethernet address of the far end; random if not given.
    pub peer_mac: Option<[u8; 6]>,
}

/// A VXLAN tunnel without multicast: neighbours and forwarding entries are given by hand.
#[derive(Clone, Debug)]
pub struct Vxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// The network's number.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// The sender's address.
    pub local: IpAddr,
    /// The link below.
    pub below: u32,
    /// Largest packet inside.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// All links.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|e| Error::new("list", "links", e))?;
        Ok(messages.iter().map(Link::from_message).collect())
    }

    /// The link called `name`.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await.map_err(|e| Error::new("look up link", name, e)) {
            Ok(message) => Ok(message.as_ref().map(Link::from_message)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The link called `name`, which has to be there.
    pub async fn require_link(&self, name: &str) -> Result<Link> {
        self.link(name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))
    }

    /// Makes a bridge, or finds the one that is there.
    pub async fn create_bridge(&self, name: &str) -> Result<Link> {
        self.create(name, LinkBridge::new(name).build()).await?;
        self.require_link(name).await
    }

    /// Makes a link that only holds addresses, or finds the one that is there.
    pub async fn create_dummy(&self, name: &str) -> Result<Link> {
        self.create(name, LinkDummy::new(name).build()).await?;
        self.require_link(name).await
    }

    /// Makes a pair of links. Fails if one of the names is taken. Returns the near end.
    pub async fn create_veth(&self, veth: &Veth<'_>) -> Result<Link> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(veth.peer);
        let mut near = LinkVeth::new(veth.name, veth.peer);
        if let Some(mtu) = veth.mtu {
            peer = peer.mtu(mtu);
            near = near.mtu(mtu);
        }
        if let Some(mac) = veth.peer_mac {
            peer = peer.address(mac.to_vec());
        }
        if let Some(namespace) = veth.peer_namespace {
            peer = peer.setns_by_fd(namespace.as_raw_fd());
        }
        let message = near.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
        let made = self.handle.link().add(message).execute().await;
        made.map_err(|e| Error::new("create link pair", veth.name, e))?;
        self.require_link(veth.name).await
    }

    /// Makes a VXLAN tunnel, or finds the one that is there.
    pub async fn create_vxlan(&self, vxlan: &Vxlan<'_>) -> Result<Link> {
        let mut builder = LinkVxlan::new(vxlan.name, vxlan.id).dev(vxlan.below).port(vxlan.port).learning(false);
        builder = match vxlan.local {
            IpAddr::V4(local) => builder.local(local),
            IpAddr::V6(local) => builder.local6(local),
        };
        if let Some(mtu) = vxlan.mtu {
            builder = builder.mtu(mtu);
        }
        self.create(vxlan.name, builder.build()).await?;
        self.require_link(vxlan.name).await
    }

    /// Removes a link (and with one end of a pair the other).
    pub async fn delete_link(&self, index: u32) -> Result<()> {
        let done = self.handle.link().del(index).execute().await;
        tolerate(done.map_err(|e| Error::new("delete link", index.to_string(), e)), Error::is_missing)
    }

    /// Removes a link by name.
    pub async fn delete_link_named(&self, name: &str) -> Result<()> {
        match self.link(name).await? {
            Some(link) => self.delete_link(link.index).await,
            None => Ok(()),
        }
    }

    /// Switches a link on.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        self.change("switch on link", index, by_index(index).up()).await
    }

    /// Switches a link off.
    pub async fn set_down(&self, index: u32) -> Result<()> {
        self.change("switch off link", index, by_index(index).down()).await
    }

    /// Sets the largest packet.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change("set the MTU of link", index, by_index(index).mtu(mtu)).await
    }

    /// Gives a link another name; it has to be off.
    pub async fn set_name(&self, index: u32, name: &str) -> Result<()> {
        self.change("rename link", index, by_index(index).name(name)).await
    }

    /// Gives a link another Ethernet address.
    pub async fn set_mac(&self, index: u32, mac: [u8; 6]) -> Result<()> {
        self.change("set the Ethernet address of link", index, by_index(index).address(mac.to_vec())).await
    }

    /// Puts a link into a bridge or bond, or takes it out. A bond takes links only that are off.
    pub async fn set_controller(&self, index: u32, controller: Option<u32>) -> Result<()> {
        self.change("set the bridge or bond of link", index, by_index(index).controller(controller.unwrap_or(0))).await
    }

    /// Lets a bridge send a packet back out of the port that it came in by.
    pub async fn set_hairpin(&self, index: u32, on: bool) -> Result<()> {
        let message = LinkBridgePort::new(index).hairpin(on).build();
        let done = self.handle.link().set_port(message).execute().await;
        done.map_err(|e| Error::new("set hairpin of bridge port", index.to_string(), e))
    }

    /// Moves a link into another namespace, where it keeps its name and is off.
    pub async fn move_to(&self, index: u32, namespace: BorrowedFd<'_>) -> Result<()> {
        self.change("move link", index, by_index(index).setns_by_fd(namespace.as_raw_fd())).await
    }

    async fn create(&self, name: &str, message: LinkMessage) -> Result<()> {
        let done = self.handle.link().add(message).execute().await;
        tolerate(done.map_err(|e| Error::new("create link", name, e)), Error::is_exists)
    }

    async fn change(&self, step: &'static str, index: u32, builder: LinkMessageBuilder<LinkUnspec>) -> Result<()> {
        let done = self.handle.link().change(builder.build()).execute().await;
        done.map_err(|e| Error::new(step, index.to_string(), e))
    }
}

fn by_index(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

impl Link {
    pub(crate) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: if flags.contains(LinkFlags::Loopback) { LinkKind::Loopback } else { LinkKind::Physical },
            mac: None,
            permanent_mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            controller: None,
            below: None,
            made: None,
        };
        for attribute in &message.attributes {
            link.take(attribute);
        }
        link.made = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(_) if link.kind == LinkKind::Wireguard => Some(Made::Wireguard),
            LinkAttribute::LinkInfo(infos) => Made::from_info(infos, link.below),
            _ => None,
        });
        link
    }

    fn take(&mut self, attribute: &LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name.clone_from(name),
            LinkAttribute::Address(bytes) => self.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::PermAddress(bytes) => self.permanent_mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => self.mtu = *mtu,
            LinkAttribute::Controller(index) => self.controller = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Link(index) => self.below = Some(*index).filter(|index| *index != 0),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        self.kind = kind_of(kind);
                    }
                }
            }
            _ => {}
        }
    }
}

fn kind_of(kind: &InfoKind) -> LinkKind {
    match kind {
        InfoKind::Veth => LinkKind::Veth,
        InfoKind::Bridge => LinkKind::Bridge,
        InfoKind::Dummy => LinkKind::Dummy,
        InfoKind::Vxlan => LinkKind::Vxlan,
        InfoKind::Vlan => LinkKind::Vlan,
        InfoKind::Bond => LinkKind::Bond,
        InfoKind::Wireguard => LinkKind::Wireguard,
        _ => LinkKind::Other,
    }
}
