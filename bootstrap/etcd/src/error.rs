//! What goes wrong between a master and etcd.

use std::io;
use std::path::PathBuf;

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of this machine.
    #[error("{step} {}", path.display())]
    File {
        /// What was done with it.
        step: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A member's address or the certificates cannot be used.
    #[error("use the address {url} or the certificates for it: {reason}")]
    Settings {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A member did not answer in time.
    #[error("{url} did not answer within {seconds} s when asked to {what}")]
    Timeout {
        /// The member.
        url: String,
        /// What it was asked.
        what: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// A member refused, or could not be reached.
    #[error("{url} was asked to {what}: {reason}")]
    Refused {
        /// The member.
        url: String,
        /// What it was asked.
        what: &'static str,
        /// What it, or the way to it, said.
        reason: String,
    },
    /// There is nobody to ask.
    #[error("no member of etcd answers: {0}")]
    Nobody(String),
    /// The others are a cluster without a quorum.
    #[error(
        "the other masters are members of a cluster that has no quorum now, so this machine cannot join it and forms \
         no other: start the missing masters, or `keelson etcd recover` on one that has data"
    )]
    Undecided,
    /// A snapshot that is none.
    #[error("this is no whole snapshot of etcd: {0}")]
    Snapshot(&'static str),
    /// A database that is none.
    #[error("this is no database of etcd's: {0}")]
    Database(&'static str),
    /// A machine that is no master any more has what nobody else has.
    #[error("{name} was the only member of etcd, and nobody else has what its disk holds: the whole cluster")]
    OnlyMember {
        /// This machine.
        name: String,
    },
    /// A machine that is no master any more cannot leave.
    #[error("{name} was a member of etcd, and none of the others ({others}) is part of one that has a quorum now")]
    NotLeft {
        /// This machine.
        name: String,
        /// The others.
        others: String,
    },
    /// An operator took the member out.
    #[error(
        "an operator has taken {name} out of etcd, and it stays out while it has its old data: reset the machine to \
         let it join as a new one"
    )]
    Dismissed {
        /// This machine.
        name: String,
    },
}

impl Error {
    pub(crate) fn file(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { step, path, source }
    }
}
