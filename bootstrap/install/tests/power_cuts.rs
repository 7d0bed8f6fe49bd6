//! The power is cut after each single write of an update, a commit, a giving up and a rollback. Whatever is on the disk
//! then, the loader starts the old system or the new one, and what it starts is whole.
#![allow(clippy::unwrap_used)]

mod machine;

use disk::layout;
use disk::{
    About, Around, Device, ENTRIES, Entry, Esp, Kubernetes, Memory, Part, Slot, StateFormats, Table, Update, uki,
};
use install::{Error, OwnDisk, Policy, Receiver};
use machine::{SIZES, disk, install, kernel, kernel_with, policy, root, starts, update_file, update_with, window};

/// Cuts `work` on `start` after each of its writes; answers what the loader starts afterwards, each time.
fn cut_everywhere(start: &Memory, work: impl Fn(&mut Memory) -> Result<(), Error>) -> Vec<(Entry, u8)> {
    let mut whole = start.clone();
    work(&mut whole).unwrap();
    let writes = whole.writes() - start.writes();
    let mut seen = Vec::new();
    for kept in 0..writes {
        let mut device = start.clone();
        device.cut_after(kept);
        work(&mut device).unwrap_err();
        device.restore_power();
        seen.push(starts(&mut device));
    }
    seen.push(starts(&mut whole));
    seen
}

#[test]
fn an_update_cut_anywhere_leaves_a_system_that_starts() {
    let start = disk();
    let file = update_file(2);
    let seen = cut_everywhere(&start, |device| install(device, &file, Slot::A));
    assert!(seen.len() > 20, "only {} writes", seen.len());
    let is_new: Vec<bool> = seen.iter().map(|(_, id)| *id == 2).collect();
    assert!(is_new.is_sorted() && !is_new[0] && is_new[seen.len() - 1]);
    assert_eq!(seen.last().unwrap().0.to_string(), "keelson-2-b+2.efi");
}

#[test]
fn an_update_cut_anywhere_can_be_begun_again() {
    let start = disk();
    let file = update_file(2);
    let mut kept = 0;
    loop {
        let mut device = start.clone();
        device.cut_after(kept);
        if install(&mut device, &file, Slot::A).is_ok() {
            break;
        }
        device.restore_power();
        install(&mut device, &file, Slot::A).unwrap();
        assert_eq!(starts(&mut device).1, 2, "after {kept} writes");
        kept += 1;
    }
    assert!(kept > 20, "only {kept} writes");
}

/// With root 2 in slot B, started once.
fn on_trial() -> (Memory, Entry) {
    let mut device = disk();
    install(&mut device, &update_file(2), Slot::A).unwrap();
    let mut esp = Esp::open(window(&mut device, layout::ESP_NAME));
    let counted = "keelson-2-b+1-1.efi";
    esp.rename(&format!("{ENTRIES}/keelson-2-b+2.efi"), &format!("{ENTRIES}/{counted}")).unwrap();
    (device, Entry::parse(counted).unwrap())
}

#[test]
fn commit_and_giving_up_and_rollback_may_be_cut_anywhere() {
    let (start, entry) = on_trial();
    let committed = cut_everywhere(&start, |device| OwnDisk::open(device)?.commit(entry));
    assert!(committed.iter().all(|(_, id)| *id == 2));
    let given_up = cut_everywhere(&start, |device| OwnDisk::open(device)?.give_up(entry));
    assert_eq!(given_up.last().unwrap().1, 1);
    let mut proved = start.clone();
    OwnDisk::open(&mut proved).unwrap().commit(entry).unwrap();
    let rolled = cut_everywhere(&proved, |device| OwnDisk::open(device)?.roll_back(Slot::B).map(drop));
    assert_eq!(rolled.last().unwrap(), &(Entry::parse("keelson-3-a+2.efi").unwrap(), 1));
    let abandoned = cut_everywhere(&proved, |device| OwnDisk::open(device)?.abandon(Slot::B).map(drop));
    assert_eq!(abandoned.last().unwrap(), &(Entry::parse("keelson-1-a.efi").unwrap(), 1));
}

#[test]
fn a_damaged_update_is_refused_and_the_old_system_starts() {
    let file = update_file(2);
    for at in [file.len() - 1, file.len() - 300_001, 5, 40, file.len() - 500_000] {
        let mut device = disk();
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        install(&mut device, &damaged, Slot::A).unwrap_err();
        assert_eq!(starts(&mut device).1, 1);
    }
    for length in [10, 400, file.len() - 1] {
        let mut device = disk();
        assert!(matches!(install(&mut device, &file[..length], Slot::A), Err(Error::Length { .. })));
        assert_eq!(starts(&mut device).1, 1);
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(matches!(install(&mut disk(), &longer, Slot::A), Err(Error::Length { .. })));
}

#[test]
fn an_update_whose_root_would_not_be_checked_is_refused() {
    let digits = "02".repeat(16);
    for verity in ["", "keelson.verity=1:02", &format!("keelson.verity=1000:{digits}{digits}")] {
        let kernel = kernel_with(2, &format!("keelson.root={digits} {verity}"));
        let mut device = disk();
        let refused = install(&mut device, &update_with(2, kernel), Slot::A);
        assert!(matches!(refused, Err(Error::Unchecked)), "{verity}: {refused:?}");
        assert_eq!(starts(&mut device).1, 1);
    }
}

#[test]
fn an_update_is_considered_by_its_start_and_nothing_changes() {
    let mut device = disk();
    let before = device.writes();
    let consider = |device: &mut Memory, start: &[u8]| {
        Receiver::new(OwnDisk::open(device).unwrap(), policy(Slot::A)).unwrap().consider(start)
    };
    let file = update_file(2);
    consider(&mut device, &file[..1000]).unwrap();
    assert!(matches!(consider(&mut device, &file[..40]), Err(Error::Length { .. })));
    consider(&mut device, &update_file(0)[..1000]).unwrap_err();
    assert_eq!((device.writes(), starts(&mut device).1), (before, 1));
}

#[test]
fn what_is_on_trial_or_never_proved_itself_is_left_alone() {
    let (mut device, entry) = on_trial();
    assert!(matches!(install(&mut device, &update_file(3), Slot::B), Err(Error::OnTrial)));
    assert!(matches!(OwnDisk::open(&mut device).unwrap().roll_back(Slot::B), Err(Error::OnTrial)));
    assert!(matches!(OwnDisk::open(&mut device).unwrap().abandon(Slot::B), Err(Error::OnTrial)));
    OwnDisk::open(&mut device).unwrap().give_up(entry).unwrap();
    let error = OwnDisk::open(&mut device).unwrap().roll_back(Slot::A).unwrap_err();
    assert!(matches!(error, Error::NothingThere { slot: Slot::B, .. }), "{error}");
    // The only system there is stays the one to start, damaged or not.
    let error = OwnDisk::open(&mut device).unwrap().abandon(Slot::A).unwrap_err();
    assert!(matches!(error, Error::NothingThere { slot: Slot::B, .. }), "{error}");
    assert_eq!(starts(&mut device).1, 1);
}

#[test]
fn a_machine_with_a_key_takes_signed_updates_only() {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let update = Update::new("2.0", StateFormats::FIRST, Part::of(&kernel(2)), Part::of(&root(2)));
    let signed = |key: &Ed25519KeyPair| {
        let head = update.head(|line| hex(key.sign(line).as_ref())).unwrap();
        [head, kernel(2), root(2)].concat()
    };
    let take = |file: &[u8]| {
        let mut device = disk();
        let key = Some(pair.public_key().as_ref().to_vec());
        let policy = Policy { key, ..policy(Slot::A) };
        let mut receiver = Receiver::new(OwnDisk::open(&mut device).unwrap(), policy).unwrap();
        receiver.add(file)
    };
    take(&signed(&pair)).unwrap();
    assert!(matches!(take(&signed(&other)), Err(Error::Signature(_))));
    assert!(matches!(take(&update_file(2)), Err(Error::Signature(_))));
}

#[test]
fn an_update_that_does_not_go_with_the_cluster_changes_nothing() {
    let start = disk();
    let next = Update {
        kubernetes: Kubernetes::OWN.newer_by(1),
        ..Update::parse_head(&update_file(2)).unwrap().unwrap().update
    };
    let file = [next.head(|_| String::new()).unwrap(), kernel(2), root(2)].concat();
    let take = |around: Around| {
        let mut device = start.clone();
        let policy = Policy { around, ..policy(Slot::A) };
        let mut receiver = Receiver::new(OwnDisk::open(&mut device).unwrap(), policy).unwrap();
        let considered = receiver.consider(&file[..1000]).map_err(|error| error.to_string());
        let taken = receiver.add(&file).map_err(|error| error.to_string());
        drop(receiver);
        assert_eq!(considered.is_ok(), taken.is_ok());
        (taken, device.writes() - start.writes())
    };
    let server = ("the API server".to_owned(), Kubernetes::OWN);
    let (refused, writes) = take(Around::Worker { server });
    assert!(refused.unwrap_err().contains("a kubelet must not be newer than its API server"));
    assert_eq!(writes, 0);
    let (refused, writes) = take(Around::Unknown("it is away".to_owned()));
    assert!(refused.unwrap_err().contains("it is away; see that the API server answers") && writes == 0);
    let (taken, writes) = take(Around::Nobody);
    assert!(taken.is_ok() && writes > 0, "{taken:?}");
}

#[test]
fn an_update_that_would_not_read_the_manifest_changes_nothing() {
    const MANIFEST: &str = "version = 1\n[machine]\nhostname = \"m\"\nrole = \"single\"\nwatchdog = \"1m\"\n";
    let start = disk();
    let argument = format!("keelson.root={}", "02".repeat(16));
    let take = |keys: &str, manifests: &[&str]| {
        let sections: [(&str, &[u8]); 2] =
            [(uki::ARGUMENTS, argument.as_bytes()), (uki::MANIFEST_KEYS, keys.as_bytes())];
        let file = update_with(2, uki::assemble(&uki::bare_program(), &sections).unwrap());
        let mut device = start.clone();
        let policy = Policy { manifests: manifests.iter().map(|&it| it.to_owned()).collect(), ..policy(Slot::A) };
        let mut receiver = Receiver::new(OwnDisk::open(&mut device).unwrap(), policy).unwrap();
        let taken = file.chunks(50_000).try_for_each(|part| receiver.add(part));
        drop(receiver);
        (taken.map_err(|error| error.to_string()), device.writes() - start.writes())
    };
    let own = manifest::vocabulary();
    let without: String =
        own.lines().filter(|line| !line.contains("watchdog")).map(|line| format!("{line}\n")).collect();
    let plain = MANIFEST.replace("watchdog = \"1m\"\n", "");
    // The one in force, and one that counts from the next start.
    for manifests in [&[MANIFEST][..], &[&plain, MANIFEST], &[MANIFEST, MANIFEST]] {
        let (refused, writes) = take(&without, manifests);
        let refused = refused.unwrap_err();
        assert!(refused.contains("which has machine.watchdog: apply one without"), "{refused}");
        assert_eq!(writes, 0);
    }
    for (keys, manifests) in
        [(own.as_str(), &[MANIFEST][..]), (&without, &[]), (&without, &[&plain]), ("", &[MANIFEST])]
    {
        let (taken, writes) = take(keys, manifests);
        assert!(taken.is_ok() && writes > 0, "{taken:?}");
    }
}

#[test]
fn an_update_that_would_lose_an_extension_changes_nothing() {
    let start = disk();
    let argument = format!("keelson.root={}", "02".repeat(16));
    let sections: [(&str, &[u8]); 2] = [(uki::ARGUMENTS, argument.as_bytes()), (uki::RELEASE, b"6.13\n")];
    let newer = update_with(2, uki::assemble(&uki::bare_program(), &sections).unwrap());
    let about = |kernel: Option<&str>, system: Option<&str>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        About { name: "gpu".to_owned(), version: "1".to_owned(), kernel: owned(kernel), system: owned(system) }
    };
    let take = |file: &[u8], extensions: Vec<About>| {
        let mut device = start.clone();
        let policy = Policy { extensions, ..policy(Slot::A) };
        let mut receiver = Receiver::new(OwnDisk::open(&mut device).unwrap(), policy).unwrap();
        let taken = file.chunks(50_000).try_for_each(|part| receiver.add(part));
        drop(receiver);
        (taken.map_err(|error| error.to_string()), device.writes() - start.writes())
    };
    let (refused, writes) = take(&newer, vec![about(Some("6.12"), None)]);
    let refused = refused.unwrap_err();
    assert!(refused.contains("gpu: it has modules for the kernel 6.12, and the kernel is 6.13"), "{refused}");
    assert!(refused.contains("keelson extension remove gpu"), "{refused}");
    assert_eq!(writes, 0);
    let (refused, _) = take(&update_file(2), vec![about(Some("6.12"), None)]);
    assert!(refused.unwrap_err().contains("one that it does not tell"));
    let (refused, _) = take(&newer, vec![about(None, Some("2.1"))]);
    assert!(refused.unwrap_err().contains("version 2.1 or newer, and the system is 2.0"));
    for fine in [vec![about(Some("6.12"), None), about(Some("6.13"), None)], vec![about(None, Some("2"))]] {
        let (taken, writes) = take(&newer, fine);
        assert!(taken.is_ok() && writes > 0, "{taken:?}");
    }
}

#[test]
fn an_installation_cut_anywhere_is_begun_again_or_done() {
    use install::onto::{self, Contents, OntoPlan};
    let mut medium = disk();
    let mut esp = Esp::open(window(&mut medium, layout::ESP_NAME));
    esp.put("EFI/BOOT/BOOTX64.EFI", b"loader").unwrap();
    esp.put("loader/loader.conf", b"timeout 0").unwrap();
    let blank = Memory::new(usize::try_from(medium.bytes()).unwrap());
    let install = |target: &mut Memory| -> Result<Contents, Error> {
        let mut source = OwnDisk::open(medium.clone())?;
        let facts = sys::BlockDevice { bytes: target.bytes(), is_blank: true, ..sys::BlockDevice::named("sda") };
        let contents = onto::observe(target, &facts)?;
        if let OntoPlan::Write(table) = onto::plan(&contents, &facts, (&SIZES, b"other"), false)? {
            onto::apply((&mut source, Slot::A), target, &table, b"version = 1")?;
        }
        Ok(contents)
    };
    let mut whole = blank.clone();
    assert_eq!(install(&mut whole).unwrap(), Contents::Blank);
    assert_eq!(install(&mut whole).unwrap(), Contents::Installed);
    assert_eq!(starts(&mut whole).1, 1);
    for kept in 0..whole.writes() {
        let mut target = blank.clone();
        target.cut_after(kept);
        install(&mut target).unwrap_err();
        target.restore_power();
        assert_ne!(install(&mut target).unwrap(), Contents::Installed, "after {kept} writes");
        assert_eq!(starts(&mut target).1, 1);
    }
    let facts = sys::BlockDevice::named("sda");
    let other = Contents::Other("photos".to_owned());
    let refused = onto::plan(&other, &facts, (&SIZES, b"x"), false).unwrap_err().to_string();
    assert!(refused.contains("/dev/sda holds photos") && refused.contains("install.wipe"), "{refused}");
}

#[test]
fn only_what_is_blank_or_was_never_used_is_installed_over() {
    use install::onto::{self, Contents};
    const CANNOT: &str = "STATE and DATA of a machine that cannot be started";
    let seen = |target: &mut Memory| {
        let facts = sys::BlockDevice { bytes: target.bytes(), is_blank: true, ..sys::BlockDevice::named("sda") };
        onto::observe(target, &facts).unwrap()
    };
    let other = |what: &str| Contents::Other(what.to_owned());
    let mut target = disk();
    assert_eq!(seen(&mut target), Contents::Installed);
    window(&mut target, layout::ESP_NAME).write_at(0, &vec![0; 1 << 20]).unwrap();
    assert_eq!(seen(&mut target), Contents::Unfinished);
    // Its first start has formatted both; a reset may have marked one of them again.
    for fresh in [&[][..], &[layout::STATE_NAME]] {
        let mut table = Table::read(&mut target).unwrap();
        for partition in table.partitions.values_mut() {
            let is_fresh = fresh.contains(&partition.name.as_str());
            partition.attributes = if is_fresh { layout::FRESH } else { partition.attributes & !layout::FRESH };
        }
        table.write(&mut target).unwrap();
        assert_eq!(seen(&mut target), other(CANNOT), "{fresh:?}");
        table
            .partitions
            .retain(|_, partition| [layout::STATE_NAME, layout::DATA_NAME].contains(&partition.name.as_str()));
        let mut separate = target.clone();
        table.write(&mut separate).unwrap();
        assert_eq!(seen(&mut separate), other(CANNOT), "{fresh:?}");
    }
    // A file system that begins at 64 KiB, and an array that ends with what makes it one.
    let blank = Memory::new(8 << 20);
    assert_eq!(seen(&mut blank.clone()), Contents::Blank);
    for (place, mark) in [(0x10040, &b"_BHRfS_M"[..]), ((8 << 20) - 4096, &[0xfc, 0x4e, 0x2b, 0xa9])] {
        let mut target = blank.clone();
        target.write_at(place, mark).unwrap();
        assert_eq!(seen(&mut target), other("unknown data"), "{place}");
    }
}
