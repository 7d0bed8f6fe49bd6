//! Where STATE and DATA are: found by label, or made on the first boot.
//!
//! [`plan`] looks at the disks and decides; [`apply`] formats and mounts. A disk that carries one of our labels is
//! never formatted, whatever is wrong with it; only a wholly blank disk that was handed to us by its serial number is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use disk::layout::Sizes;
use sys::{BlockDevice, Error, Mount, MountFlags, System, UnmountFlags};

use crate::mounts::STRICT;
use crate::sources::Offer;

const STATE_LABEL: &str = "KEELSON-STATE";
const DATA_LABEL: &str = "KEELSON-DATA";
/// The serial number by which a blank disk is handed to us.
const DATA_SERIAL: &str = "keelson-data";
/// Where a disk that holds both is mounted; STATE and DATA are folders of it.
const BOTH: &str = "/run/keelson-disk";
/// How DATA is mounted: what a file holds is on the disk before its size is. The container runtime writes down that it
/// has unpacked an image without waiting for that; after a power cut its files would be empty, and so would be those of
/// all pods that are made from it, for good.
const PLAIN: &str = "nodelalloc";
/// Nothing of STATE is a program.
const STATE_FLAGS: MountFlags = STRICT.and(MountFlags::RELATIME);
/// DATA holds the roots of containers and the volumes of pods: programs, those that change the user among them, and devices.
const DATA_FLAGS: MountFlags = MountFlags::RELATIME;
/// Left in a file system that lost something, so that no later start takes it for whole.
const DAMAGED: &str = ".damaged";
/// Where a repair puts what has lost its name.
const NAMELESS: &str = "lost+found";
/// What every start leaves in STATE and in DATA.
const STATE_MARK: &str = "machine-id";
const DATA_MARK: &str = "lib/containerd";
/// What says which format DATA has, the one that this system makes and reads, and how long a number may be.
const FORMAT_MARK: &str = ".format";
const DATA_FORMAT: u32 = 1;
const FORMAT_BYTES: usize = 16;
/// Checking reads all metadata.
const CHECK_DEADLINE: Duration = Duration::from_secs(300);

/// What to do about storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoragePlan {
    /// A file system each.
    Separate {
        /// STATE's device.
        state: PathBuf,
        /// DATA's device.
        data: PathBuf,
    },
    /// One file system for both.
    Together {
        /// Its device.
        device: PathBuf,
        /// Whether it has to be made first.
        is_blank: bool,
    },
    /// No disk is ours (yet).
    Nothing,
}

/// Decides from what the machine has.
pub(crate) fn plan(devices: &[BlockDevice]) -> StoragePlan {
    let labelled = |label: &str| devices.iter().find(|device| device.has_label(label)).map(BlockDevice::path);
    match (labelled(STATE_LABEL), labelled(DATA_LABEL)) {
        (Some(state), Some(data)) => StoragePlan::Separate { state, data },
        (Some(device), None) | (None, Some(device)) => StoragePlan::Together { device, is_blank: false },
        (None, None) => {
            let ours = |device: &&BlockDevice| {
                device.serial == DATA_SERIAL && device.is_blank && !device.is_partition && !device.has_partitions
            };
            match devices.iter().find(ours) {
                Some(device) => StoragePlan::Together { device: device.path(), is_blank: true },
                None => StoragePlan::Nothing,
            }
        }
    }
}

/// How large partitions are to be: as the manifest that is offered says, or what it would say by default.
pub(crate) fn sizes(offer: Option<Offer>) -> Sizes {
    const STATE_BYTES: u64 = 2 << 30;
    let install = offer.and_then(|offer| Some(manifest::check(&offer.source, &offer.text.ok()?).0?.install));
    let (esp, slot) = (disk::layout::ESP_BYTES, disk::layout::SLOT_BYTES);
    install.map_or(Sizes { esp, slot, state: STATE_BYTES, data: None }, |install| install::sizes(&install))
}

/// Why there is no storage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error(transparent)]
    Format(#[from] install::Error),
    #[error("{device} was damaged, and its repair has lost what it held")]
    Lost { device: String },
    #[error("only STATE can be used")]
    Data(#[source] Box<Self>),
    #[error("DATA has the format {found}, and this system knows none but {DATA_FORMAT}")]
    Newer { found: String },
    #[error("no disk is labelled {DATA_LABEL} and no blank disk has the serial number {DATA_SERIAL}")]
    NoDisk,
    #[error(transparent)]
    System(#[from] Error),
}

/// Does what was planned. Afterwards `state` and `data` are writable and survive a reboot.
pub(crate) fn apply(system: &dyn System, plan: &StoragePlan, state: &Path, data: &Path) -> Result<(), StorageError> {
    match plan {
        StoragePlan::Separate { state: state_device, data: data_device } => {
            mount_disk(system, state_device, (state, STATE_FLAGS, ""), STATE_MARK)?;
            mount_disk(system, data_device, (data, DATA_FLAGS, PLAIN), DATA_MARK).map_err(only_state)?;
        }
        StoragePlan::Together { device, is_blank } => {
            if *is_blank {
                install::rest::format(system, device, DATA_LABEL)?;
            }
            // Strict as a whole, so that DATA is not to be had another way.
            mount_disk(system, device, (Path::new(BOTH), STATE_FLAGS, PLAIN), &format!("state/{STATE_MARK}"))?;
            for (folder, target, flags) in [("state", state, STATE_FLAGS), ("data", data, DATA_FLAGS)] {
                let folder = Path::new(BOTH).join(folder);
                system.make_dir(&folder, 0o755)?;
                system.mount(&bind(&folder, target, MountFlags::NONE))?;
                // The first call takes no flags but those of what it binds.
                system.mount(&bind(&folder, target, MountFlags::REMOUNT | flags))?;
            }
        }
        StoragePlan::Nothing => return Err(StorageError::NoDisk),
    }
    check_format(system, data)
}

/// Leaves DATA alone if it is of a format that this system does not know. One that has no mark gets it.
fn check_format(system: &dyn System, data: &Path) -> Result<(), StorageError> {
    let mark = data.join(FORMAT_MARK);
    let refused = match system.read_at(&mark, 0, FORMAT_BYTES) {
        Ok(text) => {
            let found = String::from_utf8_lossy(&text).trim().to_owned();
            if found.parse() == Ok(DATA_FORMAT) {
                return Ok(());
            }
            StorageError::Newer { found: found.escape_default().to_string() }
        }
        Err(error) if error.is_not_found() => {
            // A full disk is told elsewhere, and the next start marks it.
            system.replace(&mark, format!("{DATA_FORMAT}\n").as_bytes(), 0o644).ok();
            return Ok(());
        }
        // One that cannot be read is there all the same, and may say anything.
        Err(error) => only_state(error),
    };
    system.unmount(data, UnmountFlags::Plain).map_err(only_state)?;
    Err(refused)
}

/// Something about DATA fails, and STATE is as good as before.
fn only_state(error: impl Into<StorageError>) -> StorageError {
    StorageError::Data(Box::new(error.into()))
}

/// Lets the machine run without a disk for this. Everything there is forgotten when it ends.
pub(crate) fn apply_memory(system: &dyn System, target: &Path, data: &Path) -> Result<(), Error> {
    system.mount(&Mount {
        source: "tmpfs".into(),
        target: target.into(),
        kind: "tmpfs".into(),
        flags: if target == data { DATA_FLAGS } else { STATE_FLAGS },
        options: "mode=755".into(),
    })
}

/// The folders that services expect below STATE and DATA.
pub(crate) fn apply_folders(system: &dyn System, state: &Path, data: &Path) -> Vec<Error> {
    let rows = [
        (state.join("pki"), 0o700),
        (state.join("etcd"), 0o700),
        (data.join("lib/containerd"), 0o711),
        (data.join("lib/kubelet"), 0o755),
        (data.join("log/pods"), 0o755),
        (data.join("log/containers"), 0o755),
        (data.join("log/keelson"), 0o755),
        (data.join("tmp"), 0o1777),
    ];
    rows.iter().filter_map(|(path, mode)| system.make_dir(path, *mode).err()).collect()
}

pub(crate) fn bind(source: &Path, target: &Path, flags: MountFlags) -> Mount {
    Mount {
        source: source.to_string_lossy().into_owned(),
        target: target.into(),
        flags: MountFlags::BIND | flags,
        ..Mount::default()
    }
}

/// Mounts a disk. One that refuses is checked and repaired once, as after a power cut in a bad moment. What a repair has
/// lost is gone: a machine that went on would make keys and data anew, as if there had never been others.
pub(crate) fn mount_disk(
    system: &dyn System,
    device: &Path,
    (target, flags, options): (&Path, MountFlags, &str),
    mark: &str,
) -> Result<(), StorageError> {
    let was_repaired = mount_or_repair(system, device, (target, flags, options))?;
    let is_known = system.exists(&target.join(DAMAGED));
    let has_lost = !system.list(&target.join(NAMELESS)).unwrap_or_default().is_empty();
    if !is_known && !has_lost && (!was_repaired || system.exists(&target.join(mark))) {
        return Ok(());
    }
    if !is_known {
        // At the next start it may look as if it had just been made.
        system.replace(&target.join(DAMAGED), b"", 0o600)?;
    }
    system.unmount(target, UnmountFlags::Plain)?;
    Err(StorageError::Lost { device: device.display().to_string() })
}

/// Answers whether it had to be repaired.
fn mount_or_repair(
    system: &dyn System,
    device: &Path,
    (target, flags, options): (&Path, MountFlags, &str),
) -> Result<bool, StorageError> {
    system.make_dir(target, 0o755)?;
    let mount = Mount {
        source: device.to_string_lossy().into_owned(),
        target: target.into(),
        kind: "ext4".into(),
        flags,
        options: options.to_owned(),
    };
    let Err(refused) = system.mount(&mount) else { return Ok(false) };
    if refused.is_busy() {
        return Err(refused.into());
    }
    // Its exit code says what it repaired, not whether mounting works now: the second mount tells that.
    drop(system.run(&["/usr/sbin/e2fsck", "-y", &mount.source], CHECK_DEADLINE)?);
    Ok(system.mount(&mount).map(|()| true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::{Call, FakeSystem, Filesystem, FilesystemKind};

    fn disk(name: &str, serial: &str, label: &str) -> BlockDevice {
        let filesystem = Filesystem { kind: FilesystemKind::Ext4, label: label.to_owned() };
        BlockDevice {
            bytes: 1 << 30,
            serial: serial.to_owned(),
            filesystem: (!label.is_empty()).then_some(filesystem),
            is_blank: label.is_empty(),
            ..BlockDevice::named(name)
        }
    }

    #[test]
    fn only_a_blank_disk_with_our_serial_is_formatted() {
        let together = |name: &str, is_blank| StoragePlan::Together { device: format!("/dev/{name}").into(), is_blank };
        assert_eq!(plan(&[disk("vda", "", "ROOT"), disk("vdb", DATA_SERIAL, "")]), together("vdb", true));
        assert_eq!(plan(&[disk("vdb", DATA_SERIAL, DATA_LABEL)]), together("vdb", false));
        assert_eq!(plan(&[disk("vdb", DATA_SERIAL, "PHOTOS")]), StoragePlan::Nothing);
        assert_eq!(plan(&[disk("vdb", "other", "")]), StoragePlan::Nothing);
        let mut partitioned = disk("vdb", DATA_SERIAL, "");
        partitioned.has_partitions = true;
        assert_eq!(plan(&[partitioned]), StoragePlan::Nothing);
        let separate = plan(&[disk("vda2", "", STATE_LABEL), disk("vda3", "", DATA_LABEL)]);
        assert_eq!(separate, StoragePlan::Separate { state: "/dev/vda2".into(), data: "/dev/vda3".into() });
    }

    #[test]
    fn a_first_boot_formats_mounts_and_binds() {
        let system = FakeSystem::new();
        let blank = StoragePlan::Together { device: "/dev/vdb".into(), is_blank: true };
        apply(&system, &blank, Path::new("/state"), Path::new("/var")).unwrap();
        let steps: Vec<String> = system
            .calls()
            .iter()
            .filter_map(|call| match call {
                Call::Run(argv) => Some(argv[0].clone()),
                Call::Mount(mount) => {
                    let is_executable = !mount.flags.contains(MountFlags::NOEXEC);
                    let how = if is_executable { "exec" } else { "noexec" };
                    Some(format!("{} {} {} {how}", mount.source, mount.target.display(), mount.options))
                }
                _ => None,
            })
            .collect();
        let expected = [
            "/usr/sbin/mkfs.ext4",
            "/dev/vdb /run/keelson-disk nodelalloc noexec",
            "/run/keelson-disk/state /state  exec",
            "/run/keelson-disk/state /state  noexec",
            "/run/keelson-disk/data /var  exec",
            "/run/keelson-disk/data /var  exec",
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn what_a_repair_has_lost_stays_lost() {
        let separate = StoragePlan::Separate { state: "/dev/vda4".into(), data: "/dev/vda5".into() };
        let mount = |system: &FakeSystem| apply(system, &separate, Path::new("/state"), Path::new("/var"));
        // As after the first start, and after a power cut in it.
        mount(&FakeSystem::new()).unwrap();
        let lost = FakeSystem::new();
        lost.file("/state/lost+found/#12", "");
        let refused = mount(&lost).unwrap_err();
        assert!(matches!(&refused, StorageError::Lost { device } if device == "/dev/vda4"), "{refused}");
        assert!(lost.exists(Path::new("/state/.damaged")));
        let marked = FakeSystem::new();
        marked.file("/var/.damaged", "");
        let refused = mount(&marked).unwrap_err();
        // STATE is there, and with it whom the machine knows.
        assert!(matches!(refused, StorageError::Data(_)), "{refused}");
        let unmounted: Vec<Call> =
            marked.calls().into_iter().filter(|call| matches!(call, Call::Unmount(..))).collect();
        assert!(matches!(&unmounted[..], [Call::Unmount(target, _)] if target == Path::new("/var")), "{unmounted:?}");
    }

    #[test]
    fn data_is_marked_with_its_format_and_one_that_is_not_known_is_left_as_it_is() {
        let separate = StoragePlan::Separate { state: "/dev/vda4".into(), data: "/dev/vda5".into() };
        let system = FakeSystem::new();
        let mount = || apply(&system, &separate, Path::new("/state"), Path::new("/var"));
        mount().unwrap();
        assert_eq!(system.read(Path::new("/var/.format")).unwrap(), b"1\n");
        mount().unwrap();
        for newer in ["2\n", "2.1", "\u{1b}["] {
            system.file("/var/.format", newer);
            let refused = mount().unwrap_err();
            assert!(matches!(refused, StorageError::Newer { .. }), "{refused}");
            assert!(!refused.to_string().contains('\u{1b}'), "{refused}");
            assert!(matches!(system.calls().last(), Some(Call::Unmount(target, _)) if target == Path::new("/var")));
            assert_eq!(system.read(Path::new("/var/.format")).unwrap(), newer.as_bytes());
        }
    }

    #[test]
    fn a_mark_that_cannot_be_read_is_not_written_over_and_state_is_used_all_the_same() {
        const EIO: i32 = 5;
        let separate = StoragePlan::Separate { state: "/dev/vda4".into(), data: "/dev/vda5".into() };
        let mount = |system: &FakeSystem| apply(system, &separate, Path::new("/state"), Path::new("/var"));
        let system = FakeSystem::new();
        system.file("/var/.format", "2\n");
        system.fail("read /var/.format", EIO);
        let refused = mount(&system).unwrap_err();
        assert!(matches!(refused, StorageError::Data(_)), "{refused}");
        assert_eq!(system.text("/var/.format"), "2\n");
        assert!(matches!(system.calls().last(), Some(Call::Unmount(target, _)) if target == Path::new("/var")));
        // Nor is STATE given up for a DATA that does not let go.
        let system = FakeSystem::new();
        system.file("/var/.format", "2\n");
        system.fail("\"/var\", Plain", 16);
        let refused = mount(&system).unwrap_err();
        assert!(matches!(refused, StorageError::Data(_)), "{refused}");
    }

    #[test]
    fn a_damaged_disk_is_checked_and_never_formatted() {
        let system = FakeSystem::new();
        system.fail("Mount(Mount { source: \"/dev/vdb\"", 117);
        let present = StoragePlan::Together { device: "/dev/vdb".into(), is_blank: false };
        assert!(apply(&system, &present, Path::new("/state"), Path::new("/var")).is_err());
        let runs: Vec<Call> = system.calls().into_iter().filter(|call| matches!(call, Call::Run(_))).collect();
        assert_eq!(runs.len(), 1);
        assert!(matches!(&runs[0], Call::Run(argv) if argv[0].ends_with("e2fsck")));
    }
}
