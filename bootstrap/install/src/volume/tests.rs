use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use disk::layout::{self, FRESH, volume_name};
use disk::{Device, Memory, SECTOR_BYTES, Table};
use manifest::UserVolume;
use sys::{Call, FakeSystem, PROBE_BYTES, System};

use super::*;
use crate::error::Error;
use crate::wipe::Wipeable;

const MIB: usize = 1 << 20;

/// A disk whose writes are counted together with all else that is done to a machine, so that one cut ends both.
#[derive(Clone)]
struct Disk {
    memory: Rc<RefCell<Memory>>,
    path: PathBuf,
    system: Arc<FakeSystem>,
}

impl Device for Disk {
    fn bytes(&self) -> u64 {
        self.memory.borrow().bytes()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.memory.borrow_mut().read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        self.system.write(&self.path, b"a write").map_err(io::Error::other)?;
        self.memory.borrow_mut().write_at(offset, content)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wipeable for Disk {
    fn discard(&mut self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The disks of a machine that starts from `sda`: by name, serial number and content.
#[derive(Clone, Default)]
struct Disks(BTreeMap<String, (String, Memory)>);

impl Disks {
    fn with(mut self, name: &str, serial: &str, memory: Memory) -> Self {
        self.0.insert(name.to_owned(), (serial.to_owned(), memory));
        self
    }

    fn blank(name: &str, serial: &str) -> Self {
        Self::default().with(name, serial, Memory::new(32 * MIB))
    }

    fn table(&self, name: &str) -> Table {
        Table::read(&mut self.0[name].1.clone()).unwrap()
    }

    fn writes(&self) -> usize {
        self.0.values().map(|(_, memory)| memory.writes()).sum()
    }
}

/// What came of a start.
struct Start {
    planned: Vec<Result<Planned, Denied>>,
    done: Vec<Result<PathBuf, Error>>,
    calls: Vec<Call>,
}

impl Start {
    fn formatted(&self) -> usize {
        self.calls.iter().filter(|call| matches!(call, Call::Run(argv) if argv[0].ends_with("mkfs.ext4"))).count()
    }

    fn denied(&self, index: usize) -> String {
        self.planned[index].as_ref().unwrap_err().to_string()
    }

    fn step(&self, index: usize) -> &Step {
        &self.planned[index].as_ref().unwrap_or_else(|denied| panic!("{denied}")).step
    }
}

/// Tells of a disk what the kernel does, which looks for partitions by the first copy of a table alone.
fn tell(system: &FakeSystem, name: &str, (serial, memory): &(String, Memory)) {
    let folder = format!("/sys/class/block/{name}");
    system.file(format!("{folder}/size"), format!("{}\n", memory.bytes() / SECTOR_BYTES));
    system.file(format!("{folder}/serial"), serial);
    system.link(&folder, format!("../../devices/{name}"));
    let content = memory.content();
    system.file(format!("/dev/{name}"), &content[..PROBE_BYTES]);
    let has_table = content[512..].starts_with(b"EFI PART");
    let table = Table::read(&mut memory.clone()).ok().filter(|_| has_table);
    for (number, partition) in table.into_iter().flat_map(|table| table.partitions) {
        let part = format!("/sys/class/block/{name}{number}");
        system.file(format!("{part}/size"), format!("{}\n", partition.sectors()));
        system.file(format!("{part}/partition"), "1\n");
        system.file(format!("{part}/start"), format!("{}\n", partition.first));
        system.file(format!("/sys/class/block/{name}/{name}{number}/partition"), "1\n");
        system.link(&part, format!("../../devices/{name}/{name}{number}"));
    }
}

/// Starts the machine; its power is cut after so many effects.
fn start_cut(disks: &mut Disks, wanted: &[UserVolume], made: &Made, cut: Option<usize>) -> Start {
    let system = Arc::new(FakeSystem::new());
    disks.0.iter().for_each(|(name, disk)| tell(&system, name, disk));
    start_on(system, disks, wanted, (made, cut))
}

fn start_on(
    system: Arc<FakeSystem>,
    disks: &mut Disks,
    wanted: &[UserVolume],
    (made, cut): (&Made, Option<usize>),
) -> Start {
    let shared: BTreeMap<PathBuf, Rc<RefCell<Memory>>> = disks
        .0
        .iter()
        .map(|(name, (_, memory))| (Path::new("/dev").join(name), Rc::new(RefCell::new(memory.clone()))))
        .collect();
    let open = |path: &Path| match shared.get(path) {
        Some(memory) => Ok(Disk { memory: memory.clone(), path: path.to_owned(), system: system.clone() }),
        None => Err(Error::Open { path: path.to_owned(), source: io::ErrorKind::NotFound.into() }),
    };
    let planned = plan(wanted, &observe(&*system, &open), Ok(made));
    system.cut_after(cut);
    let hands = Hands { system: &*system, claim: &open, seed: b"own" };
    let done = planned.iter().filter_map(|planned| Some(apply(&hands, planned.as_ref().ok()?))).collect();
    for (name, (_, memory)) in &mut disks.0 {
        *memory = shared[&Path::new("/dev").join(name)].borrow().clone();
    }
    Start { planned, done, calls: system.calls() }
}

fn start(disks: &mut Disks, wanted: &[UserVolume]) -> Start {
    start_cut(disks, wanted, &Made::default(), None)
}

fn wanted(volumes: &[(&str, &str)]) -> Vec<UserVolume> {
    let volume = |(name, disk): &(&str, &str)| {
        format!(
            "[[storage.volumes]]\nname = \"{name}\"\n{}\n",
            if disk.contains('=') { (*disk).to_owned() } else { format!("disk = \"{disk}\"") }
        )
    };
    let volumes: String = volumes.iter().map(volume).collect();
    let text = format!("version = 1\n[machine]\nhostname = \"m\"\nrole = \"single\"\n{volumes}");
    manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}")).storage.volumes
}

/// What a machine knows that has had these volumes.
fn made(volumes: &[UserVolume], serial: &str) -> Made {
    let mut made = Made::default();
    let disk = sys::BlockDevice { serial: serial.to_owned(), ..sys::BlockDevice::named("x") };
    volumes.iter().for_each(|volume| made.note(volume, &disk));
    made
}

#[test]
fn a_blank_disk_becomes_a_volume_once_and_is_found_wherever_it_is() {
    let volumes = wanted(&[("a", "/dev/vdb")]);
    let mut disks = Disks::blank("vdb", "B1");
    let first = start(&mut disks, &volumes);
    assert_eq!((first.step(0), first.formatted()), (&Step::Make(None), 1));
    assert_eq!(first.done[0].as_ref().unwrap(), Path::new("/dev/vdb1"));
    let words = first.calls.iter().find_map(|call| match call {
        Call::Run(argv) => Some(argv.join(" ")),
        _ => None,
    });
    let words = words.unwrap();
    assert!(words.contains("-L vol-a ") && words.ends_with("-m 0 /dev/vdb1"), "{words}");
    let again = start(&mut disks, &volumes);
    assert_eq!((again.step(0), again.calls.len()), (&Step::Mount, 0));
    // The kernel names disks as they come, and another one has this name now.
    let (serial, memory) = disks.0.remove("vdb").unwrap();
    let mut swapped = Disks::blank("vdb", "B2").with("nvme1n1", &serial, memory);
    let swapped = start(&mut swapped, &volumes);
    assert_eq!((swapped.step(0), swapped.formatted()), (&Step::Mount, 0));
    assert_eq!(swapped.done[0].as_ref().unwrap(), Path::new("/dev/nvme1n1p1"));
}

#[test]
fn a_volume_that_is_made_may_be_cut_anywhere_and_is_never_half_taken_for_whole() {
    let full = || {
        let mut memory = Memory::new(40 * MIB);
        memory.write_at(0, &vec![7; 40 * MIB]).unwrap();
        Disks::default().with("vdb", "B1", memory)
    };
    let wiped = "disk = \"serial:B1\"\nwipe = true";
    for (disks, volumes) in
        [(Disks::blank("vdb", "B1"), wanted(&[("a", "serial:B1")])), (full(), wanted(&[("a", wiped)]))]
    {
        let mut whole = disks.clone();
        let effects = start(&mut whole, &volumes).calls.len();
        assert!(effects > 5, "{effects}");
        for cut in 0..effects {
            let mut disks = disks.clone();
            let begun = start_cut(&mut disks, &volumes, &Made::default(), Some(cut));
            // That everything is written down is the last thing, and what nothing comes of.
            assert!(begun.done[0].is_err(), "after {cut}");
            let then = start(&mut disks, &volumes);
            // Formatted, and kept, before the mark was taken off; or formatted now.
            let is_kept = begun.calls.contains(&Call::Sync);
            assert!(then.formatted() == 1 || (is_kept && *then.step(0) == Step::Mount), "after {cut}");
            then.done[0].as_ref().unwrap();
            let table = disks.table("vdb");
            let (number, partition) = table.partitions.first_key_value().unwrap();
            assert_eq!(
                (*number, volume_name(partition), partition.attributes & FRESH),
                (1, Some("a"), 0),
                "after {cut}"
            );
            let last = start(&mut disks, &volumes);
            assert_eq!((last.step(0), last.formatted()), (&Step::Mount, 0), "after {cut}");
        }
    }
}

#[test]
fn a_volume_is_taken_neither_for_a_disk_with_a_manifest_nor_for_one_to_install_to() {
    let volumes = wanted(&[("cidata", "serial:B1")]);
    let mut disks = Disks::blank("vdb", "B1");
    let made = start(&mut disks, &volumes);
    let label = made.calls.iter().find_map(|call| match call {
        Call::Run(argv) => argv.iter().skip_while(|word| *word != "-L").nth(1).cloned(),
        _ => None,
    });
    let filesystem = sys::Filesystem { kind: sys::FilesystemKind::Ext4, label: label.unwrap() };
    let name = disks.table("vdb").partitions[&1].name.clone();
    let partition = sys::BlockDevice {
        filesystem: Some(filesystem),
        partition_label: name,
        is_partition: true,
        ..sys::BlockDevice::named("vdb1")
    };
    assert!(!partition.holds_manifest(), "{partition:?}");
    let contents = crate::onto::observe(&mut disks.0["vdb"].1.clone(), &sys::BlockDevice::named("vdb")).unwrap();
    assert_eq!(contents, crate::onto::Contents::Other("the partitions [\"keelson-volume-cidata\"]".to_owned()));
}

#[test]
fn a_first_copy_of_the_table_that_was_cut_is_written_again_before_it_is_used() {
    let volumes = wanted(&[("a", "serial:B1")]);
    let mut disks = Disks::blank("vdb", "B1");
    start(&mut disks, &volumes);
    let (_, memory) = disks.0.get_mut("vdb").unwrap();
    memory.write_at(512, &[0; 512]).unwrap();
    let again = start(&mut disks, &volumes);
    assert_eq!((again.step(0), again.formatted()), (&Step::Mount, 0));
    assert!(again.calls.contains(&Call::ReadPartitions("/dev/vdb".into())));
    assert!(disks.0["vdb"].1.content()[512..].starts_with(b"EFI PART"));
}

/// A disk with something on it.
fn holding(place: usize, mark: &[u8]) -> Memory {
    let mut memory = Memory::new(32 * MIB);
    memory.write_at(place as u64, mark).unwrap();
    memory
}

#[test]
fn a_disk_that_holds_anything_is_left_as_it_is_and_what_helps_is_told() {
    let mut partitioned = Memory::new(32 * MIB);
    let mut table = layout::volume(b"x", (32 * MIB) as u64 / SECTOR_BYTES, "x").unwrap();
    table.partitions.values_mut().for_each(|partition| partition.name = "photos".to_owned());
    table.write(&mut partitioned).unwrap();
    let mut system = Memory::new(64 * MIB);
    Table { sectors: (64 * MIB) as u64 / SECTOR_BYTES, ..layout::image(b"seed", 1 << 20) }.write(&mut system).ok();
    let mut other = Memory::new(32 * MIB);
    layout::volume(b"x", (32 * MIB) as u64 / SECTOR_BYTES, "b").unwrap().write(&mut other).unwrap();
    let rows = [
        (holding(1080, &[0x53, 0xef]), "a file system (ext4)"),
        // LVM, md with its mark at the start and at the end, LUKS, ZFS's second copy.
        (holding(512, b"LABELONE"), "unknown data"),
        (holding(4096, &[0xfc, 0x4e, 0x2b, 0xa9]), "unknown data"),
        (holding(32 * MIB - 65536, &[0xfc, 0x4e, 0x2b, 0xa9]), "unknown data"),
        (holding(0, b"LUKS\xba\xbe\x00\x02"), "unknown data"),
        (holding(510, &[0x55, 0xaa]), "unknown data"),
        (partitioned, "the partitions [\"photos\"]"),
        (other, "the volume b"),
    ];
    for (memory, what) in rows {
        let mut disks = Disks::default().with("vdb", "B1", memory);
        let before = disks.writes();
        for selector in ["serial:B1", "/dev/vdb"] {
            let refused = start(&mut disks, &wanted(&[("a", selector)]));
            let denied = refused.planned[0].as_ref().unwrap_err();
            let told = denied.to_string();
            assert!(told.contains(what) && told.ends_with("is left alone"), "{what}: {told}");
            assert!(denied.fix("m1").starts_with("`keelson wipe m1 vdb` shows"), "{}", denied.fix("m1"));
            assert!(refused.done.is_empty() && refused.calls.is_empty());
        }
        assert_eq!(disks.writes(), before, "{what}");
        let told =
            describe(&wanted(&[("a", "serial:B1")]), &start(&mut disks, &wanted(&[("a", "serial:B1")])).planned, "m1");
        assert!(told[0].contains("not to be had") && told[0].contains("keelson wipe m1 vdb"), "{told:?}");
        // Unless its manifest lets go of it.
        let wiped = wanted(&[("a", "disk = \"serial:B1\"\nwipe = true")]);
        let wipe = start(&mut disks, &wiped);
        assert!(matches!(wipe.step(0), Step::Make(Some(lost)) if lost == what), "{what}");
        assert_eq!((wipe.formatted(), start(&mut disks, &wiped).step(0)), (1, &Step::Mount), "{what}");
        let told = describe(&wiped, &wipe.planned, "m1");
        assert!(told[0].contains(&format!("{what} on it is lost")), "{told:?}");
    }
}

#[test]
fn what_a_machine_had_is_not_made_again_in_another_place() {
    let volumes = wanted(&[("a", "largest")]);
    let mut disks = Disks::blank("vdb", "B1");
    start(&mut disks, &volumes);
    let known = made(&volumes, "B1");
    let again = |disks: &mut Disks, volumes: &[UserVolume], known: &Made| start_cut(disks, volumes, known, None);
    // Its disk is missing for a day, and a blank one is there.
    let mut other = Disks::blank("vdc", "C1");
    let refused = again(&mut other, &volumes, &known);
    assert_eq!(refused.denied(0), "this machine had it on the disk serial:B1, and no disk that is there holds it");
    assert_eq!(other.writes(), 0);
    assert!(refused.planned[0].as_ref().unwrap_err().fix("m1").contains("attach the disk"));
    let none = again(&mut Disks::default(), &volumes, &known);
    assert!(none.denied(0).contains("serial:B1"), "{}", none.denied(0));
    // It is there and damaged, and what the manifest once let go of is not this.
    let wiped = wanted(&[("a", "disk = \"serial:B1\"\nwipe = true")]);
    let known_wiped = made(&wiped, "B1");
    let mut damaged = Disks::default().with("vdb", "B1", holding(0, &[7]));
    let refused = again(&mut damaged, &wiped, &known_wiped);
    assert!(refused.denied(0).ends_with("serial B1) holds unknown data"), "{}", refused.denied(0));
    assert_eq!(refused.calls.len(), 0);
    // Somebody made it blank; or names another disk; or does not want it any more, and then again.
    assert_eq!(again(&mut Disks::blank("vdx", "B1"), &wiped, &known_wiped).step(0), &Step::Make(None));
    let named = wanted(&[("a", "serial:C1")]);
    assert_eq!(again(&mut other.clone(), &named, &known).step(0), &Step::Make(None));
    let mut forgotten = known.clone();
    forgotten.keep(&wanted(&[("b", "largest")]));
    assert_eq!(again(&mut other, &volumes, &forgotten).step(0), &Step::Make(None));
}

#[test]
fn without_a_record_nothing_is_made_and_what_there_is_is_found() {
    let volumes = wanted(&[("a", "serial:B1"), ("b", "serial:C1")]);
    let mut disks = Disks::blank("vdb", "B1");
    start(&mut disks, &volumes[..1]);
    let (serial, memory) = disks.0["vdb"].clone();
    let disks = Disks::blank("vdc", "C1").with("vdb", &serial, memory);
    let system = FakeSystem::new();
    disks.0.iter().for_each(|(name, disk)| tell(&system, name, disk));
    let open = |path: &Path| Ok(disks.0[path.file_name().unwrap().to_str().unwrap()].1.clone());
    let planned = plan(&volumes, &observe(&system, &open), Err("STATE is in memory"));
    assert_eq!(planned[0].as_ref().unwrap().step, Step::Mount);
    assert!(planned[1].as_ref().unwrap_err().to_string().ends_with("is not known: STATE is in memory"));
}

#[test]
fn two_disks_with_the_same_volume_are_told_and_the_one_that_is_named_is_taken() {
    let mut disks = Disks::blank("vdb", "B1");
    start(&mut disks, &wanted(&[("a", "serial:B1")]));
    let (_, memory) = disks.0["vdb"].clone();
    let mut disks = disks.with("vdc", "C1", memory);
    let both = start(&mut disks, &wanted(&[("a", "largest")]));
    assert!(
        both.denied(0).starts_with("2 disks hold it: /dev/vdb (32 MiB, serial B1), /dev/vdc"),
        "{}",
        both.denied(0)
    );
    let named = start(&mut disks, &wanted(&[("a", "serial:C1")]));
    assert_eq!(named.planned[0].as_ref().unwrap().disk.name, "vdc");
    // The only one that has it is taken wherever it is, and that is told where the manifest means another.
    disks.0.remove("vdc");
    let elsewhere = start(&mut disks, &wanted(&[("a", "serial:C1")]));
    let planned = elsewhere.planned[0].as_ref().unwrap();
    assert!(planned.remark.as_ref().unwrap().contains("stays there, though the manifest names serial:C1"));
    assert_eq!(start(&mut disks, &wanted(&[("a", "/dev/vdx")])).planned[0].as_ref().unwrap().remark, None);
}

#[test]
fn each_volume_gets_a_disk_of_its_own_and_none_that_is_in_use() {
    let disks = Disks::blank("vdb", "B1").with("vdc", "C1", Memory::new(48 * MIB));
    let disks = disks.with("vdd", "D1", Memory::new(64 * MIB)).with("sda", "A1", Memory::new(80 * MIB));
    let volumes = wanted(&[("a", "largest"), ("b", "largest"), ("c", "smallest")]);
    let run = |mounts: &str| {
        let system = Arc::new(FakeSystem::new());
        let mut disks = disks.clone();
        disks.0.iter().for_each(|(name, disk)| tell(&system, name, disk));
        system.file("/sys/class/block/sda/dev", "8:0\n");
        system.file("/sys/class/block/vdd/dev", "254:3\n");
        system.file("/sys/class/block/vdc/queue/logical_block_size", "4096\n");
        system.file("/proc/self/mountinfo", mounts);
        start_on(system, &mut disks, &volumes, (&Made::default(), None))
    };
    let data = "30 1 8:0 / /run/keelson-disk rw - ext4 /dev/sda rw\n";
    let started = run(data);
    assert_eq!(started.planned[0].as_ref().unwrap().disk.name, "vdd");
    assert_eq!(started.planned[1].as_ref().unwrap().disk.name, "vdb");
    let told = started.denied(2);
    for why in [
        "serial A1): sda is in use: it is mounted at /run/keelson-disk",
        "serial B1): another volume is made on it",
        "serial C1): it has sectors of 4096 bytes, and only those of 512",
        "no disk fits storage.volumes[2].disk = \"smallest\"",
    ] {
        assert!(told.contains(why), "{why}: {told}");
    }
    let started = run(&format!("{data}31 1 254:3 / /mnt/other rw - ext4 /dev/vdd rw\n"));
    assert_eq!(started.planned[0].as_ref().unwrap().disk.name, "vdb");
}

#[test]
fn a_volume_that_the_manifest_names_is_wiped_for_no_other() {
    let mut disks = Disks::blank("vdb", "B1");
    start(&mut disks, &wanted(&[("b", "serial:B1")]));
    let before = disks.writes();
    let wiped = "disk = \"serial:B1\"\nwipe = true";
    let refused = start(&mut disks, &wanted(&[("a", wiped), ("b", "largest")]));
    assert!(
        refused.denied(0).contains("it holds the volume b, which the manifest names, too"),
        "{}",
        refused.denied(0)
    );
    assert_eq!((refused.step(1), disks.writes()), (&Step::Mount, before));
    // Once nobody names it, it may go.
    let wipe = start(&mut disks, &wanted(&[("a", wiped)]));
    assert!(matches!(wipe.step(0), Step::Make(Some(lost)) if lost == "the volume b"));
}

#[test]
fn a_volume_that_is_mounted_where_it_should_be_stays_and_one_that_others_have_is_told() {
    let volumes = wanted(&[("a", "serial:B1")]);
    let mut disks = Disks::blank("vdb", "B1");
    start(&mut disks, &volumes);
    let mut mounted = |target: &str| {
        let system = Arc::new(FakeSystem::new());
        disks.0.iter().for_each(|(name, disk)| tell(&system, name, disk));
        system.file("/sys/class/block/vdb1/dev", "254:17\n");
        system.file("/proc/self/mountinfo", format!("31 1 254:17 / {target} rw - ext4 /dev/vdb1 rw\n"));
        start_on(system, &mut disks, &volumes, (&Made::default(), None))
    };
    let stays = mounted("/mnt/a");
    assert_eq!((stays.step(0), stays.calls.len()), (&Step::Stay, 0));
    let told = mounted("/var/lib/kubelet/x").denied(0);
    assert!(told.ends_with("vdb1 is in use: it is mounted at /var/lib/kubelet/x"), "{told}");
}

#[test]
fn what_changes_between_a_look_and_the_first_write_is_left_alone() {
    let volumes = wanted(&[("a", "serial:B1")]);
    let system = FakeSystem::new();
    let disks = Disks::blank("vdb", "B1");
    tell(&system, "vdb", &disks.0["vdb"]);
    let shared = Rc::new(RefCell::new(Memory::new(32 * MIB)));
    let recorder = Arc::new(FakeSystem::new());
    let open = |path: &Path| Ok(Disk { memory: shared.clone(), path: path.to_owned(), system: recorder.clone() });
    let planned = plan(&volumes, &observe(&system, &open), Ok(&Made::default()));
    shared.borrow_mut().write_at(8192, &[7]).unwrap();
    let hands = Hands { system: &system, claim: &open, seed: b"own" };
    let refused = apply(&hands, planned[0].as_ref().unwrap()).unwrap_err();
    assert!(matches!(refused, Error::Changed { .. }), "{refused}");
    assert!(recorder.calls().is_empty() && system.calls().is_empty());
}

#[test]
fn what_was_made_is_kept() {
    let (system, path) = (FakeSystem::new(), Path::new("/state/volumes.json"));
    assert_eq!(Made::load(&system, path), Ok(Made::default()));
    let known = made(&wanted(&[("a", "largest")]), "B1");
    known.store(&system, path).unwrap();
    assert_eq!(Made::load(&system, path), Ok(known.clone()));
    assert!(known.has("a") && !known.has("b"));
    system.file(path, "{");
    assert!(Made::load(&system, path).unwrap_err().starts_with("/state/volumes.json: "));
}
