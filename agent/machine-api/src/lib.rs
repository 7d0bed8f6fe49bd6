//! Request and response types of the machine API.
//!
//! Pure data: what the first process writes down about the machine and what the machine API answers, and how people
//! read it. Times are seconds since boot where nothing else is said, so that they mean the same before and after the
//! clock was set.

mod apply;
mod boot;
mod calls;
mod check;
mod condition;
mod etcd;
mod facts;
mod log;
mod network;
mod pods;
mod request;
mod system;
mod table;
mod view;

use serde::{Deserialize, Serialize};

pub use apply::{Applied, KeyChange};
pub use boot::{Boot, Boots, Span};
pub use calls::{CALLS, Call, Checked, Role, Verb};
pub use check::{CheckResult, ResetPlan};
pub use condition::Condition;
pub use etcd::{EtcdDefragmentation, EtcdDefragmented, EtcdMember, EtcdMemberState, EtcdSnapshot, EtcdStatus};
pub use facts::{CertificateStatus, ImageStatus, TimeStatus};
pub use log::{LogLine, parse_time, time_of};
pub use network::{
    Connection, FirewallRule, Interface, InterfaceStatus, NetworkStatus, Peer, RouteStatus, Traffic, Tunnel,
};
pub use pods::{ContainerStatus, PodStatus};
pub use request::{CaptureRequest, DebugRequest, FileSource, UpdateFound, UpdateProgress};
pub use system::{ControlGroup, Disk, MountStatus, Process};
pub use table::{Row, size, span, table};
pub use view::{View, services};

/// What a machine is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It runs its boot phases.
    #[default]
    Booting,
    /// It has no usable manifest and waits for one.
    Maintenance,
    /// It has a manifest and runs its services.
    Running,
    /// It is on its way down.
    Stopping,
}

/// How far an update has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateState {
    /// The new system has not proved itself yet.
    Trying,
    /// It has.
    Good,
    /// It has not; the old one is back.
    TakenBack,
    /// It was never ready to be started.
    CutShort,
}

/// The whole state of a machine, as `status.json` and `GET /status` show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    /// What it is busy with.
    pub stage: Stage,
    /// Whether it has a manifest and every service is ready.
    pub ready: bool,
    /// Its host name.
    pub hostname: String,
    /// What tells this start from all others.
    pub boot_id: String,
    /// When this was written, in seconds since boot.
    pub uptime_seconds: f64,
    /// Where the manifest in force came from.
    pub manifest_source: Option<String>,
    /// Another manifest that counts from the next start, as text for people.
    pub manifest_pending: Option<String>,
    /// When the manifest before is back unless this one is kept, in seconds since boot.
    pub manifest_tried_until: Option<f64>,
    /// What is wrong with the manifest that was offered last, as text for people; absent if nothing is.
    pub diagnostics: Option<String>,
    /// What keeps the machine from being ready, one sentence each.
    pub unmet: Vec<String>,
    /// The same with names, since when it is so and what helps.
    pub conditions: Vec<Condition>,
    /// The boot phases that ran.
    pub phases: Vec<Phase>,
    /// The slot that runs, on a machine that was started from a disk of ours.
    pub slot: Option<String>,
    /// The version that runs there.
    pub version: Option<String>,
    /// Whether the firmware starts only what is signed (Secure Boot); absent where the firmware says nothing about it.
    pub secure_boot: Option<bool>,
    /// STATE and DATA, on a machine that was started from a disk of ours.
    pub volumes: Vec<VolumeStatus>,
    /// How the start before this one ended, if in a crash.
    pub crash: Option<String>,
    /// What became of the last update, as text for people.
    pub update: Option<String>,
    /// The same in a word.
    pub update_state: Option<UpdateState>,
    /// The services.
    pub services: Vec<Service>,
}

/// One boot phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it began.
    pub started_seconds: f64,
    /// How long it took.
    pub took_seconds: f64,
    /// What went wrong in it; the machine went on.
    pub errors: Vec<String>,
}

/// A partition that the machine writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    /// Its label.
    pub name: String,
    /// Its partition.
    pub device: String,
    /// Whether what is on it is encrypted.
    pub is_encrypted: bool,
    /// The kinds of keys that open it: tpm, passphrase, recovery, or slots that somebody made.
    pub keys: Vec<String>,
    /// What opened it at this start.
    pub opened_by: Option<String>,
}

impl VolumeStatus {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { name, device, .. } = self;
        if !self.is_encrypted {
            return format!("{name} ({device}): not encrypted");
        }
        let opened = self.opened_by.as_ref().map(|by| format!("; opened by {by}")).unwrap_or_default();
        format!("{name} ({device}): encrypted, keys: {}{opened}", self.keys.join(", "))
    }
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// waiting, starting, ready, done, backing-off, stopping, stopped or failed.
    pub state: String,
    /// Since when.
    pub since_seconds: f64,
    /// Its process.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// What it waits for or why it is not ready; empty when all is well.
    pub why: String,
    /// What it says it is doing.
    pub doing: Option<String>,
    /// The last lines it printed, oldest first.
    pub last_lines: Vec<String>,
    /// Services that it waits for before it starts.
    pub after: Vec<String>,
    /// When it was first started.
    pub started_seconds: Option<f64>,
    /// When it was first ready, or done.
    pub ready_seconds: Option<f64>,
    /// How it ended the last time.
    pub last_exit: Option<String>,
    /// When.
    pub last_exit_seconds: Option<f64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_another_version_still_reads() {
        let status: MachineStatus = serde_json::from_str(r#"{"stage":"maintenance","added":1}"#).unwrap();
        assert_eq!(status.stage, Stage::Maintenance);
        assert!(serde_json::to_string(&status).unwrap().contains(r#""uptimeSeconds":0.0"#));
    }
}
