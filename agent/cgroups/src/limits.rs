//! What a group may use, and the control files that say so.

use crate::hierarchy::Controller;

/// Processor time per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds of processor time...
    pub quota_micros: u64,
    /// ...in each period of this many microseconds.
    pub period_micros: u64,
}

/// Limits to set; what is `None` is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory that is not taken away from the group (v2; a soft limit in v1).
    pub memory_min: Option<u64>,
    /// Above this the group is slowed down and its memory reclaimed (v2 only).
    pub memory_high: Option<u64>,
    /// Above this the kernel ends one of its processes.
    pub memory_max: Option<u64>,
    /// Share of the processors under contention, 1 to 10000, 100 is normal.
    pub cpu_weight: Option<u64>,
    /// Absolute limit of processor time.
    pub cpu_quota: Option<CpuQuota>,
    /// Number of processes and threads.
    pub pids_max: Option<u64>,
}

/// One control file and what to write into it.
pub(crate) struct Setting {
    pub(crate) controller: Controller,
    pub(crate) file: &'static str,
    pub(crate) value: String,
}

impl Limits {
    pub(crate) fn unified(&self) -> Vec<Setting> {
        let quota = self.cpu_quota.map(|cpu| format!("{} {}", cpu.quota_micros, cpu.period_micros));
        let rows = [
            (Controller::Memory, "memory.min", self.memory_min.map(|value| value.to_string())),
            (Controller::Memory, "memory.high", self.memory_high.map(|value| value.to_string())),
            (Controller::Memory, "memory.max", self.memory_max.map(|value| value.to_string())),
            (Controller::Cpu, "cpu.weight", self.cpu_weight.map(|value| value.clamp(1, 10_000).to_string())),
            (Controller::Cpu, "cpu.max", quota),
            (Controller::Pids, "pids.max", self.pids_max.map(|value| value.to_string())),
        ];
        settings(rows)
    }

    pub(crate) fn legacy(&self) -> Vec<Setting> {
        let rows = [
            (Controller::Memory, "memory.soft_limit_in_bytes", self.memory_min.map(|value| value.to_string())),
            (Controller::Memory, "memory.limit_in_bytes", self.memory_max.map(|value| value.to_string())),
            (Controller::Cpu, "cpu.shares", self.cpu_weight.map(|weight| shares(weight).to_string())),
            (Controller::Cpu, "cpu.cfs_period_us", self.cpu_quota.map(|cpu| cpu.period_micros.to_string())),
            (Controller::Cpu, "cpu.cfs_quota_us", self.cpu_quota.map(|cpu| cpu.quota_micros.to_string())),
            (Controller::Pids, "pids.max", self.pids_max.map(|value| value.to_string())),
        ];
        settings(rows)
    }
}

fn settings<const N: usize>(rows: [(Controller, &'static str, Option<String>); N]) -> Vec<Setting> {
    let present = rows.into_iter().filter_map(|(controller, file, value)| Some((controller, file, value?)));
    present.map(|(controller, file, value)| Setting { controller, file, value }).collect()
}

/// Weight 100 is the default of v2, 1024 shares are that of v1.
fn shares(weight: u64) -> u64 {
    (weight.saturating_mul(1024) / 100).clamp(2, 262_144)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_name_their_files_in_both_generations() {
        let limits = Limits {
            memory_max: Some(1 << 20),
            cpu_weight: Some(100),
            cpu_quota: Some(CpuQuota { quota_micros: 50_000, period_micros: 100_000 }),
            ..Limits::default()
        };
        let words = |settings: Vec<Setting>| -> Vec<String> {
            settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
        };
        assert_eq!(words(limits.unified()), ["memory.max=1048576", "cpu.weight=100", "cpu.max=50000 100000"]);
        let legacy =
            ["memory.limit_in_bytes=1048576", "cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"];
        assert_eq!(words(limits.legacy()), legacy);
    }
}
