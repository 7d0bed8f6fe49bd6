//! Link-level datagrams, for protocols that speak before there is an address.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::Error;

/// A socket for one protocol on one link. It does not block.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    link: i32,
    protocol: u16,
}

impl PacketSocket {
    /// Opens a socket for `protocol` (an ether type, e.g. 0x0800) on the link with this index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(link: u32, protocol: u16) -> Result<Self, Error> {
        let step = || format!("open a packet socket on link {link}");
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket(2) takes no pointers; its result is checked before use. nix cannot name the protocol, std
        // has no packet sockets.
        #[allow(unsafe_code)]
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol.to_be())) };
        if raw < 0 {
            return Err(Error::new(step(), io::Error::last_os_error()));
        }
        // SAFETY: `raw` was just opened and is owned by nobody else.
        #[allow(unsafe_code)]
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let link = i32::try_from(link).map_err(|_| Error::new(step(), io::Error::from(io::ErrorKind::InvalidInput)))?;
        let socket = Self { fd, link, protocol };
        let address = socket.address([0; 6]);
        // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and the length is its size.
        #[allow(unsafe_code)]
        let bound = unsafe { libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), ADDRESS_BYTES) };
        if bound < 0 {
            return Err(Error::new(step(), io::Error::last_os_error()));
        }
        Ok(socket)
    }

    /// Sends a datagram (without link header) to a link address.
    ///
    /// # Errors
    /// When the kernel refuses; `WouldBlock` when its queue is full.
    pub fn send(&self, datagram: &[u8], to: [u8; 6]) -> io::Result<()> {
        let address = self.address(to);
        // SAFETY: the buffer and `address` outlive the call and their lengths are given.
        #[allow(unsafe_code)]
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                0,
                (&raw const address).cast(),
                ADDRESS_BYTES,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives a datagram (without link header).
    ///
    /// # Errors
    /// When the kernel refuses; `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::sys::socket::recv(self.fd.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?)
    }

    fn address(&self, to: [u8; 6]) -> libc::sockaddr_ll {
        let mut address = [0_u8; 8];
        address[..6].copy_from_slice(&to);
        libc::sockaddr_ll {
            sll_family: FAMILY,
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.link,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: address,
        }
    }
}

#[allow(clippy::cast_possible_truncation)]
const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
#[allow(clippy::cast_possible_truncation)]
const FAMILY: u16 = libc::AF_PACKET as u16;

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
