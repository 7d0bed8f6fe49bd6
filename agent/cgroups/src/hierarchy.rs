//! Which hierarchy there is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sys::System;

use crate::error::Error;
use crate::group::Group;

/// The two generations of the kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One tree for all controllers (v2).
    Unified,
    /// A tree per controller (v1), perhaps with an empty unified one beside.
    Legacy,
}

/// What limits a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Processor shares and quotas.
    Cpu,
    /// Processor time counted (v1 only; part of `cpu` in v2).
    CpuAccounting,
    /// Which processors.
    CpuSet,
    /// Memory.
    Memory,
    /// Number of processes.
    Pids,
    /// Block devices.
    Io,
    /// Stopping and continuing (v1 only; built into v2).
    Freezer,
    /// Which devices may be opened (v1 only).
    Devices,
    /// Huge pages.
    HugeTlb,
}

impl Controller {
    const ALL: [Self; 9] = [
        Self::Cpu,
        Self::CpuAccounting,
        Self::CpuSet,
        Self::Memory,
        Self::Pids,
        Self::Io,
        Self::Freezer,
        Self::Devices,
        Self::HugeTlb,
    ];

    /// Its name in v1 mount options.
    #[must_use]
    pub fn legacy_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuAccounting => "cpuacct",
            Self::CpuSet => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "blkio",
            Self::Freezer => "freezer",
            Self::Devices => "devices",
            Self::HugeTlb => "hugetlb",
        }
    }
}

/// Where the trees are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// v2.
    Unified {
        /// The mount point.
        root: PathBuf,
    },
    /// v1.
    Legacy {
        /// The mount point of each controller.
        roots: BTreeMap<Controller, PathBuf>,
    },
}

impl Hierarchy {
    /// Finds the trees in the mount table.
    ///
    /// # Errors
    /// When the table cannot be read or names no tree.
    pub fn detect(system: &dyn System) -> Result<Self, Error> {
        let table = system.read(Path::new("/proc/self/mounts")).map_err(Error::Detect)?;
        let table = String::from_utf8_lossy(&table);
        let (mut unified, mut roots) = (None, BTreeMap::new());
        for line in table.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [_, target, "cgroup2", ..] => unified = Some(PathBuf::from(target)),
                [_, target, "cgroup", options, ..] => {
                    for controller in Controller::ALL {
                        if options.split(',').any(|option| option == controller.legacy_name()) {
                            roots.insert(controller, PathBuf::from(target));
                        }
                    }
                }
                _ => {}
            }
        }
        match unified {
            _ if !roots.is_empty() => Ok(Self::Legacy { roots }),
            Some(root) => Ok(Self::Unified { root }),
            None => Err(Error::NotMounted),
        }
    }

    /// Which generation.
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Unified { .. } => Version::Unified,
            Self::Legacy { .. } => Version::Legacy,
        }
    }

    /// The group with this path (`services/etcd`; empty for the root). It need not exist yet.
    #[must_use]
    pub fn group(&self, path: &str) -> Group {
        let path = path.trim_matches('/');
        let below = |root: &PathBuf| if path.is_empty() { root.clone() } else { root.join(path) };
        match self {
            Self::Unified { root } => Group::unified(path.to_owned(), below(root)),
            Self::Legacy { roots } => {
                let folders = roots.iter().map(|(controller, root)| (*controller, below(root))).collect();
                Group::legacy(path.to_owned(), folders)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn a_mount_table_tells_the_hierarchy() {
        let system = FakeSystem::new();
        system.file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n");
        let unified = Hierarchy::detect(&system).unwrap();
        assert_eq!(unified, Hierarchy::Unified { root: "/sys/fs/cgroup".into() });

        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        system.file("/proc/self/mounts", hybrid);
        let legacy = Hierarchy::detect(&system).unwrap();
        assert_eq!(legacy.version(), Version::Legacy);
        let Hierarchy::Legacy { roots } = legacy else { panic!("not legacy") };
        assert_eq!(roots[&Controller::CpuAccounting], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(roots.len(), 3);

        system.file("/proc/self/mounts", "proc /proc proc rw 0 0\n");
        assert!(matches!(Hierarchy::detect(&system), Err(Error::NotMounted)));
    }
}
