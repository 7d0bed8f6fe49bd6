//! The decisions: all services, one step at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use machine_api::{Event, EventKind, detail};
use sys::Signal;

use crate::input::{Action, Input};
use crate::service::{RESTART, STABLE, Service, ServiceState, Successor};
use crate::spec::{Kind, Readiness, Restart, ServiceSpec, SpecError, validate};
use crate::status::ServiceStatus;

/// How many lines a status shows.
const STATUS_LINES: usize = 10;

/// All services of a machine.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    services: Vec<Service>,
    /// Everything is to end.
    is_stopping: bool,
}

impl Supervisor {
    /// A supervisor without services.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes another set of services: what is new is added, what is gone or different is stopped first. Answers what
    /// to do at once.
    ///
    /// # Errors
    /// When the set cannot work; then nothing changes.
    pub fn replace(&mut self, specs: Vec<ServiceSpec>, now: Duration) -> Result<Vec<Action>, SpecError> {
        validate(&specs)?;
        let mut actions = Vec::new();
        let mut wanted: BTreeMap<String, ServiceSpec> =
            specs.iter().map(|spec| (spec.name.clone(), spec.clone())).collect();
        for service in &mut self.services {
            service.successor = match wanted.remove(&service.spec.name) {
                Some(spec) if spec == service.spec && !service.state.is_going() => {
                    service.successor = Successor::None;
                    continue;
                }
                Some(spec) => Successor::Start(Box::new(spec)),
                None => Successor::Gone,
            };
            stop(service, now, &mut actions);
        }
        let added = specs.into_iter().filter(|spec| wanted.contains_key(&spec.name));
        self.services.extend(added.map(|spec| Service::new(spec, now)));
        self.advance(now, &mut actions);
        Ok(actions)
    }

    /// Takes note of what happened and answers what to do.
    pub fn step(&mut self, input: Input, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Tick => {}
            Input::Spawned { name, pid } => self.spawned(&name, pid, now, &mut actions),
            Input::SpawnFailed { name, reason } => {
                if let Some(service) = self.find(&name) {
                    ended(service, reason, false, now, &mut actions);
                }
            }
            Input::Ended { pid, ended: how } => {
                if let Some(service) = self.services.iter_mut().find(|service| service.state.pid() == Some(pid)) {
                    ended(service, how.to_string(), how.is_success(), now, &mut actions);
                }
            }
            Input::Notified { session, ready, status } => {
                if let Some(service) = self.services.iter_mut().find(|service| service.state.pid() == Some(session)) {
                    service.doing = status.or(service.doing.take());
                    if ready && service.spec.readiness == Readiness::Notify {
                        became_ready(service, now, &mut actions);
                    }
                }
            }
            Input::Line { name, text } => {
                if let Some(service) = self.find(&name) {
                    service.log.push(text);
                }
            }
            Input::Restart { name } => {
                if let Some(service) = self.find(&name) {
                    service.successor = Successor::Start(Box::new(service.spec.clone()));
                    stop(service, now, &mut actions);
                }
            }
            Input::StopAll { within, pods } => self.hurry((within, pods), now),
        }
        self.advance(now, &mut actions);
        actions
    }

    /// When [`Input::Tick`] is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.services.iter().filter_map(Service::deadline).min()
    }

    /// Whether every process ended after [`Input::StopAll`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopping && self.alive().is_empty()
    }

    /// Whether everything is ready or done.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.services.iter().all(|service| service.state.is_ready())
    }

    /// Names of services that have a process.
    #[must_use]
    pub fn alive(&self) -> Vec<&str> {
        let alive = self.services.iter().filter(|service| service.state.is_alive());
        alive.map(|service| service.spec.name.as_str()).collect()
    }

    /// Where a service is.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<&ServiceState> {
        self.services.iter().find(|service| service.spec.name == name).map(|service| &service.state)
    }

    /// All services in words.
    #[must_use]
    pub fn status(&self) -> Vec<ServiceStatus> {
        let statuses = self.services.iter().map(|service| ServiceStatus {
            name: service.spec.name.clone(),
            state: service.state.name(),
            since: service.state.since(),
            pid: service.state.pid(),
            restarts: service.restarts,
            why: self.why(service),
            doing: service.doing.clone(),
            last_lines: service.log.tail(STATUS_LINES).map(str::to_owned).collect(),
            after: service.spec.depends_on.clone(),
            started: service.started,
            ready: service.ready,
            last_exit: service.last_exit.clone(),
        });
        statuses.collect()
    }

    fn why(&self, service: &Service) -> String {
        match &service.state {
            ServiceState::Waiting { .. } => format!("waits for {}", self.unready(&service.spec).join(", ")),
            ServiceState::Starting { .. } => match service.spec.readiness {
                Readiness::Exit => "has not ended yet".to_owned(),
                Readiness::Notify | Readiness::Immediate => "has not said that it is ready".to_owned(),
            },
            ServiceState::BackingOff { reason, .. } | ServiceState::Failed { reason, .. } => reason.clone(),
            ServiceState::Stopping { .. } => "was asked to end".to_owned(),
            ServiceState::Ready { .. } | ServiceState::Done { .. } | ServiceState::Stopped { .. } => String::new(),
        }
    }

    /// Everything is to end: also what was asked to before gets no longer than that.
    fn hurry(&mut self, (each, pods): (Duration, Duration), now: Duration) {
        self.is_stopping = true;
        for service in &mut self.services {
            let within = if service.spec.ends_pods { each + pods } else { each };
            let own = if service.spec.ends_pods { within } else { service.spec.stop_timeout };
            service.spec.stop_timeout = own.min(within);
            if let ServiceState::Stopping { kill_at: Some(at), .. } = &mut service.state {
                *at = (*at).min(now + within);
            }
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|service| service.spec.name == name)
    }

    fn unready(&self, spec: &ServiceSpec) -> Vec<String> {
        let needs = spec.depends_on.iter();
        needs.filter(|name| !self.state(name).is_some_and(ServiceState::is_ready)).cloned().collect()
    }

    fn spawned(&mut self, name: &str, started: u32, now: Duration, actions: &mut Vec<Action>) {
        let Some(service) = self.find(name) else { return };
        let ServiceState::Starting { pid, .. } = &mut service.state else { return };
        *pid = Some(started);
        if service.successor != Successor::None {
            stop(service, now, actions);
        } else if service.spec.readiness == Readiness::Immediate {
            became_ready(service, now, actions);
        }
    }

    /// Does what follows from states and time alone.
    fn advance(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.settle_successors(now);
        if self.is_stopping {
            self.stop_next(now, actions);
        } else {
            self.start_next(now, actions);
        }
        for service in &mut self.services {
            kill_if_late(service, now, actions);
        }
        self.tell_overdue(now, actions);
    }

    fn settle_successors(&mut self, now: Duration) {
        self.services.retain(|service| service.successor != Successor::Gone || service.state.is_alive());
        for service in &mut self.services {
            if service.state.is_alive() {
                continue;
            }
            if let Successor::Start(spec) = std::mem::replace(&mut service.successor, Successor::None) {
                service.spec = *spec;
                service.failures = 0;
                service.enter(ServiceState::Waiting { since: now });
            }
        }
    }

    fn start_next(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for index in 0..self.services.len() {
            let may_start = self.unready(&self.services[index].spec).is_empty();
            let service = &mut self.services[index];
            let is_due = match &service.state {
                ServiceState::Waiting { .. } => may_start,
                ServiceState::BackingOff { until, .. } if *until <= now => {
                    service.restarts += 1;
                    true
                }
                ServiceState::BackingOff { .. }
                | ServiceState::Starting { .. }
                | ServiceState::Ready { .. }
                | ServiceState::Done { .. }
                | ServiceState::Stopping { .. }
                | ServiceState::Stopped { .. }
                | ServiceState::Failed { .. } => false,
            };
            if is_due {
                service.enter(ServiceState::Starting { since: now, pid: None });
                actions.push(Action::Spawn(Box::new(service.spec.clone())));
            }
        }
    }

    fn stop_next(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for index in 0..self.services.len() {
            let name = &self.services[index].spec.name;
            let is_needed = self.services.iter().any(|other| other.state.is_alive() && self.needs(&other.spec, name));
            if !is_needed || !self.services[index].state.is_alive() {
                stop(&mut self.services[index], now, actions);
            }
        }
    }

    /// Whether a service depends on another, also through a third that may have ended.
    fn needs(&self, spec: &ServiceSpec, name: &str) -> bool {
        spec.depends_on.iter().any(|need| {
            let through = self.services.iter().find(|service| &service.spec.name == need);
            need == name || through.is_some_and(|through| self.needs(&through.spec, name))
        })
    }

    fn tell_overdue(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for index in 0..self.services.len() {
            let service = &self.services[index];
            if service.overdue_at().is_none_or(|due| due > now) {
                continue;
            }
            let name = &service.spec.name;
            let waiting = self.services.iter().filter(|other| {
                matches!(other.state, ServiceState::Waiting { .. }) && other.spec.depends_on.contains(name)
            });
            let waiting: Vec<&str> = waiting.map(|other| other.spec.name.as_str()).collect();
            let mut line = format!("{name}: not ready after {:.0} s", (now - service.state.since()).as_secs_f64());
            if !waiting.is_empty() {
                line += &format!(", {} waits for it", waiting.join(", "));
            }
            let doing = service.doing.as_ref().map(|doing| format!("; it says: {doing}"));
            line += &doing.unwrap_or_else(|| format!("; it {}", self.why(service)));
            if let Some(last) = service.log.last() {
                line += &format!("; last line: {last}");
            }
            let seconds = (now - service.state.since()).as_secs();
            let event = Event::new(EventKind::ServiceSlow, name, line).with(detail::SECONDS, seconds);
            actions.push(Action::Tell(event.with(detail::WAITING, waiting.join(", "))));
            self.services[index].overdue += 1;
        }
    }
}

/// Asks a service to end, if it has a process; else it is stopped at once. Idempotent.
fn stop(service: &mut Service, now: Duration, actions: &mut Vec<Action>) {
    match &service.state {
        ServiceState::Stopping { .. } | ServiceState::Stopped { .. } | ServiceState::Starting { pid: None, .. } => {}
        ServiceState::Starting { pid: Some(pid), .. } | ServiceState::Ready { pid, .. } => {
            let pid = *pid;
            let kill_at = Some(now + service.spec.stop_timeout);
            actions.push(Action::Signal { name: service.spec.name.clone(), pid, signal: Signal::Terminate });
            service.enter(ServiceState::Stopping { since: now, pid, kill_at });
        }
        ServiceState::Waiting { .. }
        | ServiceState::Done { .. }
        | ServiceState::BackingOff { .. }
        | ServiceState::Failed { .. } => service.enter(ServiceState::Stopped { since: now }),
    }
}

fn kill_if_late(service: &mut Service, now: Duration, actions: &mut Vec<Action>) {
    if let ServiceState::Stopping { since, pid, kill_at } = &mut service.state
        && kill_at.is_some_and(|at| at <= now)
    {
        *kill_at = None;
        let name = service.spec.name.clone();
        let waited = now.saturating_sub(*since).as_secs();
        let text = format!("{name}: did not end within {waited} s, killing it");
        actions.push(Action::Tell(Event::new(EventKind::ServiceKilled, &name, text).with(detail::SECONDS, waited)));
        actions.push(Action::Signal { name, pid: *pid, signal: Signal::Kill });
    }
}

fn became_ready(service: &mut Service, now: Duration, actions: &mut Vec<Action>) {
    if let ServiceState::Starting { since, pid: Some(pid) } = service.state {
        service.enter(ServiceState::Ready { since: now, started: since, pid });
        let after = (now - since).as_secs_f64();
        let name = &service.spec.name;
        let event = Event::new(EventKind::ServiceReady, name, format!("{name}: ready after {after:.1} s"));
        actions.push(Action::Tell(event.with(detail::SECONDS, after).with(detail::PID, pid)));
    }
}

/// A process ended, or could not be started.
fn ended(service: &mut Service, how: String, success: bool, now: Duration, actions: &mut Vec<Action>) {
    let name = service.spec.name.clone();
    if service.state.is_alive() {
        service.last_exit = Some((now, how.clone()));
    }
    let since = match &service.state {
        ServiceState::Starting { since, .. } => *since,
        ServiceState::Ready { started, .. } => *started,
        ServiceState::Stopping { since, .. } => {
            let took = (now - *since).as_secs_f64();
            let event = Event::new(EventKind::ServiceStopped, &name, format!("{name}: stopped after {took:.1} s"));
            actions.push(Action::Tell(event.with(detail::SECONDS, took)));
            service.enter(ServiceState::Stopped { since: now });
            return;
        }
        ServiceState::Waiting { .. }
        | ServiceState::Done { .. }
        | ServiceState::BackingOff { .. }
        | ServiceState::Stopped { .. }
        | ServiceState::Failed { .. } => return,
    };
    let ran = now.saturating_sub(since);
    if success && service.spec.kind == Kind::Oneshot {
        let took = ran.as_secs_f64();
        let event = Event::new(EventKind::ServiceDone, &name, format!("{name}: done after {took:.1} s"));
        actions.push(Action::Tell(event.with(detail::SECONDS, took)));
        service.failures = 0;
        service.enter(ServiceState::Done { since: now });
        return;
    }
    let is_restarted = match service.spec.restart {
        Restart::Always => true,
        Restart::OnFailure => !success,
        Restart::Never => false,
    };
    let last = service.log.last().map(|line| format!("; last line: {line}")).unwrap_or_default();
    let unasked = |line: String| {
        let event = Event::new(EventKind::ServiceEnded, &name, line).with(detail::HOW, &how);
        event.with(detail::SECONDS, ran.as_secs_f64()).with(detail::LAST_LINE, service.log.last().unwrap_or_default())
    };
    if !is_restarted {
        let event = unasked(format!("{name}: ended ({how}), not to be restarted{last}"));
        actions.push(Action::Tell(event));
        let state =
            if success { ServiceState::Done { since: now } } else { ServiceState::Failed { since: now, reason: how } };
        service.enter(state);
        return;
    }
    service.failures = if ran >= STABLE { 1 } else { service.failures.saturating_add(1) };
    let wait = RESTART.base(service.failures - 1);
    let after = ran.as_secs_f64();
    let line = format!("{name}: ended after {after:.1} s ({how}), starting again in {} s{last}", wait.as_secs());
    actions.push(Action::Tell(unasked(line).with(detail::RESTARTS_IN, wait.as_secs())));
    service.enter(ServiceState::BackingOff { since: now, until: now + wait, reason: how });
}
