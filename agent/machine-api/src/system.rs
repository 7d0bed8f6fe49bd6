//! What runs on a machine and what it is made of.

use crate::table::{Row, size, span};
use crate::{ControlGroup, Disk, MountStatus, Process};

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
