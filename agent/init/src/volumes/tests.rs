use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use disk::{Device, Memory, SECTOR_BYTES};
use install::wipe::Wipeable;
use sys::{Call, FakeSystem, MountFlags, PROBE_BYTES, System};

use super::work::{Disks, Report, Task, work};
use super::*;
use crate::intake::examine;
use crate::sources::Offer;

const MIB: usize = 1 << 20;

#[derive(Clone)]
struct Disk(Rc<RefCell<Memory>>);

impl Device for Disk {
    fn bytes(&self) -> u64 {
        self.0.borrow().bytes()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.borrow_mut().read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().write_at(offset, content)
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

/// A machine with these blank disks beside those that its system was given.
struct Place {
    system: Arc<FakeSystem>,
    disks: BTreeMap<PathBuf, Disk>,
}

impl Place {
    fn with(names: &[&str]) -> Self {
        let disk = |name: &&str| (Path::new("/dev").join(name), Disk(Rc::new(RefCell::new(Memory::new(32 * MIB)))));
        let place = Self { system: Arc::new(FakeSystem::new()), disks: names.iter().map(disk).collect() };
        place.starts();
        place
    }

    /// Another start of it: what was mounted is not any more, and what STATE holds is there.
    fn again(&self) -> Self {
        let state = self.system.text("/state/volumes.json");
        let place = Self { system: Arc::new(FakeSystem::new()), disks: self.disks.clone() };
        place.starts();
        place.system.file("/state/volumes.json", state);
        place
    }

    fn starts(&self) {
        for (path, disk) in &self.disks {
            let name = path.file_name().unwrap().to_str().unwrap();
            let folder = format!("/sys/class/block/{name}");
            self.system.file(format!("{folder}/size"), format!("{}\n", 32 * MIB as u64 / SECTOR_BYTES));
            self.system.file(format!("{folder}/serial"), format!("{name}-serial"));
            let content = disk.0.borrow().content();
            self.system.file(path, &content[..PROBE_BYTES]);
            if content[512..].starts_with(b"EFI PART") {
                self.system.file(format!("{folder}1/partition"), "1\n");
            }
        }
    }

    fn works(&self, volumes: &[(&str, &str)]) -> Report {
        let task = Task {
            volumes: manifest(volumes).storage.volumes,
            machine: "m1".to_owned(),
            made: Some("/state/volumes.json".into()),
            seed: b"own".to_vec(),
        };
        let open = |path: &Path| Ok(self.disks[path].clone());
        work(&*self.system, &task, &Disks { open: &open, claim: &open })
    }

    /// What was mounted, in order, and what became of the folder meanwhile.
    fn mounts(&self) -> Vec<String> {
        let step = |call: &Call| match call {
            Call::Mount(mount) => {
                let word = |flag, word| if mount.flags.contains(flag) { word } else { "" };
                let strict = word(MountFlags::NOSUID.and(MountFlags::NODEV), " strict");
                let (bind, only) = (word(MountFlags::BIND, " bind"), word(MountFlags::READ_ONLY, " ro"));
                Some(format!("{} {}{bind}{only}{strict}", mount.source, mount.target.display()))
            }
            Call::Unmount(target, _) => Some(format!("- {}", target.display())),
            Call::MakeDir(path) => Some(format!("+ {}", path.display())),
            Call::Remove(path) => Some(format!("x {}", path.display())),
            _ => None,
        };
        self.system.calls().iter().filter_map(step).collect()
    }
}

fn text(volumes: &[(&str, &str)]) -> String {
    let volume = |(name, disk): &(&str, &str)| format!("[[storage.volumes]]\nname = \"{name}\"\ndisk = \"{disk}\"\n");
    let volumes: String = volumes.iter().map(volume).collect();
    format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n{volumes}")
}

fn manifest(volumes: &[(&str, &str)]) -> manifest::Manifest {
    manifest::parse("m.toml", &text(volumes)).unwrap()
}

#[test]
fn a_volume_is_mounted_where_only_it_can_be_written_and_remembered() {
    let place = Place::with(&["vdb"]);
    let report = place.works(&[("a", "largest")]);
    let expected = [
        "+ /run/keelson-volumes/a",
        "/dev/vdb1 /run/keelson-volumes/a strict",
        "+ /run/keelson-volumes/a/data",
        "tmpfs /mnt strict",
        " /mnt bind strict",
        "+ /mnt/a",
        "/run/keelson-volumes/a/data /mnt/a bind",
        " /mnt bind ro strict",
        "- /run/keelson-volumes/a",
    ];
    assert_eq!(place.mounts(), expected);
    assert!(report.failed.is_empty() && report.faults.is_empty(), "{report:?}");
    let status = &report.status[0];
    assert_eq!((status.device.as_str(), status.mounted_at.as_deref()), ("/dev/vdb1", Some("/mnt/a")));
    assert!(report.told[0].1.starts_with("makes the volume a on /dev/vdb"), "{report:?}");
    // The next start makes nothing, and tells nothing.
    let next = place.again();
    let report = next.works(&[("a", "largest")]);
    assert!(report.told.is_empty() && report.status.len() == 1, "{report:?}");
    assert!(!next.system.calls().iter().any(|call| matches!(call, Call::Run(_) | Call::Replace(..))));
    // One that is not wanted any more stays as it is, and is forgotten.
    let last = next.again();
    let report = last.works(&[]);
    assert_eq!((report.status[0].name.as_str(), report.status[0].mounted_at.as_deref()), ("a", Some("")));
    assert_eq!((last.mounts(), last.system.text("/state/volumes.json").as_str()), (vec![], "{}"));
}

#[test]
fn what_is_not_mounted_leaves_no_folder_that_anybody_could_write_to() {
    let place = Place::with(&["vdb"]);
    place.system.fail("source: \"/run/keelson-volumes/a/data\"", 5);
    let report = place.works(&[("a", "largest")]);
    assert_eq!(report.failed[0].name, "a");
    let mounts = place.mounts();
    let [.., removed, closed, hidden] = &mounts[..] else { panic!("{mounts:?}") };
    assert_eq!([removed, closed, hidden], ["x /mnt/a", " /mnt bind ro strict", "- /run/keelson-volumes/a"]);
    // A file system that no repair helps, and one that a repair has lost something of.
    let broken = Place::with(&["vdb"]);
    broken.system.fail("source: \"/dev/vdb1\"", 117);
    assert!(broken.works(&[("a", "largest")]).failed[0].fix.contains("disk is whole"));
    assert!(broken.mounts().iter().all(|step| !step.contains("/mnt")), "{:?}", broken.mounts());
    let lost = Place::with(&["vdb"]);
    lost.system.file("/run/keelson-volumes/a/lost+found/#12", "");
    let report = lost.works(&[("a", "largest")]);
    assert!(report.failed[0].why.contains("has lost") && report.failed[0].fix.contains("lost+found"), "{report:?}");
    assert!(lost.mounts().iter().all(|step| !step.contains("/mnt")), "{:?}", lost.mounts());
}

#[test]
fn one_that_is_missing_keeps_no_other_from_being_mounted() {
    let place = Place::with(&["vdb", "vdc"]);
    place.system.fail("\"/dev/vdb1\"]", 5);
    let report = place.works(&[("a", "serial:vdb-serial"), ("x", "serial:none"), ("b", "serial:vdc-serial")]);
    let failed: Vec<&str> = report.failed.iter().map(|failure| failure.name.as_str()).collect();
    assert_eq!((failed, report.status[0].name.as_str()), (vec!["a", "x"], "b"));
    assert!(report.failed[1].fix.contains("attach the disk"), "{report:?}");
    assert!(place.system.text("/state/volumes.json").contains("vdc-serial"));
}

fn machine(system: &Arc<FakeSystem>, volumes: &[(&str, &str)]) -> Machine {
    let mut machine = Machine::of_a_test(system);
    machine.environment = Environment::Machine;
    let offer = Offer { source: "it".to_owned(), text: Ok(text(volumes)) };
    machine.accepted = Some(examine(offer, machine.search()).unwrap());
    machine
}

/// Turns until nobody is at work.
fn finish(machine: &mut Machine) {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while machine.user_volumes.is_working() {
        assert!(std::time::Instant::now() < until, "it comes to no end");
        tick(machine);
        std::thread::yield_now();
    }
}

#[test]
fn what_is_lacking_is_told_and_looked_for_again_when_a_disk_comes() {
    let system = Arc::new(FakeSystem::new());
    let mut machine = machine(&system, &[("a", "serial:x")]);
    assert_eq!(settle(&mut machine), Vec::<String>::new());
    finish(&mut machine);
    let told = conditions(&machine);
    let [condition] = &told[..] else { panic!("{told:?}") };
    assert_eq!((condition.title().as_str(), condition.is_concern), ("VolumeNotMounted a", true));
    assert!(condition.why.contains("no disk fits storage.volumes[0].disk = \"serial:x\""), "{condition:?}");
    assert!(condition.fix.contains("attach the disk"), "{condition:?}");
    // Nothing has happened since.
    assert!(!tick(&mut machine) && !machine.user_volumes.is_working());
    machine.user_volumes.meet_disk();
    assert!(tick(&mut machine) && machine.user_volumes.is_working());
    finish(&mut machine);
    // A machine whose volumes are all there is not woken by other disks.
    machine.user_volumes.report.failed.clear();
    machine.user_volumes.meet_disk();
    assert!(!tick(&mut machine));
}

#[test]
fn what_a_disk_would_not_do_is_tried_again_after_a_while() {
    let system = Arc::new(FakeSystem::new());
    let mut machine = machine(&system, &[("a", "serial:x")]);
    let place = Place::with(&["vdb"]);
    place.system.fail("\"/dev/vdb1\"]", 5);
    for (disk, is_again) in [("serial:x", false), ("largest", true)] {
        take(&mut machine, place.works(&[("a", disk)]));
        machine.user_volumes.is_due = false;
        system.set_uptime(system.uptime() + AGAIN - Duration::from_secs(1));
        assert!(!tick(&mut machine), "{disk}");
        system.set_uptime(system.uptime() + Duration::from_secs(1));
        assert_eq!(tick(&mut machine), is_again, "{disk}");
        finish(&mut machine);
    }
}

#[test]
fn nothing_is_made_while_a_manifest_is_tried_and_nothing_is_looked_for_without_volumes() {
    let system = Arc::new(FakeSystem::new());
    let mut machine = machine(&system, &[("a", "serial:x")]);
    machine.stage = Stage::Running;
    let before = machine.accepted.clone().unwrap();
    machine.trying = Some(crate::renew::Trying::of_a_test(before));
    settle(&mut machine);
    assert!(!tick(&mut machine) && conditions(&machine)[0].why.contains("not mounted yet"));
    machine.trying = None;
    assert!(tick(&mut machine));
    finish(&mut machine);
    let mut none = self::machine(&system, &[]);
    settle(&mut none);
    assert!(!none.user_volumes.is_working() && conditions(&none).is_empty());
    let mut container = self::machine(&system, &[("a", "serial:x")]);
    container.environment = Environment::Container;
    settle(&mut container);
    assert!(!container.user_volumes.is_working());
}

#[test]
fn a_system_on_trial_has_to_have_the_volumes_that_there_were() {
    let system = Arc::new(FakeSystem::new());
    let mut machine = machine(&system, &[("a", "serial:x"), ("b", "serial:y")]);
    system.file("/state/volumes.json", r#"{"a": {"disk": "serial:x", "serial": "x"}}"#);
    settle(&mut machine);
    finish(&mut machine);
    let grave = |machine: &Machine| -> Vec<String> {
        conditions(machine).iter().filter(|it| !it.is_concern).map(Condition::title).collect()
    };
    assert_eq!(grave(&machine), Vec::<String>::new());
    let entry = disk::Entry { generation: 1, slot: disk::Slot::A, tries: None };
    machine.trial = Some(install::Trial::new(entry, Duration::from_secs(60)));
    assert_eq!(grave(&machine), ["VolumeNotMounted a"]);
}

#[test]
fn a_disk_that_hangs_holds_up_no_start() {
    let system = Arc::new(FakeSystem::new());
    // One that is not wanted any more is forgotten, and the disk that this is written to hangs.
    system.file("/state/volumes.json", r#"{"z": {"disk": "serial:x", "serial": "x"}}"#);
    system.stall("/state/volumes.json");
    let mut machine = machine(&system, &[("a", "serial:x")]);
    let began = std::time::Instant::now();
    settle(&mut machine);
    assert!(began.elapsed() >= START_WAIT && began.elapsed() < 6 * START_WAIT, "{:?}", began.elapsed());
    assert!(machine.user_volumes.is_working() && !tick(&mut machine));
    assert!(conditions(&machine)[0].why.contains("not mounted yet"));
    // Nobody else is sent after it.
    settle(&mut machine);
    assert!(machine.user_volumes.is_working());
}
