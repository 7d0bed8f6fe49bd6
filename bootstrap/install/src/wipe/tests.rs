use std::io;
use std::time::Instant;

use disk::{Device, Memory, SECTOR_BYTES};
use sys::FakeSystem;

use super::apply::discard_all;
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
    let all =
        |mib: std::ops::Range<usize>, byte: u8| content[mib.start << 20..mib.end << 20].iter().all(|it| *it == byte);
    for blank in [0..17, 40..41, 50..66, 89..90, 99..100] {
        assert!(all(blank.clone(), 0), "{blank:?}");
    }
    for left in [17..40, 41..50, 66..89, 90..99] {
        assert!(all(left.clone(), 7), "{left:?}");
    }
    assert_eq!(plan.disk.as_deref(), Some("vdb"));
}

#[test]
fn a_partition_is_wiped_alone_and_a_small_one_whole() {
    let system = machine();
    let part = plan(&observe(&system), "vdb2").unwrap();
    assert_eq!(part.blanks, [0..16 * MIB, 39 * MIB..40 * MIB]);
    assert!(part.disk.is_none() && part.holds.len() == 1, "{part:?}");
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

#[test]
fn where_a_file_system_has_copies_of_what_makes_it_one_they_go_too() {
    let system = machine();
    let mib = |mib: u64| format!("{}\n", mib * MIB / SECTOR_BYTES);
    system.file("/sys/class/block/vdb2/size", mib(200));
    assert!(plan(&observe(&system), "vdb").unwrap().blanks.contains(&(114 * MIB..114 * MIB + 4096)));
    system.file("/sys/class/block/vdc/size", mib(80));
    let mut disk = Disk::full(80, false);
    apply(&plan(&observe(&system), "vdc").unwrap(), &mut disk).unwrap();
    let (content, copy) = (disk.memory.content(), 64 << 20);
    assert!(content[copy..copy + 4096].iter().all(|byte| *byte == 0));
    assert_eq!((content[copy - 1], content[copy + 4096]), (7, 7));
}

#[test]
fn a_digest_tells_another_disk_of_the_same_name() {
    let system = machine();
    let digest = || plan(&observe(&system), "vdb").unwrap().digest;
    let shown = digest();
    assert_eq!(digest(), shown);
    system.file("/sys/class/block/vdb/serial", "other\n");
    let other = digest();
    assert_ne!(other, shown);
    let mut ext4 = vec![0; 4096];
    ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
    system.file("/dev/vdb2", ext4);
    assert_ne!(digest(), other);
}
