//! Pods' groups: named by quality of service, limited in the kernel's own units.

use sys::System;

use crate::error::Error;
use crate::group::Group;
use crate::hierarchy::{Controller, Hierarchy, Version};

/// The scheduler period of quotas, in microseconds.
const PERIOD_MICROS: i64 = 100_000;

/// What a pod as a whole may use. Shares are those of v1; v2 gets the weight that corresponds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// Share of the processors under contention.
    pub cpu_shares: i64,
    /// Microseconds of processor time in each period of 100 ms; 0 for no limit.
    pub cpu_quota: i64,
    /// Bytes; 0 for no limit.
    pub memory: i64,
}

/// The v2 weight for v1 shares.
#[must_use]
pub fn weight_of_shares(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// Makes a pod's group (or that of a class of pods) and limits it. Idempotent.
///
/// # Errors
/// When the kernel refuses.
pub fn apply_pod_group(
    system: &dyn System,
    hierarchy: &Hierarchy,
    path: &str,
    limits: &PodLimits,
) -> Result<Group, Error> {
    let group = hierarchy.group(path);
    group.create(system)?;
    if hierarchy.version() == Version::Unified {
        enable_along(system, hierarchy, path)?;
    }
    for (controller, file, value) in settings(hierarchy.version(), limits) {
        let Some(folder) = group.folder(controller) else { continue };
        match system.write(&folder.join(file), value.as_bytes()) {
            Err(source) if !source.is_not_found() => {
                return Err(Error::Set { group: path.to_owned(), file, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(group)
}

/// Every level hands its controllers down, so that containers below can be limited.
fn enable_along(system: &dyn System, hierarchy: &Hierarchy, path: &str) -> Result<(), Error> {
    let mut so_far = String::new();
    hierarchy.group("").enable_controllers(system)?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        so_far = format!("{so_far}/{part}");
        hierarchy.group(&so_far).enable_controllers(system)?;
    }
    Ok(())
}

fn settings(version: Version, limits: &PodLimits) -> Vec<(Controller, &'static str, String)> {
    let quota = if limits.cpu_quota > 0 { limits.cpu_quota } else { -1 };
    match version {
        Version::Unified => {
            let max = if quota > 0 { quota.to_string() } else { "max".to_owned() };
            let memory = if limits.memory > 0 { limits.memory.to_string() } else { "max".to_owned() };
            vec![
                (Controller::Cpu, "cpu.weight", weight_of_shares(limits.cpu_shares).to_string()),
                (Controller::Cpu, "cpu.max", format!("{max} {PERIOD_MICROS}")),
                (Controller::Memory, "memory.max", memory),
            ]
        }
        Version::Legacy => {
            let memory = if limits.memory > 0 { limits.memory } else { -1 };
            vec![
                (Controller::Cpu, "cpu.shares", limits.cpu_shares.max(2).to_string()),
                (Controller::Cpu, "cpu.cfs_period_us", PERIOD_MICROS.to_string()),
                (Controller::Cpu, "cpu.cfs_quota_us", quota.to_string()),
                (Controller::Memory, "memory.limit_in_bytes", memory.to_string()),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!(weight_of_shares(262_144), 10_000);
    }

    #[test]
    fn a_pod_without_limits_says_so() {
        let limits = PodLimits { cpu_shares: 2, ..PodLimits::default() };
        let words =
            |version| settings(version, &limits).into_iter().map(|(_, file, v)| format!("{file}={v}")).collect();
        let unified: Vec<String> = words(Version::Unified);
        assert_eq!(unified, ["cpu.weight=1", "cpu.max=max 100000", "memory.max=max"]);
        let legacy: Vec<String> = words(Version::Legacy);
        assert_eq!(legacy[2..], ["cpu.cfs_quota_us=-1".to_owned(), "memory.limit_in_bytes=-1".to_owned()]);
    }
}
