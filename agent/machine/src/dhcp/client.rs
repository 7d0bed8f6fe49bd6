//! The client's states and decisions; no socket, no clock, no chance.
//!
//! ```text
//! Selecting ─ offer ─▶ Requesting ─ ack ─▶ Bound ─ T1 ─▶ Renewing ─ T2 ─▶ Rebinding
//!     ▲                   │ nak, silence     ▲               │ ack           │ ack
//!     └───────────────────┘                  └───────────────┴───────────────┘
//!     ▲                                                        nak, end of the lease
//!     └─────────────────────────────────────────────────────────┘
//! Rebooting (a lease of an earlier process) ─ ack ─▶ Bound, nak or silence ─▶ Selecting
//! ```
//! All messages are broadcast, also when renewing: it needs no second socket, and any server may answer.

use std::net::Ipv4Addr;
use std::time::Duration;

use stdx::Backoff;

use crate::dhcp::lease::Lease;
use crate::dhcp::message::{Kind, Query, Reply};

/// Waits for answers. The first is short: an answer comes at once, or the link was not ready.
const RESEND: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(64), jitter: 0.25 };
/// After so many unanswered requests the offer is forgotten.
const REQUESTS: u32 = 4;
/// After so many unanswered requests for a remembered address a new one is looked for.
const REBOOT_REQUESTS: u32 = 2;
/// Between requests for more time. There is plenty of it.
const LEAST_RENEW_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Selecting,
    Requesting(Lease),
    Rebooting(Lease),
    Bound(Lease),
    Renewing(Lease),
    Rebinding(Lease),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Broadcast this, from this address.
    Send(Box<Query>, Ipv4Addr),
    /// The address is ours; use it (again).
    Use(Box<Lease>),
    /// The address is no longer ours.
    Drop(Box<Lease>),
}

/// A DHCP client on one link. Times are since any fixed moment.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    mac: [u8; 6],
    hostname: String,
    state: State,
    transaction: u32,
    /// When the present exchange began.
    began: Duration,
    /// When the present lease began.
    bound: Duration,
    /// How many messages of the present exchange were sent.
    sent: u32,
    next: Duration,
}

impl Client {
    /// Starts at `now`, with the lease of an earlier process if there is one. Call [`Client::tick`] at once.
    pub(crate) fn new(mac: [u8; 6], hostname: String, remembered: Option<Lease>, now: Duration) -> Self {
        let state = remembered.map_or(State::Selecting, State::Rebooting);
        Self { mac, hostname, state, transaction: 0, began: now, bound: now, sent: 0, next: now }
    }

    /// When [`Client::tick`] is next needed.
    pub(crate) fn deadline(&self) -> Duration {
        self.next
    }

    /// What is being done, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.state {
            State::Selecting => format!("no answer to {} DHCP requests", self.sent),
            State::Requesting(lease) => format!("DHCP server {} to confirm {}", lease.server, lease.address.addr()),
            State::Rebooting(lease) => format!("a DHCP server to confirm {}", lease.address.addr()),
            State::Bound(_) | State::Renewing(_) | State::Rebinding(_) => String::new(),
        }
    }

    /// Does what the time asks for. `random` is fresh for each call.
    pub(crate) fn tick(&mut self, now: Duration, random: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        if now < self.next {
            return actions;
        }
        self.state = match std::mem::replace(&mut self.state, State::Selecting) {
            State::Requesting(_) if self.sent >= REQUESTS => self.restart(now),
            State::Rebooting(_) if self.sent >= REBOOT_REQUESTS => self.restart(now),
            State::Bound(lease) => {
                self.begin(now);
                State::Renewing(lease)
            }
            State::Renewing(lease) if now >= self.bound + seconds(lease.rebind_seconds) => State::Rebinding(lease),
            State::Rebinding(lease) if now >= self.bound + seconds(lease.seconds) => {
                actions.push(Action::Drop(Box::new(lease)));
                self.restart(now)
            }
            other => other,
        };
        if self.sent == 0 {
            self.transaction = random;
        }
        actions.push(self.query(now));
        self.next = now + self.wait(now, random);
        self.sent += 1;
        actions
    }

    /// Takes note of a server's message.
    pub(crate) fn receive(&mut self, reply: &Reply, now: Duration, random: u32) -> Vec<Action> {
        if reply.mac != self.mac || reply.transaction != self.transaction {
            return Vec::new();
        }
        match (&self.state, reply.kind) {
            (State::Selecting, Kind::Offer) => {
                let Some(lease) = Lease::from_reply(reply) else { return Vec::new() };
                self.state = State::Requesting(lease);
                // A lease counts from the request for it.
                self.began = now;
                // The transaction goes on; only the count begins anew, and with it the transaction must not change.
                self.sent = 1;
                self.next = now;
                let mut actions = self.tick(now, random);
                actions.retain(|action| matches!(action, Action::Send(..)));
                actions
            }
            (State::Requesting(_) | State::Rebooting(_) | State::Renewing(_) | State::Rebinding(_), Kind::Ack) => {
                let Some(lease) = Lease::from_reply(reply) else { return Vec::new() };
                let mut actions = Vec::new();
                if let State::Renewing(old) | State::Rebinding(old) = &self.state
                    && old.address != lease.address
                {
                    actions.push(Action::Drop(Box::new(old.clone())));
                }
                self.bound = self.began;
                self.next = self.bound + seconds(lease.renew_seconds);
                actions.push(Action::Use(Box::new(lease.clone())));
                self.state = State::Bound(lease);
                actions
            }
            (State::Requesting(_) | State::Rebooting(_), Kind::Nak) => {
                self.state = self.restart(now);
                Vec::new()
            }
            (State::Renewing(lease) | State::Rebinding(lease), Kind::Nak) => {
                let dropped = Action::Drop(Box::new(lease.clone()));
                self.state = self.restart(now);
                vec![dropped]
            }
            (
                State::Selecting
                | State::Requesting(_)
                | State::Rebooting(_)
                | State::Bound(_)
                | State::Renewing(_)
                | State::Rebinding(_),
                Kind::Discover | Kind::Offer | Kind::Request | Kind::Ack | Kind::Nak,
            ) => Vec::new(),
        }
    }

    fn begin(&mut self, now: Duration) {
        self.began = now;
        self.sent = 0;
    }

    fn restart(&mut self, now: Duration) -> State {
        self.begin(now);
        self.next = now;
        State::Selecting
    }

    fn query(&self, now: Duration) -> Action {
        let mut query = Query {
            kind: Kind::Request,
            transaction: self.transaction,
            mac: self.mac,
            seconds: u16::try_from((now - self.began).as_secs()).unwrap_or(u16::MAX),
            current: None,
            requested: None,
            server: None,
            hostname: self.hostname.clone(),
        };
        let mut source = Ipv4Addr::UNSPECIFIED;
        match &self.state {
            State::Selecting => query.kind = Kind::Discover,
            State::Requesting(lease) => {
                query.requested = Some(lease.address.addr());
                query.server = Some(lease.server);
            }
            State::Rebooting(lease) => query.requested = Some(lease.address.addr()),
            State::Bound(lease) | State::Renewing(lease) | State::Rebinding(lease) => {
                query.current = Some(lease.address.addr());
                source = lease.address.addr();
            }
        }
        Action::Send(Box::new(query), source)
    }

    /// How long to wait for an answer to what was just sent.
    fn wait(&self, now: Duration, random: u32) -> Duration {
        let resend = RESEND.next(self.sent, f64::from(random) / f64::from(u32::MAX));
        let until = |end: u32| {
            let left = (self.bound + seconds(end)).saturating_sub(now);
            left.min((left / 2).max(LEAST_RENEW_WAIT))
        };
        match &self.state {
            State::Selecting | State::Requesting(_) | State::Rebooting(_) => resend,
            State::Bound(lease) | State::Renewing(lease) => until(lease.rebind_seconds),
            State::Rebinding(lease) => until(lease.seconds),
        }
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::message::tests::{MAC, reply};

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn answer(kind: Kind, transaction: u32, last: u8) -> Reply {
        let extra: [(u8, &[u8]); 4] =
            [(1, &[255, 255, 255, 0]), (3, &[10, 0, 0, 1]), (51, &[0, 0, 0, 120]), (54, &[10, 0, 0, 1])];
        Reply::decode(&reply(kind, transaction, [10, 0, 0, last], &extra)).unwrap()
    }

    fn kinds(actions: &[Action]) -> Vec<String> {
        let words = actions.iter().map(|action| match action {
            Action::Send(query, source) => format!("{:?} from {source}", query.kind),
            Action::Use(lease) => format!("use {}", lease.address),
            Action::Drop(lease) => format!("drop {}", lease.address),
        });
        words.collect()
    }

    fn bound() -> Client {
        let mut client = Client::new(MAC, "m1".into(), None, at(0));
        assert_eq!(kinds(&client.tick(at(0), 7)), ["Discover from 0.0.0.0"]);
        assert_eq!(kinds(&client.receive(&answer(Kind::Offer, 7, 5), at(0), 8)), ["Request from 0.0.0.0"]);
        assert_eq!(kinds(&client.receive(&answer(Kind::Ack, 7, 5), at(0), 9)), ["use 10.0.0.5/24"]);
        client
    }

    #[test]
    fn an_offer_is_taken_and_kept_alive() {
        let mut client = bound();
        assert_eq!(client.deadline(), at(60));
        assert_eq!(kinds(&client.tick(at(60), 11)), ["Request from 10.0.0.5"]);
        assert_eq!(kinds(&client.receive(&answer(Kind::Ack, 11, 5), at(60), 0)), ["use 10.0.0.5/24"]);
        assert_eq!(client.deadline(), at(120));
    }

    #[test]
    fn a_lease_that_nobody_renews_is_given_up_at_its_end() {
        let mut client = bound();
        let mut log = Vec::new();
        let mut now = client.deadline();
        while now < at(125) {
            log.extend(kinds(&client.tick(now, 1)));
            now = client.deadline();
        }
        let end = log.iter().position(|word| word == "drop 10.0.0.5/24").unwrap();
        assert!(log[..end].iter().all(|word| word == "Request from 10.0.0.5"), "{log:?}");
        assert_eq!(log[end + 1], "Discover from 0.0.0.0");
    }

    #[test]
    fn silence_makes_the_waits_longer() {
        let mut client = Client::new(MAC, String::new(), None, at(0));
        let mut waits = Vec::new();
        let mut now = at(0);
        for _ in 0..8 {
            assert_eq!(kinds(&client.tick(now, 0)), ["Discover from 0.0.0.0"]);
            waits.push((client.deadline() - now).as_secs());
            now = client.deadline();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(client.describe(), "no answer to 8 DHCP requests");
    }

    #[test]
    fn an_offer_that_is_never_confirmed_is_forgotten() {
        let mut client = Client::new(MAC, String::new(), None, at(0));
        client.tick(at(0), 7);
        client.receive(&answer(Kind::Offer, 7, 5), at(0), 8);
        let mut log = Vec::new();
        for _ in 0..REQUESTS {
            let now = client.deadline();
            log.extend(kinds(&client.tick(now, 3)));
        }
        assert_eq!(log.last().unwrap(), "Discover from 0.0.0.0");
    }

    #[test]
    fn a_remembered_lease_is_confirmed_or_refused() {
        let remembered = Lease::from_reply(&answer(Kind::Ack, 1, 5)).unwrap();
        let mut client = Client::new(MAC, String::new(), Some(remembered), at(0));
        assert_eq!(kinds(&client.tick(at(0), 4)), ["Request from 0.0.0.0"]);
        let mut refused = client.clone();
        assert_eq!(kinds(&client.receive(&answer(Kind::Ack, 4, 5), at(1), 0)), ["use 10.0.0.5/24"]);
        assert!(refused.receive(&answer(Kind::Nak, 4, 0), at(1), 0).is_empty());
        assert_eq!(kinds(&refused.tick(at(1), 5)), ["Discover from 0.0.0.0"]);
    }

    #[test]
    fn a_server_may_move_us() {
        let mut client = bound();
        client.tick(at(60), 11);
        let actions = client.receive(&answer(Kind::Ack, 11, 9), at(60), 0);
        assert_eq!(kinds(&actions), ["drop 10.0.0.5/24", "use 10.0.0.9/24"]);
    }

    #[test]
    fn messages_for_others_are_left_alone() {
        let mut client = Client::new(MAC, String::new(), None, at(0));
        client.tick(at(0), 7);
        assert!(client.receive(&answer(Kind::Offer, 8, 5), at(0), 0).is_empty());
        assert!(client.receive(&answer(Kind::Ack, 7, 5), at(0), 0).is_empty());
    }
}
