//! Readiness messages between services and the first process: datagrams of `KEY=value` lines, as etcd and containerd
//! send them too.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};

use crate::error::Error;

/// The largest message that is read whole; what services send is far smaller.
const MESSAGE_BYTES: usize = 4096;

/// One message of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// The process that sent it.
    pub pid: u32,
    /// It said `READY=1`.
    pub ready: bool,
    /// It said `STOPPING=1`.
    pub stopping: bool,
    /// What it says it is doing.
    pub status: Option<String>,
}

impl Notification {
    fn parse(pid: u32, text: &str) -> Self {
        let mut notification = Self { pid, ..Self::default() };
        for line in text.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => notification.ready = true,
                Some(("STOPPING", "1")) => notification.stopping = true,
                Some(("STATUS", status)) => notification.status = Some(status.to_owned()),
                Some(_) | None => {}
            }
        }
        notification
    }
}

/// Where services send their messages to.
#[derive(Debug)]
pub struct NotifySocket(UnixDatagram);

impl NotifySocket {
    /// Opens the socket, in place of an old one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let step = || format!("listen on {}", path.display());
        drop(std::fs::remove_file(path));
        let socket = UnixDatagram::bind(path).map_err(|error| Error::new(step(), error))?;
        socket.set_nonblocking(true).map_err(|error| Error::new(step(), error))?;
        setsockopt(&socket, sockopt::PassCred, &true).map_err(|error| Error::new(step(), error))?;
        Ok(Self(socket))
    }

    /// The next message. Never waits. Messages without a sender are dropped.
    #[must_use]
    pub fn next(&self) -> Option<Notification> {
        loop {
            let mut bytes = [0_u8; MESSAGE_BYTES];
            let mut control = nix::cmsg_space!(UnixCredentials);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
            let sender = message.cmsgs().ok().and_then(|mut list| {
                list.find_map(|control| match control {
                    ControlMessageOwned::ScmCredentials(sender) => u32::try_from(sender.pid()).ok(),
                    _ => None,
                })
            });
            let length = message.bytes;
            if let Some(pid) = sender.filter(|pid| *pid != 0) {
                return Some(Notification::parse(pid, &String::from_utf8_lossy(&bytes[..length])));
            }
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a message (`READY=1`, `STATUS=...`) to the socket that the supervisor named.
///
/// # Errors
/// When nobody listens there.
pub fn notify(socket: &Path, message: &str) -> Result<(), Error> {
    UnixDatagram::unbound()
        .and_then(|sender| sender.send_to(message.as_bytes(), socket))
        .map(|_sent| ())
        .map_err(|error| Error::new(format!("notify {}", socket.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_sender() {
        let path = std::env::temp_dir().join(format!("sys-notify-{}", std::process::id()));
        let socket = NotifySocket::bind(&path).unwrap();
        assert_eq!(socket.next(), None);
        notify(&path, "READY=1\nSTATUS=serving on :6443\nMAINPID=7").unwrap();
        let expected = Notification {
            pid: std::process::id(),
            ready: true,
            stopping: false,
            status: Some("serving on :6443".into()),
        };
        assert_eq!(socket.next(), Some(expected));
        std::fs::remove_file(path).unwrap();
    }
}
