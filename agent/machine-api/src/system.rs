//! What runs on a machine and what it is made of.

use serde::{Deserialize, Serialize};

use crate::table::{Row, size, span};

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// The kernel's letter for what it does: R runs, S sleeps, D waits for a device, Z has ended.
    pub state: String,
    /// Its threads.
    pub threads: u32,
    /// Processor time so far, in seconds.
    pub cpu_seconds: f64,
    /// Memory that is its own or shared, as far as it is there.
    pub resident_bytes: u64,
    /// When it began, in seconds since boot.
    pub started_seconds: f64,
    /// The control group.
    pub group: String,
    /// Its program and arguments, without secrets; its name in brackets if it is the kernel's.
    pub command: String,
}

impl Row for Process {
    const HEAD: &'static [&'static str] =
        &["PID", "PARENT", "STATE", "THREADS", "CPU", "MEMORY", "STARTED", "GROUP", "COMMAND"];

    fn cells(&self) -> Vec<String> {
        /// Longer ones are in the JSON form.
        const LONGEST: usize = 120;
        vec![
            self.pid.to_string(),
            self.parent.to_string(),
            self.state.clone(),
            self.threads.to_string(),
            span(self.cpu_seconds),
            size(self.resident_bytes),
            span(self.started_seconds),
            self.group.clone(),
            self.command.chars().take(LONGEST).collect(),
        ]
    }
}

/// A control group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlGroup {
    /// Its path.
    pub path: String,
    /// Memory charged to it.
    pub memory_bytes: u64,
    /// The part of it that cannot be dropped at once.
    pub working_set_bytes: u64,
    /// The most that it may have; none if nothing was set.
    pub memory_limit_bytes: Option<u64>,
    /// Memory that is kept for it.
    pub memory_kept_bytes: Option<u64>,
    /// How often a process of it was ended for want of memory.
    pub memory_kills: u64,
    /// Processor time so far, in seconds.
    pub cpu_seconds: f64,
    /// Processes and threads.
    pub tasks: u64,
    /// Percent of the last 10 s in which some of it waited for the processor; none where the kernel does not tell.
    pub cpu_pressure: Option<f64>,
    /// The same for memory.
    pub memory_pressure: Option<f64>,
    /// The same for disks.
    pub io_pressure: Option<f64>,
}

impl Row for ControlGroup {
    const HEAD: &'static [&'static str] =
        &["GROUP", "MEMORY", "IN USE", "LIMIT", "KEPT", "KILLS", "CPU", "TASKS", "CPU%", "MEM%", "IO%"];

    fn cells(&self) -> Vec<String> {
        let percent = |pressure: Option<f64>| pressure.map(|it| format!("{it:.1}")).unwrap_or_default();
        vec![
            format!("/{}", self.path),
            size(self.memory_bytes),
            size(self.working_set_bytes),
            self.memory_limit_bytes.map(size).unwrap_or_default(),
            self.memory_kept_bytes.map(size).unwrap_or_default(),
            self.memory_kills.to_string(),
            span(self.cpu_seconds),
            self.tasks.to_string(),
            percent(self.cpu_pressure),
            percent(self.memory_pressure),
            percent(self.io_pressure),
        ]
    }
}

/// A disk or a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disk {
    /// Its name, as `vda1`.
    pub name: String,
    /// `disk` or `part`.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// A disk's model.
    pub model: String,
    /// A disk's serial number.
    pub serial: String,
    /// A partition's name in the table.
    pub label: String,
    /// The file system on it.
    pub filesystem: String,
    /// Whether nothing can be written to it.
    pub is_read_only: bool,
    /// Whether the machine was started from it.
    pub is_own: bool,
}

impl Row for Disk {
    const HEAD: &'static [&'static str] =
        &["NAME", "KIND", "SIZE", "MODEL", "SERIAL", "LABEL", "FILE SYSTEM", "READ-ONLY", "OWN"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.kind.clone(),
            size(self.bytes),
            self.model.clone(),
            self.serial.clone(),
            self.label.clone(),
            self.filesystem.clone(),
            yes(self.is_read_only),
            yes(self.is_own),
        ]
    }
}

pub(crate) fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "" }.to_owned()
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MountStatus {
    /// Where it is.
    pub target: String,
    /// What is mounted.
    pub source: String,
    /// Its file system.
    pub filesystem: String,
    /// Its options.
    pub options: String,
    /// Its size; none where it has none, or is not asked because it may hang.
    pub bytes: Option<u64>,
    /// Space that is left.
    pub free_bytes: Option<u64>,
    /// Files that can still be made.
    pub free_inodes: Option<u64>,
}

impl Row for MountStatus {
    const HEAD: &'static [&'static str] = &["TARGET", "FILE SYSTEM", "SIZE", "FREE", "SOURCE", "OPTIONS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.target.clone(),
            self.filesystem.clone(),
            self.bytes.map(size).unwrap_or_default(),
            self.free_bytes.map(size).unwrap_or_default(),
            self.source.clone(),
            self.options.clone(),
        ]
    }
}
