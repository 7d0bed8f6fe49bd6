//! Everything PID 1 knows, apart from the services.

use std::collections::VecDeque;
use std::io::Stdout;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use install::rest::Volumes;
use install::{Booted, Record, Trial};
use luks::{Key, MachineTpm};
use machine_api::{Boot, Event, EventKind, Phase, Stage, VolumeStatus};
use secrets::Search;
use sys::{System, UeventSocket};
use tang::{Asked, Fetched};

use crate::cmdline::CommandLine;
use crate::conditions::Conditions;
use crate::config::Config;
use crate::console::Console;
use crate::environment::Environment;
use crate::exit::Leave;
use crate::extensions::Extensions;
use crate::form::Form;
use crate::groups::Groups;
use crate::intake::Accepted;
use crate::rekey::Rekey;
use crate::renew::Trying;
use crate::sources::{Offer, Sources};
use crate::volumes::Volumes as UserVolumes;
use crate::watchdog::Keeper;
use crate::{mend, mounts};

/// The host name before there is a manifest.
const NAMELESS: &str = "keelson";
/// More than happens before there is a log.
const EVENTS: usize = 1000;

/// What became of STATE and DATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// They survive.
    Kept,
    /// There is no disk; they live in memory.
    Memory,
    /// A disk is there but cannot be used. Keys must not be made anew over ones that may come back.
    Broken(String),
    /// STATE is there and whole, but of a format that this system cannot read. It may come back for another one.
    Unfit(String),
    /// STATE survives, and DATA cannot be used.
    NoData(String),
    /// The same because DATA is whole, but of a format that this system cannot read.
    NewerData(String),
    /// They are encrypted, and nothing has opened them yet.
    Locked(String),
    /// They are made once there is a manifest, which says how.
    Unmade,
}

impl Storage {
    /// Whether they may still come while this start lasts.
    pub(crate) fn is_waiting(&self) -> bool {
        match self {
            Self::Locked(_) | Self::Unmade => true,
            Self::Kept | Self::Memory | Self::Broken(_) | Self::Unfit(_) | Self::NoData(_) | Self::NewerData(_) => {
                false
            }
        }
    }

    /// Whether what the machine knew, and whom it knew, is on a disk that is there and not to be used.
    pub(crate) fn is_unusable(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Unfit(_) => true,
            Self::Kept | Self::Memory | Self::NoData(_) | Self::NewerData(_) | Self::Locked(_) | Self::Unmade => false,
        }
    }

    /// What keeps them from being there, for people.
    pub(crate) fn words(&self) -> Vec<String> {
        match self {
            Self::Kept | Self::Memory => Vec::new(),
            Self::Broken(reason)
            | Self::Unfit(reason)
            | Self::NoData(reason)
            | Self::NewerData(reason)
            | Self::Locked(reason) => {
                vec![reason.clone()]
            }
            Self::Unmade => vec!["the rest of the disk is made once there is a manifest".to_owned()],
        }
    }
}

/// Everything PID 1 knows, apart from the services.
pub(crate) struct Machine {
    pub(crate) system: Arc<dyn System>,
    pub(crate) config: Config,
    pub(crate) environment: Environment,
    pub(crate) command_line: CommandLine,
    pub(crate) console: Console<Stdout>,
    pub(crate) stage: Stage,
    pub(crate) phases: Vec<Phase>,
    pub(crate) hostname: String,
    /// What tells this start from all others.
    pub(crate) boot_id: String,
    pub(crate) storage: Storage,
    /// STATE and DATA, on a machine that was started from a disk of ours.
    pub(crate) volumes: Option<Volumes>,
    /// What is told of them.
    pub(crate) volume_status: Vec<VolumeStatus>,
    /// The volumes for pods.
    pub(crate) user_volumes: UserVolumes,
    /// What somebody gave to open them.
    pub(crate) given: Vec<Key>,
    /// How many of these were tried in this start.
    pub(crate) keys_tried: u32,
    /// What servers gave to open them with, or to put into them.
    pub(crate) fetched: Vec<Fetched>,
    /// What servers are asked for.
    pub(crate) asked: Asked,
    /// How far their keys are what the manifest says.
    pub(crate) rekey: Rekey,
    /// A manifest that waits for STATE.
    pub(crate) handed: Option<Offer>,
    /// The slot that runs, on a machine that was started from a disk of ours.
    pub(crate) booted: Option<Booted>,
    /// The manifest on that disk's EFI system partition.
    pub(crate) on_esp: Option<Offer>,
    /// Devices that come, from the start until the loop listens itself.
    pub(crate) devices: Option<UeventSocket>,
    /// What starts the machine again if this process stands still.
    pub(crate) keeper: Option<Keeper>,
    /// Further files of the system.
    pub(crate) extensions: Extensions,
    /// How the start before this one ended, if in a crash.
    pub(crate) crash: Option<String>,
    /// The last update.
    pub(crate) update: Option<Record>,
    /// Whether the system that runs has yet to prove itself.
    pub(crate) trial: Option<Trial>,
    /// When it was last written down what the trial lacks.
    pub(crate) remembered: Option<Duration>,
    pub(crate) groups: Option<Groups>,
    /// Boot has come to where the machine must start again.
    pub(crate) leave: Option<Leave>,
    /// The manifest in force.
    pub(crate) accepted: Option<Accepted>,
    /// A manifest whose network counts before that of the one in force.
    pub(crate) mended: Option<String>,
    /// Where whoever stands at the console is.
    pub(crate) form: Form,
    /// When they typed last.
    pub(crate) typed: Duration,
    /// How many lines in a row meant nothing.
    pub(crate) unclear: u32,
    /// What is wrong with the one offered last.
    pub(crate) diagnostics: Option<String>,
    /// What the one offered last would make of this machine, which it is not for.
    pub(crate) foreign: Option<String>,
    /// What the sources of manifests held when they were last looked at.
    pub(crate) offered: Option<Offer>,
    /// A manifest that counts from the next start, for people.
    pub(crate) pending: Option<String>,
    /// The manifest in force is tried.
    pub(crate) trying: Option<Trying>,
    /// Services that are to start anew for the manifest, once [`Machine::preparing`] is done.
    pub(crate) renewals: Vec<String>,
    /// Services that do something once for it.
    pub(crate) preparing: Vec<String>,
    /// What keeps the machine from being ready.
    pub(crate) conditions: Conditions,
    /// What happened and is not in the logs yet, as it is before the disk is there.
    pub(crate) events: VecDeque<(Duration, Event)>,
    /// Whether this start is among those that are remembered, and as what.
    pub(crate) remembered_boot: Option<Boot>,
}

impl Machine {
    pub(crate) fn new(config: Config, system: Arc<dyn System>) -> Self {
        let mut console = Console::new(std::io::stdout());
        if let Err(error) = mounts::apply_proc(&*system) {
            console.say(system.uptime(), &stdx::chain(&error).to_string());
        }
        let environment = config.environment.unwrap_or_else(|| Environment::observe(&*system));
        // The kernel of a container was started by its host, and goes on when the container starts again.
        let source = if environment == Environment::Container { "uuid" } else { "boot_id" };
        let boot_id = system.read(&Path::new("/proc/sys/kernel/random").join(source)).unwrap_or_default();
        let boot_id = String::from_utf8_lossy(&boot_id).trim().to_owned();
        Self {
            system,
            config,
            environment,
            command_line: CommandLine::default(),
            console,
            stage: Stage::Booting,
            phases: Vec::new(),
            hostname: NAMELESS.to_owned(),
            boot_id,
            storage: Storage::Kept,
            volumes: None,
            volume_status: Vec::new(),
            user_volumes: UserVolumes::default(),
            given: Vec::new(),
            keys_tried: 0,
            fetched: Vec::new(),
            asked: Asked::default(),
            rekey: Rekey::default(),
            handed: None,
            booted: None,
            on_esp: None,
            devices: None,
            keeper: None,
            extensions: Extensions::default(),
            crash: None,
            update: None,
            trial: None,
            remembered: None,
            groups: None,
            leave: None,
            accepted: None,
            mended: None,
            form: Form::default(),
            typed: Duration::ZERO,
            unclear: 0,
            diagnostics: None,
            foreign: None,
            offered: None,
            pending: None,
            trying: None,
            renewals: Vec::new(),
            preparing: Vec::new(),
            conditions: Conditions::default(),
            events: VecDeque::new(),
            remembered_boot: None,
        }
    }

    /// One that is made of a map, and keeps no services.
    #[cfg(test)]
    pub(crate) fn of_a_test(system: &Arc<sys::FakeSystem>) -> Self {
        let config = Config {
            environment: Some(Environment::Container),
            manifest: None,
            services: Box::new(|_, _| Vec::new()),
            network_test: Vec::new(),
            support: Vec::new(),
            is_verbose: false,
            paths: crate::config::Paths::default(),
        };
        Self::new(config, system.clone())
    }

    /// Tells what has happened, to whoever is at the console and to the events.
    pub(crate) fn tell(&mut self, event: Event) {
        let now = self.system.uptime();
        self.console.say(now, &event.message);
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((now, event));
    }

    /// The same, where nothing but words is known of it.
    pub(crate) fn say(&mut self, kind: EventKind, subject: &str, text: impl Into<String>) {
        self.tell(Event::new(kind, subject, text));
    }

    /// The same of something that failed.
    pub(crate) fn fault(&mut self, text: impl Into<String>) {
        self.say(EventKind::Fault, "", text);
    }

    /// Shows a service's line, which is in that service's log, to the operator.
    pub(crate) fn show(&mut self, text: &str) {
        self.console.say(self.system.uptime(), text);
    }

    /// Tells whoever types at the console something before the answer is whole.
    pub(crate) fn remark(&mut self, text: &str) {
        self.console.remark(self.system.uptime(), text);
    }

    /// Answers whoever types at the console, and asks what the form asks next.
    pub(crate) fn answer(&mut self, text: &str) {
        let question = self.form.question(&mend::scene(self));
        self.console.answer(self.system.uptime(), text, question);
    }

    /// Whether every line of every service goes to the console.
    pub(crate) fn is_verbose(&self) -> bool {
        self.config.is_verbose || self.command_line.is_verbose
    }

    pub(crate) fn sources(&self) -> Sources<'_> {
        Sources {
            environment: self.environment,
            command_line: &self.command_line,
            paths: &self.config.paths,
            given: self.config.manifest.as_deref(),
            on_esp: self.on_esp.as_ref(),
        }
    }

    /// The manifest that counts before all others: the one that was handed in before there was a place for it, or that of
    /// the sources.
    pub(crate) fn offer(&self) -> Option<Offer> {
        self.handed.clone().or_else(|| self.sources().observe(&*self.system))
    }

    /// Where the secrets of manifests are looked for.
    pub(crate) fn search(&self) -> Search<'_> {
        Search::new(&*self.system, &MachineTpm)
    }

    /// Tells others of a manifest, and first of its secrets; those of the one in force are still there for whoever reads
    /// that now.
    pub(crate) fn publish_manifest(&mut self, path: &Path, accepted: &Accepted) {
        self.publish_secrets(accepted);
        self.publish(path, accepted.text.as_bytes(), 0o600);
    }

    /// Tells others of the secrets of a manifest.
    pub(crate) fn publish_secrets(&mut self, accepted: &Accepted) {
        let before = self.accepted.as_ref().map_or(&[][..], |before| &before.secrets);
        if let Err(error) = secrets::publish(&*self.system, &self.config.paths.run, &accepted.secrets, before) {
            self.fault(stdx::chain(&error).to_string());
        }
    }

    /// Does not take a manifest in that is for another machine than this one, because of this.
    pub(crate) fn refuse(&mut self, why: String) {
        self.say(EventKind::ManifestNotTaken, "", format!("manifest: {why}: it is not taken in"));
        self.foreign = Some(why);
    }

    /// Writes a small file others read; what fails is told, no more.
    pub(crate) fn publish(&mut self, path: &Path, content: &[u8], mode: u32) {
        if let Err(error) = self.system.replace(path, content, mode) {
            self.fault(stdx::chain(&error).to_string());
        }
    }
}
