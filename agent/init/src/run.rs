//! The loop: waits for everything at once, and hands each thing to who decides about it.

use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use machine_api::{EventKind, Stage};
use supervisor::Input;
use sys::{FileWatch, Linux, NotifySocket, PowerButton, Signals, UeventSocket, wait_readable};

use crate::config::Config;
use crate::environment::Environment;
use crate::exit::{self, Leave};
use crate::intake::{self, Intake};
use crate::machine::{Machine, Storage};
use crate::runner::Runner;
use crate::stage::enter_stage;
use crate::typed::Typed;
use crate::{
    boots, conditions, devices, extensions, locks, medium, mend, network_keys, observe, phases, rekey, renew, sources,
    trial, volumes, watchdog,
};

/// How often the diagnostics are shown again while there is no usable manifest.
const REMIND: Duration = Duration::from_secs(60);
/// The longest wait, so that nothing depends on an event alone.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What a loop that failed waits before it goes on, so that a fault that stays cannot use a whole processor.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Everything that is waited on.
pub(crate) struct Ears {
    signals: Option<Signals>,
    notify: Option<NotifySocket>,
    files: Option<FileWatch>,
    conditions: Option<FileWatch>,
    devices: Option<UeventSocket>,
    typed: Option<Typed>,
    buttons: Vec<PowerButton>,
}

/// Runs the machine, or the namespaces, until it is told to end. Refuses to run as anything but the first process.
pub fn run(config: Config) -> ! {
    if std::process::id() != 1 {
        // The only words of this crate that do not go to the console: there is none.
        eprintln!("keelson init: only the first process of a machine or of a process namespace can do this");
        std::process::exit(1);
    }
    let mut machine = Machine::new(config, Arc::new(Linux));
    // Before the first child, so that no end is missed.
    let signals = Signals::listen().map_err(|error| machine.fault(stdx::chain(&error).to_string())).ok();
    phases::boot(&mut machine);
    let mut runner = Runner::new(&machine.config.paths.logs);
    let mut ears = Ears::open(&mut machine, signals);
    enter_stage(&mut machine, &mut runner);
    watchdog::settle(&mut machine);
    let mut reminded = machine.system.uptime();
    if let Some(how) = machine.leave.take() {
        exit::leave(&mut machine, &mut runner, &mut ears, how);
    }
    loop {
        let turn = AssertUnwindSafe(|| {
            tell_conditions(&mut machine, &mut runner);
            publish(&mut machine, &mut runner);
            remind(&mut machine, &mut reminded);
            runner.keep_events(&mut machine);
            turn(&mut machine, &mut runner, &mut ears, LONGEST_WAIT)
        });
        match catch_unwind(turn) {
            Ok(None) => {}
            Ok(Some(how)) => exit::leave(&mut machine, &mut runner, &mut ears, how),
            Err(_panic) => {
                machine.fault("PID 1 met a fault of its own and goes on; please report the lines above");
                drop(wait_readable(&[], AFTER_PANIC));
            }
        }
    }
}

impl Ears {
    fn open(machine: &mut Machine, signals: Option<Signals>) -> Self {
        let mut failures = Vec::new();
        let notify = NotifySocket::bind(&machine.config.paths.notify_socket());
        let notify = notify.map_err(|error| failures.push(error)).ok();
        let files = FileWatch::new().map_err(|error| failures.push(error)).ok();
        for folder in machine.sources().watched() {
            failures.extend(files.as_ref().and_then(|files| files.add_folder(&folder).err()));
        }
        let conditions = FileWatch::new().and_then(|watch| {
            watch.add_folder(&machine.config.paths.conditions())?;
            Ok(watch)
        });
        let conditions = conditions.map_err(|error| failures.push(error)).ok();
        let is_machine = machine.environment == Environment::Machine;
        let devices = machine.devices.take();
        let buttons = if is_machine { sys::power_buttons(&*machine.system) } else { Vec::new() };
        for error in failures {
            machine.fault(stdx::chain(&error).to_string());
        }
        Self { signals, notify, files, conditions, devices, typed: Typed::open(), buttons }
    }

    fn fds(&self, stage: Stage) -> [Option<BorrowedFd<'_>>; 6] {
        [
            self.signals.as_ref().map(AsFd::as_fd),
            self.notify.as_ref().map(AsFd::as_fd),
            self.files.as_ref().map(AsFd::as_fd),
            self.conditions.as_ref().map(AsFd::as_fd),
            self.devices.as_ref().map(AsFd::as_fd),
            self.typed.as_ref().filter(|_| stage != Stage::Stopping).map(AsFd::as_fd),
        ]
    }
}

/// Waits for something to happen, no longer than `longest`, and deals with it. Answers whether to end.
pub(crate) fn turn(machine: &mut Machine, runner: &mut Runner, ears: &mut Ears, longest: Duration) -> Option<Leave> {
    let deadline = runner.supervisor().next_deadline();
    let left = deadline.map(|deadline| deadline.saturating_sub(machine.system.uptime()));
    let pipes = runner.pipes();
    let count = pipes.len();
    let others = ears.fds(machine.stage).into_iter().flatten().chain(ears.buttons.iter().map(AsFd::as_fd));
    let all: Vec<BorrowedFd<'_>> = pipes.into_iter().chain(others).collect();
    let longest = patience(machine, runner, longest);
    let readable = wait_readable(&all, left.unwrap_or(longest).min(longest));
    drop(all);
    watchdog::pet(machine);
    runner.read_pipes(machine, &readable[..count]);
    while let Some(notification) = ears.notify.as_ref().and_then(NotifySocket::next) {
        runner.notified(machine, notification);
    }
    if let Some(typed) = ears.typed.as_mut().filter(|_| machine.stage != Stage::Stopping) {
        match typed.lines() {
            Some(lines) if lines.is_empty() => {}
            Some(lines) => mend::take(machine, runner, lines),
            None => ears.typed = None,
        }
    }
    mend::tick(machine);
    runner.check_errand(machine);
    let mut leave = None;
    while let Some(signal) = ears.signals.as_ref().and_then(Signals::next) {
        leave = leave.or(Leave::by_signal(signal));
    }
    runner.reap(machine);
    if ears.buttons.iter_mut().any(PowerButton::pressed) {
        leave = Some(Leave::power_off("the power button was pressed"));
    }
    if ears.conditions.as_ref().is_some_and(|watch| !watch.changed().is_empty()) {
        runner.touch();
    }
    let changed = ears.files.as_ref().map(FileWatch::changed).unwrap_or_default();
    let files_changed = !changed.is_empty();
    let is_manifest = changed.iter().any(|name| !sources::is_order(name));
    let disk_came = ears.devices.as_ref().is_some_and(|events| meet_devices(machine, events));
    if machine.stage != Stage::Stopping && (is_manifest || (disk_came && machine.accepted.is_none())) {
        reconsider(machine, runner);
    }
    if disk_came && machine.accepted.as_ref().is_some_and(|accepted| !accepted.is_whole()) {
        renew::search_again(machine, runner);
    }
    if disk_came {
        machine.user_volumes.meet_disk();
    }
    if files_changed {
        leave = leave.or(take_orders(machine, runner));
    }
    leave = leave.or_else(|| machine.leave.take());
    runner.step(machine, Input::Tick);
    if machine.stage != Stage::Stopping {
        renew::tick(machine, runner);
    }
    extensions::tick(machine);
    let has_news = [rekey::step(machine), volumes::tick(machine)];
    if has_news.contains(&true) {
        runner.touch();
    }
    if machine.stage != Stage::Stopping {
        let was_on_trial = machine.trial.is_some();
        leave = leave.or_else(|| trial::check(machine, runner.supervisor().status()));
        if was_on_trial && machine.trial.is_none() {
            // Nothing else changes at that moment, and somebody waits to be told.
            runner.touch();
        }
    }
    leave
}

/// How long nothing has to be looked at by itself, no longer than `longest`.
fn patience(machine: &Machine, runner: &Runner, longest: Duration) -> Duration {
    let now = machine.system.uptime();
    let waits = [
        machine.trial.is_some().then_some(trial::LONGEST_WAIT),
        machine.keeper.as_ref().map(watchdog::Keeper::longest_wait),
        machine.trying.as_ref().map(|trying| trying.until.saturating_sub(now)),
        machine.console.holds_for(now),
        runner.errand_left(now),
        machine.user_volumes.is_working().then_some(volumes::LONGEST_WAIT),
    ];
    waits.into_iter().flatten().fold(longest, Duration::min)
}

/// Loads drivers for what came. Answers whether disks are among it.
fn meet_devices(machine: &mut Machine, events: &UeventSocket) -> bool {
    let (is_disk, failures) = devices::meet(&*machine.system, events);
    for failure in failures {
        machine.fault(&failure);
    }
    is_disk
}

/// Does what others ask for by files in the inbox. Answers whether to end.
fn take_orders(machine: &mut Machine, runner: &mut Runner) -> Option<Leave> {
    let system = machine.system.clone();
    let leave = sources::take_leave(&*system, &machine.config.paths);
    for event in sources::take_told(&*system, &machine.config.paths) {
        machine.tell(event);
    }
    if machine.stage != Stage::Stopping {
        for name in sources::take_restarts(&*system, &machine.config.paths) {
            machine.say(EventKind::ServiceRestarting, &name, format!("{name} starts anew, as was asked for"));
            runner.step(machine, Input::Restart { name });
        }
    }
    if let Some(text) = sources::take_unlock(&*system, &machine.config.paths) {
        unlock(machine, runner, &text);
    }
    if let Some(text) = sources::take_network_keys(&*system, &machine.config.paths) {
        if network_keys::take(machine, &text) {
            resume(machine, runner);
        }
        runner.touch();
    }
    if sources::take_secrets(&*system, &machine.config.paths) && machine.stage != Stage::Stopping {
        renew::search_again(machine, runner);
    }
    if let Some(disk) = sources::take_partitions(&*system, &machine.config.paths) {
        devices::read_partitions(machine, disk);
        machine.user_volumes.wake();
    }
    if sources::take_keep(&*system, &machine.config.paths) {
        renew::keep_tried(machine);
        runner.touch();
    }
    leave
}

/// Tries what somebody gave to open the partitions with.
fn unlock(machine: &mut Machine, runner: &mut Runner, text: &str) {
    if locks::unlock(machine, text) {
        resume(machine, runner);
    }
    runner.touch();
}

/// STATE and DATA have come: what ran without them starts anew with them.
fn resume(machine: &mut Machine, runner: &mut Runner) {
    if let Err(error) = runner.replace(machine, Vec::new()) {
        machine.say(EventKind::ServicesRefused, "", error.to_string());
    }
    mend::keep(machine, None);
    runner.open_logs(&machine.config.paths.logs);
    phases::resume(machine);
    enter_stage(machine, runner);
}

/// A source changed: decides again.
fn reconsider(machine: &mut Machine, runner: &mut Runner) {
    sources::take_fetched(machine);
    let (offer, trial, is_found) = match sources::take_from_inbox(&*machine.system, &machine.config.paths) {
        // Whoever may hand one in may make another machine of this one.
        Some((offer, trial)) => (offer, trial, false),
        None => {
            let offer = machine.sources().observe(&*machine.system);
            let is_known = offer.as_ref().zip(machine.offered.as_ref()).is_some_and(|(it, known)| it.says_what(known));
            let is_news = !is_known;
            machine.offered.clone_from(&offer);
            let Some(offer) = offer.filter(|_| is_news || machine.accepted.is_none()) else { return };
            (offer, None, true)
        }
    };
    if machine.storage.is_waiting() {
        hand_in(machine, runner, offer);
        runner.touch();
        return;
    }
    // Nothing runs from a medium that cannot be written: whatever it is told is news.
    let is_read_only = machine.booted.as_ref().is_some_and(|booted| booted.is_read_only);
    if machine.accepted.is_some() && machine.storage.is_unusable() && !is_read_only {
        // The keys by which whoever offers it would be known are on that disk.
        machine.say(
            EventKind::ManifestNotTaken,
            "",
            format!("a manifest was offered ({}) and is not taken in: the disk cannot be used", offer.source),
        );
        return;
    }
    if machine.accepted.is_none() || is_read_only {
        let intake = intake::decide(Some(offer), None, machine.search());
        phases::take(machine, intake);
        if machine.accepted.is_some() {
            sources::supersede(machine);
            if let Some(reason) = medium::install_later(machine) {
                machine.fault(&reason);
                machine.storage = Storage::Broken(reason);
            }
            phases::apply(machine);
            // Whoever ran without a manifest has to start again to read it.
            if let Err(error) = runner.replace(machine, Vec::new()) {
                machine.say(EventKind::ServicesRefused, "", error.to_string());
            }
            enter_stage(machine, runner);
        }
    } else {
        renew::offered(machine, runner, (offer, is_found), trial);
    }
    runner.touch();
}

/// A manifest has come before STATE and DATA are there.
fn hand_in(machine: &mut Machine, runner: &mut Runner, offer: sources::Offer) {
    if let Storage::Locked(why) = &machine.storage {
        // The one in STATE counts, and whoever cannot open it is not to take the machine over.
        let text =
            format!("a manifest was offered ({}) and is not taken in before the disk is open: {why}", offer.source);
        machine.say(EventKind::ManifestNotTaken, "", &text);
        return;
    }
    match intake::decide(Some(offer.clone()), None, machine.search()) {
        Intake::Accepted(_) => {
            machine.handed = Some(offer);
            if phases::find_again(machine) {
                resume(machine, runner);
            } else {
                enter_stage(machine, runner);
            }
        }
        refused @ (Intake::LastGood { .. } | Intake::Foreign { .. } | Intake::None { .. }) => {
            phases::take(machine, refused)
        }
    }
}

/// Shows the diagnostics again now and then, for whoever connects a screen later.
fn remind(machine: &mut Machine, reminded: &mut Duration) {
    let now = machine.system.uptime();
    if machine.stage != Stage::Maintenance || now.saturating_sub(*reminded) < REMIND {
        return;
    }
    *reminded = now;
    if let Storage::Locked(why) = machine.storage.clone() {
        machine.say(
            EventKind::Waiting,
            "",
            format!("waiting for a passphrase or the recovery key: {why}; {}", mend::HINT),
        );
        return;
    }
    if let Some(diagnostics) = machine.diagnostics.clone() {
        machine.say(EventKind::ManifestWrong, "", &diagnostics);
        let ways =
            "waiting for a corrected manifest: on its source, or by `keelson apply FILE --endpoint THIS-MACHINE`";
        machine.say(EventKind::Waiting, "", format!("{ways}; {}", mend::HINT));
    }
}

/// Tells the operator what has kept the machine from being ready for a while.
fn tell_conditions(machine: &mut Machine, runner: &mut Runner) {
    if machine.stage == Stage::Stopping || !machine.conditions.is_due(machine.system.uptime()) {
        return;
    }
    let unmet = conditions::observe(machine, &runner.supervisor().status());
    for event in machine.conditions.news(machine.system.uptime(), &unmet) {
        machine.tell(event);
    }
}

/// Writes the status for others, if it changed.
pub(crate) fn publish(machine: &mut Machine, runner: &mut Runner) {
    let Some(services) = runner.changed_status() else { return };
    let status = observe::observe(machine, services);
    boots::remember(machine, &status);
    match serde_json::to_vec_pretty(&status) {
        Ok(text) => machine.publish(&machine.config.paths.run.join("status.json"), &text, 0o644),
        Err(error) => machine.fault(format!("the status cannot be written: {error}")),
    }
}
