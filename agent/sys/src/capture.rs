//! Whole frames as a link carries them, for whoever looks for what is wrong.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use crate::error::Error;

/// An instruction of the kernel's classic packet filters.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterInstruction {
    /// What it does.
    pub code: u16,
    /// How many instructions are left out if what it asks is so...
    pub if_true: u8,
    /// ... and if not.
    pub if_false: u8,
    /// Its number.
    pub value: u32,
}

/// Lets only what a filter accepts reach a socket.
///
/// # Errors
/// When the kernel does not take the filter.
pub fn attach_filter(socket: BorrowedFd<'_>, filter: &[FilterInstruction]) -> Result<(), Error> {
    let step = "attach a packet filter";
    let len =
        u16::try_from(filter.len()).map_err(|_| Error::new(step, io::Error::from(io::ErrorKind::InvalidInput)))?;
    // The kernel only reads it.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: `program` is whole and points to `len` instructions of the kernel's layout, both of which outlive the call.
    // nix has no classic filters.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length_of::<libc::sock_fprog>(),
        )
    };
    if done < 0 { Err(Error::new(step, io::Error::last_os_error())) } else { Ok(()) }
}

#[allow(clippy::cast_possible_truncation, reason = "no structure of the kernel's is so large")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// A frame that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How much of it is in the buffer.
    pub captured: usize,
    /// How long it was.
    pub length: usize,
    /// When the kernel had it.
    pub time: SystemTime,
}

/// A socket that receives copies of all frames of a link, both ways. It does not block.
#[derive(Debug)]
pub struct CaptureSocket(OwnedFd);

impl CaptureSocket {
    /// Opens a socket on the link with this index, which receives only what the filter accepts.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(link: u32, filter: &[FilterInstruction]) -> Result<Self, Error> {
        let step = || format!("capture from link {link}");
        let failed = |error: io::Error| Error::new(step(), error);
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket(2) takes no pointers; its result is checked before use. Without a protocol it receives nothing
        // before it is bound, that is, nothing past the filter. std has no packet sockets.
        #[allow(unsafe_code)]
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: `raw` was just opened and is owned by nobody else.
        #[allow(unsafe_code)]
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        attach_filter(fd.as_fd(), filter)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true).map_err(|error| failed(error.into()))?;
        let everything = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: everything,
            sll_ifindex: i32::try_from(link).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and the length is its size.
        #[allow(unsafe_code)]
        let bound =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>()) };
        if bound < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        Ok(Self(fd))
    }

    /// Receives a frame; what the buffer has no room for is cut off.
    ///
    /// # Errors
    /// When the kernel refuses; `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Frame> {
        let room = buffer.len();
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let mut time = SystemTime::now();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmTimestampns(taken) = control {
                time = UNIX_EPOCH + Duration::from(taken);
            }
        }
        Ok(Frame { captured: message.bytes.min(room), length: message.bytes, time })
    }

    /// How many frames the filter accepted, and how many of them nobody took in time, since this was asked last.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counts(&self) -> io::Result<(u32, u32)> {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = length_of::<libc::tpacket_stats>();
        // SAFETY: `counts` is a whole tpacket_stats of `length` bytes that the kernel may write to, and outlives the call.
        #[allow(unsafe_code)]
        let done = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok((counts.tp_packets, counts.tp_drops)) }
    }
}

impl AsFd for CaptureSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for CaptureSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
