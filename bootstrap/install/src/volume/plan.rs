//! Which disk each volume is on, and what is to be done to it.

use std::collections::BTreeSet;

use manifest::{DiskSelector, UserVolume};
use sys::BlockDevice;

use super::{Holds, Made, Seen, place};
use crate::onto::Contents;
use crate::select::{self, SelectError};
use crate::wipe::Use;

/// What is done for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: BlockDevice,
    /// The number of its partition.
    pub number: u32,
    /// What is done.
    pub step: Step,
    /// What its owner may have to look at, though it is used: for people.
    pub remark: Option<String>,
}

/// What is done to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is mounted where it should be.
    Stay,
    /// Nothing: it is whole.
    Mount,
    /// Its partition was made, and is formatted.
    Finish,
    /// All of it is made. What the disk holds is lost, which is told for people.
    Make(Option<String>),
}

/// Why a volume is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No disk is meant by what the manifest says.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// It was there once.
    #[error("this machine had it on the disk {was}, and no disk that is there holds it{instead}")]
    Gone {
        /// The disk's serial number, or how it was chosen.
        was: String,
        /// What there is in its place, for people.
        instead: String,
    },
    /// Its disk holds something else.
    #[error("{disk} holds {what}, and is left alone")]
    Occupied {
        /// The disk, for people.
        disk: String,
        /// Its name.
        name: String,
        /// What it holds.
        what: String,
    },
    /// More than one disk holds it.
    #[error("{} disks hold it: {}", disks.len(), disks.join(", "))]
    Several {
        /// Which.
        disks: Vec<String>,
    },
    /// Its disk is not free.
    #[error("{disk}: {why}")]
    Taken {
        /// The disk, for people.
        disk: String,
        /// Why.
        why: String,
    },
    /// It would have to be made, and it is not known whether it was before.
    #[error("no disk holds it, and whether it was made before is not known: {0}")]
    Unsure(String),
}

impl Denied {
    /// What helps. `machine` is the machine's name.
    #[must_use]
    pub fn fix(&self, machine: &str) -> String {
        let again = "it is looked for again when a disk comes, and at the next start";
        match self {
            Self::Select(SelectError::None { .. }) => {
                format!(
                    "attach the disk: the volume is mounted as soon as it is there; or correct the manifest; {again}"
                )
            }
            Self::Select(SelectError::Several { .. }) => "name one of them in the manifest".to_owned(),
            Self::Gone { .. } => format!(
                "attach the disk: the volume is mounted as soon as it is there, and pods that wait for it start; if it is \
                 gone for good, name the one that takes its place in the manifest, or leave the volume out of it for one \
                 start; if it is there, and what it held may be lost, `keelson wipe {machine} DISK` makes it blank"
            ),
            Self::Occupied { name, .. } => format!(
                "`keelson wipe {machine} {name}` shows what is on it, and makes it blank with --yes: then the volume is made \
                 there; or name another disk in the manifest"
            ),
            Self::Several { .. } => format!(
                "name the right one in the manifest, by its serial number; or take the other one out, or wipe it: `keelson \
                 wipe {machine} DISK`"
            ),
            Self::Taken { .. } => format!("name another disk in the manifest, or see that this one is free; {again}"),
            Self::Unsure(_) => format!("see that STATE is whole; {again}"),
        }
    }
}

/// Decides, for each volume. `made` says which ones the machine has had, or why that is not known.
#[must_use]
pub fn plan(wanted: &[UserVolume], seen: &[Seen], made: Result<&Made, &str>) -> Vec<Result<Planned, Denied>> {
    let mut given = BTreeSet::new();
    let all = wanted.iter().enumerate();
    all.map(|(index, volume)| {
        let planned = find(volume, seen).unwrap_or_else(|| make((wanted, index), seen, (made, &given)))?;
        given.insert(planned.disk.name.clone());
        Ok(planned)
    })
    .collect()
}

/// The volume, where a disk holds it.
fn find(volume: &UserVolume, seen: &[Seen]) -> Option<Result<Planned, Denied>> {
    let name = volume.name.as_str();
    let holders = seen.iter().filter_map(|seen| match &seen.holds {
        Holds::Volume { name: held, number, is_fresh } if held == name => Some((seen, *number, *is_fresh)),
        Holds::Volume { .. } | Holds::Other(_) | Holds::Unread(_) => None,
    });
    let holders: Vec<_> = holders.collect();
    let mut named = holders.iter().filter(|(seen, ..)| select::is_named(&seen.device, &volume.disk));
    let (seen, number, is_fresh) = match (holders.as_slice(), named.next(), named.next()) {
        ([], ..) => return None,
        ([one], ..) | (_, Some(one), None) => *one,
        (several, ..) => {
            let disks = several.iter().map(|(seen, ..)| select::describe(&seen.device)).collect();
            return Some(Err(Denied::Several { disks }));
        }
    };
    let disk = &seen.device;
    let taken = |why: &str| Denied::Taken { disk: select::describe(disk), why: why.to_owned() };
    let is_there = |used: &Use| matches!(used, Use::Mounted(target) if place(name).as_os_str() == target.as_str());
    let step = match (&seen.taken, is_fresh) {
        (..) if seen.uses.iter().any(is_there) => Step::Stay,
        (Some(why), _) => return Some(Err(taken(why))),
        (None, _) if disk.is_read_only => return Some(Err(taken("nothing can be written to it"))),
        (None, true) => Step::Finish,
        (None, false) => Step::Mount,
    };
    Some(Ok(Planned { name: name.to_owned(), disk: disk.clone(), number, step, remark: elsewhere(volume, disk) }))
}

/// A name of the kernel's may be another disk's by now; what a disk has of its own may not.
fn elsewhere(volume: &UserVolume, disk: &BlockDevice) -> Option<String> {
    let is_of_its_own = matches!(volume.disk, DiskSelector::Serial(_) | DiskSelector::Model(_));
    let is_other = is_of_its_own && !select::is_named(disk, &volume.disk);
    is_other.then(|| {
        format!("it is on {}, and stays there, though the manifest names {}", select::describe(disk), volume.disk)
    })
}

/// The volume on a disk that is to hold it.
fn make(
    (wanted, index): (&[UserVolume], usize),
    seen: &[Seen],
    (made, given): (Result<&Made, &str>, &BTreeSet<String>),
) -> Result<Planned, Denied> {
    let volume = &wanted[index];
    let made = made.map_err(|why| Denied::Unsure(why.to_owned()))?;
    let key = format!("storage.volumes[{index}].disk");
    let devices: Vec<BlockDevice> = seen.iter().map(|seen| seen.device.clone()).collect();
    let refused =
        |device: &BlockDevice| refuse(seen.iter().find(|it| it.device.name == device.name)?, (wanted, volume), given);
    let chosen = select::choose(&devices, &refused, (&key, &volume.disk));
    // Where it was, if the manifest says of its disk what it said then.
    let before = made.0.get(volume.name.as_str()).filter(|origin| origin.disk == volume.disk.to_string());
    let gone = |instead| before.map(|origin| Denied::Gone { was: origin.words(), instead });
    let chosen = chosen.map_err(|error| gone(unread(seen)).unwrap_or(Denied::Select(error)))?;
    let disk = chosen.disk;
    let holds = seen.iter().find(|it| it.device.name == disk.name).map(|it| &it.holds);
    let lost = holds.and_then(contents);
    // Only the very disk, made blank, is taken again: another one, or one that is damaged, is not what is missed.
    let is_same = before.is_none_or(|origin| !origin.serial.is_empty() && origin.serial == disk.serial);
    let instead = || match &lost {
        Some(what) if is_same => format!("; {} holds {what}", select::describe(disk)),
        Some(_) | None => unread(seen),
    };
    if let Some(gone) = gone(instead()).filter(|_| !is_same || lost.is_some()) {
        return Err(gone);
    }
    match lost {
        Some(what) if !volume.wipe || matches!(holds, Some(Holds::Unread(_))) => {
            Err(Denied::Occupied { disk: select::describe(disk), name: disk.name.clone(), what })
        }
        lost => {
            let (name, disk) = (volume.name.to_string(), disk.clone());
            Ok(Planned { name, disk, number: 1, step: Step::Make(lost), remark: None })
        }
    }
}

/// Why a volume is not made on a disk, whatever the manifest says.
fn refuse(seen: &Seen, (wanted, volume): (&[UserVolume], &UserVolume), given: &BTreeSet<String>) -> Option<String> {
    let is_given = given.contains(&seen.device.name).then(|| "another volume is made on it".to_owned());
    let other = match &seen.holds {
        Holds::Volume { name, .. } if wanted.iter().any(|other| other.name.as_str() == name) => {
            Some(format!("it holds the volume {name}, which the manifest names, too"))
        }
        Holds::Volume { name, .. } if !select::is_named(&seen.device, &volume.disk) => {
            Some(format!("it holds the volume {name}"))
        }
        Holds::Volume { .. } | Holds::Other(_) | Holds::Unread(_) => None,
    };
    seen.taken.clone().or(is_given).or(other)
}

/// What a disk that is not blank holds, for people.
fn contents(holds: &Holds) -> Option<String> {
    match holds {
        Holds::Other(Contents::Blank) => None,
        Holds::Other(Contents::Installed) => Some("an installed system".to_owned()),
        Holds::Other(Contents::Unfinished) => Some("an installation that was cut short".to_owned()),
        Holds::Other(Contents::Other(what)) => Some(what.clone()),
        Holds::Volume { name, .. } => Some(format!("the volume {name}")),
        Holds::Unread(why) => Some(format!("what cannot be read ({why})")),
    }
}

fn unread(seen: &[Seen]) -> String {
    let unread = seen.iter().filter_map(|seen| match &seen.holds {
        Holds::Unread(why) => Some(format!("; {} cannot be read: {why}", seen.device.path().display())),
        Holds::Volume { .. } | Holds::Other(_) => None,
    });
    unread.collect()
}

/// What becomes of each volume of the machine of this name, for people, before it does.
#[must_use]
pub fn describe(wanted: &[UserVolume], planned: &[Result<Planned, Denied>], machine: &str) -> Vec<String> {
    let line = |(volume, planned): (&UserVolume, &Result<Planned, Denied>)| {
        let name = &volume.name;
        let planned = match planned {
            Ok(planned) => planned,
            Err(denied) => {
                let fix = denied.fix(machine);
                return format!("the volume {name} is not to be had as it is now: {denied}; what helps: {fix}");
            }
        };
        let disk = select::describe(&planned.disk);
        match &planned.step {
            Step::Stay | Step::Mount => format!("the volume {name} is on {disk}, and keeps what it holds"),
            Step::Finish => format!("the volume {name} is finished on {disk}, where it was begun"),
            Step::Make(None) => format!("makes the volume {name} on {disk}, which is blank"),
            Step::Make(Some(what)) => format!("makes the volume {name} on {disk}: {what} on it is lost"),
        }
    };
    wanted.iter().zip(planned).map(line).collect()
}
