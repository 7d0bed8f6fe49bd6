//! Extensions of the system: further files in `/usr`, out of files on STATE.
//!
//! ```text
//! STATE/extensions/NAME.extension ── loop ── dm-verity ── erofs at RUN/extensions/NAME ┐
//!                                                     the root's own /usr, on top ─────┴─ overlay on /usr
//! ```
//!
//! The root's own files are on top, so that none of them can be replaced, whatever an extension holds. One that cannot be
//! used is told (`ExtensionNotUsed`) and left out. That a start was begun with one is written down before: one that keeps
//! the machine from starting is left out after its second start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use disk::{About, BLOCK_BYTES, EXTENSION_HEAD_BYTES, ExtensionHead, OnDamage};
use install::extension::{self, Held, OWN_FOLDER, Trial};
use machine_api::{Condition, EventKind, ExtensionStatus};
use stdx::chain;
use sys::{FileMapping, ModuleIndex, Mount, MountFlags, System, UnmountFlags};

use crate::devices;
use crate::machine::{Machine, Storage};

mod plan;

use plan::{Skipped, Verdict, again, plan, without};

/// A machine that runs for so long with an extension has started with it.
const PROVED_AFTER: Duration = Duration::from_secs(60);
/// The system's own files, and where those of extensions are laid below them.
const USR: &str = "/usr";
const SECTOR_BYTES: u64 = 512;
/// Programs of extensions are run; nobody becomes somebody else by them, and they hold no devices.
const FLAGS: MountFlags = MountFlags::READ_ONLY.and(MountFlags::NOSUID).and(MountFlags::NODEV);

/// What this start found, and what it made of it.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    /// What is told of each.
    pub(crate) status: Vec<ExtensionStatus>,
    /// Those that are not used.
    skipped: Vec<Left>,
    /// The files in use that have yet to prove themselves.
    unproved: Vec<PathBuf>,
    /// When it was looked for them.
    since: Option<Duration>,
    /// The devices made of files.
    mapped: Vec<String>,
}

/// One that is left out.
#[derive(Debug)]
struct Left {
    name: String,
    skipped: Skipped,
    /// Whether it was used before.
    was_proved: bool,
}

/// One that is mounted.
struct Mounted {
    path: PathBuf,
    target: PathBuf,
    device: String,
}

/// Lays the extensions over the system, once, as soon as STATE is there.
pub(crate) fn lay(machine: &mut Machine) -> Vec<String> {
    let is_there = matches!(machine.storage, Storage::Kept | Storage::NoData(_) | Storage::NewerData(_))
        && machine.booted.is_some();
    if machine.extensions.status.is_empty() {
        machine.extensions.status = of_image(&*machine.system);
    }
    if !is_there || machine.extensions.since.is_some() {
        return Vec::new();
    }
    let system = machine.system.clone();
    machine.extensions.since = Some(system.uptime());
    let key = match key(&*system, &machine.config.paths.update_key) {
        Ok(key) => key,
        Err(error) => return vec![format!("no extension is used: {}", chain(&error))],
    };
    let held = extension::held(&*system, &machine.config.paths.extensions(), key.as_deref());
    if held.is_empty() {
        return Vec::new();
    }
    let version = machine.booted.as_ref().map_or_else(String::new, |booted| booted.version.clone());
    let of_image: Vec<String> = machine.extensions.status.iter().map(|it| it.name.clone()).collect();
    let verdicts = plan(&held, &of_image, (&system.kernel_release(), &version));
    let mut failures = load_loop(&*system);
    let mut laid = Vec::new();
    for (held, verdict) in held.iter().zip(verdicts) {
        let (verdict, mounted) = match (verdict, &held.head) {
            (Verdict::Use, Ok(head)) => match take(machine, &held.path, head) {
                Ok(mounted) => (Verdict::Use, Some(mounted)),
                Err(skipped) => (Verdict::Skip(skipped), None),
            },
            (verdict, _) => (verdict, None),
        };
        laid.extend(mounted);
        record(machine, held, verdict);
    }
    if let Err(error) = lay_over(&*system, &laid) {
        failures.push(chain(&error).to_string());
        give_back(machine, &laid, &chain(&error).to_string());
    } else if !laid.is_empty() {
        failures.extend(drive(&*system));
        machine.extensions.mapped = laid.iter().map(|mounted| mounted.device.clone()).collect();
        let is_unproved = |path: &PathBuf| extension::trial(&*system, path) != Trial::Proved;
        machine.extensions.unproved = laid.into_iter().map(|mounted| mounted.path).filter(is_unproved).collect();
    }
    failures
}

/// Those that came with the image: they are in the root.
fn of_image(system: &dyn System) -> Vec<ExtensionStatus> {
    let folder = Path::new("/").join(OWN_FOLDER);
    let names = system.list(&folder).unwrap_or_default();
    let about = |name: String| {
        let text = system.read(&folder.join(name).join("about.json")).ok()?;
        let about: About = serde_json::from_slice(&text).ok()?;
        Some(status(&about, ExtensionStatus::IMAGE, ExtensionStatus::IN_USE, ""))
    };
    names.into_iter().filter_map(about).collect()
}

fn status(about: &About, origin: &str, state: &str, why: &str) -> ExtensionStatus {
    let About { name, version, kernel, .. } = about.clone();
    ExtensionStatus { name, version, kernel, origin: origin.to_owned(), state: state.to_owned(), why: why.to_owned() }
}

/// The key that extensions must be signed with. One that is there and cannot be read is an error: nobody may switch the
/// check off by damaging it.
fn key(system: &dyn System, path: &Path) -> Result<Option<Vec<u8>>, sys::Error> {
    match system.read(path) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn load_loop(system: &dyn System) -> Vec<String> {
    let loaded = ModuleIndex::read(system).load(system, "loop", "");
    loaded.err().map(|error| chain(&error).to_string()).into_iter().collect()
}

/// Takes note of what becomes of one.
fn record(machine: &mut Machine, held: &Held, verdict: Verdict) {
    let unread = About { name: held.name(), ..About::default() };
    let about = held.about().unwrap_or(&unread);
    let told = match &verdict {
        Verdict::Use => status(about, ExtensionStatus::STATE, ExtensionStatus::IN_USE, ""),
        Verdict::Spare(why) => status(about, ExtensionStatus::STATE, ExtensionStatus::SPARE, why),
        Verdict::Skip(skipped) => status(about, ExtensionStatus::STATE, ExtensionStatus::NOT_USED, &skipped.why),
    };
    machine.say(EventKind::Extensions, &told.name, told.describe());
    machine.extensions.status.push(told);
    if let Verdict::Skip(skipped) = verdict {
        let was_proved = extension::trial(&*machine.system, &held.path) == Trial::Proved;
        machine.extensions.skipped.push(Left { name: about.name.clone(), skipped, was_proved });
    }
}

/// Writes down that it is tried, and mounts it.
fn take(machine: &Machine, path: &Path, head: &ExtensionHead) -> Result<Mounted, Skipped> {
    let (system, name) = (&*machine.system, &head.about.name);
    let before = extension::trial(system, path);
    let skip = |why: String, fix: String| Skipped { why, fix };
    let trial = before.again().ok_or_else(|| {
        let why = "each start with it ended before it had been up for a minute".to_owned();
        skip(why, format!("`keelson extension add` it again to try it once more, or {}", without(name)))
    })?;
    if trial != before {
        let kept = extension::keep_trial(system, path, trial);
        kept.map_err(|error| {
            let why = format!("it cannot be written down that it is tried: {}", chain(&error));
            skip(why, "see that STATE is whole and has room".to_owned())
        })?;
    }
    let target = machine.config.paths.run.join("extensions").join(name);
    let device = format!("keelson-extension-{name}");
    let mounted = Mounted { path: path.to_owned(), target, device };
    mount(system, &mounted, head).map_err(|error| {
        let why = format!("it cannot be mounted: {}", chain(&error));
        skip(why, again(name))
    })?;
    look(system, &mounted.target, head).map_err(|(why, fix)| {
        unmount(system, &mounted);
        skip(why, fix)
    })?;
    Ok(mounted)
}

fn mount(system: &dyn System, mounted: &Mounted, head: &ExtensionHead) -> Result<(), sys::Error> {
    let start = EXTENSION_HEAD_BYTES as u64;
    let parameters = |part: &Path| head.verity.parameters(&part.display().to_string(), &head.id, OnDamage::Fail);
    let mapping = FileMapping {
        name: &mounted.device,
        file: &mounted.path,
        place: (start, head.bytes() - start),
        sectors: head.verity.blocks * (BLOCK_BYTES as u64 / SECTOR_BYTES),
        kind: "verity",
        parameters: &parameters,
    };
    system.make_dir(&mounted.target, 0o755)?;
    let device = system.map_file(&mapping)?;
    let made = system.mount(&Mount {
        source: device.display().to_string(),
        target: mounted.target.clone(),
        kind: "erofs".to_owned(),
        flags: FLAGS,
        options: String::new(),
    });
    made.inspect_err(|_refused| drop(system.unmap(&mounted.device)))
}

fn unmount(system: &dyn System, mounted: &Mounted) {
    // What stays is in nobody's way.
    system.unmount(&mounted.target, UnmountFlags::Plain).ok();
    system.unmap(&mounted.device).ok();
}

/// Whether what is mounted may be laid over the system. Answers why not, and what helps.
fn look(system: &dyn System, target: &Path, head: &ExtensionHead) -> Result<(), (String, String)> {
    let About { name, kernel, .. } = &head.about;
    let survey = match extension::survey(target, Some(name)) {
        Ok(survey) => survey,
        Err(error @ extension::TreeError::Look { .. }) => return Err((chain(&error).to_string(), again(name))),
        Err(error) => return Err((chain(&error).to_string(), without(name))),
    };
    if survey.kernel.is_some() && survey.kernel != *kernel {
        return Err(("it has modules for another kernel than it says".to_owned(), without(name)));
    }
    match survey.files.iter().find(|path| system.exists(&Path::new("/").join(path))) {
        Some(path) => Err((format!("the system has {path} itself"), without(name))),
        None => Ok(()),
    }
}

/// Puts the system's own files and those of extensions together.
fn lay_over(system: &dyn System, laid: &[Mounted]) -> Result<(), sys::Error> {
    if laid.is_empty() {
        return Ok(());
    }
    let folders = laid.iter().map(|mounted| format!(":{}{USR}", mounted.target.display()));
    system.mount(&Mount {
        source: "keelson-extensions".to_owned(),
        target: USR.into(),
        kind: "overlay".to_owned(),
        flags: FLAGS,
        options: format!("lowerdir={USR}{}", folders.collect::<String>()),
    })
}

/// Nothing could be laid over the system.
fn give_back(machine: &mut Machine, laid: &[Mounted], why: &str) {
    let system = machine.system.clone();
    laid.iter().for_each(|mounted| unmount(&*system, mounted));
    for status in machine.extensions.status.iter_mut().filter(|it| it.origin == ExtensionStatus::STATE) {
        if status.state == ExtensionStatus::IN_USE {
            (status.state, status.why) = (ExtensionStatus::NOT_USED.to_owned(), why.to_owned());
            let skipped = Skipped { why: why.to_owned(), fix: without(&status.name) };
            machine.extensions.skipped.push(Left { name: status.name.clone(), skipped, was_proved: false });
        }
    }
}

/// Devices may have waited for what there is now: modules, and firmware for drivers that they had.
fn drive(system: &dyn System) -> Vec<String> {
    devices::probe_again(system);
    let failures = ModuleIndex::read(system).load_for_devices(system);
    failures.iter().map(|error| chain(error).to_string()).collect()
}

/// Has looked at the time: what has run for long enough has proved itself.
pub(crate) fn tick(machine: &mut Machine) {
    let Extensions { since: Some(since), unproved, .. } = &machine.extensions else { return };
    if !unproved.is_empty() && machine.system.uptime().saturating_sub(*since) >= PROVED_AFTER {
        prove(machine);
    }
}

/// The machine has started with those in use. One that ends in order has, too.
pub(crate) fn prove(machine: &mut Machine) {
    for path in std::mem::take(&mut machine.extensions.unproved) {
        // One that was removed meanwhile has nothing to prove.
        let is_there = machine.system.exists(&path);
        let kept = is_there.then(|| extension::keep_trial(&*machine.system, &path, Trial::Proved));
        if let Some(Err(error)) = kept {
            machine.fault(chain(&error).to_string());
        }
    }
}

/// The names of the devices that keep STATE busy, on the way out.
pub(crate) fn mapped(machine: &mut Machine) -> Vec<String> {
    std::mem::take(&mut machine.extensions.mapped)
}

/// Those that are not used. The machine is ready all the same, unless a system on trial cannot use what worked before.
pub(crate) fn conditions(machine: &Machine) -> impl Iterator<Item = Condition> {
    let is_trial = machine.trial.is_some();
    machine.extensions.skipped.iter().map(move |Left { name, skipped: Skipped { why, fix }, was_proved }| {
        let why = format!("the extension {name} is not used: {why}");
        let is_concern = !(is_trial && *was_proved);
        Condition { is_concern, ..Condition::new("ExtensionNotUsed", why, fix.clone()).about(name) }
    })
}

#[cfg(test)]
mod tests;
