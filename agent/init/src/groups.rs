//! The control groups of PID 1 and of the services.

use cgroups::{Group, Hierarchy, Limits};
use supervisor::ServiceSpec;
use sys::System;

/// Where services live: `services/NAME`.
const SERVICES: &str = "services";

/// The tree, ready for services.
pub(crate) struct Groups(Hierarchy);

impl Groups {
    /// Finds the hierarchy, moves this process out of the root and hands the controllers down.
    pub(crate) fn prepare(system: &dyn System) -> Result<Self, cgroups::Error> {
        let groups = Self(Hierarchy::detect(system)?);
        let own = groups.0.group("init");
        own.create(system)?;
        own.add(system, std::process::id())?;
        groups.0.group("").enable_controllers(system)?;
        let services = groups.0.group(SERVICES);
        services.create(system)?;
        services.enable_controllers(system)?;
        Ok(groups)
    }

    /// A service's group.
    pub(crate) fn of(&self, name: &str) -> Group {
        self.0.group(SERVICES).child(name)
    }

    /// Makes a service's group and sets its limits.
    pub(crate) fn create(&self, system: &dyn System, spec: &ServiceSpec) -> Result<Group, cgroups::Error> {
        let group = self.of(&spec.name);
        group.create(system)?;
        let limits = Limits {
            memory_min: spec.limits.memory_min,
            memory_max: spec.limits.memory_max,
            cpu_weight: spec.limits.cpu_weight,
            ..Limits::default()
        };
        group.set(system, &limits)?;
        Ok(group)
    }

    /// Keeps the memory that the services are promised from being taken from all of them together.
    pub(crate) fn protect(&self, system: &dyn System, specs: &[ServiceSpec]) -> Result<(), cgroups::Error> {
        let promised = specs.iter().filter_map(|spec| spec.limits.memory_min).sum();
        self.0.group(SERVICES).set(system, &Limits { memory_min: Some(promised), ..Limits::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::{Call, FakeSystem};

    #[test]
    fn a_service_gets_its_group_and_its_limits() {
        let system = FakeSystem::new();
        system.file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        for folder in ["", "/services"] {
            system.file(format!("/sys/fs/cgroup{folder}/cgroup.controllers"), "memory\n");
            system.file(format!("/sys/fs/cgroup{folder}/cgroup.subtree_control"), "");
        }
        let groups = Groups::prepare(&system).unwrap();
        let mut spec = ServiceSpec::daemon("etcd", vec!["/bin/etcd".into()]);
        spec.limits.memory_min = Some(1024);
        let group = groups.create(&system, &spec).unwrap();
        assert_eq!(group.path(), "services/etcd");
        let calls = system.calls();
        assert!(
            calls.contains(&Call::Write("/sys/fs/cgroup/services/cgroup.subtree_control".into(), b"+memory".into()))
        );
        assert!(calls.contains(&Call::Write("/sys/fs/cgroup/services/etcd/memory.min".into(), b"1024".into())));
    }
}
