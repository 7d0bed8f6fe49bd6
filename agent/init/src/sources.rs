//! Where manifests come from. Each source may have a part of it; together they are asked for nothing less than a valid
//! one.
//!
//! ```text
//! image ─ EFI system partition ─ labelled disk ─ SMBIOS ─ firmware ─ kernel command line     later ones win, key by key
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use install::Booted;
use machine_api::Event;
use manifest::Part;
use sys::System;

use crate::cmdline::CommandLine;
use crate::config::Paths;
use crate::environment::Environment;
use crate::exit::Leave;
use crate::machine::Machine;
use crate::smbios;

/// Where an emulator puts a manifest.
const FIRMWARE: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/keelson/manifest/raw";
/// The folder for more parts on such a disk, taken in the order of their names, and how many it may have.
const MORE_PARTS: &str = "manifest.d";
const MORE_PARTS_COUNT: usize = 64;
/// How a text begins that is cloud-init's own, on a disk that both look for.
const CLOUD_CONFIG: &str = "#cloud-config";
/// The name of a manifest in the inbox, and of one that was fetched.
const HANDED_FILE: &str = "manifest.toml";
const FETCHED_FILE: &str = "fetched";
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
        let source = source.into();
        let text = text.map_err(|reason| format!("the manifest ({source}) could not be read: {reason}"));
        Self { source, text }
    }

    /// Whether it says what another one says, wherever it is from.
    pub(crate) fn says_what(&self, other: &Self) -> bool {
        match (&self.text, &other.text) {
            (Ok(text), Ok(other)) => manifest::says_the_same(text, other),
            (text, other) => text == other,
        }
    }
}

/// One offer of all parts, of which later ones win.
fn together(offers: Vec<Offer>) -> Option<Offer> {
    let source = offers.iter().map(|offer| offer.source.as_str()).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    for offer in offers {
        match &offer.text {
            Ok(text) => parts.push(Part { source: offer.source, text: text.clone() }),
            Err(_) => return Some(offer),
        }
    }
    if parts.is_empty() {
        return None;
    }
    let text =
        manifest::merge(&parts).map_err(|broken| broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    Some(Offer { source, text })
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
    /// What all sources say together. `None` if none of them has something; the last good manifest is not among them.
    pub(crate) fn observe(&self, system: &dyn System) -> Option<Offer> {
        let mut offers = Vec::new();
        offers.extend(from_image(system, self.paths));
        if self.environment != Environment::Container {
            offers.extend(self.on_esp.cloned());
            offers.extend(from_disk(system));
            offers.extend(smbios::manifest(system).map(|word| self.named(system, "SMBIOS", &word)));
            offers.extend(from_firmware(system));
            let named = self.command_line.manifest.as_deref();
            offers.extend(named.map(|word| self.named(system, "kernel command line", word)));
        }
        offers.extend(self.given.map(|path| Offer::new(path.display().to_string(), text_of(system, path))));
        together(offers)
    }

    /// The address of a manifest that was not fetched yet.
    pub(crate) fn unfetched(&self, system: &dyn System) -> Option<String> {
        let words = smbios::manifest(system).into_iter().chain(self.command_line.manifest.clone());
        let mut addresses = words.filter(|word| is_address(word));
        addresses.find(|word| self.environment != Environment::Container && self.fetched(system, word).is_none())
    }

    fn fetched(&self, system: &dyn System, address: &str) -> Option<String> {
        self.paths.fetched().iter().find_map(|path| {
            let text = text_of(system, path).ok()?;
            Some(text.strip_prefix(address)?.strip_prefix('\n')?.to_owned())
        })
    }

    /// What a word names: a file by its path, a text by `data:` and base64, or one that somebody fetches.
    fn named(&self, system: &dyn System, source: &str, word: &str) -> Offer {
        if is_address(word) {
            let text = self.fetched(system, word).ok_or_else(|| "it has not been fetched yet".to_owned());
            return Offer::new(without_secrets(word), text);
        }
        let Some(encoded) = word.strip_prefix("data:") else {
            return Offer::new(word, text_of(system, Path::new(word)));
        };
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
        let text = decoded.map_err(|error| format!("the base64 of keelson.manifest is damaged: {error}"));
        Offer::new(source, text.and_then(utf8))
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

fn is_address(word: &str) -> bool {
    word.starts_with("https://") || word.starts_with("http://")
}

/// An address without what may be a secret in it.
fn without_secrets(address: &str) -> String {
    let plain = address.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = plain.split_once("://").unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

/// What somebody fetched for us out of the inbox: from now on its source has it.
pub(crate) fn take_fetched(machine: &mut Machine) {
    let Some(Ok(text)) = take(&*machine.system, &machine.config.paths, FETCHED_FILE) else { return };
    let [now, _] = machine.config.paths.fetched();
    machine.publish(&now, text.as_bytes(), 0o600);
    machine.system.remove_file(&machine.config.paths.manifest_url()).ok();
}

/// The next start has it, too.
pub(crate) fn remember_fetched(machine: &mut Machine) {
    let [now, kept] = machine.config.paths.fetched();
    if let Ok(text) = text_of(&*machine.system, &now) {
        machine.publish(&kept, text.as_bytes(), 0o600);
    }
}

/// A manifest that was handed in after boot, and how long it is to be tried. It is taken out of the inbox, so that it
/// counts once.
pub(crate) fn take_from_inbox(system: &dyn System, paths: &Paths) -> Option<(Offer, Option<Duration>)> {
    let text = take(system, paths, HANDED_FILE).map(|text| (text, None));
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
    ["keep", "network-keys", "partitions", "reboot", "restart", "secrets", "shutdown", "unlock"].contains(&name)
        || name.starts_with(TOLD)
}

/// What somebody wants told to the machine's events. It is told once.
pub(crate) fn take_told(system: &dyn System, paths: &Paths) -> Vec<Event> {
    let names = system.list(&paths.inbox()).unwrap_or_default();
    let told = names.iter().filter(|name| name.starts_with(TOLD));
    told.filter_map(|name| Some(Event::parse(&take(system, paths, name)?.ok()?))).collect()
}

/// The disk of which somebody changed the partitions. It is told once.
pub(crate) fn take_partitions(system: &dyn System, paths: &Paths) -> Option<String> {
    take(system, paths, "partitions")?.ok()
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
    let known = text_of(system, &paths.superseded());
    known.is_ok_and(|known| offer.text.as_ref().is_ok_and(|text| manifest::says_the_same(text, &known)))
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

/// Somebody changed secrets. They are looked for once.
pub(crate) fn take_secrets(system: &dyn System, paths: &Paths) -> bool {
    take(system, paths, "secrets").is_some()
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

/// The parts on the first disk that is there to hand them in.
fn from_disk(system: &dyn System) -> Vec<Offer> {
    let devices = sys::block_devices(system);
    let found = devices.iter().filter_map(|device| Some((device, device.manifest_file()?)));
    // One that is ours only, before one that others look into, too.
    let Some((device, file)) = found.min_by_key(|(_, file)| *file != HANDED_FILE) else { return Vec::new() };
    let source = format!("disk {}", device.name);
    if device.filesystem.is_none() {
        // Without a file system the disk is the text, padded with zeros.
        let bytes = system.read_at(&device.path(), 0, manifest::MANIFEST_BYTES + 1);
        let text = bytes.map_err(|error| stdx::chain(&error).to_string());
        let text = text.map(|bytes| bytes.into_iter().take_while(|byte| *byte != 0).collect());
        return vec![Offer::new(source, text.and_then(utf8))];
    }
    let look = || from_folder(system, Path::new(secrets::DISK), &source, file);
    secrets::on_disk(system, device, look).unwrap_or_else(|reason| vec![Offer::new(&source, Err(reason))])
}

fn from_folder(system: &dyn System, folder: &Path, source: &str, file: &str) -> Vec<Offer> {
    let more = folder.join(MORE_PARTS);
    let mut names = system.list(&more).unwrap_or_default();
    names.retain(|name| name.ends_with(".toml") && !name.starts_with('.'));
    names.sort_unstable();
    if names.len() > MORE_PARTS_COUNT {
        let reason = format!("{MORE_PARTS} has {} parts, at most {MORE_PARTS_COUNT} are taken", names.len());
        return vec![Offer::new(source, Err(reason))];
    }
    let mut offers = Vec::new();
    let first = folder.join(file);
    if names.is_empty() || system.exists(&first) {
        offers.push(Offer::new(source, text_of(system, &first).and_then(not_of_cloud_init)));
    }
    let part = |name: &String| Offer::new(format!("{source} {MORE_PARTS}/{name}"), text_of(system, &more.join(name)));
    offers.extend(names.iter().map(part));
    offers
}

fn not_of_cloud_init(text: String) -> Result<String, String> {
    if text.starts_with(CLOUD_CONFIG) {
        return Err(format!("it begins with {CLOUD_CONFIG}: this is for cloud-init, a manifest is TOML"));
    }
    Ok(text)
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
    use machine_api::EventKind;

    use super::*;
    use sys::FakeSystem;

    fn observe(system: &FakeSystem, line: &str, environment: Environment) -> Option<Offer> {
        let command_line = CommandLine::parse(line);
        let paths = Paths::default();
        let on_esp = None;
        Sources { environment, command_line: &command_line, paths: &paths, given: None, on_esp }.observe(system)
    }

    /// The host name that all sources together give, and what they are.
    fn hostname(system: &FakeSystem, line: &str, environment: Environment) -> (String, String) {
        let offer = observe(system, line, environment).unwrap();
        let text = offer.text.unwrap();
        let name = manifest::origins("", &text).into_iter().find(|origin| origin.key == "machine.hostname").unwrap();
        (name.value, offer.source)
    }

    #[test]
    fn sources_have_an_order_and_the_later_ones_win() {
        let named = |name: &str| format!("[machine]\nhostname = \"{name}\"\n");
        let found = |name: &str, sources: &str| (format!("\"{name}\""), sources.to_owned());
        let system = FakeSystem::new();
        assert_eq!(observe(&system, "", Environment::Machine), None);
        system.file("/usr/share/keelson/manifest.toml", format!("version = 1\n{}role = \"single\"\n", named("image")));
        assert_eq!(hostname(&system, "", Environment::Machine), found("image", "image"));
        system.file("/sys/class/block/vdc/size", "2048");
        system.file("/sys/class/block/vdc/serial", "keelson-config");
        system.file("/dev/vdc", format!("{}\0\0\0\0", named("disk")));
        assert_eq!(hostname(&system, "", Environment::Machine), found("disk", "image, disk vdc"));
        system.file(FIRMWARE, named("firmware"));
        assert_eq!(hostname(&system, "", Environment::Machine), found("firmware", "image, disk vdc, firmware"));
        let line = format!("keelson.manifest=data:{}", "W21hY2hpbmVdCmhvc3RuYW1lID0gImxpbmUiCg==");
        let all = "image, disk vdc, firmware, kernel command line";
        assert_eq!(hostname(&system, &line, Environment::Machine), found("line", all));
        let text = observe(&system, &line, Environment::Machine).unwrap().text.unwrap();
        let (manifest, findings) = manifest::check("all", &text);
        assert_eq!(manifest.unwrap_or_else(|| panic!("{findings}")).machine.hostname.to_string(), "line");
        assert_eq!(hostname(&system, "keelson.manifest=/x", Environment::Container), found("image", "image"));
        system.file(FIRMWARE, "[machine]\nhostnam = 1\n");
        let told = observe(&system, "", Environment::Machine).unwrap().text.unwrap_err();
        assert!(told.contains("firmware:2") && told.contains("did you mean `hostname`"), "{told}");
    }

    #[test]
    fn the_inbox_holds_manifests_and_orders() {
        let system = FakeSystem::new();
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
        system.file("/run/keelson/inbox/say-2", Event::new(EventKind::DiskWiped, "vdb", "gone").to_json());
        let told = [(EventKind::Told, "", "ann looks around"), (EventKind::DiskWiped, "vdb", "gone")];
        assert_eq!(take_told(&system, &paths), told.map(|(kind, subject, text)| Event::new(kind, subject, text)));
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
    fn a_manifest_at_an_address_is_an_offer_once_it_was_fetched() {
        let system = FakeSystem::new();
        let address = "https://user:word@example.com/m1?key=1#sha256=00";
        let line = CommandLine::parse(&format!("keelson.manifest={address}"));
        let paths = Paths::default();
        let environment = Environment::Machine;
        let sources = Sources { environment, command_line: &line, paths: &paths, given: None, on_esp: None };
        assert_eq!(sources.unfetched(&system).as_deref(), Some(address));
        let offer = sources.observe(&system).unwrap();
        assert_eq!(offer.source, "https://example.com/m1");
        assert!(offer.text.unwrap_err().ends_with("it has not been fetched yet"));
        // In this start, and in the ones after it; what another address had is nobody's.
        for folder in ["/run/keelson", "/state"] {
            let system = FakeSystem::new();
            system.file(format!("{folder}/manifest.fetched"), format!("{address}\nversion = 1\n"));
            assert_eq!(sources.observe(&system).unwrap().text.unwrap(), "version = 1\n");
            assert_eq!(sources.unfetched(&system), None);
            system.file(format!("{folder}/manifest.fetched"), format!("{address}2\nversion = 1\n"));
            assert_eq!(sources.unfetched(&system).as_deref(), Some(address));
        }
    }

    #[test]
    fn a_disk_may_have_several_parts_or_be_one_for_cloud_init() {
        let system = FakeSystem::new();
        let label = |label: &[u8]| {
            let mut head = vec![0_u8; sys::PROBE_BYTES];
            head[32769..32774].copy_from_slice(b"CD001");
            head[32808..32808 + label.len()].copy_from_slice(label);
            system.file("/dev/sr0", head);
            observe(&system, "", Environment::Machine).unwrap()
        };
        system.file("/sys/class/block/sr0/size", "2048");
        system.file("/run/keelson-config/manifest.d/20-b.toml", "[machine]\nhostname = \"b\"\n");
        system.file("/run/keelson-config/manifest.d/10-a.toml", "[machine]\nhostname = \"a\"\nrole = \"single\"\n");
        system.file("/run/keelson-config/manifest.d/notes", "not a part");
        let offer = label(b"KEELSON-CFG");
        assert_eq!(offer.source, "disk sr0 manifest.d/10-a.toml, disk sr0 manifest.d/20-b.toml");
        assert!(offer.text.unwrap().contains("machine.hostname = \"b\" # disk sr0 manifest.d/20-b.toml:2"));
        system.file("/run/keelson-config/user-data", "version = 1\n");
        assert!(label(b"CIDATA     ").text.unwrap().contains("version = 1"));
        system.file("/run/keelson-config/user-data", "#cloud-config\nusers: []\n");
        assert!(label(b"CIDATA     ").text.unwrap_err().contains("for cloud-init"));
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
