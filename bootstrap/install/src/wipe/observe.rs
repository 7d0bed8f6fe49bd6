//! What there is, and who has it.

use std::fmt;
use std::path::Path;

use disk::SECTOR_BYTES;
use sys::{BlockDevice, System};

use crate::booted::{Booted, CLASS};

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

/// What a machine has, and who has that.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub(crate) own: Option<String>,
    pub(crate) devices: Vec<Found>,
}

#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) device: BlockDevice,
    /// Where it begins on its disk.
    pub(crate) start: u64,
    pub(crate) uses: Vec<Use>,
    pub(crate) discards: bool,
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
    table.lines().filter_map(target).collect()
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
