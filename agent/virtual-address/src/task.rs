//! The I/O around the election: the link's sockets, the kernel's addresses, the clock.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use lifecycle::Shutdown;
use netlink::{Change, Changes, Netlink};
use stdx::Backoff;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Config, INTERVAL, POOR_PRIORITY, Readiness};
use crate::election::{Action, Election, Event, LEAVING, Rules};
use crate::error::Error;
use crate::packet::Advertisement;
use crate::place::{Place, find};
use crate::report::{Reporter, Standing};
use crate::socket::{Received, Sockets, announce};

/// Nothing depends on the kernel's reports alone.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Waits before what failed is tried again.
const RETRY: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(30), jitter: 0.0 };

/// Runs until shutdown, and leaves the address to others then.
///
/// # Errors
/// When the kernel's network interface is not to be had. What fails on a link is told and tried again.
pub async fn run(config: Config, mut readiness: watch::Receiver<Readiness>, shutdown: Shutdown) -> Result<(), Error> {
    let netlink = Netlink::connect().map_err(Error::Netlink)?;
    let mut changes = Netlink::changes()
        .inspect_err(|error| tracing::warn!(error = %stdx::chain(error), "changes of links are noticed late"))
        .ok();
    let mut task = Task::new(config, netlink);
    loop {
        task.look().await;
        let ready = readiness.borrow_and_update().clone();
        task.settle(&ready).await;
        task.tell();
        let deadline = task.start + task.deadline();
        let woken = tokio::select! {
            () = shutdown.wait() => Woken::Shutdown,
            known = readiness.changed() => if known.is_ok() { Woken::Ready } else { Woken::Shutdown },
            change = next(&mut changes) => Woken::Change(change),
            received = receive(task.sockets.as_ref()) => Woken::Received(received),
            () = tokio::time::sleep_until(deadline) => Woken::Time,
        };
        match woken {
            Woken::Shutdown => break,
            Woken::Ready => {}
            Woken::Change(change) => task.meet(change.as_ref()),
            Woken::Received(received) => task.hear(received).await,
            Woken::Time => task.step(Event::Timer).await,
        }
    }
    task.why_not = Some("the service ends".to_owned());
    task.step(Event::Shutdown).await;
    task.tell();
    Ok(())
}

/// What happened.
enum Woken {
    Shutdown,
    Ready,
    Change(Option<Change>),
    Received(io::Result<Received>),
    Time,
}

/// The next change; none when there will be no more.
async fn next(changes: &mut Option<Changes>) -> Option<Change> {
    let Some(listening) = changes else { return std::future::pending().await };
    let change = listening.next().await;
    if change.is_none() {
        *changes = None;
    }
    change
}

async fn receive(sockets: Option<&Sockets>) -> io::Result<Received> {
    match sockets {
        Some(sockets) => sockets.receive().await,
        None => std::future::pending().await,
    }
}

/// Somebody else who has the address.
#[derive(Clone, Copy, Debug)]
struct Heard {
    from: IpAddr,
    /// After this he counts as gone.
    until: Duration,
}

struct Task {
    config: Config,
    netlink: Netlink,
    start: Instant,
    election: Election,
    /// Where the address belongs, with the sockets there.
    place: Option<Place>,
    sockets: Option<Sockets>,
    /// When to look at links and addresses next.
    look_at: Duration,
    /// What failed last, until when it keeps this machine out, and how often in a row.
    failure: Option<(String, Duration)>,
    failures: u32,
    /// Why there is no place for it.
    no_place: String,
    why_not: Option<String>,
    heard: Option<Heard>,
    stranger: Option<Heard>,
    reporter: Reporter,
}

impl Task {
    fn new(config: Config, netlink: Netlink) -> Self {
        let rules = Rules { priority: config.priority, preempt: config.preempt, interval: INTERVAL };
        Self {
            config,
            netlink,
            start: Instant::now(),
            election: Election::new(rules),
            place: None,
            sockets: None,
            look_at: Duration::ZERO,
            failure: None,
            failures: 0,
            no_place: String::new(),
            why_not: None,
            heard: None,
            stranger: None,
            reporter: Reporter::new(),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// When something is to be done without anything else happening.
    fn deadline(&self) -> Duration {
        let ends = [self.heard, self.stranger].into_iter().flatten().map(|heard| heard.until);
        let failure = self.failure.iter().map(|(_, until)| *until);
        ends.chain(failure).chain(self.election.deadline()).fold(self.look_at, Duration::min)
    }

    /// Looks at links and addresses, if it is time: where the address belongs, and whether it is where it should be.
    async fn look(&mut self) {
        let now = self.now();
        for heard in [&mut self.heard, &mut self.stranger] {
            *heard = heard.filter(|heard| heard.until > now);
        }
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_AGAIN;
        let seen = async { netlink::Result::Ok((self.netlink.links().await?, self.netlink.addresses().await?)) };
        let (links, addresses) = match seen.await {
            Ok(seen) => seen,
            Err(error) => return self.fail(format!("the network cannot be looked at: {}", stdx::chain(&error))),
        };
        let place = find(&self.config, &links, &addresses);
        self.no_place = place.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if place.as_ref().ok() != self.place.as_ref() || (place.is_ok() && self.sockets.is_none()) {
            self.move_to(place.ok()).await;
        }
        let own = self.place.as_ref().map(|place| place.link).filter(|_| self.election.is_active());
        let net = self.config.net();
        for wrong in addresses.iter().filter(|it| it.net == net && Some(it.link) != own) {
            // After a fall, or when it could not be taken off before.
            match self.netlink.delete_address(wrong.link, wrong.net).await {
                Ok(()) => tracing::info!(link = wrong.link, "the virtual address was left over and is taken off"),
                Err(error) => self.fail(format!("the address is left over: {}", stdx::chain(&error))),
            }
        }
        let is_there = addresses.iter().any(|it| it.net == net && Some(it.link) == own);
        if own.is_some() && !is_there {
            tracing::warn!("somebody took the virtual address off");
            self.step(Event::Shutdown).await;
        }
    }

    /// Leaves the link before, and listens on another one.
    async fn move_to(&mut self, place: Option<Place>) {
        self.step(Event::Shutdown).await;
        self.sockets = None;
        self.place = place;
        if let Some(place) = &self.place {
            match Sockets::open(place) {
                Ok(sockets) => {
                    tracing::info!(link = place.name, own = %place.own, "listening for the virtual address");
                    self.sockets = Some(sockets);
                }
                Err(error) => self.fail(format!("{} cannot be listened on: {error}", place.name)),
            }
        }
    }

    /// Keeps this machine out for a while.
    fn fail(&mut self, why: String) {
        tracing::warn!(why, "virtual address");
        let until = self.now() + RETRY.base(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.failure = Some((why, until));
        self.look_at = self.look_at.min(until);
    }

    /// Takes part if it can, and not if it cannot.
    async fn settle(&mut self, readiness: &Readiness) {
        let now = self.now();
        self.failure = self.failure.take().filter(|(_, until)| *until > now);
        let refused = match (readiness, &self.failure, &self.place) {
            (Readiness::NotReady(why), _, _) => Some(format!("the API server is not ready: {why}")),
            (_, Some((why, _)), _) => Some(why.clone()),
            (_, None, None) => Some(self.no_place.clone()),
            (_, None, Some(place)) if self.sockets.is_none() => Some(format!("{} is not listened on yet", place.name)),
            (Readiness::Ready | Readiness::Poor(_), None, Some(_)) => None,
        };
        let priority = match readiness {
            Readiness::Poor(_) => POOR_PRIORITY,
            Readiness::Ready | Readiness::NotReady(_) => self.config.priority,
        };
        if priority < self.election.priority() {
            self.step(Event::Shutdown).await;
        }
        self.election.set_priority(priority);
        match (&refused, self.place.as_ref().map(|place| place.own), self.election.own()) {
            (None, Some(own), None) => self.step(Event::Startup { own }).await,
            (Some(_), _, Some(_)) => self.step(Event::Shutdown).await,
            (None | Some(_), _, _) => {}
        }
        self.why_not = match readiness {
            Readiness::Poor(why) if refused.is_none() && !self.election.is_active() => {
                Some(format!("others go first, as the API server is not well: {why}"))
            }
            Readiness::Poor(_) | Readiness::Ready | Readiness::NotReady(_) => refused,
        };
    }

    /// Something changed about links: looks at it, if it may concern the address.
    fn meet(&mut self, change: Option<&Change>) {
        let link = match change {
            Some(Change::Route) => return,
            Some(Change::Link(link) | Change::LinkGone(link)) => Some(link.index),
            Some(Change::Address(link)) => Some(*link),
            None => None,
        };
        let is_ours = self.place.as_ref().is_none_or(|place| link.is_none_or(|link| link == place.link));
        if is_ours {
            self.look_at = self.now();
        }
    }

    /// Takes in what came from the link.
    async fn hear(&mut self, received: io::Result<Received>) {
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                self.sockets = None;
                return self.fail(format!("the link is not heard any more: {error}"));
            }
        };
        let from = received.from;
        let said = match Advertisement::parse(&received.content, from, received.hops) {
            Ok(said) => said,
            Err(error) => return tracing::debug!(%from, %error, "no advertisement"),
        };
        let is_own = self.place.as_ref().is_some_and(|place| place.own == from);
        if is_own || said.router_id != self.config.router_id {
            return;
        }
        let heard = Heard { from, until: self.now() + 3 * said.interval + INTERVAL };
        if !said.addresses.contains(&self.config.address) {
            self.stranger = Some(heard);
            return;
        }
        self.heard = match said.priority {
            LEAVING => self.heard.filter(|heard| heard.from != from),
            _ => Some(heard),
        };
        self.step(Event::Advertisement { from, priority: said.priority, interval: said.interval }).await;
    }

    /// Lets the election decide, and does what it says.
    async fn step(&mut self, event: Event) {
        let mut actions = VecDeque::from(self.election.step(event, self.now()));
        while let Some(action) = actions.pop_front() {
            match (self.apply(action).await, action) {
                (Ok(()), Action::Claim) => self.failures = 0,
                (Err(why), Action::Claim) => {
                    // It was to be here, and is not: others are to have it.
                    self.fail(why);
                    actions = self.election.step(Event::Shutdown, self.now()).into();
                }
                (Err(why), Action::Release) => self.fail(why),
                (Err(why), Action::Advertise { .. } | Action::Announce) => tracing::warn!(why, "virtual address"),
                (Ok(()), Action::Release | Action::Advertise { .. } | Action::Announce) => {}
            }
        }
    }

    async fn apply(&self, action: Action) -> Result<(), String> {
        let Some(place) = &self.place else { return Ok(()) };
        let net = self.config.net();
        match action {
            Action::Claim => {
                let done = self.netlink.add_shared_address(place.link, net).await;
                done.map_err(|error| format!("the address cannot be claimed: {}", stdx::chain(&error)))
            }
            Action::Release => {
                let done = self.netlink.delete_address(place.link, net).await;
                done.map_err(|error| format!("the address cannot be taken off: {}", stdx::chain(&error)))
            }
            Action::Advertise { priority } => self.advertise(place, priority),
            Action::Announce => {
                announce(place, self.config.address).map_err(|error| format!("neighbours were not told: {error}"))
            }
        }
    }

    fn advertise(&self, place: &Place, priority: u8) -> Result<(), String> {
        let Some(sockets) = &self.sockets else { return Ok(()) };
        let (router_id, addresses) = (self.config.router_id, vec![self.config.address]);
        let said = Advertisement { router_id, priority, interval: INTERVAL, addresses };
        sockets.send(&said.encode(place.own)).map_err(|error| format!("the other masters were not told: {error}"))
    }

    /// Tells how it stands.
    fn tell(&mut self) {
        let is_here = self.election.is_active();
        let heard = self.heard.map(|heard| heard.from);
        let standing = Standing {
            interface: self.place.as_ref().map(|place| place.name.clone()).unwrap_or_default(),
            is_here,
            holder: if is_here { self.election.own() } else { heard },
            why_not: self.why_not.clone(),
            stranger: self.stranger.map(|stranger| stranger.from),
        };
        self.reporter.tell(&self.config, &standing);
    }
}
