//! Addresses of links.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};

use crate::error::tolerate;
use crate::{Error, Netlink, Result};

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The link's number.
    pub link: u32,
    /// The address with the length of its prefix.
    pub net: IpNet,
    /// Whether it is valid beyond the link.
    pub global: bool,
    /// Whether the kernel still checks that nobody else has it (IPv6).
    pub tentative: bool,
    /// Whether the kernel made it of a router's advertisement.
    pub from_router: bool,
}

impl Netlink {
    /// All addresses of all links.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| Error::new("list", "addresses", e))?;
        Ok(messages.iter().filter_map(from_message).collect())
    }

    /// The addresses of one link.
    pub async fn addresses_of(&self, link: u32) -> Result<Vec<Address>> {
        let mut all = self.addresses().await?;
        all.retain(|address| address.link == link);
        Ok(all)
    }

    /// Gives a link an address that is known on this machine only: it is never chosen as a sender's address for others.
    pub async fn add_host_address(&self, link: u32, net: IpNet) -> Result<()> {
        self.add_scoped(link, net, AddressScope::Host).await
    }

    /// Gives a link an address. IPv6 addresses come without duplicate detection, so that they work at once.
    pub async fn add_address(&self, link: u32, net: IpNet) -> Result<()> {
        self.add_scoped(link, net, AddressScope::Universe).await
    }

    /// Gives a link an address that other machines have at other times. It is never chosen as a sender's address if there
    /// is another one: IPv4 sees to that by its prefix of a whole address, IPv6 by its age.
    pub async fn add_shared_address(&self, link: u32, net: IpNet) -> Result<()> {
        let mut age = CacheInfo::default();
        (age.ifa_preferred, age.ifa_valid) = (0, u32::MAX);
        let age = net.addr().is_ipv6().then_some(AddressAttribute::CacheInfo(age));
        self.add_with(link, net, AddressScope::Universe, age).await
    }

    async fn add_scoped(&self, link: u32, net: IpNet, scope: AddressScope) -> Result<()> {
        self.add_with(link, net, scope, None).await
    }

    async fn add_with(
        &self,
        link: u32,
        net: IpNet,
        scope: AddressScope,
        extra: Option<AddressAttribute>,
    ) -> Result<()> {
        let mut request = self.handle.address().add(link, net.addr(), net.prefix_len()).replace();
        request.message_mut().header.scope = scope;
        request.message_mut().attributes.extend(extra);
        if net.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let done = request.execute().await;
        tolerate(done.map_err(|e| Error::new("add address", net.to_string(), e)), Error::is_exists)
    }

    /// Takes an address off a link.
    pub async fn delete_address(&self, link: u32, net: IpNet) -> Result<()> {
        // The library's own "add" message is exactly what a removal has to name.
        let mut request = self.handle.address().add(link, net.addr(), net.prefix_len());
        let message = request.message_mut().clone();
        let done = self.handle.address().del(message).execute().await;
        tolerate(done.map_err(|e| Error::new("delete address", net.to_string(), e)), Error::is_missing)
    }
}

fn from_message(message: &AddressMessage) -> Option<Address> {
    let mut plain: Option<IpAddr> = None;
    let mut local: Option<IpAddr> = None;
    let mut tentative = false;
    let mut from_router = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => plain = Some(*address),
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Flags(flags) => tentative = flags.contains(AddressFlags::Tentative),
            AddressAttribute::Protocol(AddressProtocol::RouterAnnouncement) => from_router = true,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(plain)?, message.header.prefix_len).ok()?;
    let global = message.header.scope == AddressScope::Universe;
    Some(Address { link: message.header.index, net, global, tentative, from_router })
}
