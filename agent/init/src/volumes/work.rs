//! What is done for volumes, from a look at all disks to the folder that pods see. It may wait for disks.

use std::path::{Path, PathBuf};

use disk::Device;
use install::volume::{self, Denied, FOLDER, Hands, Holds, Made, Planned, Seen, Step, place};
use install::wipe::Wipeable;
use machine_api::VolumeStatus;
use manifest::UserVolume;
use stdx::chain;
use sys::{Error, Mount, MountFlags, System, UnmountFlags};

use crate::mounts::{self, STRICT};
use crate::storage::{self, StorageError};

/// Where a file system is before it is shown: what a repair has to say of it lies beside what pods see.
const HIDDEN: &str = "/run/keelson-volumes";
/// What pods see of it. Every start leaves it there.
const CONTENT: &str = "data";
/// Programs of pods may lie there; nobody becomes somebody else by them, and they are no devices.
const FLAGS: MountFlags = MountFlags::NOSUID.and(MountFlags::NODEV).and(MountFlags::RELATIME);

/// What is to be done.
pub(super) struct Task {
    /// The volumes that the manifest names.
    pub(super) volumes: Vec<UserVolume>,
    /// The machine's name.
    pub(super) machine: String,
    /// Where it is kept which ones there were; nowhere if STATE is not to be had.
    pub(super) made: Option<PathBuf>,
    /// What no other disk's identifiers are made from.
    pub(super) seed: Vec<u8>,
}

/// How disks are opened: to look at them, and to have them alone.
pub(super) struct Disks<'a, L, D> {
    pub(super) open: &'a dyn Fn(&Path) -> Result<L, install::Error>,
    pub(super) claim: &'a dyn Fn(&Path) -> Result<D, install::Error>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Those that are mounted, and those that the manifest does not name.
    pub(super) status: Vec<VolumeStatus>,
    /// Those that are not mounted.
    pub(super) failed: Vec<Failure>,
    /// What is to be said of those that are, by name.
    pub(super) remarks: Vec<(String, String)>,
    /// What was done, by name.
    pub(super) told: Vec<(String, String)>,
    /// What else failed.
    pub(super) faults: Vec<String>,
}

/// A volume that is not mounted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) name: String,
    pub(super) why: String,
    pub(super) fix: String,
    /// Whether the machine has had it.
    pub(super) was_made: bool,
    /// Whether the disk may do it the next time.
    pub(super) may_pass: bool,
}

impl Report {
    pub(super) fn knows(&self, name: &str) -> bool {
        self.failed.iter().any(|failure| failure.name == name)
            || self.status.iter().any(|it| it.name == name && it.mounted_at.as_ref().is_some_and(|at| !at.is_empty()))
    }
}

/// Why one is not mounted.
#[derive(Debug, thiserror::Error)]
enum VolumeError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Make(#[from] install::Error),
    #[error(transparent)]
    Mount(#[from] StorageError),
}

impl VolumeError {
    fn fix(&self, machine: &str) -> String {
        match self {
            Self::Denied(denied) => denied.fix(machine),
            Self::Mount(StorageError::Lost { device }) => format!(
                "what was saved is in the folder lost+found of {device}, which a pod that may mount it can look into; once \
                 that is empty and the file .damaged beside it is gone, the volume is used again; to make it anew, take it \
                 out of the manifest and wipe its disk (`keelson wipe {machine} DISK`)"
            ),
            Self::Make(_) | Self::Mount(_) => {
                "see that the disk is whole; it is tried again, also when a disk comes, and at the next start"
                    .to_owned()
            }
        }
    }
}

/// Looks for all of them, and mounts each.
pub(super) fn work<L, D>(system: &dyn System, task: &Task, disks: &Disks<'_, L, D>) -> Report
where
    L: Device,
    D: Device + Wipeable,
{
    let Task { volumes, machine, made: path, seed } = task;
    let loaded = match path {
        Some(path) => Made::load(system, path),
        None => Err("the machine has no STATE to keep that".to_owned()),
    };
    let seen = volume::observe(system, disks.open);
    let planned = volume::plan(volumes, &seen, loaded.as_ref().map_err(String::as_str));
    let told = volume::describe(volumes, &planned, machine);
    let hands = Hands { system, claim: disks.claim, seed };
    let mut made = loaded.clone().unwrap_or_default();
    let mut report = Report { status: foreign(volumes, &seen), ..Report::default() };
    for ((volume, planned), told) in volumes.iter().zip(planned).zip(told) {
        let name = volume.name.to_string();
        let was_made = made.has(&name);
        let brought = planned.map_err(VolumeError::from).and_then(|planned| {
            let partition = bring(&hands, &planned)?;
            made.note(volume, &planned.disk);
            if matches!(planned.step, Step::Make(_) | Step::Finish) {
                report.told.push((name.clone(), told));
            }
            report.remarks.extend(planned.remark.map(|remark| (name.clone(), remark)));
            Ok(partition)
        });
        match brought {
            Ok(partition) => report.status.push(VolumeStatus {
                name: name.clone(),
                device: partition.display().to_string(),
                mounted_at: Some(place(&name).display().to_string()),
                ..VolumeStatus::default()
            }),
            Err(error) => {
                let (why, fix) = (chain(&error).to_string(), error.fix(machine));
                let may_pass = !matches!(error, VolumeError::Denied(_));
                report.failed.push(Failure { name, why, fix, was_made, may_pass });
            }
        }
    }
    made.keep(volumes);
    if let (Some(path), Ok(before)) = (path, &loaded)
        && *before != made
    {
        report.faults.extend(made.store(system, path).err().map(|error| chain(&error).to_string()));
    }
    report
}

/// Volumes on the machine's disks that the manifest does not name.
fn foreign(wanted: &[UserVolume], seen: &[Seen]) -> Vec<VolumeStatus> {
    let status = |seen: &Seen| match &seen.holds {
        Holds::Volume { name, .. } if !wanted.iter().any(|volume| volume.name.as_str() == name) => Some(VolumeStatus {
            name: name.clone(),
            device: seen.device.path().display().to_string(),
            mounted_at: Some(String::new()),
            ..VolumeStatus::default()
        }),
        Holds::Volume { .. } | Holds::Other(_) | Holds::Unread(_) => None,
    };
    seen.iter().filter_map(status).collect()
}

/// Makes one, if it has to be made, and mounts it. Answers its partition.
fn bring<D: Device + Wipeable>(hands: &Hands<'_, D>, planned: &Planned) -> Result<PathBuf, VolumeError> {
    let partition = volume::apply(hands, planned)?;
    if planned.step != Step::Stay {
        let hidden = Path::new(HIDDEN).join(&planned.name);
        storage::mount_disk(hands.system, &partition, (&hidden, FLAGS, ""), CONTENT)?;
        let shown = show(hands.system, &hidden, &planned.name).map_err(StorageError::from);
        // Where it is shown keeps it mounted.
        let hid = hands.system.unmount(&hidden, UnmountFlags::Plain).map_err(StorageError::from);
        shown.and(hid)?;
    }
    Ok(partition)
}

/// Lets pods see what is mounted there. The folder is there only while something is mounted on it, and nobody can make one:
/// what a pod writes to a volume that is not there would lie in memory, or on the machine's own disk.
fn show(system: &dyn System, hidden: &Path, name: &str) -> Result<(), Error> {
    let (content, place) = (hidden.join(CONTENT), place(name));
    system.make_dir(&content, 0o755)?;
    if !mounts::mounted(system).contains(Path::new(FOLDER)) {
        let options = "mode=755,size=1m".to_owned();
        system.mount(&Mount { source: "tmpfs".into(), kind: "tmpfs".into(), options, ..folder(STRICT) })?;
    }
    system.mount(&folder(STRICT | MountFlags::REMOUNT | MountFlags::BIND))?;
    let shown = system.make_dir(&place, 0o755).and_then(|()| {
        let bound = system.mount(&storage::bind(&content, &place, MountFlags::NONE));
        bound.inspect_err(|_refused| drop(system.remove_dir(&place)))
    });
    let closed = system.mount(&folder(STRICT | MountFlags::READ_ONLY | MountFlags::REMOUNT | MountFlags::BIND));
    shown.and(closed)
}

fn folder(flags: MountFlags) -> Mount {
    Mount { target: FOLDER.into(), flags, ..Mount::default() }
}
