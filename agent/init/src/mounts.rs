//! The file systems that are not disks, as tables.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sys::{Error, Mount, MountFlags, System};

use crate::environment::Environment;

/// One row: what, where, how. What can be written and executed is DATA, where the containers' files are, and nothing here.
struct Row {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static str,
    /// Whether a kernel may lack it.
    is_optional: bool,
}

/// For what holds files of no program.
pub(crate) const STRICT: MountFlags = MountFlags::NOSUID.and(MountFlags::NODEV).and(MountFlags::NOEXEC);
/// For what holds devices. Enclaves (SGX) cannot be mapped from here; containers have a `/dev` of their own, with theirs.
const DEVICES: MountFlags = MountFlags::NOSUID.and(MountFlags::NOEXEC);

fn rows(environment: Environment) -> Vec<Row> {
    let row = |kind, target, flags, options| Row { kind, target, flags, options, is_optional: false };
    let optional = |kind, target, flags| Row { kind, target, flags, options: "", is_optional: true };
    let devices = match environment {
        Environment::Machine => row("devtmpfs", "/dev", DEVICES, "mode=755"),
        Environment::Container => row("tmpfs", "/dev", DEVICES, "mode=755,size=1m"),
    };
    let mut rows = vec![
        row("proc", "/proc", STRICT, ""),
        row("sysfs", "/sys", STRICT, ""),
        devices,
        row("devpts", "/dev/pts", DEVICES, "newinstance,ptmxmode=0666,mode=620,gid=5"),
        row("tmpfs", "/dev/shm", STRICT, "mode=1777"),
        optional("mqueue", "/dev/mqueue", STRICT),
        // Roots of containers are mounted below it, each with flags of its own; runc runs a copy of itself from memory.
        row("tmpfs", "/run", STRICT, "mode=755"),
        row("tmpfs", "/tmp", STRICT, "mode=1777"),
    ];
    if environment == Environment::Machine {
        rows.push(row("cgroup2", "/sys/fs/cgroup", STRICT, "nsdelegate,memory_recursiveprot"));
        rows.push(optional("bpf", "/sys/fs/bpf", STRICT));
        rows.push(optional("pstore", "/sys/fs/pstore", STRICT));
        rows.push(optional("efivarfs", "/sys/firmware/efi/efivars", STRICT));
    }
    rows
}

/// Device nodes that a container's `/dev` needs; a machine's kernel makes its own.
const NODES: [(&str, u32, (u64, u64)); 7] = [
    ("null", 0o666, (1, 3)),
    ("zero", 0o666, (1, 5)),
    ("full", 0o666, (1, 7)),
    ("random", 0o666, (1, 8)),
    ("urandom", 0o666, (1, 9)),
    ("tty", 0o666, (5, 0)),
    ("kmsg", 0o644, (1, 11)),
];

const LINKS: [(&str, &str); 5] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Mounts `/proc` alone: without it nothing else about this place can be found out.
pub(crate) fn apply_proc(system: &dyn System) -> Result<(), Error> {
    let target = Path::new("/proc");
    if is_present(system, target) {
        return Ok(());
    }
    system.make_dir(target, 0o555)?;
    system.mount(&mount("proc", "/proc", STRICT, ""))
}

/// Mounts what is not mounted yet, and gives what is the flags that it should have. Answers what failed; the rest was done.
pub(crate) fn apply(system: &dyn System, environment: Environment) -> Vec<Error> {
    let mut failures = Vec::new();
    for row in rows(environment) {
        let target = Path::new(row.target);
        let is_absent = row.is_optional && row.target.starts_with("/sys") && !system.exists(target);
        if is_absent {
            continue;
        }
        let done = match (is_present(system, target), environment) {
            (true, Environment::Container) => continue,
            // The kernel or the first stage was there before, with flags of its own.
            (true, Environment::Machine) => {
                let flags = row.flags | MountFlags::REMOUNT | MountFlags::BIND;
                system.mount(&mount("", row.target, flags, ""))
            }
            (false, _) => {
                let mount = mount(row.kind, row.target, row.flags, row.options);
                system.make_dir(target, 0o755).and_then(|()| system.mount(&mount))
            }
        };
        match done {
            Err(error) if !row.is_optional => failures.push(error),
            Ok(()) | Err(_) => {}
        }
    }
    if environment == Environment::Container {
        let nodes = NODES
            .iter()
            .map(|(name, mode, number)| system.make_char_device(&Path::new("/dev").join(name), *mode, *number));
        failures.extend(nodes.filter_map(Result::err));
        failures.extend(
            cgroup_mounts(system)
                .into_iter()
                .filter_map(|mount| system.make_dir(&mount.target, 0o755).and_then(|()| system.mount(&mount)).err()),
        );
    }
    for (link, target) in LINKS {
        if !system.exists(Path::new(link)) {
            failures.extend(system.symlink(Path::new(target), Path::new(link)).err());
        }
    }
    // Volumes with mount propagation need a shared tree.
    let shared = mount("", "/", MountFlags::SHARED | MountFlags::RECURSIVE, "");
    failures.extend(system.mount(&shared).err());
    failures
}

/// Whether something is mounted there that serves. A process table of other namespaces than ours does not.
fn is_present(system: &dyn System, target: &Path) -> bool {
    let is_ours = || system.read_link(Path::new("/proc/self")).is_ok_and(|pid| pid == Path::new("1"));
    mounted(system).contains(target) && (target != Path::new("/proc") || is_ours())
}

fn mount(kind: &str, target: &str, flags: MountFlags, options: &str) -> Mount {
    Mount { source: kind.to_owned(), target: target.into(), kind: kind.to_owned(), flags, options: options.to_owned() }
}

/// Everything that is mounted, by mount point. Empty before `/proc` is.
pub(crate) fn mounted(system: &dyn System) -> BTreeSet<PathBuf> {
    let table = system.read(Path::new("/proc/self/mounts")).unwrap_or_default();
    let targets = table.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(1));
    // The first row is the root itself, which is always mounted.
    targets.filter(|target| *target != b"/").map(sys::mounted_path).collect()
}

/// What a container mounts below `/sys/fs/cgroup`: the hierarchies that it is in, if nothing is there.
fn cgroup_mounts(system: &dyn System) -> Vec<Mount> {
    const ROOT: &str = "/sys/fs/cgroup";
    if mounted(system).iter().any(|target| target.starts_with(ROOT)) {
        return Vec::new();
    }
    let membership = system.read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let membership = String::from_utf8_lossy(&membership).into_owned();
    // A line is `number:controllers:path`; the unified hierarchy has number 0 and no controllers.
    let legacy: Vec<&str> =
        membership.lines().filter_map(|line| line.split(':').nth(1)).filter(|names| !names.is_empty()).collect();
    if legacy.iter().all(|names| names.starts_with("name=")) {
        return vec![mount("cgroup2", ROOT, STRICT, "nsdelegate")];
    }
    let mut mounts = vec![mount("tmpfs", ROOT, STRICT, "mode=755")];
    for names in legacy {
        let (folder, options) = match names.strip_prefix("name=") {
            Some(name) => (name, format!("none,{names}")),
            None => (names, names.to_owned()),
        };
        mounts.push(mount("cgroup", &format!("{ROOT}/{folder}"), STRICT, &options));
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::Call;

    fn targets(system: &sys::FakeSystem) -> Vec<String> {
        let calls = system.calls().into_iter();
        let targets = calls.filter_map(|call| match call {
            Call::Mount(mount) => Some(format!("{} {}", mount.kind, mount.target.display())),
            _ => None,
        });
        targets.collect()
    }

    #[test]
    fn a_machine_mounts_everything_and_only_gives_flags_to_what_is_there() {
        let system = sys::FakeSystem::new();
        system.file("/proc/self/mounts", "rootfs / erofs ro 0 0\ndevtmpfs /dev devtmpfs rw 0 0\n");
        assert!(apply(&system, Environment::Machine).is_empty());
        let expected = [
            "proc /proc",
            "sysfs /sys",
            " /dev",
            "devpts /dev/pts",
            "tmpfs /dev/shm",
            "mqueue /dev/mqueue",
            "tmpfs /run",
            "tmpfs /tmp",
            "cgroup2 /sys/fs/cgroup",
            " /",
        ];
        assert_eq!(targets(&system), expected);
        let is_tightened = system.calls().into_iter().any(|call| match call {
            Call::Mount(mount) => {
                mount.target == Path::new("/dev") && mount.flags == DEVICES | MountFlags::REMOUNT | MountFlags::BIND
            }
            _ => false,
        });
        assert!(is_tightened);
    }

    #[test]
    fn nothing_here_can_be_executed() {
        for environment in [Environment::Machine, Environment::Container] {
            for row in rows(environment) {
                let harmless = MountFlags::NOSUID | MountFlags::NOEXEC;
                assert!(row.flags.contains(harmless), "{}", row.target);
                let holds_devices = ["/dev", "/dev/pts"].contains(&row.target);
                assert_eq!(row.flags.contains(MountFlags::NODEV), !holds_devices, "{}", row.target);
            }
        }
        let system = sys::FakeSystem::new();
        system.file("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/\n");
        assert!(cgroup_mounts(&system).iter().all(|mount| mount.flags == STRICT));
    }

    #[test]
    fn a_container_gets_the_hierarchies_of_its_host() {
        let system = sys::FakeSystem::new();
        system.file("/proc/self/mounts", "");
        system.file("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/\n2:cpu,cpuacct:/\n0::/\n");
        assert!(apply(&system, Environment::Container).is_empty());
        let all = targets(&system);
        assert!(all.contains(&"cgroup /sys/fs/cgroup/cpu,cpuacct".to_owned()));
        assert!(all.contains(&"cgroup /sys/fs/cgroup/systemd".to_owned()));
        assert!(system.calls().contains(&Call::MakeDevice("/dev/null".into())));

        let unified = sys::FakeSystem::new();
        unified.file("/proc/self/cgroup", "0::/\n");
        assert_eq!(cgroup_mounts(&unified)[0].kind, "cgroup2");
    }

    #[test]
    fn what_cannot_be_mounted_is_reported_and_the_rest_is_done() {
        let system = sys::FakeSystem::new();
        system.fail("\"/dev/shm\", kind: \"tmpfs\"", 1);
        let failures = apply(&system, Environment::Machine);
        assert_eq!(failures.len(), 1);
        assert!(targets(&system).contains(&"tmpfs /tmp".to_owned()));
    }
}
