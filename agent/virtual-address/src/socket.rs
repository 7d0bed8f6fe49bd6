//! The sockets of a link: one that hears the group, one that speaks from this machine's own address.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use sys::PacketSocket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::neighbour::{self, ALL_NODES, ARP, BROADCAST};
use crate::packet::{DATAGRAM_BYTES, GROUP_V4, GROUP_V6, HOPS, PROTOCOL, unwrap_ipv4};
use crate::place::Place;

/// Both.
pub(crate) struct Sockets {
    receiver: AsyncFd<Socket>,
    sender: Socket,
    group: SocketAddr,
}

/// A packet to the group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) from: IpAddr,
    pub(crate) hops: u8,
    pub(crate) content: Vec<u8>,
}

impl Sockets {
    /// Opens them. Needs a tokio runtime.
    pub(crate) fn open(place: &Place) -> io::Result<Self> {
        let group = match place.own {
            IpAddr::V4(_) => SocketAddr::from((GROUP_V4, 0)),
            IpAddr::V6(_) => SocketAddrV6::new(GROUP_V6, 0, 0, place.link).into(),
        };
        let receiver = raw(place, PROTOCOL)?;
        // What is not for the group is not for this.
        receiver.bind(&group.into())?;
        match place.own {
            IpAddr::V4(_) => {
                receiver.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(place.link))?;
            }
            IpAddr::V6(_) => {
                receiver.join_multicast_v6(&GROUP_V6, place.link)?;
                setsockopt(&receiver, sockopt::Ipv6RecvHopLimit, &true)?;
            }
        }
        let sender = raw(place, PROTOCOL)?;
        let own = match place.own {
            IpAddr::V4(own) => SocketAddr::from((own, 0)),
            IpAddr::V6(own) => SocketAddrV6::new(own, 0, 0, place.link).into(),
        };
        sender.bind(&own.into())?;
        Ok(Self { receiver: wait_on(receiver)?, sender, group })
    }

    /// The next packet. Cancel safe.
    pub(crate) async fn receive(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.receiver.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(Ok(Some(received))) => return Ok(received),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Tells the group something.
    pub(crate) fn send(&self, content: &[u8]) -> io::Result<()> {
        self.sender.send_to(content, &self.group.into()).map(drop)
    }
}

/// Registers a socket with the runtime. The safe way to do so is deprecated, because a descriptor could be closed
/// behind the runtime's back; this socket owns its descriptor and never lets it go.
#[allow(deprecated)]
fn wait_on(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

fn receive(socket: &Socket) -> io::Result<Option<Received>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(i32);
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let sender = message.address.and_then(|sender| sender.as_sockaddr_in6().map(|sender| sender.ip()));
    let hops = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
        _ => None,
    });
    let length = message.bytes;
    let content = &buffer[..length.min(DATAGRAM_BYTES)];
    // The kernel leaves the header in place with IPv4, and takes it off with IPv6.
    let found = match sender {
        Some(sender) => hops.map(|hops| (IpAddr::V6(sender), hops, content)),
        None => unwrap_ipv4(content).map(|(sender, hops, content)| (IpAddr::V4(sender), hops, content)),
    };
    Ok(found.map(|(from, hops, content)| Received { from, hops, content: content.to_vec() }))
}

/// Tells everybody on the link that an address is this machine's.
pub(crate) fn announce(place: &Place, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => {
            let socket = PacketSocket::open(place.link, ARP).map_err(io::Error::other)?;
            socket.send(&neighbour::arp(place.mac, address), BROADCAST)
        }
        IpAddr::V6(address) => {
            let socket = raw(place, u8::try_from(nix::libc::IPPROTO_ICMPV6).unwrap_or_default())?;
            let everybody = SocketAddrV6::new(ALL_NODES, 0, 0, place.link);
            socket.send_to(&neighbour::advertisement(place.mac, address), &everybody.into()).map(drop)
        }
    }
}

/// A socket of the link for a protocol. What it sends to groups cannot leave the link, and does not come back.
fn raw(place: &Place, protocol: u8) -> io::Result<Socket> {
    let domain = if place.own.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    socket.bind_device(Some(place.name.as_bytes()))?;
    socket.set_nonblocking(true)?;
    if place.own.is_ipv4() {
        socket.set_multicast_ttl_v4(HOPS.into())?;
        socket.set_multicast_loop_v4(false)?;
    } else {
        socket.set_multicast_if_v6(place.link)?;
        socket.set_multicast_hops_v6(HOPS.into())?;
        socket.set_multicast_loop_v6(false)?;
    }
    Ok(socket)
}
