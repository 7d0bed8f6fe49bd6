//! Fixed neighbours: which Ethernet address answers for an address, without asking.

use std::net::IpAddr;

use crate::error::tolerate;
use crate::{Error, Netlink, Result};

impl Netlink {
    /// Fixes the Ethernet address that `address` has on a link.
    pub async fn replace_neighbour(&self, link: u32, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let done = self.handle.neighbours().add(link, address).link_layer_address(&mac).replace().execute().await;
        tolerate(done.map_err(|e| Error::new("fix neighbour", address.to_string(), e)), Error::is_exists)
    }

    /// Forgets the Ethernet address that `address` has on a link.
    pub async fn delete_neighbour(&self, link: u32, address: IpAddr) -> Result<()> {
        let message = self.handle.neighbours().add(link, address).message_mut().clone();
        let done = self.handle.neighbours().del(message).execute().await;
        tolerate(done.map_err(|e| Error::new("delete neighbour", address.to_string(), e)), Error::is_missing)
    }

    /// Tells a bridge or tunnel link behind which remote machine an Ethernet address is.
    pub async fn replace_forwarding(&self, link: u32, mac: [u8; 6], remote: IpAddr) -> Result<()> {
        use rtnetlink::packet_route::neighbour::NeighbourFlags;
        let request = self.handle.neighbours().add_bridge(link, &mac).destination(remote).flags(NeighbourFlags::Own);
        let done = request.replace().execute().await;
        tolerate(done.map_err(|e| Error::new("add forwarding entry for", remote.to_string(), e)), Error::is_exists)
    }
}
