//! What is done, if it may be.

use std::iter::once;
use std::ops::Range;

use sys::{BlockDevice, PROBE_BYTES};

use super::{Observed, Use};
use crate::wipe::observe::Found;

/// From the start of a disk or partition: what every partition table and most file systems begin with, and the header and
/// keys of LUKS, whose second copy and whose keys end there.
const HEAD_BYTES: u64 = 16 << 20;
/// From the end: the second partition table, and what RAID and ZFS keep there.
const TAIL_BYTES: u64 = 1 << 20;
/// Where btrfs keeps copies of what makes it one, and how long these are.
///
/// Source: btrfs documentation, "On-disk Format", section "Superblock".
const COPIES: [u64; 2] = [64 << 20, 256 << 30];
const COPY_BYTES: u64 = 4096;

/// Why nothing is wiped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WipeDenied {
    /// There is nothing of the name.
    #[error("there is no disk or partition {name:?}; there are {there}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        there: String,
    },
    /// The machine lives on it.
    #[error("{disk} is the disk that this machine was started from; `keelson reset` makes what it keeps there anew")]
    Own {
        /// The disk.
        disk: String,
    },
    /// It cannot be written.
    #[error("nothing can be written to {0}")]
    ReadOnly(String),
    /// Somebody has it.
    #[error("{device} is in use: {by}")]
    InUse {
        /// The device, or one of its partitions.
        device: String,
        /// By whom.
        by: Use,
    },
}

/// What is done to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WipePlan {
    /// The device.
    pub device: String,
    /// The same if it is a whole disk, whose partitions are then to be made known anew.
    pub disk: Option<String>,
    /// What is on it and on its partitions, for people.
    pub holds: Vec<String>,
    /// What becomes of that, for people.
    pub steps: Vec<String>,
    /// What tells whether a disk of the same name is still the one of this plan.
    pub digest: String,
    pub(super) blanks: Vec<Range<u64>>,
    pub(super) discards: bool,
}

/// What wiping the device of this name does; a path to its node is a name, too.
///
/// # Errors
/// It is not there, or not free.
pub fn plan(observed: &Observed, name: &str) -> Result<WipePlan, WipeDenied> {
    let bare = name.strip_prefix("/dev/").unwrap_or(name);
    let Some(found) = observed.devices.iter().find(|found| found.device.name == bare) else {
        let there: Vec<&str> = observed.devices.iter().map(|found| found.device.name.as_str()).collect();
        return Err(WipeDenied::Unknown { name: name.to_owned(), there: there.join(", ") });
    };
    let device = &found.device;
    let is_part = |other: &&Found| other.device.is_partition && other.device.disk == device.name;
    let parts: Vec<&Found> = observed.devices.iter().filter(is_part).collect();
    check(observed.own.as_deref(), found, &parts)?;
    let places = once((0, device.bytes)).chain(parts.iter().map(|part| (part.start, part.device.bytes)));
    let all = once(found).chain(parts.iter().copied());
    let what = if device.is_partition { "the partition itself stays" } else { "the partition table goes, too" };
    let overwritten = format!(
        "of {} the first {} MiB, the last MiB and the places of copies that btrfs makes are overwritten with zeros, so that \
         no system takes it for anything; {what}",
        if parts.is_empty() { "it" } else { "it and each partition" },
        HEAD_BYTES >> 20
    );
    let between = if found.discards {
        "the device is told to discard all of it"
    } else {
        "the device discards nothing: what lies between can be read until it is written over"
    };
    let holds: Vec<String> = all.map(|it| format!("{}: {}", it.device.name, holds(&it.device))).collect();
    Ok(WipePlan {
        device: device.name.clone(),
        disk: (!device.is_partition).then(|| device.name.clone()),
        digest: stdx::hex(ring::digest::digest(&ring::digest::SHA256, holds.join("\n").as_bytes()).as_ref()),
        holds,
        steps: vec![overwritten, between.to_owned()],
        blanks: places.flat_map(|(start, bytes)| marks(start, bytes)).collect(),
        discards: found.discards,
    })
}

fn check(own: Option<&str>, found: &Found, parts: &[&Found]) -> Result<(), WipeDenied> {
    let device = &found.device;
    if own == Some(device.disk.as_str()) {
        return Err(WipeDenied::Own { disk: device.disk.clone() });
    }
    let in_use = once(found).chain(parts.iter().copied()).find_map(|it| Some((it, it.uses.first()?)));
    if let Some((it, by)) = in_use {
        return Err(WipeDenied::InUse { device: it.device.name.clone(), by: by.clone() });
    }
    if device.is_read_only {
        return Err(WipeDenied::ReadOnly(device.name.clone()));
    }
    Ok(())
}

/// For people.
fn holds(device: &BlockDevice) -> String {
    let named = |what: &str, value: &str| if value.is_empty() { String::new() } else { format!(", {what} {value}") };
    let content = match &device.filesystem {
        Some(found) if found.label.is_empty() => found.kind.name().to_owned(),
        Some(found) => format!("{} {:?}", found.kind.name(), found.label),
        None if device.has_partitions => "partitions".to_owned(),
        None if device.is_blank => format!("nothing that is known in its first {} KiB", PROBE_BYTES >> 10),
        None => "content of a kind that is not known here".to_owned(),
    };
    format!(
        "{} MiB{}{}{}, {content}",
        device.bytes >> 20,
        named("model", &device.model),
        named("serial", &device.serial),
        named("named", &device.partition_label)
    )
}

/// Where on a place there may be what tells what it is: its two ends, which may be one, and the copies between.
fn marks(start: u64, bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let end = start + bytes;
    let ends = [start..start + HEAD_BYTES.min(bytes), end - TAIL_BYTES.min(bytes)..end];
    let copies = COPIES.into_iter().map(move |at| start + at..start + at + COPY_BYTES);
    ends.into_iter().chain(copies.filter(move |copy| copy.end <= end))
}
