//! Encrypted partitions: what they are made with, who opens them, what is told of them.

use std::path::{Path, PathBuf};

use install::rest::Volume;
use luks::{Key, MachineTpm, Opener, Wanted};
use machine_api::{Condition, EventKind, VolumeStatus};
use manifest::{Install, KeyServer, Manifest, Passphrase, Secret};
use secrets::Search;
use sys::{Mount, MountFlags, System, UnmountFlags};
use tang::{Fetched, Server};

use crate::machine::{Machine, Storage};
use crate::{phases, sources};

/// Where the recovery keys lie until somebody takes them, each on its own partition.
const RECOVERY: &str = "recovery-key";
/// Where STATE is looked into before DATA is made.
const LOOK: &str = "/run/keelson-look";

/// Partitions by their labels.
pub(crate) const VOLUMES: [(&str, manifest::Volume); 2] =
    [(disk::layout::STATE_NAME, manifest::Volume::State), (disk::layout::DATA_NAME, manifest::Volume::Data)];

/// What a partition is to be made with; `None` if it is not to be encrypted.
pub(crate) fn wanted(install: &Install, label: &str, (given, fetched): (&[Key], &[Fetched])) -> Option<Wanted> {
    let (_, volume) = VOLUMES.iter().find(|(name, _)| *name == label)?;
    let encryption = install.encryption_of(*volume)?;
    let passphrase = encryption.passphrase.as_ref().and_then(passphrase);
    Some(Wanted {
        tpm: encryption.tpm.clone(),
        has_passphrase: encryption.passphrase.is_some(),
        is_told: passphrase.is_some(),
        passphrase: passphrase.or_else(|| given.last().cloned()),
        network: encryption.network.iter().map(server).collect(),
        fetched: fetched.iter().filter(|fetched| fetched.volume == label).cloned().collect(),
        recovery: None,
    })
}

fn server(server: &KeyServer) -> Server {
    let thumbprints = server.thumbprints.iter().map(ToString::to_string).collect();
    Server { url: server.url.to_string(), thumbprints }
}

/// Passphrases that may open something: what somebody gave, and what a manifest tells.
pub(crate) fn keys(install: Option<&Install>, given: &[Key]) -> Vec<Key> {
    let told = install.into_iter().flat_map(|install| &install.encryption);
    let told = told.filter_map(|encryption| passphrase(encryption.passphrase.as_ref()?));
    let mut keys = given.to_vec();
    keys.extend(told);
    keys.dedup();
    keys
}

fn passphrase(source: &Secret<Passphrase>) -> Option<Key> {
    match source.known()? {
        Passphrase::Ask => None,
        Passphrase::Text(text) => Some(Key::typed(text)),
    }
}

/// What is looked for while STATE is closed: passphrases. All else may be on it.
pub(crate) fn search(system: &dyn System) -> Search<'_> {
    Search::new(system, &MachineTpm).below("install.")
}

/// The manifest that worked last, on a STATE that is open and not mounted yet.
pub(crate) fn remembered(system: &dyn System, state: &Path, file: &Path) -> Option<Manifest> {
    let mount = Mount {
        source: state.to_string_lossy().into_owned(),
        target: LOOK.into(),
        kind: "ext4".into(),
        flags: MountFlags::READ_ONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        options: String::new(),
    };
    system.make_dir(&mount.target, 0o700).and_then(|()| system.mount(&mount)).ok()?;
    let text = sources::text_of(system, &mount.target.join(file.file_name()?));
    system.unmount(&mount.target, UnmountFlags::Plain).ok();
    search(system).check("last good manifest", &text.ok()?).manifest
}

/// Completes the keys of what is open, and takes note of them.
pub(crate) fn settle(machine: &mut Machine) -> Vec<String> {
    let Some(volumes) = machine.volumes.clone().filter(|_| machine.storage == Storage::Kept) else { return Vec::new() };
    let mut failures = Vec::new();
    let mut told = Vec::new();
    machine.given.clear();
    machine.fetched.clear();
    for ((label, _), (volume, mounted)) in VOLUMES
        .iter()
        .zip([(&volumes.state, machine.config.paths.state.clone()), (&volumes.data, PathBuf::from("/var"))])
    {
        match settle_one(machine, label, volume, &mounted.join(RECOVERY)) {
            Ok(status) => told.push(status),
            Err(error) => failures.push(format!("{label}: {}", stdx::chain(&error))),
        }
    }
    machine.volume_status = told;
    failures
}

fn settle_one(
    machine: &mut Machine,
    label: &str,
    volume: &Volume,
    recovery: &Path,
) -> Result<VolumeStatus, luks::Error> {
    let mut status = VolumeStatus {
        name: label.to_owned(),
        device: volume.partition.display().to_string(),
        ..VolumeStatus::default()
    };
    let Some(opened) = &volume.opened else { return Ok(status) };
    let system = machine.system.clone();
    let plain =
        luks::Volume { system: &*system, device: &volume.partition, scratch: &machine.config.paths.run.clone() };
    for (_, refused) in &opened.refused {
        machine.say(EventKind::DiskNotOpened, label, format!("{label} was not opened by the TPM: {refused}"));
    }
    for done in luks::settle(plain, opened, recovery, &MachineTpm)? {
        machine.say(EventKind::DiskOpened, label, format!("{label}: {done}"));
    }
    status.is_encrypted = true;
    status.keys = plain.header()?.map(|header| header.keys()).unwrap_or_default();
    status.opened_by = opened.by.as_ref().map(|(opener, _)| match opener {
        Opener::Tpm => "the TPM".to_owned(),
        Opener::Network(url) => format!("the network key of {url}"),
        Opener::Given => "a passphrase or the recovery key".to_owned(),
    });
    Ok(status)
}

/// What is locked, and what the manifest wants encrypted and is not.
pub(crate) fn conditions(machine: &Machine) -> Vec<Condition> {
    if let Storage::Locked(why) = &machine.storage {
        let fix = "`keelson unlock --endpoint MACHINE` takes a passphrase or the recovery key, and so does the form at \
                   the console";
        return vec![Condition::new("Locked", why.clone(), fix)];
    }
    let Some(accepted) = &machine.accepted else { return Vec::new() };
    let unmet = machine.rekey.conditions();
    let is_encrypted =
        |label: &str| machine.volume_status.iter().any(|volume| volume.name == label && volume.is_encrypted);
    let bare = VOLUMES
        .iter()
        .filter(|(label, volume)| accepted.manifest.install.encryption_of(*volume).is_some() && !is_encrypted(label));
    let condition = |(label, volume): &(&str, manifest::Volume)| {
        let (why, fix) = if machine.volumes.is_some() {
            let fix =
                format!("`keelson reset {} --what {volume}` makes it anew; what it holds is lost", machine.hostname);
            (format!("{label} was made without encryption, which the manifest asks for now"), fix)
        } else {
            let why =
                format!("the manifest asks for an encrypted {label}, which only a disk with the system on it can have");
            (why, "start the machine from a flashed or installed disk".to_owned())
        };
        Condition::new("NotEncrypted", why, fix).about(label)
    };
    bare.map(condition).chain(unmet).collect()
}

/// Takes what somebody gives to open the partitions with. Answers whether they are open.
pub(crate) fn unlock(machine: &mut Machine, text: &str) -> bool {
    let is_open = try_key(machine, text);
    machine.keys_tried += 1;
    is_open
}

fn try_key(machine: &mut Machine, text: &str) -> bool {
    let is_locked = matches!(machine.storage, Storage::Locked(_));
    if !is_locked && !machine.rekey.lacks_passphrase() {
        machine.say(EventKind::DiskKeyGiven, "", "a passphrase was given, and nothing is locked");
        return false;
    }
    if let Err(error) = Passphrase::check(text.trim_end_matches(['\r', '\n'])) {
        machine.say(EventKind::DiskNotOpened, "", error.to_string());
        return false;
    }
    machine.say(EventKind::DiskKeyGiven, "", "a passphrase was given");
    machine.given = vec![Key::typed(text)];
    if !is_locked {
        machine.rekey.wake();
    }
    is_locked && phases::find_again(machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    const TEXT: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[[install.encryption]]\n\
                        volumes = [\"state\"]\ntpm = true\npassphrase = \"file:/firmware/key\"\n\
                        network = [{ url = \"http://10.0.0.5\", thumbprints = [\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"] }]\n\
                        [[install.encryption]]\nvolumes = [\"data\"]\npassphrase = \"ask\"\n";

    #[test]
    fn keys_come_from_whom_the_manifest_says() {
        let system = FakeSystem::new();
        let install = |system: &FakeSystem| search(system).check("test", TEXT).manifest.unwrap().install;
        let state =
            |system: &FakeSystem, given: &[Key]| wanted(&install(system), "KEELSON-STATE", (given, &[])).unwrap();
        assert_eq!(state(&system, &[]).passphrase, None);
        system.file("/firmware/key", "correct horse battery\nmore");
        let told = Key::typed("correct horse battery");
        assert_eq!(
            state(&system, &[]),
            Wanted {
                tpm: Some(vec![7]),
                has_passphrase: true,
                passphrase: Some(told.clone()),
                is_told: true,
                network: vec![Server { url: "http://10.0.0.5".to_owned(), thumbprints: vec!["x".repeat(43)] }],
                ..Wanted::default()
            }
        );
        let given = [Key::typed("somebody's own one")];
        let data = wanted(&install(&system), "KEELSON-DATA", (&given, &[])).unwrap();
        assert_eq!((data.tpm, data.passphrase.as_ref()), (None, given.first()));
        assert_eq!(keys(Some(&install(&system)), &given), [given[0].clone(), told]);
        let bare = manifest::parse("test", TEXT.split("[[").next().unwrap()).unwrap().install;
        assert_eq!(wanted(&bare, "KEELSON-DATA", (&given, &[])), None);
    }

    #[test]
    fn the_last_good_manifest_is_looked_at_and_let_go() {
        let system = FakeSystem::new();
        system.file("/run/keelson-look/manifest.toml", TEXT);
        let found = remembered(&system, Path::new("/dev/mapper/keelson-state"), Path::new("/state/manifest.toml"));
        assert_eq!(found.unwrap().install.encryption.len(), 2);
        let unmounted = sys::Call::Unmount(LOOK.into(), UnmountFlags::Plain);
        assert!(system.calls().contains(&unmounted));
    }
}
