//! Where the agent is the first process: of a machine, or of namespaces that somebody else made.

use std::path::Path;

use sys::System;

/// The two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// A machine of its own: modules, disks and the power are ours.
    Machine,
    /// Namespaces on somebody's machine: mounts and processes are ours, nothing else.
    Container,
}

impl Environment {
    /// Finds out from the process namespace. The first one has a number that the kernel never gives to another.
    /// What cannot be read counts as a container: taking a host for a machine of ours would change what is not ours.
    /// Needs `/proc`.
    #[must_use]
    pub fn observe(system: &dyn System) -> Self {
        const FIRST_NAMESPACE: &str = "pid:[4026531836]";
        match system.read_link(Path::new("/proc/self/ns/pid")) {
            Ok(namespace) if namespace == Path::new(FIRST_NAMESPACE) => Self::Machine,
            Ok(_) | Err(_) => Self::Container,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    #[test]
    fn the_process_namespace_tells() {
        let system = FakeSystem::new();
        assert_eq!(Environment::observe(&system), Environment::Container);
        system.link("/proc/self/ns/pid", "pid:[4026531836]");
        assert_eq!(Environment::observe(&system), Environment::Machine);
        system.link("/proc/self/ns/pid", "pid:[4026532219]");
        assert_eq!(Environment::observe(&system), Environment::Container);
    }
}
