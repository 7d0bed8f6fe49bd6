//! Does what the supervisor decides: starts and signals processes, reads what they print, tells what ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use machine_api::{EVENTS_LOG, Event, EventKind, LogLine};
use supervisor::{Action, Input, ServiceSpec, ServiceStatus, SpecError, Supervisor};
use sys::{Ended, Notification, Signal, Spawn};

use crate::logs::Logs;
use crate::machine::Machine;

/// A line that is longer is cut into several.
const LINE_BYTES: usize = 16 * 1024;
/// How much is read from one service before the others get their turn.
const TURN_BYTES: usize = 64 * 1024;

/// A program that took too long and was told to end is told again after this.
const HANGS: Duration = Duration::from_secs(30);
/// What such a program answers with that did its work, and with that found that something does not work.
const ANSWERED: [Ended; 2] = [Ended::Code(0), Ended::Code(2)];

/// A program that somebody at the console asked for. There is one at a time, and it is no service.
struct Errand {
    pid: u32,
    /// When it has to have ended.
    until: Duration,
}

/// The services and their pipes.
pub(crate) struct Runner {
    supervisor: Supervisor,
    outputs: Vec<Output>,
    errand: Option<Errand>,
    logs: Logs,
    /// Whether the status changed since it was last taken.
    has_changed: bool,
    was_ready: bool,
}

/// What one process, or what it left behind, prints.
struct Output {
    name: String,
    pid: u32,
    pipe: File,
    partial: Vec<u8>,
}

impl Runner {
    pub(crate) fn new(logs: &Path) -> Self {
        Self {
            supervisor: Supervisor::new(),
            outputs: Vec::new(),
            errand: None,
            logs: Logs::new(logs),
            has_changed: true,
            was_ready: false,
        }
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Takes another set of services.
    pub(crate) fn replace(&mut self, machine: &mut Machine, specs: Vec<ServiceSpec>) -> Result<(), SpecError> {
        if let Some(groups) = &machine.groups
            && let Err(error) = groups.protect(&*machine.system, &specs)
        {
            machine.fault(format!("memory of services is not protected: {}", stdx::chain(&error)));
        }
        let actions = self.supervisor.replace(specs, machine.system.uptime())?;
        self.perform(machine, actions);
        Ok(())
    }

    /// Writes logs to files that are opened anew: there is another disk below the folder.
    pub(crate) fn open_logs(&mut self, folder: &Path) {
        self.logs = Logs::new(folder);
    }

    /// Takes note of something and does what follows.
    pub(crate) fn step(&mut self, machine: &mut Machine, event: Input) {
        let actions = self.supervisor.step(event, machine.system.uptime());
        self.perform(machine, actions);
    }

    fn perform(&mut self, machine: &mut Machine, actions: Vec<Action>) {
        self.has_changed |= !actions.is_empty();
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Tell(event) => machine.tell(event),
                Action::Signal { pid, signal, .. } => {
                    if let Err(error) = machine.system.kill(pid, signal) {
                        machine.fault(stdx::chain(&error).to_string());
                    }
                }
                Action::Spawn(spec) => {
                    let event = self.spawn(machine, &spec);
                    actions.extend(self.supervisor.step(event, machine.system.uptime()));
                }
            }
        }
        self.tell_ready(machine);
    }

    fn tell_ready(&mut self, machine: &mut Machine) {
        let is_ready = machine.accepted.is_some() && self.supervisor.is_ready();
        if is_ready && !self.was_ready {
            machine.say(EventKind::ServicesReady, "", "all services are ready");
        }
        self.was_ready = is_ready;
    }

    fn spawn(&mut self, machine: &mut Machine, spec: &ServiceSpec) -> Input {
        let cgroup_procs = self.join_group(machine, spec);
        let mut env = spec.env.clone();
        let socket = machine.config.paths.notify_socket();
        env.push(("NOTIFY_SOCKET".to_owned(), socket.to_string_lossy().into_owned()));
        let confinement = spec.confinement.clone();
        let spawned = machine.system.spawn(&Spawn { argv: spec.argv.clone(), env, cgroup_procs, confinement });
        match spawned {
            Ok(spawned) => {
                if let Some(score) = spec.limits.oom_score_adj {
                    let file = format!("/proc/{}/oom_score_adj", spawned.pid);
                    // Some hosts do not let a container lower it; the service runs all the same.
                    machine.system.write(Path::new(&file), score.to_string().as_bytes()).ok();
                }
                if let Some(pipe) = spawned.output {
                    let (name, pipe) = (spec.name.clone(), File::from(pipe));
                    self.outputs.push(Output { name, pid: spawned.pid, pipe, partial: Vec::new() });
                }
                Input::Spawned { name: spec.name.clone(), pid: spawned.pid }
            }
            Err(error) => Input::SpawnFailed { name: spec.name.clone(), reason: stdx::chain(&error).to_string() },
        }
    }

    /// Makes the service's group. A service without one is better than no service.
    fn join_group(&self, machine: &mut Machine, spec: &ServiceSpec) -> Vec<PathBuf> {
        let Some(groups) = &machine.groups else { return Vec::new() };
        match groups.create(&*machine.system, spec) {
            Ok(group) => group.procs_files(),
            Err(error) => {
                let line = format!("{}: runs without a control group: {}", spec.name, stdx::chain(&error));
                machine.say(EventKind::Fault, &spec.name, &line);
                Vec::new()
            }
        }
    }

    /// Collects every process that ended, ours and orphans.
    pub(crate) fn reap(&mut self, machine: &mut Machine) {
        while let Some((pid, ended)) = machine.system.reap() {
            self.read_last_words(machine, pid);
            self.ended(machine, pid, ended);
        }
    }

    /// Runs a program for whoever is at the console, no longer than `within`; what it prints is the answer. In words why
    /// not.
    pub(crate) fn run_errand(
        &mut self,
        machine: &mut Machine,
        argv: Vec<String>,
        within: Duration,
    ) -> Result<(), String> {
        if self.errand.is_some() {
            return Err("what was asked for before is still under way".to_owned());
        }
        if argv.is_empty() {
            return Err("there is no program for that here".to_owned());
        }
        let spawned = machine.system.spawn(&Spawn { argv, ..Spawn::default() });
        let spawned = spawned.map_err(|error| stdx::chain(&error).to_string())?;
        if let Some(pipe) = spawned.output {
            let output = Output { name: String::new(), pid: spawned.pid, pipe: pipe.into(), partial: Vec::new() };
            self.outputs.push(output);
        }
        self.errand = Some(Errand { pid: spawned.pid, until: machine.system.uptime() + within });
        Ok(())
    }

    /// How long from now the program that was asked for may still take.
    pub(crate) fn errand_left(&self, now: Duration) -> Option<Duration> {
        self.errand.as_ref().map(|errand| errand.until.saturating_sub(now))
    }

    /// Ends the program that was asked for, if it takes too long.
    pub(crate) fn check_errand(&mut self, machine: &mut Machine) {
        let now = machine.system.uptime();
        let Some(errand) = self.errand.as_mut().filter(|errand| errand.until <= now) else { return };
        // It hangs, and may take a while to end all the same.
        errand.until = now + HANGS;
        if let Err(error) = machine.system.kill(errand.pid, Signal::Kill) {
            machine.fault(stdx::chain(&error).to_string());
        }
    }

    fn ended(&mut self, machine: &mut Machine, pid: u32, ended: Ended) {
        if self.errand.as_ref().is_some_and(|errand| errand.pid == pid) {
            self.errand = None;
            let words = if ANSWERED.contains(&ended) { String::new() } else { format!("it was not done: {ended}") };
            machine.answer(&words);
            return;
        }
        self.step(machine, Input::Ended { pid, ended });
    }

    fn read_last_words(&mut self, machine: &mut Machine, pid: u32) {
        let ours: Vec<usize> = (0..self.outputs.len()).filter(|index| self.outputs[*index].pid == pid).collect();
        for index in ours {
            self.read_output(machine, index);
        }
    }

    /// The pipes to wait on.
    pub(crate) fn pipes(&self) -> Vec<BorrowedFd<'_>> {
        self.outputs.iter().map(|output| output.pipe.as_fd()).collect()
    }

    /// Reads the pipes that have something, by their places in [`Runner::pipes`], and forgets closed ones.
    pub(crate) fn read_pipes(&mut self, machine: &mut Machine, readable: &[bool]) {
        let mut closed = Vec::new();
        for (index, _) in readable.iter().enumerate().filter(|(_, is_readable)| **is_readable) {
            if !self.read_output(machine, index) {
                closed.push(index);
            }
        }
        for index in closed.into_iter().rev() {
            let mut output = self.outputs.remove(index);
            let rest = std::mem::take(&mut output.partial);
            if !rest.is_empty() {
                self.line(machine, &output.name, &rest);
            }
        }
    }

    /// Reads one turn. False once the pipe is closed.
    fn read_output(&mut self, machine: &mut Machine, index: usize) -> bool {
        let mut buffer = [0_u8; 4096];
        let mut read = 0;
        while read < TURN_BYTES {
            let output = &mut self.outputs[index];
            match output.pipe.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    read += count;
                    let name = output.name.clone();
                    for line in split(&mut output.partial, &buffer[..count]) {
                        self.line(machine, &name, &line);
                    }
                }
                Err(_nothing_more) => return true,
            }
        }
        true
    }

    fn line(&mut self, machine: &mut Machine, name: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if name.is_empty() {
            machine.remark(&text);
            return;
        }
        self.log(machine, name, machine.system.uptime(), &text);
        if machine.is_verbose() {
            machine.show(&format!("{name}| {text}"));
        }
        self.step(machine, Input::Line { name: name.to_owned(), text });
    }

    fn log(&mut self, machine: &Machine, name: &str, uptime: Duration, text: &str) {
        let time = time_at(machine, uptime);
        self.logs.write(name, &LogLine { time, uptime: uptime.as_secs_f64(), text: text.to_owned() });
    }

    /// Writes down what has happened: as objects, and their words.
    pub(crate) fn keep_events(&mut self, machine: &mut Machine) {
        while let Some((uptime, event)) = machine.events.pop_front() {
            for line in event.message.lines() {
                self.log(machine, "init", uptime, line);
            }
            let time = time_at(machine, uptime);
            let event = Event { time, uptime: uptime.as_secs_f64(), ..event };
            self.log(machine, EVENTS_LOG, uptime, &event.to_json());
        }
    }

    /// Takes note of what a service says about itself.
    pub(crate) fn notified(&mut self, machine: &mut Machine, notification: Notification) {
        // A helper process of a service speaks for it.
        let session = machine.system.session_of(notification.pid).unwrap_or(notification.pid);
        self.has_changed = true;
        self.step(machine, Input::Notified { session, ready: notification.ready, status: notification.status });
    }

    /// The services' states, if something changed since the last time.
    pub(crate) fn changed_status(&mut self) -> Option<Vec<ServiceStatus>> {
        std::mem::take(&mut self.has_changed).then(|| self.supervisor.status())
    }

    /// Lets the status be written again.
    pub(crate) fn touch(&mut self) {
        self.has_changed = true;
    }

    /// Closes the logs, so that their disk can be unmounted.
    pub(crate) fn close_logs(&mut self) {
        self.logs.close();
    }
}

/// The calendar time at this time since boot, by the clock as it is now.
fn time_at(machine: &Machine, uptime: Duration) -> f64 {
    let now = machine.system.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = machine.system.uptime().saturating_sub(uptime);
    now.saturating_sub(ago).as_secs_f64()
}

/// Whole lines out of what was left over and what came in; the rest is left over.
fn split(partial: &mut Vec<u8>, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        partial.extend_from_slice(piece);
        if piece.ends_with(b"\n") || partial.len() >= LINE_BYTES {
            lines.push(std::mem::take(partial));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_kept_as_objects_and_as_words() {
        let system = std::sync::Arc::new(sys::FakeSystem::new());
        let mut machine = Machine::of_a_test(&system);
        let folder = tempfile::tempdir().unwrap();
        let mut runner = Runner::new(folder.path());
        machine.tell(Event::new(EventKind::ManifestWrong, "", "first line\nsecond line"));
        machine.say(EventKind::ServiceReady, "etcd", "etcd: ready");
        runner.keep_events(&mut machine);
        let lines = |name: &str| {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            text.lines().map(|line| LogLine::parse(line).text).collect::<Vec<_>>()
        };
        assert_eq!(lines("init.log"), ["first line", "second line", "etcd: ready"]);
        let kept: Vec<Event> = lines("events.log").iter().map(|line| Event::parse(line)).collect();
        let known: Vec<_> = kept.iter().map(|event| (event.kind.as_str(), event.subject.as_str())).collect();
        assert_eq!(known, [("ManifestWrong", ""), ("ServiceReady", "etcd")]);
        assert_eq!(kept[0].message, "first line\nsecond line");
    }

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let mut partial = Vec::new();
        assert!(split(&mut partial, b"a").is_empty());
        assert_eq!(split(&mut partial, b"b\n\nc"), [b"ab\n".to_vec(), b"\n".to_vec()]);
        assert_eq!(partial, b"c");
        assert_eq!(split(&mut partial, &[b'x'; LINE_BYTES]).len(), 1);
        assert!(partial.is_empty());
    }
}
