use std::sync::Arc;

use disk::{Extension, Slot, Verity};
use sys::{Call, FakeSystem};

use super::*;

const FOLDER: &str = "/state/extensions";

fn about(name: &str) -> About {
    About { name: name.to_owned(), version: "1.0".to_owned(), ..About::default() }
}

fn file(about: About) -> Vec<u8> {
    let verity = Verity { blocks: 2, digest: [7; 32] };
    Extension::new(about, &"0f".repeat(16), &verity).head(|_line| String::new()).unwrap()
}

/// A machine of slots, and what is seen where its extensions are mounted.
fn machine(system: &Arc<FakeSystem>, run: &Path) -> Machine {
    let mut machine = Machine::of_a_test(system);
    machine.config.paths.run = run.to_owned();
    let version = "0.1.0+ab".to_owned();
    machine.booted = Some(install::Booted { disk: "sda".to_owned(), slot: Slot::A, version, is_read_only: false });
    machine
}

fn show(run: &Path, name: &str, paths: &[&str]) {
    for path in paths {
        let path = run.join("extensions").join(name).join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
}

fn mounts(system: &FakeSystem) -> Vec<String> {
    let calls = system.calls().into_iter();
    let mounts = calls.filter_map(|call| match call {
        Call::Mount(mount) if mount.kind != "proc" => {
            Some(format!("{} {} {}", mount.kind, mount.target.display(), mount.options))
        }
        _ => None,
    });
    mounts.collect()
}

#[test]
fn a_good_one_is_checked_laid_below_the_systems_own_files_and_proves_itself() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let system = Arc::new(FakeSystem::new());
    system.file(format!("{FOLDER}/gpu.extension"), file(about("gpu")));
    system.file("/sys/bus/pci/drivers_probe", "");
    system.file("/sys/bus/pci/devices/0000:01:00.0/vendor", "");
    system.file("/sys/bus/pci/devices/0000:02:00.0/driver/name", "");
    show(run, "gpu", &["usr/bin/gpu-tool", "usr/lib/keelson/extensions/gpu/about.json"]);
    let mut machine = machine(&system, run);
    system.set_uptime(Duration::from_secs(5));
    assert_eq!(lay(&mut machine), Vec::<String>::new());
    let at = run.join("extensions/gpu");
    let expected = [format!("erofs {} ", at.display()), format!("overlay /usr lowerdir=/usr:{}/usr", at.display())];
    assert_eq!(mounts(&system), expected);
    let tried = format!("{FOLDER}/gpu.extension.tried");
    assert_eq!((system.text(&tried).as_str(), machine.extensions.status[0].state.as_str()), ("1", "in use"));
    let digest = "07".repeat(32);
    let told = format!("1 /dev/loop0 /dev/loop0 4096 4096 2 2 sha256 {digest} {}", "0f".repeat(16));
    let calls = system.calls();
    assert!(calls.contains(&Call::MapFile("keelson-extension-gpu".to_owned(), told)), "{calls:?}");
    // Written down before anything is made of it.
    let place = |wanted: &dyn Fn(&Call) -> bool| calls.iter().position(wanted).unwrap();
    assert!(place(&|it| matches!(it, Call::Replace(..))) < place(&|it| matches!(it, Call::MapFile(..))));
    let probed: Vec<&Call> = calls.iter().filter(|call| matches!(call, Call::Write(..))).collect();
    assert_eq!(probed, [&Call::Write("/sys/bus/pci/drivers_probe".into(), b"0000:01:00.0".to_vec())]);

    assert_eq!(lay(&mut machine), Vec::<String>::new());
    assert_eq!(mounts(&system).len(), 2, "it is done once");
    system.set_uptime(Duration::from_secs(64));
    tick(&mut machine);
    assert_eq!(system.text(&tried), "1");
    system.set_uptime(Duration::from_secs(65));
    tick(&mut machine);
    assert_eq!((system.text(&tried).as_str(), mapped(&mut machine).len()), ("proved", 1));
    assert_eq!(conditions(&machine).count(), 0);
}

/// What is told of the one extension `gpu`, which must not be used: the condition, and whether anything was laid.
fn told(prepare: &dyn Fn(&FakeSystem, &Path)) -> Condition {
    let folder = tempfile::tempdir().unwrap();
    let system = Arc::new(FakeSystem::new());
    system.file(format!("{FOLDER}/gpu.extension"), file(about("gpu")));
    show(folder.path(), "gpu", &["usr/bin/gpu-tool"]);
    prepare(&system, folder.path());
    let mut machine = machine(&system, folder.path());
    lay(&mut machine);
    let calls = system.calls();
    let made = calls.iter().filter(|call| matches!(call, Call::MapFile(..))).count();
    let taken = calls.iter().filter(|call| matches!(call, Call::Unmap(..))).count();
    assert_eq!(made, taken, "{calls:?}");
    assert_eq!(
        (machine.extensions.status.last().unwrap().state.as_str(), machine.extensions.mapped.len()),
        ("not used", 0)
    );
    let mut told: Vec<Condition> = conditions(&machine).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

#[test]
fn a_bad_one_is_left_out_and_told_with_what_helps() {
    type Prepare = &'static dyn Fn(&FakeSystem, &Path);
    let rows: [(Prepare, &str, &str); 10] = [
        (
            &|system, _| system.file(format!("{FOLDER}/gpu.extension"), "x"),
            "this is no extension file",
            "add` it again",
        ),
        (
            &|system, _| system.file("/usr/share/keelson/update.key", [7; 32]),
            "its signature is missing",
            "signed with the key",
        ),
        (&|system, _| system.fail("erofs", 22), "cannot be mounted", "add` it again"),
        (&|system, _| system.fail("overlay", 22), "overlay", "remove gpu"),
        (&|system, _| system.file("/usr/bin/gpu-tool", ""), "the system has usr/bin/gpu-tool itself", "remove gpu"),
        (&|_, run| show(run, "gpu", &["etc/passwd"]), "are below usr", "remove gpu"),
        (&|_, run| show(run, "gpu", &["usr/lib/modules/6.12-fake/a.ko"]), "another kernel than it says", "remove gpu"),
        (&|_, run| std::fs::remove_dir_all(run.join("extensions")).unwrap(), "look at", "add` it again"),
        (
            &|system, _| system.file(format!("{FOLDER}/gpu.extension.tried"), "2"),
            "had been up for a minute",
            "once more",
        ),
        (&|system, _| system.fail("gpu.extension.tried", 28), "cannot be written down", "STATE"),
    ];
    for (prepare, why, fix) in rows {
        let told = told(prepare);
        assert!(told.name == "ExtensionNotUsed" && told.subject == "gpu" && told.is_concern, "{told:?}");
        assert!(told.why.contains(why) && told.fix.contains(fix), "{told:?}");
    }
}

#[test]
fn one_for_another_system_is_told_unless_there_is_one_for_this() {
    let folder = tempfile::tempdir().unwrap();
    let system = Arc::new(FakeSystem::new());
    let put = |kernel: &str, name: &str| {
        let about = About { kernel: Some(kernel.to_owned()), ..about(name) };
        system.file(format!("{FOLDER}/{}", about.file_name()), file(about));
    };
    put("6.12-fake", "gpu");
    put("6.13", "gpu");
    put("6.13", "net");
    system.file(format!("{FOLDER}/own.extension"), file(about("own")));
    let of_image = "/usr/lib/keelson/extensions/own/about.json";
    system.file(of_image, serde_json::to_string(&about("own")).unwrap());
    system.file(format!("{FOLDER}/net@6.13.extension.tried"), "proved");
    show(folder.path(), "gpu", &["usr/lib/modules/6.12-fake/gpu.ko"]);
    let mut machine = machine(&system, folder.path());
    lay(&mut machine);
    let status = |it: &ExtensionStatus| format!("{} {} {}", it.name, it.origin, it.state);
    let found: Vec<String> = machine.extensions.status.iter().map(status).collect();
    let expected =
        ["own image in use", "gpu STATE in use", "gpu STATE spare", "net STATE not used", "own STATE not used"];
    assert_eq!(found, expected);
    let names = |machine: &Machine| -> Vec<String> {
        let grave = conditions(machine).filter(|condition| !condition.is_concern);
        grave.map(|condition| condition.subject).collect()
    };
    assert!(names(&machine).is_empty());
    // A system on trial that cannot use what worked before is taken back.
    let entry = disk::Entry::parse("keelson-2-b+1-1.efi").unwrap();
    machine.trial = Some(install::Trial::new(entry, Duration::from_secs(60)));
    assert_eq!(names(&machine), ["net"]);
}

#[test]
fn a_machine_without_slots_or_state_uses_none() {
    for change in [|it: &mut Machine| it.booted = None, |it: &mut Machine| it.storage = Storage::Memory] {
        let folder = tempfile::tempdir().unwrap();
        let system = Arc::new(FakeSystem::new());
        system.file(format!("{FOLDER}/gpu.extension"), file(about("gpu")));
        let mut machine = machine(&system, folder.path());
        change(&mut machine);
        assert!(lay(&mut machine).is_empty() && machine.extensions.status.is_empty() && mounts(&system).is_empty());
    }
}
