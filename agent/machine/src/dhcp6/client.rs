//! The client's states and decisions; no socket, no clock, no chance.
//!
//! ```text
//! Soliciting ─ offer ─▶ Requesting ─ reply ─▶ Bound ─ T1 ─▶ Renewing ─ T2 ─▶ Rebinding
//!     ▲                   │ refusal, silence    ▲              │ reply          │ reply
//!     ├───────────────────┘                     └──────────────┴────────────────┘
//!     └──────────────── refusal, end of the lease ─────────────┴────────────────┘
//! Rebinding (a lease of an earlier process) ─ reply ─▶ Bound, refusal or silence ─▶ Soliciting
//! ```
//! All messages go to all servers; who is meant stands inside.

use std::time::Duration;

use stdx::Backoff;

use crate::dhcp6::lease::Lease6;
use crate::dhcp6::message::{Kind, Query, Reply};

// RFC 8415, 7.6; its waits spread both ways, ours only lengthen.
const SOLICIT: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(3600), jitter: 0.1 };
const REQUEST: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(30), jitter: 0.1 };
const RENEW: Backoff =
    Backoff { initial: Duration::from_secs(10), factor: 2.0, max: Duration::from_secs(600), jitter: 0.1 };
/// After so many unanswered requests the offer is forgotten.
const REQUESTS: u32 = 10;
/// After so many unanswered requests for a remembered lease a new one is looked for, and the old one goes on.
const REMEMBERED_REQUESTS: u32 = 2;
/// An offer of this preference is taken without waiting for others.
const BEST: u8 = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The best offer so far, with its preference.
    Soliciting(Option<(u8, Lease6)>),
    Requesting(Lease6),
    Bound(Lease6),
    Renewing(Lease6),
    Rebinding(Lease6),
    /// Of an earlier process: nobody knows when it began.
    Remembered(Lease6),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this to all servers.
    Send(Box<Query>),
    /// These addresses are ours; use them (again).
    Use(Box<Lease6>),
    /// The addresses are no longer ours.
    Drop,
}

/// A DHCPv6 client on one link. Times are since any fixed moment.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    mac: [u8; 6],
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
    pub(crate) fn new(mac: [u8; 6], remembered: Option<Lease6>, now: Duration) -> Self {
        let state = remembered.map_or(State::Soliciting(None), State::Remembered);
        Self { mac, state, transaction: 0, began: now, bound: now, sent: 0, next: now }
    }

    /// When [`Client::tick`] is next needed.
    pub(crate) fn deadline(&self) -> Duration {
        self.next
    }

    /// What is being done, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.state {
            State::Soliciting(_) => format!("no answer to {} DHCPv6 requests", self.sent),
            State::Requesting(_) | State::Remembered(_) => "a DHCPv6 server to confirm its addresses".to_owned(),
            State::Bound(_) | State::Renewing(_) | State::Rebinding(_) => String::new(),
        }
    }

    /// Does what the time asks for. `random` is fresh for each call.
    pub(crate) fn tick(&mut self, now: Duration, random: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        if now < self.next {
            return actions;
        }
        let expired = |lease: &Lease6, bound: Duration| now >= bound + seconds(lease.seconds);
        self.state = match std::mem::replace(&mut self.state, State::Soliciting(None)) {
            State::Soliciting(Some((_, offer))) => self.begin(now, State::Requesting(offer)),
            State::Requesting(_) if self.sent >= REQUESTS => self.begin(now, State::Soliciting(None)),
            State::Remembered(_) if self.sent >= REMEMBERED_REQUESTS => self.begin(now, State::Soliciting(None)),
            State::Bound(lease) => self.begin(now, State::Renewing(lease)),
            State::Renewing(lease) | State::Rebinding(lease) if expired(&lease, self.bound) => {
                actions.push(Action::Drop);
                self.begin(now, State::Soliciting(None))
            }
            State::Renewing(lease) if now >= self.bound + seconds(lease.rebind_seconds) => {
                self.begin(now, State::Rebinding(lease))
            }
            other => other,
        };
        if self.sent == 0 {
            // 24 bits.
            self.transaction = random >> 8;
        }
        actions.push(Action::Send(Box::new(self.query(now))));
        self.next = now + self.wait(now, random);
        self.sent += 1;
        actions
    }

    /// Takes note of a server's message.
    pub(crate) fn receive(&mut self, reply: &Reply, now: Duration) -> Vec<Action> {
        if reply.transaction != self.transaction {
            return Vec::new();
        }
        match (&mut self.state, reply.kind) {
            (State::Soliciting(best), Kind::Advertise) => {
                let Some(lease) = Lease6::from_reply(reply) else { return Vec::new() };
                if best.as_ref().is_none_or(|(preference, _)| *preference < reply.preference) {
                    *best = Some((reply.preference, lease));
                }
                // Others may offer until the first wait is over.
                if reply.preference == BEST || self.sent > 1 {
                    self.next = now;
                }
                Vec::new()
            }
            (State::Requesting(asked) | State::Renewing(asked), Kind::Reply) if asked.server != reply.server => {
                Vec::new()
            }
            (State::Requesting(_) | State::Renewing(_) | State::Rebinding(_) | State::Remembered(_), Kind::Reply) => {
                self.confirmed(reply, now)
            }
            (
                State::Soliciting(_)
                | State::Requesting(_)
                | State::Bound(_)
                | State::Renewing(_)
                | State::Rebinding(_)
                | State::Remembered(_),
                Kind::Solicit | Kind::Advertise | Kind::Request | Kind::Renew | Kind::Rebind | Kind::Reply,
            ) => Vec::new(),
        }
    }

    fn confirmed(&mut self, reply: &Reply, now: Duration) -> Vec<Action> {
        let Some(lease) = Lease6::from_reply(reply) else {
            // The addresses are not ours, or not any more.
            let had = !matches!(self.state, State::Requesting(_));
            self.state = self.begin(now, State::Soliciting(None));
            // A server that refuses everything is not asked without a pause.
            self.next = now + SOLICIT.base(0);
            return if had { vec![Action::Drop] } else { Vec::new() };
        };
        self.bound = self.began;
        self.next = self.bound + seconds(lease.renew_seconds);
        self.state = State::Bound(lease.clone());
        vec![Action::Use(Box::new(lease))]
    }

    fn begin(&mut self, now: Duration, state: State) -> State {
        self.began = now;
        self.sent = 0;
        self.next = now;
        state
    }

    fn query(&self, now: Duration) -> Query {
        let (kind, lease, names_server) = match &self.state {
            State::Soliciting(_) => (Kind::Solicit, None, false),
            State::Requesting(lease) => (Kind::Request, Some(lease), true),
            State::Bound(lease) | State::Renewing(lease) => (Kind::Renew, Some(lease), true),
            State::Rebinding(lease) | State::Remembered(lease) => (Kind::Rebind, Some(lease), false),
        };
        Query {
            kind,
            transaction: self.transaction,
            mac: self.mac,
            elapsed: u16::try_from((now - self.began).as_millis() / 10).unwrap_or(u16::MAX),
            server: lease.filter(|_| names_server).map(|lease| lease.server.clone()),
            addresses: lease.map(|lease| lease.addresses.clone()).unwrap_or_default(),
        }
    }

    /// How long to wait for an answer to what was just sent.
    fn wait(&self, now: Duration, random: u32) -> Duration {
        let share = f64::from(random) / f64::from(u32::MAX);
        let until = |end: u32| RENEW.next(self.sent, share).min((self.bound + seconds(end)).saturating_sub(now));
        match &self.state {
            State::Soliciting(_) => SOLICIT.next(self.sent, share),
            State::Requesting(_) | State::Remembered(_) => REQUEST.next(self.sent, share),
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
    use std::net::Ipv6Addr;

    use super::*;
    use crate::dhcp6::message::tests::{MAC, reply};

    const RANDOM: u32 = 7 << 8;

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn address(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, last)
    }

    /// Addresses are valid for 120 seconds, and preferred for 60.
    fn answer(kind: Kind, transaction: u32, last: u16, extra: &[(u16, &[u8])]) -> Reply {
        Reply::decode(&reply(kind, transaction, &[(address(last), 120)], extra), MAC).unwrap()
    }

    fn refusal(transaction: u32) -> Reply {
        Reply::decode(&reply(Kind::Reply, transaction, &[], &[(13, &[0, 3])]), MAC).unwrap()
    }

    fn words(actions: &[Action]) -> Vec<String> {
        let words = actions.iter().map(|action| match action {
            Action::Send(query) => {
                let to = if query.server.is_some() { "one" } else { "all" };
                format!("{:?} to {to}", query.kind)
            }
            Action::Use(lease) => format!("use {:?}", lease.addresses),
            Action::Drop => "drop".to_owned(),
        });
        words.collect()
    }

    fn bound() -> Client {
        let mut client = Client::new(MAC, None, at(0));
        assert_eq!(words(&client.tick(at(0), RANDOM)), ["Solicit to all"]);
        assert!(client.receive(&answer(Kind::Advertise, 7, 5, &[(7, &[BEST])]), at(0)).is_empty());
        assert_eq!(words(&client.tick(at(0), RANDOM)), ["Request to one"]);
        assert_eq!(words(&client.receive(&answer(Kind::Reply, 7, 5, &[]), at(0))), ["use [fd00:77::5]"]);
        client
    }

    #[test]
    fn an_offer_is_taken_and_kept_alive() {
        let mut client = bound();
        assert_eq!((client.deadline(), client.describe().as_str()), (at(30), ""));
        assert_eq!(words(&client.tick(at(30), 9 << 8)), ["Renew to one"]);
        assert!(client.receive(&answer(Kind::Reply, 7, 5, &[]), at(30)).is_empty());
        assert_eq!(words(&client.receive(&answer(Kind::Reply, 9, 5, &[]), at(30))), ["use [fd00:77::5]"]);
        assert_eq!(client.deadline(), at(60));
    }

    #[test]
    fn the_best_of_the_first_offers_is_taken() {
        let mut client = Client::new(MAC, None, at(0));
        client.tick(at(0), RANDOM);
        for (last, preference) in [(5, 1_u8), (6, 9), (7, 3)] {
            client.receive(&answer(Kind::Advertise, 7, last, &[(7, &[preference])]), at(0));
        }
        assert!(client.tick(at(0), RANDOM).is_empty());
        let Action::Send(query) = client.tick(at(2), RANDOM).remove(0) else { panic!() };
        assert_eq!((query.kind, query.addresses), (Kind::Request, vec![address(6)]));
    }

    #[test]
    fn a_lease_that_nobody_renews_is_given_up_at_its_end() {
        let mut client = bound();
        let mut log = Vec::new();
        while client.deadline() <= at(130) {
            let now = client.deadline();
            log.extend(words(&client.tick(now, 1)).into_iter().map(|word| format!("{} {word}", now.as_secs())));
        }
        let end = log.iter().position(|word| word == "120 drop").unwrap();
        assert_eq!(log[0], "30 Renew to one");
        assert_eq!(log.iter().find(|word| word.contains("Rebind")).unwrap(), "48 Rebind to all");
        assert_eq!(log[end + 1], "120 Solicit to all");
    }

    #[test]
    fn an_offer_that_is_never_confirmed_is_forgotten() {
        let mut client = Client::new(MAC, None, at(0));
        client.tick(at(0), RANDOM);
        client.receive(&answer(Kind::Advertise, 7, 5, &[(7, &[BEST])]), at(0));
        let mut log = Vec::new();
        for _ in 0..=REQUESTS {
            log.extend(words(&client.tick(client.deadline(), 3)));
        }
        assert_eq!(log.last().unwrap(), "Solicit to all");
        assert_eq!(log.iter().filter(|word| *word == "Request to one").count(), REQUESTS as usize);
    }

    #[test]
    fn a_remembered_lease_is_confirmed_refused_or_left_as_it_is() {
        let remembered = Lease6::from_reply(&answer(Kind::Reply, 1, 5, &[])).unwrap();
        let mut client = Client::new(MAC, Some(remembered), at(0));
        assert_eq!(words(&client.tick(at(0), RANDOM)), ["Rebind to all"]);
        let (mut refused, mut alone) = (client.clone(), client.clone());
        assert_eq!(words(&client.receive(&answer(Kind::Reply, 7, 5, &[]), at(1))), ["use [fd00:77::5]"]);
        assert_eq!(words(&refused.receive(&refusal(7), at(1))), ["drop"]);
        assert_eq!(words(&refused.tick(at(2), RANDOM)), ["Solicit to all"]);
        let log: Vec<String> = (0..2).flat_map(|_| words(&alone.tick(alone.deadline(), 1))).collect();
        assert_eq!(log, ["Rebind to all", "Solicit to all"]);
    }

    #[test]
    fn another_servers_word_does_not_count_for_the_one_that_was_asked() {
        let mut client = bound();
        client.tick(at(30), RANDOM);
        let mut other = answer(Kind::Reply, 7, 5, &[]);
        other.server = b"other".to_vec();
        assert!(client.receive(&other, at(30)).is_empty());
        client.tick(at(48), RANDOM);
        assert_eq!(words(&client.receive(&other, at(48))), ["use [fd00:77::5]"]);
    }
}
