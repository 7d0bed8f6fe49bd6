//! A disk, or a partition, that the machine does not use is wiped: whatever tells what is on it is overwritten, and the
//! device discards the rest where it can.
//!
//! ```text
//! observe ─▶ plan: is it there, free, writable? ─▶ claim (the kernel has the last word) ─▶ apply: discard, zeros, sync
//! ```
//!
//! It does not overwrite everything: what lies between stays readable on a device that discards nothing, and the plan
//! says so.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use disk::Device;
use stdx::chain;
use sys::{BlockDevice, System};

use crate::booted::Booted;

const CLASS: &str = "/sys/class/block";
const SECTOR_BYTES: u64 = 512;
/// From the start of a disk or partition: what every partition table and file system begins with, and the header and keys
/// of LUKS, whose second copy and whose keys end there.
const HEAD_BYTES: u64 = 16 << 20;
/// From the end: the second partition table, and what RAID and ZFS keep there.
const TAIL_BYTES: u64 = 1 << 20;
/// Zeros are written in pieces, and discarded is so much at once: between two of them time is looked at.
const PIECE_BYTES: usize = 1 << 20;
const DISCARD_BYTES: u64 = 1 << 30;
/// A device that has not discarded everything by then is left as it is: whoever waits has to be told.
const DISCARD_WITHIN: Duration = Duration::from_secs(300);

/// What has a device, so that it cannot be wiped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is mounted here.
    Mounted(String),
    /// Memory is swapped out to it.
    Swap,
    /// Something else is made of it: its device, and what that is.
    PartOf(String, &'static str),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted(target) => write!(f, "it is mounted at {target}"),
            Self::Swap => f.write_str("memory is swapped out to it"),
            Self::PartOf(device, what) => write!(f, "{device}, {what}, is made of it"),
        }
    }
}

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

/// What a machine has, and who has that.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    own: Option<String>,
    devices: Vec<Found>,
}

#[derive(Clone, Debug)]
struct Found {
    device: BlockDevice,
    /// Where it begins on its disk.
    start: u64,
    uses: Vec<Use>,
    discards: bool,
}

/// What is done to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WipePlan {
    /// The device.
    pub device: String,
    /// Its disk, where that has partitions, which are then to be made known anew.
    pub had_partitions: Option<String>,
    /// What is on it and on its partitions, for people.
    pub holds: Vec<String>,
    /// What becomes of that, for people.
    pub steps: Vec<String>,
    blanks: Vec<Range<u64>>,
    discards: bool,
}

/// A device that can be told what nobody needs any more.
pub trait Wipeable: Device {
    /// Tells it.
    ///
    /// # Errors
    /// It cannot do so, or fails.
    fn discard(&mut self, offset: u64, bytes: u64) -> io::Result<()>;
}

/// Looks at all disks and partitions.
#[must_use]
pub fn observe(system: &dyn System) -> Observed {
    let text = |path: &Path| String::from_utf8_lossy(&system.read(path).unwrap_or_default()).into_owned();
    let (mounts, swaps) = (text(Path::new("/proc/self/mountinfo")), text(Path::new("/proc/swaps")));
    let found = |device: BlockDevice| {
        let folder = Path::new(CLASS).join(&device.name);
        let disk = Path::new(CLASS).join(&device.disk);
        let number = |file: &Path| text(file).trim().parse::<u64>().unwrap_or(0);
        let mut uses = mounted(&mounts, text(&folder.join("dev")).trim(), &device.path());
        let is_swap = |line: &str| line.split_whitespace().next().is_some_and(|it| Path::new(it) == device.path());
        uses.extend(swaps.lines().any(is_swap).then_some(Use::Swap));
        let holders = system.list(&folder.join("holders")).unwrap_or_default();
        uses.extend(holders.iter().map(|holder| made_of(&text, holder)));
        Found {
            start: number(&folder.join("start")) * SECTOR_BYTES,
            discards: number(&disk.join("queue/discard_max_bytes")) > 0,
            uses,
            device,
        }
    };
    let devices = sys::block_devices(system).into_iter().map(found).collect();
    Observed { own: Booted::observe(system).map(|booted| booted.disk), devices }
}

/// Where a device is mounted: by its number, or, as file systems of several devices have numbers of their own, by its node.
fn mounted(table: &str, number: &str, node: &Path) -> Vec<Use> {
    let target = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(2);
        let (of, _root, target) = (words.next()?, words.next()?, words.next()?);
        let is_it = (!number.is_empty() && of == number) || kind.split(' ').nth(1).map(Path::new) == Some(node);
        is_it.then(|| Use::Mounted(sys::mounted_path(target.as_bytes()).to_string_lossy().into_owned()))
    };
    table.lines().filter_map(target).take(1).collect()
}

/// What a device is that is made of another one.
fn made_of(text: &dyn Fn(&Path) -> String, holder: &str) -> Use {
    const KINDS: [(&str, &str); 3] =
        [("CRYPT-", "an encrypted volume"), ("LVM-", "a logical volume"), ("mpath-", "a disk with several ways to it")];
    let folder = Path::new(CLASS).join(holder);
    let uuid = text(&folder.join("dm/uuid"));
    let kind = KINDS.into_iter().find(|(prefix, _)| uuid.starts_with(prefix)).map(|(_, kind)| kind);
    let of_name = || if holder.starts_with("md") { "an array" } else { "a device of the kernel's" };
    let name = text(&folder.join("dm/name"));
    let name = if name.trim().is_empty() { holder } else { name.trim() };
    Use::PartOf(name.to_owned(), kind.unwrap_or_else(of_name))
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
    let places = std::iter::once((0, device.bytes)).chain(parts.iter().map(|part| (part.start, part.device.bytes)));
    let all = std::iter::once(found).chain(parts.iter().copied());
    let what = if device.is_partition { "the partition itself stays" } else { "the partition table goes, too" };
    let overwritten = format!(
        "the first {} MiB and the last MiB of {} are overwritten with zeros; {what}",
        HEAD_BYTES >> 20,
        if parts.is_empty() { "it" } else { "it and of each partition" }
    );
    let between = if found.discards {
        "the device is told to discard all of it"
    } else {
        "the device discards nothing: what lies between can be read until it is written over"
    };
    Ok(WipePlan {
        device: device.name.clone(),
        had_partitions: (!parts.is_empty()).then(|| device.name.clone()),
        holds: all.map(|it| format!("{}: {}", it.device.name, holds(&it.device))).collect(),
        steps: vec![overwritten, between.to_owned()],
        blanks: places.flat_map(|(start, bytes)| ends(start, bytes)).collect(),
        discards: found.discards,
    })
}

fn check(own: Option<&str>, found: &Found, parts: &[&Found]) -> Result<(), WipeDenied> {
    let device = &found.device;
    if own == Some(device.disk.as_str()) {
        return Err(WipeDenied::Own { disk: device.disk.clone() });
    }
    let in_use = std::iter::once(found).chain(parts.iter().copied()).find_map(|it| Some((it, it.uses.first()?)));
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
        None if device.is_blank => "blank".to_owned(),
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

/// The two ends of a place, which may be one.
fn ends(start: u64, bytes: u64) -> [Range<u64>; 2] {
    let end = start + bytes;
    [start..start + HEAD_BYTES.min(bytes), end - TAIL_BYTES.min(bytes)..end]
}

/// Does it. Answers, for people, what of it a device would not do that is none the less wiped.
///
/// # Errors
/// The device fails; parts of it may be wiped by then.
pub fn apply(plan: &WipePlan, device: &mut impl Wipeable) -> io::Result<Option<String>> {
    let told = if plan.discards { discard_all(device, Instant::now() + DISCARD_WITHIN) } else { None };
    // What a device answers of what it discarded is its own affair, so that the zeros come last.
    let zeros = vec![0; PIECE_BYTES];
    for blank in &plan.blanks {
        let mut at = blank.start;
        while at < blank.end {
            let piece = usize::try_from(blank.end - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            device.write_at(at, &zeros[..piece])?;
            at += piece as u64;
        }
    }
    device.sync()?;
    Ok(told)
}

fn discard_all(device: &mut impl Wipeable, until: Instant) -> Option<String> {
    let all = device.bytes();
    let mut at = 0;
    while at < all {
        if Instant::now() >= until {
            return Some(format!("it did not discard more than the first {} MiB in time", at >> 20));
        }
        let piece = DISCARD_BYTES.min(all - at);
        if let Err(error) = device.discard(at, piece) {
            return Some(format!("it did not discard everything: {}", chain(&error)));
        }
        at += piece;
    }
    None
}

#[cfg(test)]
mod tests {
    use disk::Memory;
    use sys::FakeSystem;

    use super::*;

    const MIB: u64 = 1 << 20;

    struct Disk {
        memory: Memory,
        discarded: Vec<(u64, u64)>,
        fails: bool,
    }

    impl Disk {
        /// Full of the same byte.
        fn full(mib: usize, fails: bool) -> Self {
            let mut memory = Memory::new(mib << 20);
            memory.write_at(0, &vec![7; mib << 20]).unwrap();
            Self { memory, discarded: Vec::new(), fails }
        }
    }

    impl Device for Disk {
        fn bytes(&self) -> u64 {
            self.memory.bytes()
        }
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.memory.read_at(offset, buffer)
        }
        fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
            self.memory.write_at(offset, content)
        }
        fn sync(&mut self) -> io::Result<()> {
            self.memory.sync()
        }
    }

    impl Wipeable for Disk {
        fn discard(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
            if self.fails {
                return Err(io::ErrorKind::Unsupported.into());
            }
            self.discarded.push((offset, bytes));
            Ok(())
        }
    }

    /// A machine with a disk of its own, and another one with two partitions.
    fn machine() -> FakeSystem {
        let system = FakeSystem::new();
        let all = [("vda", 64, None), ("vda1", 8, Some(2)), ("vdb", 100, None), ("vdb1", 40, Some(1))];
        let more = [("vdb2", 40, Some(50)), ("vdc", 8, None)];
        for (number, (name, mib, start)) in all.into_iter().chain(more).enumerate() {
            let folder = format!("/sys/class/block/{name}");
            system.file(format!("{folder}/size"), format!("{}\n", mib * MIB / SECTOR_BYTES));
            system.file(format!("{folder}/dev"), format!("254:{number}\n"));
            let place = match start {
                Some(at) => {
                    system.file(format!("{folder}/partition"), "1\n");
                    system.file(format!("{folder}/start"), format!("{}\n", at * MIB / SECTOR_BYTES));
                    format!("../../devices/{}/{name}", &name[..3])
                }
                None => {
                    system.file(format!("{folder}/queue/discard_max_bytes"), "0\n");
                    format!("../../devices/{name}")
                }
            };
            system.link(&folder, place);
        }
        system
    }

    fn denied(system: &FakeSystem, name: &str) -> String {
        plan(&observe(system), name).unwrap_err().to_string()
    }

    #[test]
    fn both_ends_of_the_disk_and_of_each_partition_are_overwritten_and_what_lies_between_is_told() {
        let plan = plan(&observe(&machine()), "/dev/vdb").unwrap();
        assert!(plan.holds.len() == 3 && plan.holds[2].starts_with("vdb2: 40 MiB"), "{plan:?}");
        assert!(plan.steps[1].contains("can be read until"), "{plan:?}");
        let mut disk = Disk::full(100, false);
        assert_eq!(apply(&plan, &mut disk).unwrap(), None);
        assert_eq!(disk.discarded, []);
        let content = disk.memory.content();
        let all = |mib: std::ops::Range<usize>, byte: u8| {
            content[mib.start << 20..mib.end << 20].iter().all(|it| *it == byte)
        };
        for blank in [0..17, 40..41, 50..66, 89..90, 99..100] {
            assert!(all(blank.clone(), 0), "{blank:?}");
        }
        for left in [17..40, 41..50, 66..89, 90..99] {
            assert!(all(left.clone(), 7), "{left:?}");
        }
        assert_eq!(plan.had_partitions.as_deref(), Some("vdb"));
    }

    #[test]
    fn a_partition_is_wiped_alone_and_a_small_one_whole() {
        let system = machine();
        let part = plan(&observe(&system), "vdb2").unwrap();
        assert_eq!(part.blanks, [0..16 * MIB, 39 * MIB..40 * MIB]);
        assert!(part.had_partitions.is_none() && part.holds.len() == 1, "{part:?}");
        assert_eq!(plan(&observe(&system), "vdc").unwrap().blanks, [0..8 * MIB, 7 * MIB..8 * MIB]);
    }

    #[test]
    fn a_device_that_can_discards_everything_and_one_that_fails_is_wiped_all_the_same() {
        let system = machine();
        system.file("/sys/class/block/vdc/queue/discard_max_bytes", "4096\n");
        let plan = plan(&observe(&system), "vdc").unwrap();
        let mut disk = Disk::full(8, false);
        assert_eq!(apply(&plan, &mut disk).unwrap(), None);
        assert_eq!(disk.discarded, [(0, 8 * MIB)]);
        let mut disk = Disk::full(8, true);
        assert!(apply(&plan, &mut disk).unwrap().unwrap().contains("did not discard everything"));
        assert!(disk.memory.content().iter().all(|it| *it == 0));
        assert!(discard_all(&mut disk, Instant::now()).unwrap().contains("in time"));
    }

    #[test]
    fn what_the_machine_uses_is_not_wiped_and_who_has_it_is_told() {
        let system = machine();
        assert!(
            denied(&system, "sdz").ends_with("there are vda, vda1, vdb, vdb1, vdb2, vdc"),
            "{}",
            denied(&system, "sdz")
        );
        system.file("/sys/class/block/vdc/ro", "1\n");
        assert_eq!(denied(&system, "vdc"), "nothing can be written to vdc");
        let mounts = "30 1 0:5 / /proc rw - proc proc rw\n31 1 254:3 / /mnt/a rw - ext4 /dev/root rw\n";
        system.file("/proc/self/mountinfo", mounts);
        assert_eq!(denied(&system, "vdb"), "vdb1 is in use: it is mounted at /mnt/a");
        system.file("/proc/self/mountinfo", "31 1 0:50 / /mnt/b\\040c rw shared:1 - btrfs /dev/vdb1 rw\n");
        assert_eq!(denied(&system, "vdb1"), "vdb1 is in use: it is mounted at /mnt/b c");
        assert!(plan(&observe(&system), "vdb2").is_ok());
        system.file("/proc/swaps", "Filename Type Size\n/dev/vdb2 partition 9 0 -2\n");
        assert_eq!(denied(&system, "vdb2"), "vdb2 is in use: memory is swapped out to it");
        for (uuid, expected) in [
            ("CRYPT-LUKS2-1", "vdb is in use: secret, an encrypted volume, is made of it"),
            ("LVM-1", "vdb is in use: secret, a logical volume, is made of it"),
        ] {
            system.file("/sys/class/block/vdb/holders/dm-3", "");
            system.file("/sys/class/block/dm-3/dm/uuid", uuid);
            system.file("/sys/class/block/dm-3/dm/name", "secret\n");
            assert_eq!(denied(&system, "vdb"), expected);
        }
        let own = Observed { own: Some("vda".to_owned()), ..observe(&system) };
        for name in ["vda", "vda1"] {
            assert!(plan(&own, name).unwrap_err().to_string().contains("was started from"));
        }
    }
}
