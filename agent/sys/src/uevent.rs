//! Kernel events about devices.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};

use crate::error::Error;

/// The largest event.
const EVENT_BYTES: usize = 8192;
/// Room for what a machine with hundreds of disks and ports tells while nobody listens; what does not fit is lost.
const QUEUE_BYTES: usize = 4 << 20;

/// What came since somebody listened last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNews {
    /// Whether disks or partitions came, went or changed.
    pub has_disks: bool,
    /// By what devices that came ask for their drivers.
    pub aliases: Vec<String>,
}

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
        // Refused where the machine is a container; then what everybody gets must do.
        setsockopt(&fd, RcvBufForce, &QUEUE_BYTES).ok();
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1)).map_err(|error| Error::new(step, error))?;
        Ok(Self(fd))
    }

    /// All that was told since the last call. Never waits.
    #[must_use]
    pub fn news(&self) -> DeviceNews {
        read(std::iter::from_fn(|| self.next()))
    }

    /// The next event as its `KEY=value` words.
    fn next(&self) -> Option<Vec<String>> {
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

fn read(events: impl Iterator<Item = Vec<String>>) -> DeviceNews {
    let mut news = DeviceNews::default();
    for event in events {
        let has = |word: &str| event.iter().any(|it| it == word);
        news.has_disks |= has("SUBSYSTEM=block");
        if has("ACTION=add") {
            news.aliases.extend(event.iter().filter_map(|word| word.strip_prefix("MODALIAS=")).map(str::to_owned));
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_asks_for_drivers() {
        let event = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let stick = "add@/devices/usb1/1-1/1-1:1.0 ACTION=add SUBSYSTEM=usb MODALIAS=usb:v46F4p0001ic08isc06ip50in00";
        let gone = "remove@/devices/usb1/1-2 ACTION=remove SUBSYSTEM=usb MODALIAS=usb:v0BDAp8153";
        let news = read([stick, gone].map(event).into_iter());
        let aliases = vec!["usb:v46F4p0001ic08isc06ip50in00".to_owned()];
        assert_eq!(news, DeviceNews { has_disks: false, aliases });
        let disk = "add@/devices/block/sda ACTION=add SUBSYSTEM=block DEVNAME=sda";
        assert_eq!(read([disk].map(event).into_iter()), DeviceNews { has_disks: true, aliases: Vec::new() });
    }
}
