//! Calls of generic netlink: families by name, and commands to them.
//!
//! The kernel carries a call out while it is sent, so that every answer is there afterwards and nothing waits.

use std::io;

use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::attributes::{Writer, double, read, word};
use crate::{Error, Result};

/// Length, type, flags, number, sender.
const HEADER: usize = 16;
/// Command, version, and nothing.
const GENERIC_HEADER: usize = 4;
// The numbers are those of linux/netlink.h and linux/genetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const VERSION: u8 = 1;
/// A dump of more answers is none of ours.
const ANSWERS: usize = 65_536;

/// How a command is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// By success or failure.
    Do,
    /// By as many messages as it takes.
    Dump,
}

/// A family of commands.
pub(crate) struct Family {
    socket: Socket,
    id: u16,
}

impl Family {
    /// Connects to a family, in the network namespace of the calling thread.
    pub(crate) fn connect(name: &str) -> Result<Self> {
        let failed = |source| Error::Io { step: "open a generic netlink socket", source };
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        let mut family = Self { socket, id: GENL_ID_CTRL };
        let wanted = Writer::default().put(CTRL_ATTR_FAMILY_NAME, format!("{name}\0").as_bytes());
        let what = ("look up the kernel's commands for", name);
        let answers = family.call(what, CTRL_CMD_GETFAMILY, Call::Do, wanted)?;
        let id = answers.iter().flat_map(|answer| read(answer)).find(|(number, _)| *number == CTRL_ATTR_FAMILY_ID);
        family.id = id.and_then(|(_, value)| word(value, 0)).ok_or_else(|| Error::Refused {
            step: what.0,
            subject: name.to_owned(),
            source: io::Error::from(io::ErrorKind::InvalidData),
        })?;
        Ok(family)
    }

    /// Calls a command, for this step on this subject. Answers the attributes of every message that came back.
    pub(crate) fn call(
        &self,
        (step, subject): (&'static str, &str),
        command: u8,
        call: Call,
        attributes: Writer,
    ) -> Result<Vec<Vec<u8>>> {
        let failed = |source| Error::Refused { step, subject: subject.to_owned(), source };
        let message = message(self.id, command, call, attributes).ok_or_else(|| failed(too_long()))?;
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        let mut answers = Vec::new();
        while answers.len() < ANSWERS {
            let (bytes, sender) = self.socket.recv_from_full().map_err(failed)?;
            // Others than the kernel may send, too.
            if sender.port_number() == 0 && collect(&bytes, &mut answers).map_err(failed)? {
                return Ok(answers);
            }
        }
        Err(failed(too_long()))
    }
}

fn too_long() -> io::Error {
    io::Error::from(io::ErrorKind::FileTooLarge)
}

/// A whole message.
pub(crate) fn message(kind: u16, command: u8, call: Call, attributes: Writer) -> Option<Vec<u8>> {
    let attributes = attributes.finish()?;
    let length = u32::try_from(HEADER + GENERIC_HEADER + attributes.len()).ok()?;
    let flags = NLM_F_REQUEST | if call == Call::Dump { NLM_F_DUMP } else { NLM_F_ACK };
    let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &1_u32.to_ne_bytes(), &[0; 4]];
    Some([head.concat(), vec![command, VERSION, 0, 0], attributes].concat())
}

/// Takes the answers out of what was received. Answers whether that was the last of them.
fn collect(bytes: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    let mut rest = bytes;
    while let Some(length) = double(rest, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(payload) = rest.get(HEADER..length) else { break };
        match word(rest, 4) {
            Some(kind @ (NLMSG_ERROR | NLMSG_DONE)) => {
                return match double(payload, 0).map(u32::cast_signed) {
                    Some(code) if code < 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    None if kind == NLMSG_ERROR => Err(io::Error::from(io::ErrorKind::InvalidData)),
                    _ => Ok(true),
                };
            }
            _ => answers.push(payload.get(GENERIC_HEADER..).unwrap_or_default().to_vec()),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_is_asked_for_its_families() {
        // The family of the families themselves is always there.
        let family = Family::connect("nlctrl").unwrap();
        assert_eq!(family.id, GENL_ID_CTRL);
        let error = Family::connect("no-such-thing").err().unwrap();
        assert!(error.is_missing(), "{error}");
    }

    proptest! {
        #[test]
        fn any_answer_is_read_to_an_end(bytes in any::<Vec<u8>>(), length in 0_u32..64, kind in 0_u16..5) {
            let bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &bytes].concat();
            drop(collect(&bytes, &mut Vec::new()));
            prop_assert!(read(&bytes).count() <= bytes.len());
        }
    }
}
