//! Pods that stall for want of memory: the kernel tells when, and how long of late.
//!
//! Free memory says that it will run out; stalls say that it has, though the kernel still finds a page now and then. A
//! machine in that state answers nobody for minutes and may never come to end a process. Stalls alone say too little: a pod
//! at its own limit stalls as well, and is the kernel's to end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cgroups::{Controller, Group, Version};
use sys::{PressureTrigger, System};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::context::NodeContext;
use crate::node::facts::Memory;
use crate::pod_cgroup::pods_group;

/// The kernel looks back this far. Windows of whole 2 s are anybody's.
const WINDOW: Duration = Duration::from_secs(2);
/// Memory is short when less than this part of it (in percent) is left, of the machine's or of what all pods may have.
const SCARCE_PERCENT: u64 = 10;
/// Where the machine as a whole tells.
const MACHINE: &str = "/proc/pressure/memory";

/// Whether pods lack memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Stall {
    /// Percent of the last 10 s in which all of them waited for memory.
    pub(crate) percent: f32,
    /// Whether there is little left to have.
    pub(crate) is_scarce: bool,
}

impl Stall {
    /// Looks at the pods' group, or at the machine where there is none that tells.
    pub(crate) fn observe(node: &NodeContext, memory: Memory) -> Self {
        Self::read(node.system.as_ref(), pods(node).as_ref(), memory)
    }

    fn read(system: &dyn System, pods: Option<&(Group, PathBuf)>, memory: Memory) -> Self {
        let text = |path: &Path| String::from_utf8_lossy(&system.read(path).unwrap_or_default()).into_owned();
        // Without a limit it says `max`. What can be dropped at once is not taken.
        let room = pods.and_then(|(group, folder)| {
            let most: u64 = text(&folder.join("memory.max")).trim().parse().ok()?;
            Some((most, most.saturating_sub(group.usage(system).working_set_bytes)))
        });
        let is_little = |(whole, left): (u64, u64)| whole > 0 && left < whole / 100 * SCARCE_PERCENT;
        Self {
            percent: parse(&text(&file(system, pods))).unwrap_or_default(),
            is_scarce: is_little((memory.total, memory.available)) || room.is_some_and(is_little),
        }
    }

    /// Whether it has lasted long enough to put a pod out; `threshold` is in percent, 0 is never.
    pub(crate) fn is_pressure(self, threshold: u8) -> bool {
        threshold > 0 && self.is_scarce && self.percent >= f32::from(threshold)
    }
}

/// How long all stalled of the last 10 s, in percent.
fn parse(text: &str) -> Option<f32> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

/// The group that all pods are in with its folder, in the unified hierarchy.
fn pods(node: &NodeContext) -> Option<(Group, PathBuf)> {
    let hierarchy = node.hierarchy.as_ref().filter(|hierarchy| hierarchy.version() == Version::Unified)?;
    let group = hierarchy.group(&pods_group(node.config.cgroup_driver, &node.config.cgroup_root));
    let folder = group.folder(Controller::Memory)?.clone();
    Some((group, folder))
}

fn file(system: &dyn System, pods: Option<&(Group, PathBuf)>) -> PathBuf {
    let of_pods = pods.map(|(_, folder)| folder.join("memory.pressure"));
    of_pods.filter(|path| system.exists(path)).unwrap_or_else(|| MACHINE.into())
}

/// Word from the kernel.
pub(crate) struct Stalls(Option<AsyncFd<PressureTrigger>>);

impl Stalls {
    /// Asks for it. A kernel that cannot tell leaves the node with looking at free memory.
    pub(crate) fn watch(node: &NodeContext) -> Self {
        let percent = u32::from(node.config.pressure.stall_percent);
        if percent == 0 {
            return Self(None);
        }
        let file = file(node.system.as_ref(), pods(node).as_ref());
        let armed = PressureTrigger::arm(&file, WINDOW * percent / 100, WINDOW);
        let watched = armed
            .map_err(|error| stdx::chain(&error).to_string())
            .and_then(|trigger| wait_on(trigger).map_err(|error| error.to_string()));
        if let Err(error) = &watched {
            tracing::info!(error, "stalls for want of memory are not told");
        }
        Self(watched.ok())
    }

    /// Waits until pods stalled as long as the threshold says, at most once in a window. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        let Some(trigger) = &self.0 else { return std::future::pending().await };
        match trigger.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => {
                tracing::warn!(%error, "stalls for want of memory are told no more");
                self.0 = None;
            }
        }
    }
}

/// Registers a trigger with the runtime. The safe way to do so is deprecated, because a descriptor could be closed behind the
/// runtime's back; a trigger owns its descriptor and never lets it go.
#[allow(deprecated)]
fn wait_on(trigger: PressureTrigger) -> io::Result<AsyncFd<PressureTrigger>> {
    AsyncFd::with_interest(trigger, Interest::PRIORITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cgroups::Hierarchy;
    use sys::FakeSystem;

    const ROOMY: Memory = Memory { total: 1000, available: 900 };

    #[test]
    fn the_pods_group_tells_of_stalls_and_of_what_is_left() {
        let system = FakeSystem::new();
        let put = |name: &str, text: &str| system.file(format!("/cg/kubepods/{name}"), text);
        put("memory.pressure", "some avg10=1.0\nfull avg10=33.00 avg60=0.00\n");
        put("memory.max", "1000\n");
        put("memory.current", "990\n");
        put("memory.stat", "anon 100\ninactive_file 500\n");
        let group = Hierarchy::Unified { root: "/cg".into() }.group("kubepods");
        let pods = (group, PathBuf::from("/cg/kubepods"));
        let read = || Stall::read(&system, Some(&pods), ROOMY);
        assert_eq!(read(), Stall { percent: 33.0, is_scarce: false }, "files can be dropped");
        put("memory.stat", "anon 980\ninactive_file 5\n");
        assert_eq!(read(), Stall { percent: 33.0, is_scarce: true });
        put("memory.max", "max\n");
        assert!(!read().is_scarce);
        let short = Memory { available: 50, ..ROOMY };
        assert!(Stall::read(&system, Some(&pods), short).is_scarce);
    }

    #[test]
    fn without_a_group_the_machine_tells() {
        let system = FakeSystem::new();
        assert_eq!(Stall::read(&system, None, ROOMY), Stall::default());
        system.file(MACHINE, "full avg10=12.00 avg60=0.00\n");
        assert_eq!(Stall::read(&system, None, ROOMY).percent.to_string(), "12");
    }

    #[test]
    fn the_last_ten_seconds_count_in_which_all_stalled() {
        let text = "some avg10=80.00 avg60=2.00 avg300=0.10 total=9\nfull avg10=12.50 avg60=1.00 avg300=0.00 total=7\n";
        assert_eq!(parse(text), Some(12.5));
        for broken in ["", "some avg10=80.00\n", "full avg60=1.00\n", "full avg10=x\n"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_stall_is_pressure_only_where_memory_is_short() {
        let stall = |percent, is_scarce| Stall { percent, is_scarce };
        assert!(stall(10.0, true).is_pressure(10));
        assert!(!stall(9.9, true).is_pressure(10));
        // A pod at its own limit, on a machine with room.
        assert!(!stall(100.0, false).is_pressure(10));
        assert!(!stall(100.0, true).is_pressure(0));
    }
}
