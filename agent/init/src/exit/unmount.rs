//! Takes away every mount that may hold data. One that is busy, or hangs, is at least detached, and told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use machine_api::EventKind;
use stdx::chain;
use sys::UnmountFlags;

use super::patience::Patience;
use crate::machine::Machine;
use crate::{extensions, mounts};

/// All of them but one, the deepest first. Answers what did not let go.
pub(super) fn all_but(machine: &mut Machine, patience: &mut Patience, kept: &Path) -> Vec<String> {
    let targets = to_unmount(&mounts::mounted(&*machine.system));
    targets.iter().filter(|target| *target != kept).filter_map(|target| take(machine, patience, target)).collect()
}

/// One of them, if it is one.
pub(super) fn one(machine: &mut Machine, patience: &mut Patience, target: &Path) {
    if mounts::mounted(&*machine.system).contains(target) {
        take(machine, patience, target);
    }
}

/// The devices that were made of files of STATE: it is free without them.
pub(super) fn devices(machine: &mut Machine, patience: &mut Patience) {
    for name in extensions::mapped(machine) {
        // What keeps it busy was told.
        patience.give(machine, "take away a device", move |system| system.unmap(&name).ok());
    }
}

fn take(machine: &mut Machine, patience: &mut Patience, target: &Path) -> Option<String> {
    let mut unmount = |machine: &mut Machine, flags| {
        let target = target.to_owned();
        patience.give(machine, "unmount", move |system| system.unmount(&target, flags))
    };
    let why = match unmount(machine, UnmountFlags::Plain) {
        Some(Ok(())) => return None,
        // It was the other end of one that has gone: what is mounted in DATA is seen at two places.
        Some(Err(_)) if !mounts::mounted(&*machine.system).contains(target) => return None,
        Some(Err(error)) => chain(&error).to_string(),
        None => "it hangs".to_owned(),
    };
    let left = format!("mount {} ({why})", target.display());
    // The mount alone: its file system is on its own, and what lies above it is free.
    let how = match unmount(machine, UnmountFlags::Lazy) {
        Some(Ok(())) => "and detached",
        Some(Err(_)) => "and cannot be detached",
        None => "and hangs also when it is detached",
    };
    machine.say(EventKind::LeftBehind, "", format!("left behind {how}: {left}"));
    Some(left)
}

fn to_unmount(mounted: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    // Deeper ones come later in the order of paths.
    let kept = ["/proc", "/sys", "/dev", "/run", "/tmp"].map(Path::new);
    let holds_data = |path: &&PathBuf| !kept.contains(&path.as_path()) && !is_below(path, &kept[..3]);
    mounted.iter().rev().filter(holds_data).cloned().collect()
}

fn is_below(path: &Path, folders: &[&Path]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use sys::Call;

    use super::super::patience::tests::unguarded;
    use super::*;

    #[test]
    fn the_deepest_mounts_go_first_and_the_kernels_stay() {
        let all = ["/proc", "/sys/fs/cgroup", "/dev/pts", "/run", "/run/keelson-disk", "/var", "/var/lib/kubelet/x"];
        let mounted = all.iter().map(PathBuf::from).collect();
        let expected = ["/var/lib/kubelet/x", "/var", "/run/keelson-disk"].map(PathBuf::from);
        assert_eq!(to_unmount(&mounted), expected);
    }

    #[test]
    fn what_went_with_another_one_is_not_left_behind() {
        let system = std::sync::Arc::new(sys::FakeSystem::new());
        let gone = Path::new("/run/keelson-disk/data/run/netns/a");
        system.file("/proc/self/mounts", "x / ext4 rw 0 0\n");
        system.fail("\"/run/keelson-disk/data/run/netns/a\", Plain", 22);
        let mut machine = Machine::of_a_test(&system);
        assert_eq!(take(&mut machine, &mut unguarded(Duration::from_secs(1)), gone), None);
    }

    #[test]
    fn mounts_that_hang_or_are_busy_are_detached_and_told_and_hold_up_no_other() {
        let system = std::sync::Arc::new(sys::FakeSystem::new());
        let line = |target: &str| format!("x {target} ext4 rw 0 0\n");
        let mounts = ["/", "/proc", "/state", "/var", "/var/lib/busy", "/var/lib/nfs", "/var/lib/nfs/below"];
        system.file("/proc/self/mounts", mounts.map(line).concat());
        system.stall("\"/var/lib/nfs\", Plain");
        // The way to it leads through what hangs.
        system.stall("\"/var/lib/nfs/below\"");
        system.fail("\"/var/lib/busy\", Plain", 16);
        let mut machine = Machine::of_a_test(&system);
        let mut patience = unguarded(Duration::from_millis(300));
        let began = Instant::now();
        let left = all_but(&mut machine, &mut patience, Path::new("/state"));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let expected =
            ["mount /var/lib/nfs/below (it hangs)", "mount /var/lib/nfs (it hangs)", "mount /var/lib/busy ("];
        assert_eq!(left.len(), expected.len(), "{left:?}");
        assert!(left.iter().zip(expected).all(|(left, expected)| left.starts_with(expected)), "{left:?}");
        let calls = system.calls();
        for lazily in ["/var/lib/nfs", "/var/lib/busy"] {
            assert!(calls.contains(&Call::Unmount(lazily.into(), UnmountFlags::Lazy)), "{lazily}");
        }
        assert!(calls.contains(&Call::Unmount("/var".into(), UnmountFlags::Plain)));
        assert!(!calls.contains(&Call::Unmount("/state".into(), UnmountFlags::Plain)), "it has yet to take the reason");
        one(&mut machine, &mut patience, Path::new("/state"));
        assert!(system.calls().contains(&Call::Unmount("/state".into(), UnmountFlags::Plain)));
        let told: String = machine.events.iter().map(|(_, event)| format!("{}\n", event.message)).collect();
        assert!(told.contains("left behind and hangs also when it is detached: mount /var/lib/nfs/below"), "{told}");
        assert!(told.contains("left behind and detached: mount /var/lib/busy"), "{told}");
    }
}
