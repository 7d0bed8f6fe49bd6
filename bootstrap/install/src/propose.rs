//! What is to become of a machine's disks by a manifest: which disk is installed to, why that one, what it gets and what it
//! loses. A start does it; a machine that waits for its manifest tells it to whoever asks before.

use disk::layout::{self, ESP_NAME, INSTALLED, Sizes};
use disk::{Device, Table};
use manifest::Install;
use sys::{BlockDevice, System};

use crate::booted::Booted;
use crate::error::Error;
use crate::file::{FileDevice, Purpose};
use crate::onto::{self, Contents, OntoPlan};
use crate::own::OwnDisk;
use crate::{rest, select};

/// How large partitions are to be, as a manifest says.
#[must_use]
pub fn sizes(install: &Install) -> Sizes {
    Sizes {
        esp: layout::ESP_BYTES,
        slot: layout::SLOT_BYTES,
        state: install.state_size.bytes(),
        data: install.data_size.map(|size| size.bytes()),
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Proposal<D> {
    /// The machine runs from what it was started from, which is this.
    Stays(OwnDisk<D>),
    /// That disk was installed to before.
    Installed(BlockDevice),
    /// It is installed elsewhere.
    Write(Box<Target<D>>),
}

/// A disk to install to.
#[derive(Debug)]
pub struct Target<D> {
    /// What the machine was started from.
    pub source: OwnDisk<D>,
    /// The disk.
    pub disk: BlockDevice,
    /// The same, open.
    pub device: D,
    /// What it gets.
    pub table: Table,
    /// What it holds, and loses.
    contents: Contents,
    selector: String,
    /// Each other disk, and why it is not taken.
    others: Vec<String>,
    is_rest: bool,
}

/// Looks, and decides. `seed` makes identifiers. What is only looked at cannot be written by what comes of it.
///
/// # Errors
/// No disk fits, the one that does is in use, or a disk fails.
pub fn propose(
    system: &dyn System,
    booted: &Booted,
    install: &Install,
    (seed, purpose): (&[u8], Purpose),
) -> Result<Proposal<FileDevice>, Error> {
    let source = match purpose {
        Purpose::Look => booted.open_for(purpose)?,
        Purpose::Write => booted.open()?,
    };
    let Some(selector) = &install.disk else { return Ok(Proposal::Stays(source)) };
    let esp = source.table().named(ESP_NAME).map_or(0, |(_, esp)| esp.attributes);
    let devices = sys::block_devices(system);
    let is_own = |device: &BlockDevice| device.name == booted.disk && select::is_named(device, selector);
    if esp & INSTALLED != 0 || devices.iter().any(is_own) {
        return Ok(Proposal::Stays(source));
    }
    let select::Chosen { disk, others } =
        select::choose(&devices, &select::started_from(&booted.disk), ("install.disk", selector))?;
    let mut device = purpose.open(&disk.path())?;
    let contents = onto::observe(&mut device, disk)?;
    let disk = disk.clone();
    match onto::plan(&contents, &disk, (&sizes(install), seed), install.wipe)? {
        OntoPlan::Nothing => Ok(Proposal::Installed(disk)),
        OntoPlan::Write(table) => {
            let (selector, is_rest) = (selector.to_string(), install.data_size.is_none());
            let target = Target { source, disk, device, table, contents, selector, others, is_rest };
            Ok(Proposal::Write(Box::new(target)))
        }
    }
}

impl<D: Device> Proposal<D> {
    /// The disk, unless it is what the machine was started from.
    pub fn disk(&self) -> Option<&BlockDevice> {
        match self {
            Self::Stays(_) => None,
            Self::Installed(disk) => Some(disk),
            Self::Write(target) => Some(&target.disk),
        }
    }

    /// The steps, for people.
    ///
    /// # Errors
    /// The disk that the machine was started from has no room for what is missing.
    pub fn steps(&self, booted: &Booted, install: &Install) -> Result<Vec<String>, Error> {
        Ok(match self {
            Self::Stays(_) if booted.is_read_only => {
                vec!["nothing is installed: it was started from a medium that cannot be written, and install.disk names \
                      no disk"
                    .to_owned()]
            }
            Self::Stays(disk) => {
                let plan = rest::plan(disk.table(), &sizes(install), b"a plan")?;
                let table = plan.table.as_ref().unwrap_or(disk.table());
                let fresh = plan.format.iter().map(|(number, _)| *number).collect::<Vec<_>>();
                let parts = parts(table, install.data_size.is_none(), |number| fresh.contains(&number));
                let what = if parts.is_empty() { "has all its partitions".to_owned() } else { format!("gets {parts}") };
                vec![format!("it runs from {}, which {what}", booted.disk)]
            }
            Self::Installed(disk) => {
                vec![format!("{} is installed already, and is left alone", select::describe(disk))]
            }
            Self::Write(target) => target.steps(booted),
        })
    }
}

impl<D> Target<D> {
    fn steps(&self, booted: &Booted) -> Vec<String> {
        let lost = match &self.contents {
            Contents::Blank => "it is blank, and nothing is lost".to_owned(),
            Contents::Unfinished | Contents::Installed => {
                "an installation that was cut short there is begun anew".to_owned()
            }
            Contents::Other(what) => format!("{what} on it are lost"),
        };
        let disk = select::describe(&self.disk);
        let mut steps =
            vec![format!("installs from {} to {disk}, by install.disk = \"{}\"", booted.disk, self.selector)];
        steps.extend(self.others.iter().map(|other| format!("leaves {other}")));
        steps.push(lost);
        steps.push(format!("makes {}", parts(&self.table, self.is_rest, |_| true)));
        steps.push(format!("starts again, from {}", self.disk.path().display()));
        steps
    }
}

/// Partitions, for people.
fn parts(table: &Table, is_rest: bool, is_shown: impl Fn(u32) -> bool) -> String {
    let part = |partition: &disk::Partition| {
        let rest = if is_rest && partition.name == layout::DATA_NAME { " (the rest)" } else { "" };
        format!("{} {} MiB{rest}", partition.name, partition.bytes() >> 20)
    };
    let shown = table.partitions.iter().filter(|(number, _)| is_shown(**number));
    shown.map(|(_, partition)| part(partition)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use disk::Memory;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn booted(is_read_only: bool) -> Booted {
        Booted { disk: "sdz".to_owned(), slot: disk::Slot::A, version: "1".to_owned(), is_read_only }
    }

    fn install(lines: &str) -> Install {
        let text = format!("version = 1\n[machine]\nhostname = \"m\"\nrole = \"single\"\n[install]\n{lines}");
        manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}")).install
    }

    fn flashed() -> OwnDisk<Memory> {
        let table = layout::image(b"seed", 1 << 20);
        let mut device = Memory::new(usize::try_from(table.sectors * 512).unwrap());
        table.write(&mut device).unwrap();
        OwnDisk::open(device).unwrap()
    }

    fn write(contents: Contents, install: &Install) -> Proposal<Memory> {
        let disk = BlockDevice { bytes: 40 * GIB, serial: "A1".to_owned(), ..BlockDevice::named("nvme0n1") };
        let table = layout::installed(b"seed", disk.bytes / disk::SECTOR_BYTES, &sizes(install)).unwrap();
        let (source, device) = (flashed(), Memory::new(0));
        let (selector, others) = ("smallest:ssd".to_owned(), vec!["/dev/sda: it says that it rotates".to_owned()]);
        let is_rest = install.data_size.is_none();
        Proposal::Write(Box::new(Target { source, disk, device, table, contents, selector, others, is_rest }))
    }

    #[test]
    fn a_plan_tells_the_disk_and_why_its_partitions_and_what_is_lost() {
        let rest = install("state-size = \"4Gi\"");
        let steps = write(Contents::Other("the partitions [\"photos\"]".to_owned()), &rest);
        let steps = steps.steps(&booted(false), &rest).unwrap();
        assert_eq!(
            steps[0],
            "installs from sdz to /dev/nvme0n1 (40960 MiB, serial A1), by install.disk = \"smallest:ssd\""
        );
        assert_eq!(steps[1], "leaves /dev/sda: it says that it rotates");
        assert_eq!(steps[2], "the partitions [\"photos\"] on it are lost");
        assert!(
            steps[3].contains("KEELSON-STATE 4096 MiB, KEELSON-DATA") && steps[3].ends_with("(the rest)"),
            "{steps:?}"
        );
        assert_eq!(steps[4], "starts again, from /dev/nvme0n1");
        let fixed = install("data-size = \"2Gi\"");
        let steps = write(Contents::Blank, &fixed).steps(&booted(false), &fixed).unwrap();
        assert!(steps[2].contains("nothing is lost") && steps[3].ends_with("KEELSON-DATA 2048 MiB"), "{steps:?}");
    }

    #[test]
    fn a_machine_that_stays_where_it_is_says_what_its_disk_gets() {
        let wanted = install("state-size = \"3Gi\"\ndata-size = \"1Gi\"");
        let folder = tempfile::tempdir().unwrap();
        let mut device = FileDevice::create(&folder.path().join("disk"), 20 * GIB).unwrap();
        let image = layout::image(b"seed", 1 << 20);
        Table { sectors: 20 * GIB / disk::SECTOR_BYTES, ..image }.write(&mut device).unwrap();
        let steps = Proposal::Stays(OwnDisk::open(device).unwrap()).steps(&booted(false), &wanted).unwrap();
        assert!(steps[0].starts_with("it runs from sdz, which gets KEELSON-STATE 3072 MiB"), "{steps:?}");
        let steps = Proposal::Stays(flashed()).steps(&booted(true), &wanted).unwrap();
        assert!(steps[0].contains("cannot be written"), "{steps:?}");
        let disk = BlockDevice::named("sda");
        let steps = Proposal::<Memory>::Installed(disk).steps(&booted(false), &wanted).unwrap();
        assert!(steps[0].contains("is left alone"), "{steps:?}");
    }
}
