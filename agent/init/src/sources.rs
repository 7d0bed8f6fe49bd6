//! Where manifests come from, in order. The first source that has one is asked for nothing less than a valid one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use install::Booted;
use sys::{Mount, MountFlags, System, UnmountFlags};

use crate::cmdline::CommandLine;
use crate::config::Paths;
use crate::environment::Environment;
use crate::exit::Leave;
use crate::machine::Machine;

/// Where an emulator puts a manifest.
const FIRMWARE: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/keelson/manifest/raw";
/// Where a disk with a manifest is looked into.
const CONFIG_MOUNT: &str = "/run/keelson-config";
/// The name of the manifest on such a disk.
const CONFIG_FILE: &str = "manifest.toml";
/// The name of one in the inbox that is to be tried for as many seconds as its first line says.
const TRIED_FILE: &str = "manifest.try";

/// How the names of files begin whose text is told to the machine's events.
const TOLD: &str = "say-";

/// A manifest as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Where, for people.
    pub(crate) source: String,
    /// The text, or why it could not be read.
    pub(crate) text: Result<String, String>,
}

impl Offer {
    fn new(source: impl Into<String>, text: Result<String, String>) -> Self {
        Self { source: source.into(), text }
    }
}

/// What to look through.
pub(crate) struct Sources<'a> {
    pub(crate) environment: Environment,
    pub(crate) command_line: &'a CommandLine,
    pub(crate) paths: &'a Paths,
    pub(crate) given: Option<&'a Path>,
    /// What was found on the own disk's EFI system partition.
    pub(crate) on_esp: Option<&'a Offer>,
}

impl Sources<'_> {
    /// The first source that holds something. `None` if no source does; the last good manifest is not among them.
    pub(crate) fn observe(&self, system: &dyn System) -> Option<Offer> {
        let machine = || {
            if self.environment == Environment::Container {
                return None;
            }
            let named = self.command_line.manifest.as_deref().map(|word| from_command_line(system, word));
            named.or_else(|| from_firmware(system)).or_else(|| from_disk(system)).or_else(|| self.on_esp.cloned())
        };
        let given = self.given.map(|path| Offer::new(path.display().to_string(), text_of(system, path)));
        given.or_else(machine).or_else(|| from_image(system, self.paths))
    }

    /// Folders whose changes may bring a manifest.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.paths.inbox()];
        folders.extend(self.given.and_then(Path::parent).map(Path::to_owned));
        let named = self.command_line.manifest.as_deref().filter(|word| word.starts_with('/'));
        folders.extend(named.and_then(|path| Path::new(path).parent()).map(Path::to_owned));
        folders
    }
}

fn from_command_line(system: &dyn System, word: &str) -> Offer {
    let Some(encoded) = word.strip_prefix("data:") else {
        return Offer::new(word, text_of(system, Path::new(word)));
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
    let text = decoded.map_err(|error| format!("the base64 of keelson.manifest is damaged: {error}"));
    Offer::new("kernel command line", text.and_then(utf8))
}

/// A manifest that was handed in after boot, and how long it is to be tried. It is taken out of the inbox, so that it
/// counts once.
pub(crate) fn take_from_inbox(system: &dyn System, paths: &Paths) -> Option<(Offer, Option<Duration>)> {
    let text = take(system, paths, CONFIG_FILE).map(|text| (text, None));
    let tried = || {
        let text = take(system, paths, TRIED_FILE)?;
        // The first line is the time.
        let (seconds, text) = text.as_ref().ok()?.split_once('\n')?;
        Some((Ok(text.to_owned()), Some(Duration::from_secs(seconds.parse().ok()?))))
    };
    text.or_else(tried).map(|(text, trial)| (Offer::new("handed in", text), trial))
}

/// Whether this name in the inbox is an order, and no manifest.
pub(crate) fn is_order(name: &str) -> bool {
    ["keep", "network-keys", "reboot", "restart", "shutdown", "unlock"].contains(&name) || name.starts_with(TOLD)
}

/// What somebody wants told to the machine's events. It is told once.
pub(crate) fn take_told(system: &dyn System, paths: &Paths) -> Vec<String> {
    let names = system.list(&paths.inbox()).unwrap_or_default();
    let told = names.iter().filter(|name| name.starts_with(TOLD));
    told.filter_map(|name| take(system, paths, name)?.ok()).collect()
}

/// Somebody keeps the manifest that is tried. It is asked once.
pub(crate) fn take_keep(system: &dyn System, paths: &Paths) -> bool {
    take(system, paths, "keep").is_some()
}

/// What somebody gives to open the disk with. It is tried once.
pub(crate) fn take_unlock(system: &dyn System, paths: &Paths) -> Option<String> {
    take(system, paths, "unlock")?.ok()
}

/// Servers gave keys of the disk. They are taken once.
pub(crate) fn take_network_keys(system: &dyn System, paths: &Paths) -> Option<String> {
    take(system, paths, "network-keys")?.ok()
}

/// A file out of the inbox.
fn take(system: &dyn System, paths: &Paths, name: &str) -> Option<Result<String, String>> {
    let file = paths.inbox().join(name);
    if !system.exists(&file) {
        return None;
    }
    let text = text_of(system, &file);
    system.remove_file(&file).ok();
    Some(text)
}

/// From now on the manifest that the machine would find at its next start is of no account, unless it is another one
/// by then: the one on STATE is newer.
pub(crate) fn supersede(machine: &mut Machine) {
    let offer = machine.sources().observe(&*machine.system).and_then(|offer| offer.text.ok());
    let path = machine.config.paths.superseded();
    match offer {
        Some(text) => machine.publish(&path, text.as_bytes(), 0o600),
        None => drop(machine.system.remove_file(&path)),
    }
}

/// Whether an offer is of no account.
pub(crate) fn is_superseded(system: &dyn System, paths: &Paths, offer: &Offer) -> bool {
    text_of(system, &paths.superseded()).is_ok_and(|text| offer.text.as_ref() == Ok(&text))
}

/// Somebody asks for a new start or the end, and says why, behind a line with what pods get if that is said, too. It is
/// asked once.
pub(crate) fn take_leave(system: &dyn System, paths: &Paths) -> Option<Leave> {
    type Way = fn(&str) -> Leave;
    let ways: [(&str, Way); 2] = [("reboot", Leave::reboot), ("shutdown", Leave::power_off)];
    ways.into_iter().find_map(|(name, leave)| {
        let order = take(system, paths, name)?.unwrap_or_default();
        let graced = order.strip_prefix("grace=").and_then(|rest| {
            let (seconds, why) = rest.split_once('\n')?;
            Some((Duration::from_secs(seconds.parse().ok()?), why))
        });
        let (grace, why) = graced.map_or((None, order.as_str()), |(grace, why)| (Some(grace), why));
        Some(leave(why.trim()).with_grace(grace))
    })
}

/// Services that somebody wants started anew, by name. It is asked once.
pub(crate) fn take_restarts(system: &dyn System, paths: &Paths) -> Vec<String> {
    let names = take(system, paths, "restart").and_then(Result::ok).unwrap_or_default();
    names.split_whitespace().map(str::to_owned).collect()
}

fn from_firmware(system: &dyn System) -> Option<Offer> {
    let file = Path::new(FIRMWARE);
    system.exists(file).then(|| Offer::new("firmware", text_of(system, file)))
}

fn from_image(system: &dyn System, paths: &Paths) -> Option<Offer> {
    system.exists(&paths.embedded).then(|| Offer::new("image", text_of(system, &paths.embedded)))
}

fn from_disk(system: &dyn System) -> Option<Offer> {
    let devices = sys::block_devices(system);
    let device = devices.iter().find(|device| device.holds_manifest())?;
    let source = format!("disk {}", device.name);
    let Some(filesystem) = &device.filesystem else {
        // Without a file system the disk is the text, padded with zeros.
        let bytes = system.read_at(&device.path(), 0, manifest::MANIFEST_BYTES + 1);
        let text = bytes.map_err(|error| stdx::chain(&error).to_string());
        let text = text.map(|bytes| bytes.into_iter().take_while(|byte| *byte != 0).collect());
        return Some(Offer::new(source, text.and_then(utf8)));
    };
    let mount = Mount {
        source: device.path().to_string_lossy().into_owned(),
        target: CONFIG_MOUNT.into(),
        kind: filesystem.kind.name().to_owned(),
        flags: MountFlags::READ_ONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        options: String::new(),
    };
    let mounted = system.make_dir(&mount.target, 0o700).and_then(|()| system.mount(&mount));
    let text = match mounted {
        Ok(()) => text_of(system, &mount.target.join(CONFIG_FILE)),
        Err(error) => Err(stdx::chain(&error).to_string()),
    };
    // It only matters to be able to take the disk out; a refusal changes nothing about the text.
    system.unmount(&mount.target, UnmountFlags::Lazy).ok();
    Some(Offer::new(source, text))
}

/// The manifest on the EFI system partition of the disk that the machine was started from.
pub(crate) fn from_esp(booted: &Booted) -> Option<Offer> {
    let source = format!("EFI system partition of {}", booted.disk);
    let read = || booted.open()?.esp()?.read(install::onto::MANIFEST).map_err(install::Error::from);
    match read() {
        Ok(None) => None,
        Ok(Some(bytes)) => Some(Offer::new(source, utf8(bytes))),
        Err(error) => Some(Offer::new(source, Err(stdx::chain(&error).to_string()))),
    }
}

/// A text file, read no further than a manifest can be long.
pub(crate) fn text_of(system: &dyn System, path: &Path) -> Result<String, String> {
    let bytes = system.read_at(path, 0, manifest::MANIFEST_BYTES + 1);
    utf8(bytes.map_err(|error| stdx::chain(&error).to_string())?)
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8 text: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::FakeSystem;

    fn observe(system: &FakeSystem, line: &str, environment: Environment) -> Option<Offer> {
        let command_line = CommandLine::parse(line);
        let paths = Paths::default();
        let on_esp = None;
        Sources { environment, command_line: &command_line, paths: &paths, given: None, on_esp }.observe(system)
    }

    #[test]
    fn sources_have_an_order() {
        let system = FakeSystem::new();
        assert_eq!(observe(&system, "", Environment::Machine), None);
        system.file("/usr/share/keelson/manifest.toml", "image");
        assert_eq!(observe(&system, "", Environment::Machine).unwrap().source, "image");
        system.file("/sys/class/block/vdc/size", "2048");
        system.file("/sys/class/block/vdc/serial", "keelson-config");
        system.file("/dev/vdc", b"disk\0\0\0\0");
        let offer = observe(&system, "", Environment::Machine).unwrap();
        assert_eq!((offer.source.as_str(), offer.text), ("disk vdc", Ok("disk".to_owned())));
        system.file(FIRMWARE, "firmware");
        assert_eq!(observe(&system, "", Environment::Machine).unwrap().source, "firmware");
        let offer = observe(&system, "keelson.manifest=data:YQ==", Environment::Machine).unwrap();
        assert_eq!((offer.source.as_str(), offer.text), ("kernel command line", Ok("a".to_owned())));
        assert_eq!(observe(&system, "keelson.manifest=/x", Environment::Container).unwrap().source, "image");
        system.file("/run/keelson/inbox/manifest.toml", "by hand");
        let paths = Paths::default();
        let (offer, trial) = take_from_inbox(&system, &paths).unwrap();
        assert_eq!((offer.text, trial), (Ok("by hand".to_owned()), None));
        system.file("/run/keelson/inbox/manifest.try", "60\nversion = 1\n");
        let (offer, trial) = take_from_inbox(&system, &paths).unwrap();
        assert_eq!((offer.text, trial), (Ok("version = 1\n".to_owned()), Some(Duration::from_secs(60))));
        assert_eq!(take_from_inbox(&system, &paths), None);
        system.file("/run/keelson/inbox/shutdown", "it moves house\n");
        assert_eq!(take_leave(&system, &paths), Some(Leave::power_off("it moves house")));
        assert_eq!(take_leave(&system, &paths), None);
        system.file("/run/keelson/inbox/say-1", "ann looks around");
        assert!(is_order("say-1") && !is_order("manifest.toml"));
        assert_eq!(take_told(&system, &paths), ["ann looks around"]);
        assert!(take_told(&system, &paths).is_empty());
        system.file("/run/keelson/inbox/reboot", "grace=60\nit was asked for");
        let patient = Leave::reboot("it was asked for").with_grace(Some(Duration::from_secs(60)));
        assert_eq!(take_leave(&system, &paths), Some(patient));
    }

    #[test]
    fn an_offer_is_of_no_account_while_it_stays_the_same() {
        let system = FakeSystem::new();
        let paths = Paths::default();
        let offer = |text: &str| Offer::new("firmware", Ok(text.to_owned()));
        assert!(!is_superseded(&system, &paths, &offer("a")));
        system.file("/state/manifest.superseded", "a");
        assert!(is_superseded(&system, &paths, &offer("a")) && !is_superseded(&system, &paths, &offer("b")));
        assert!(!is_superseded(&system, &paths, &Offer::new("disk", Err("damaged".to_owned()))));
    }

    #[test]
    fn a_disk_with_a_file_system_is_mounted_and_let_go() {
        let system = FakeSystem::new();
        let mut head = vec![0_u8; sys::PROBE_BYTES];
        head[32769..32774].copy_from_slice(b"CD001");
        head[32808..32819].copy_from_slice(b"KEELSON-CFG");
        system.file("/sys/class/block/sr0/size", "2048");
        system.file("/dev/sr0", head);
        system.file("/run/keelson-config/manifest.toml", "cd");
        let offer = observe(&system, "", Environment::Machine).unwrap();
        assert_eq!((offer.source.as_str(), offer.text), ("disk sr0", Ok("cd".to_owned())));
    }

    #[test]
    fn what_cannot_be_read_is_still_an_offer() {
        let system = FakeSystem::new();
        let offer = observe(&system, "keelson.manifest=/absent", Environment::Machine).unwrap();
        assert!(offer.text.unwrap_err().contains("read /absent"));
        let offer = observe(&system, "keelson.manifest=data:*", Environment::Machine).unwrap();
        assert!(offer.text.unwrap_err().contains("base64"));
    }
}
