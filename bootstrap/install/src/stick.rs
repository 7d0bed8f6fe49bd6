//! A stick that somebody put in to take files away on: which one it is, and files on it.
//!
//! Nothing else is ever written: only a file system that people make on sticks, on a USB port, or a disk whose label says
//! that it is for this machine; and never a disk that holds a system of ours.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use disk::Slot;
use disk::layout::{DATA_NAME, ESP_NAME, STATE_NAME};
use sys::{BlockDevice, FilesystemKind, Mount, MountFlags, System, UnmountFlags};

/// The label of a disk that is there for this machine.
const LABEL: &str = "KEELSON-CFG";
/// Where it is while it is written to.
const PLACE: &str = "/run/keelson-stick";
/// Files of the same name that one may have.
const SAME_NAMES: u32 = 99;

/// Why nothing is written.
#[derive(Debug, thiserror::Error)]
pub enum StickError {
    /// There is none.
    #[error(
        "there is no stick to write to: put one in a USB port that has FAT or exFAT on it, or a disk labelled {LABEL}{seen}"
    )]
    None {
        /// What is there, and why it is none.
        seen: String,
    },
    /// There are several.
    #[error("there are several sticks, and nothing says which is meant: {}; take out all but one, or label one {LABEL}", names.join(", "))]
    Several {
        /// Which.
        names: Vec<String>,
    },
    /// It cannot be mounted.
    #[error("mount {name}")]
    Mount {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: sys::Error,
    },
    /// A file on it cannot be written.
    #[error("write {file} to {name}")]
    Write {
        /// Which stick.
        name: String,
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was written may not be there.
    #[error("{name} does not come off, and what was written may not be whole: leave it in, and try again")]
    Unmount {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: sys::Error,
    },
}

/// The one to write to.
///
/// # Errors
/// There is none, or more than one.
pub fn choose(devices: &[BlockDevice]) -> Result<&BlockDevice, StickError> {
    let fit: Vec<&BlockDevice> = devices.iter().filter(|device| lacks(device, devices).is_none()).collect();
    let labelled: Vec<&BlockDevice> = fit.iter().copied().filter(|device| device.has_label(LABEL)).collect();
    let meant = if labelled.is_empty() { fit } else { labelled };
    match meant[..] {
        [one] => Ok(one),
        [] => {
            let near = devices.iter().filter(|device| device.is_on_usb || device.has_label(LABEL));
            let near = near.filter(|device| !device.has_partitions);
            let seen = near.filter_map(|device| Some(format!("; {} {}", device.name, lacks(device, devices)?)));
            Err(StickError::None { seen: seen.collect() })
        }
        _ => Err(StickError::Several { names: meant.iter().map(|device| crate::select::describe(device)).collect() }),
    }
}

/// What keeps a device from being written to.
fn lacks(device: &BlockDevice, all: &[BlockDevice]) -> Option<&'static str> {
    let ours = [ESP_NAME, Slot::A.partition(), Slot::B.partition(), STATE_NAME, DATA_NAME];
    let is_system = |other: &&BlockDevice| ours.iter().any(|label| other.has_label(label));
    if all.iter().filter(|other| other.disk == device.disk).any(|other| is_system(&other)) {
        return Some("holds a system of ours");
    }
    let is_labelled = device.has_label(LABEL);
    match device.filesystem.as_ref().map(|found| found.kind) {
        None => Some("has no file system that is known"),
        Some(FilesystemKind::Erofs | FilesystemKind::Iso9660) => Some("has a file system that cannot be written"),
        Some(FilesystemKind::Ext4) if !is_labelled => Some("has a Linux file system"),
        Some(_) if !device.is_on_usb && !is_labelled => Some("hangs on no USB port"),
        Some(_) if device.is_read_only => Some("is write-protected"),
        Some(FilesystemKind::Ext4 | FilesystemKind::Vfat | FilesystemKind::Exfat) => None,
    }
}

/// Writes a file to a stick and answers its name there: another one if there is a file of that name. It has it only once
/// it is whole, and the stick may be taken out afterwards.
///
/// # Errors
/// The stick cannot be written, or `fill` fails.
pub fn write<E: From<StickError>>(
    system: &dyn System,
    device: &BlockDevice,
    (name, ending): (&str, &str),
    fill: impl FnOnce(&mut dyn io::Write) -> Result<(), E>,
) -> Result<String, E> {
    mount(system, device)?;
    let mounted = Mounted { system, is_mounted: true };
    let written = write_below(Path::new(PLACE), &device.name, (name, ending), fill)?;
    mounted.unmount().map_err(|source| StickError::Unmount { name: device.name.clone(), source })?;
    Ok(written)
}

fn mount(system: &dyn System, device: &BlockDevice) -> Result<(), StickError> {
    let kind = device.filesystem.as_ref().map_or(FilesystemKind::Vfat, |found| found.kind);
    let mount = Mount {
        source: device.path().to_string_lossy().into_owned(),
        target: PLACE.into(),
        kind: kind.name().to_owned(),
        flags: MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        options: String::new(),
    };
    let mounted = system.make_dir(&mount.target, 0o700).and_then(|()| system.mount(&mount));
    mounted.map_err(|source| StickError::Mount { name: device.name.clone(), source })
}

/// A stick that comes off again, whatever happens.
struct Mounted<'a> {
    system: &'a dyn System,
    is_mounted: bool,
}

impl Mounted<'_> {
    fn unmount(mut self) -> Result<(), sys::Error> {
        self.system.unmount(Path::new(PLACE), UnmountFlags::Plain)?;
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.is_mounted {
            self.system.unmount(Path::new(PLACE), UnmountFlags::Lazy).ok();
        }
    }
}

fn write_below<E: From<StickError>>(
    folder: &Path,
    stick: &str,
    (name, ending): (&str, &str),
    fill: impl FnOnce(&mut dyn io::Write) -> Result<(), E>,
) -> Result<String, E> {
    let failed = |source| {
        let file = format!("{name}{ending}");
        E::from(StickError::Write { name: stick.to_owned(), file, source })
    };
    let path = free(folder, (name, ending)).map_err(failed)?;
    let draft = folder.join(format!("{name}.part"));
    let put = || {
        let mut file = BufWriter::new(File::create(&draft).map_err(failed)?);
        fill(&mut file)?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&draft, &path).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    };
    put().inspect_err(|_| {
        std::fs::remove_file(&draft).ok();
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == 0) {
            std::fs::remove_file(&path).ok();
        }
    })?;
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// A name that nothing has yet; from now on an empty file has it.
fn free(folder: &Path, (name, ending): (&str, &str)) -> io::Result<PathBuf> {
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 1..=SAME_NAMES {
        let more = if number == 1 { String::new() } else { format!("-{number}") };
        let path = folder.join(format!("{name}{more}{ending}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_empty) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

#[cfg(test)]
mod tests {
    use sys::{Call, FakeSystem, Filesystem};

    use super::*;

    fn device(name: &str, kind: FilesystemKind, label: &str) -> BlockDevice {
        let filesystem = Some(Filesystem { kind, label: label.to_owned() });
        let disk = name.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned();
        let is_partition = disk != name;
        BlockDevice { filesystem, disk, is_partition, is_on_usb: true, bytes: 8 << 30, ..BlockDevice::named(name) }
    }

    fn vfat(name: &str, label: &str) -> BlockDevice {
        device(name, FilesystemKind::Vfat, label)
    }

    /// The disk of a machine, beside the firmware's partition of another system on it.
    fn machine() -> Vec<BlockDevice> {
        let mut own: Vec<BlockDevice> = [ESP_NAME, STATE_NAME, "WINDOWS"].map(|label| vfat("sda", label)).into();
        for (number, device) in (1..).zip(&mut own) {
            device.name = format!("sda{number}");
            device.is_partition = true;
        }
        own.push(BlockDevice { is_on_usb: false, ..vfat("nvme0n1", "EFI") });
        own
    }

    fn chosen(sticks: &[BlockDevice]) -> Result<String, String> {
        let devices: Vec<BlockDevice> = machine().into_iter().chain(sticks.iter().cloned()).collect();
        choose(&devices).map(|device| device.name.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stick_is_chosen_and_no_disk_of_the_machine() {
        assert_eq!(chosen(&[vfat("sdb1", "")]).unwrap(), "sdb1");
        assert_eq!(chosen(&[device("sdb", FilesystemKind::Exfat, "PHOTOS")]).unwrap(), "sdb");
        let labelled = BlockDevice { is_on_usb: false, ..device("vdb", FilesystemKind::Ext4, LABEL) };
        assert_eq!(chosen(&[vfat("sdb1", ""), labelled]).unwrap(), "vdb");
        // A medium that the machine was started from or is to be installed by.
        let medium = [vfat("sdb1", ESP_NAME), vfat("sdb3", "DATA")];
        let told = chosen(&medium).unwrap_err();
        assert!(told.contains("no stick to write to") && told.contains("sdb3 holds a system of ours"), "{told}");
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_reason() {
        let rows = [
            (BlockDevice { is_read_only: true, ..vfat("sdb1", "") }, "sdb1 is write-protected"),
            (BlockDevice { filesystem: None, ..vfat("sdb1", "") }, "sdb1 has no file system that is known"),
            (device("sdb", FilesystemKind::Iso9660, ""), "sdb has a file system that cannot be written"),
            (device("sdb", FilesystemKind::Ext4, ""), "sdb has a Linux file system"),
        ];
        for (stick, reason) in rows {
            let told = chosen(&[stick]).unwrap_err();
            assert!(told.ends_with(&format!("; {reason}")), "{told}");
            assert!(!told.contains("nvme"), "{told}");
        }
        let told = chosen(&[vfat("sdb1", ""), vfat("sdc1", "")]).unwrap_err();
        assert!(told.contains("several") && told.contains("/dev/sdb1") && told.contains("/dev/sdc1"), "{told}");
    }

    #[test]
    fn a_file_has_its_name_once_it_is_whole_and_takes_nobody_else_s() {
        let folder = tempfile::tempdir().unwrap();
        let put = |content: &'static [u8]| {
            write_below(folder.path(), "sdb1", ("report", ".tar"), |out| {
                out.write_all(content).map_err(|source| StickError::Write {
                    name: String::new(),
                    file: String::new(),
                    source,
                })
            })
        };
        assert_eq!([put(b"one").unwrap(), put(b"two").unwrap()], ["report.tar", "report-2.tar"]);
        assert_eq!(std::fs::read(folder.path().join("report.tar")).unwrap(), b"one");
        assert_eq!(std::fs::read(folder.path().join("report-2.tar")).unwrap(), b"two");
        let cut = write_below(folder.path(), "sdb1", ("report", ".tar"), |out| {
            out.write_all(b"half").ok();
            Err(StickError::None { seen: "gone".to_owned() })
        });
        assert!(cut.is_err());
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["report-2.tar", "report.tar"]);
    }

    #[test]
    fn a_stick_comes_off_whatever_happens() {
        let system = FakeSystem::new();
        let stick = vfat("sdb1", "");
        let failed = write(&system, &stick, ("report", ".tar"), |_| Err(StickError::None { seen: String::new() }));
        assert!(failed.is_err());
        let calls: Vec<Call> =
            system.calls().into_iter().filter(|call| matches!(call, Call::Mount(_) | Call::Unmount(..))).collect();
        let [Call::Mount(mount), Call::Unmount(target, _)] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((mount.source.as_str(), mount.kind.as_str(), target), ("/dev/sdb1", "vfat", &mount.target));
        assert!(mount.flags.contains(MountFlags::NOEXEC) && !mount.flags.contains(MountFlags::READ_ONLY));
        let refusing = FakeSystem::new();
        refusing.fail("Mount(Mount", 30);
        let told = write(&refusing, &stick, ("report", ".tar"), |_| Ok::<(), StickError>(())).unwrap_err();
        assert!(matches!(told, StickError::Mount { .. }), "{told}");
    }
}
