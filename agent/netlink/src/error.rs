//! What can fail, by step.

use std::io;

/// A failed step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call outside netlink failed.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("cannot {step} {subject}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// On what.
        subject: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The connection to the kernel broke or answered something unexpected.
    #[error("cannot {step} {subject}")]
    Protocol {
        /// What was tried.
        step: &'static str,
        /// On what.
        subject: String,
        /// The library's account.
        source: rtnetlink::Error,
    },
    /// There is no such link.
    #[error("there is no network link {0}")]
    NoLink(String),
    /// A thread that had entered another network namespace died.
    #[error("a thread inside another network namespace died")]
    ThreadDied,
}

impl Error {
    pub(crate) fn new(step: &'static str, subject: impl Into<String>, source: rtnetlink::Error) -> Self {
        let subject = subject.into();
        match errno(&source) {
            Some(code) => Self::Refused { step, subject, source: io::Error::from_raw_os_error(code) },
            None => Self::Protocol { step, subject, source },
        }
    }

    /// Whether the kernel said that the thing exists already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.code() == Some(nix::errno::Errno::EEXIST as i32)
    }

    /// Whether the kernel said that there is no such thing.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        use nix::errno::Errno;
        let gone = [Errno::ENODEV, Errno::ESRCH, Errno::ENOENT, Errno::EADDRNOTAVAIL, Errno::ENXIO];
        matches!(self, Self::NoLink(_))
            || self.code().is_some_and(|code| gone.iter().any(|errno| *errno as i32 == code))
    }

    fn code(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Protocol { .. } | Self::NoLink(_) | Self::ThreadDied => None,
        }
    }
}

/// The errno inside a netlink answer, as a positive number.
fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Success, and the answer that the wish was fulfilled already, are both success.
pub(crate) fn tolerate(result: Result<(), Error>, fine: impl Fn(&Error) -> bool) -> Result<(), Error> {
    match result {
        Err(error) if fine(&error) => Ok(()),
        other => other,
    }
}
