//! Kernel events about devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use crate::error::Error;

/// The largest event.
const EVENT_BYTES: usize = 8192;

/// Tells when devices come, change and go.
#[derive(Debug)]
pub struct UeventSocket(OwnedFd);

impl UeventSocket {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen() -> Result<Self, Error> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let step = "listen to device events";
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)
            .map_err(|error| Error::new(step, error))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1)).map_err(|error| Error::new(step, error))?;
        Ok(Self(fd))
    }

    /// The next event as its `KEY=value` words. Never waits.
    #[must_use]
    pub fn next(&self) -> Option<Vec<String>> {
        let mut bytes = [0_u8; EVENT_BYTES];
        let length = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
        let words = bytes[..length].split(|byte| *byte == 0).filter(|word| !word.is_empty());
        Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
