//! etcd on a master, as its members tell.

use serde::{Deserialize, Serialize};

/// The whole cluster, as one master sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdStatus {
    /// The master that was asked.
    pub master: String,
    /// Whether a majority of the voting members takes part, so that reads and writes work.
    pub has_quorum: bool,
    /// Size of a database at which writes stop.
    pub quota_bytes: u64,
    /// What is wrong: a name, a colon, and what to do about it.
    pub conditions: Vec<String>,
    /// The members.
    pub members: Vec<EtcdMember>,
    /// Snapshots that this master has taken by schedule, oldest first.
    pub snapshots: Vec<EtcdSnapshot>,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdMember {
    /// etcd's number of it, in hexadecimal digits.
    pub id: String,
    /// Its master's name; empty until it has started for the first time.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started for the first time.
    pub client_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
    /// How it is; absent if it does not answer.
    pub state: Option<EtcdMemberState>,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// How a member is that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdMemberState {
    /// etcd's version.
    pub version: String,
    /// Whether it leads.
    pub is_leader: bool,
    /// Size of its database.
    pub database_bytes: u64,
    /// How much of that is in use; a defragmentation gives the rest back.
    pub used_bytes: u64,
    /// Elections so far.
    pub term: u64,
    /// How far its log goes.
    pub raft_index: u64,
    /// How much of the log is in its database.
    pub applied_index: u64,
    /// `NOSPACE`, `CORRUPT`.
    pub alarms: Vec<String>,
}

/// A snapshot that is a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdSnapshot {
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was taken, in seconds since 1970.
    pub taken: u64,
}

/// What a defragmentation gave back, member by member in the order in which it was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdDefragmentation {
    /// The members.
    pub members: Vec<EtcdDefragmented>,
    /// Alarms that were cleared because there is space again.
    pub cleared: Vec<String>,
}

/// One member's database, before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdDefragmented {
    /// Its master's name.
    pub name: String,
    /// Size before.
    pub before_bytes: u64,
    /// Size after.
    pub after_bytes: u64,
}

impl EtcdMember {
    /// etcd's number of it.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        u64::from_str_radix(&self.id, 16).ok()
    }

    /// Its name, or where it will be while it has none.
    #[must_use]
    pub fn label(&self) -> &str {
        if self.name.is_empty() { self.peer_urls.first().map_or(&self.id, |url| url.as_str()) } else { &self.name }
    }

    /// Whether it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_leader)
    }

    /// Whether it answers and nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state.is_some() && self.trouble.is_none()
    }
}
