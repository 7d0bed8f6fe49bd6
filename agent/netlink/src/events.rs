//! Changes that the kernel reports by itself.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, sys::SocketAddr};

use crate::link::Link;
use crate::{Error, Netlink, Pump, Result};

/// Something changed. For what there is now, ask again: reports can be lost when too many come at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link appeared or changed, a signal on its wire included.
    Link(Link),
    /// A link went away.
    LinkGone(Link),
    /// An address appeared, changed or went away, on the link with this number.
    Address(u32),
    /// A route appeared, changed or went away.
    Route,
}

/// The kernel's reports, in order.
pub struct Changes {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    _pump: Pump,
}

impl Netlink {
    /// Starts listening in the network namespace of the calling thread. Look at the present state afterwards, so that
    /// nothing falls between. Needs a tokio runtime.
    pub fn changes() -> Result<Changes> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| Error::Io { step: "listen to network changes", source })?;
        Ok(Changes { messages, _pump: Pump(tokio::spawn(connection)) })
    }
}

impl Changes {
    /// The next change; none when the kernel closed the connection. Cancel safe.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let (message, _from) = self.messages.next().await?;
            let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
            match message {
                RouteNetlinkMessage::NewLink(link) => return Some(Change::Link(Link::from_message(&link))),
                RouteNetlinkMessage::DelLink(link) => return Some(Change::LinkGone(Link::from_message(&link))),
                RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                    return Some(Change::Address(address.header.index));
                }
                RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => return Some(Change::Route),
                _ => {}
            }
        }
    }
}
