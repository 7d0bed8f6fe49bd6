//! Who has the address: the table of states of RFC 9568, 6.4.
//!
//! ```text
//!                Startup              nobody was heard of for long enough
//! Initialize ─────────────▶ Backup ────────────────────────────────────────▶ Active
//!     ▲                      │  ▲                                             │ │
//!     └────── Shutdown ──────┘  └── an advertisement of a better one ─────────┘ │
//!     └────────────────────────────────── Shutdown ─────────────────────────────┘
//! ```
//!
//! Time is that since some start, and comes in as an argument.

use std::net::IpAddr;
use std::time::Duration;

/// How often neighbours are told of a takeover, once with each advertisement: a lost frame must not cut them off.
const ANNOUNCEMENTS: u8 = 5;
/// What an advertisement says with which somebody leaves.
pub(crate) const LEAVING: u8 = 0;

/// What this machine brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) priority: u8,
    pub(crate) preempt: bool,
    pub(crate) interval: Duration,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes no part.
    Initialize,
    /// Somebody else has the address, or nobody yet.
    Backup {
        /// This machine's own address, by which equals are told apart.
        own: IpAddr,
        /// The interval of who has the address.
        interval: Duration,
        /// When who has it counts as gone.
        down_at: Duration,
    },
    /// It is here.
    Active {
        /// This machine's own address.
        own: IpAddr,
        /// When to say so next.
        advertise_at: Duration,
        /// How often neighbours are still told.
        announcements: u8,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It can take part from now on, under this address.
    Startup { own: IpAddr },
    /// It cannot any more.
    Shutdown,
    /// Time went by.
    Timer,
    /// Somebody else says that he has the address.
    Advertisement { from: IpAddr, priority: u8, interval: Duration },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Give the link the address.
    Claim,
    /// Take it off.
    Release,
    /// Tell the others.
    Advertise { priority: u8 },
    /// Tell the neighbours where the address is now.
    Announce,
}

/// The election, as one machine sees it.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    rules: Rules,
    state: State,
}

impl Election {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, state: State::Initialize }
    }

    /// What it goes by from the next event on. Whoever has the address and gets worse has to leave first, so that others
    /// need not find out.
    pub(crate) fn set_priority(&mut self, priority: u8) {
        self.rules.priority = priority;
    }

    pub(crate) fn priority(&self) -> u8 {
        self.rules.priority
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    /// The address under which it takes part, if it does.
    pub(crate) fn own(&self) -> Option<IpAddr> {
        match self.state {
            State::Initialize => None,
            State::Backup { own, .. } | State::Active { own, .. } => Some(own),
        }
    }

    /// When [`Event::Timer`] is next needed.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Initialize => None,
            State::Backup { down_at, .. } => Some(down_at),
            State::Active { advertise_at, .. } => Some(advertise_at),
        }
    }

    /// Takes note of what happened and answers what to do, in order.
    pub(crate) fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let (state, actions) = match (self.state, event) {
            (State::Initialize, Event::Startup { own }) => (self.backup(own, self.rules.interval, now), Vec::new()),
            (State::Initialize, Event::Shutdown | Event::Timer | Event::Advertisement { .. }) => return Vec::new(),
            (State::Backup { .. }, Event::Shutdown) => (State::Initialize, Vec::new()),
            (State::Backup { own, down_at, .. }, Event::Timer) if down_at <= now => self.take_over(own, now),
            (State::Backup { own, interval: known, .. }, Event::Advertisement { priority, interval, .. }) => {
                let state = match priority {
                    LEAVING => State::Backup { own, interval: known, down_at: now + self.skew(known) },
                    _ if self.rules.preempt && priority < self.rules.priority => return Vec::new(),
                    _ => self.backup(own, interval, now),
                };
                (state, Vec::new())
            }
            // First without the address, so that two never have it by intention.
            (State::Active { .. }, Event::Shutdown) => {
                (State::Initialize, vec![Action::Release, Action::Advertise { priority: LEAVING }])
            }
            (State::Active { own, advertise_at, announcements }, Event::Timer) if advertise_at <= now => {
                self.advertise(own, announcements, now)
            }
            (State::Active { own, announcements, .. }, Event::Advertisement { priority: LEAVING, .. }) => {
                self.advertise(own, announcements, now)
            }
            (State::Active { own, .. }, Event::Advertisement { from, priority, interval }) => {
                if (priority, from) > (self.rules.priority, own) {
                    (self.backup(own, interval, now), vec![Action::Release])
                } else {
                    // Neighbours may have heard that one last: they are told again.
                    self.advertise(own, ANNOUNCEMENTS, now)
                }
            }
            (State::Backup { .. } | State::Active { .. }, Event::Startup { .. } | Event::Timer) => return Vec::new(),
        };
        self.state = state;
        actions
    }

    fn backup(&self, own: IpAddr, interval: Duration, now: Duration) -> State {
        State::Backup { own, interval, down_at: now + 3 * interval + self.skew(interval) }
    }

    fn take_over(&self, own: IpAddr, now: Duration) -> (State, Vec<Action>) {
        let (state, actions) = self.advertise(own, ANNOUNCEMENTS, now);
        (state, [vec![Action::Claim], actions].concat())
    }

    fn advertise(&self, own: IpAddr, announcements: u8, now: Duration) -> (State, Vec<Action>) {
        let advertise_at = now + self.rules.interval;
        let mut actions = vec![Action::Advertise { priority: self.rules.priority }];
        actions.extend((announcements > 0).then_some(Action::Announce));
        (State::Active { own, advertise_at, announcements: announcements.saturating_sub(1) }, actions)
    }

    /// What those with lower priorities wait longer, so that they let others go first.
    fn skew(&self, interval: Duration) -> Duration {
        interval * (256 - u32::from(self.rules.priority)) / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const LOWER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const HIGHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 10));
    const NOW: Duration = Duration::from_secs(100);

    fn in_state(state: State, preempt: bool) -> Election {
        Election { state, ..Election::new(Rules { priority: 100, preempt, interval: SECOND }) }
    }

    fn backup(down_ms: u64) -> State {
        State::Backup { own: OWN, interval: SECOND, down_at: NOW + Duration::from_millis(down_ms) }
    }

    fn active(advertise_ms: u64, announcements: u8) -> State {
        State::Active { own: OWN, advertise_at: NOW + Duration::from_millis(advertise_ms), announcements }
    }

    fn heard(from: IpAddr, priority: u8) -> Event {
        Event::Advertisement { from, priority, interval: 2 * SECOND }
    }

    const LEAVES: Action = Action::Advertise { priority: 0 };
    const TELLS: Action = Action::Advertise { priority: 100 };

    /// The RFC's table: state and event, state and actions.
    #[test]
    fn every_event_does_in_every_state_what_the_table_says() {
        // 156/256 of the interval.
        let skew = Duration::from_micros(609_375);
        let down = |interval: Duration, skew: Duration| State::Backup {
            own: OWN,
            interval,
            down_at: NOW + 3 * interval + skew,
        };
        let start = Event::Startup { own: OWN };
        let none = Vec::new();
        let table = [
            (State::Initialize, start, down(SECOND, skew), none.clone()),
            (State::Initialize, Event::Shutdown, State::Initialize, none.clone()),
            (State::Initialize, Event::Timer, State::Initialize, none.clone()),
            (State::Initialize, heard(HIGHER, 200), State::Initialize, none.clone()),
            (backup(500), Event::Shutdown, State::Initialize, none.clone()),
            (backup(500), start, backup(500), none.clone()),
            (backup(500), Event::Timer, backup(500), none.clone()),
            (backup(0), Event::Timer, active(1000, 4), vec![Action::Claim, TELLS, Action::Announce]),
            (backup(500), heard(LOWER, 101), down(2 * SECOND, 2 * skew), none.clone()),
            (backup(500), heard(LOWER, 100), down(2 * SECOND, 2 * skew), none.clone()),
            (backup(500), heard(HIGHER, 99), backup(500), none.clone()),
            (
                backup(3000),
                heard(LOWER, 0),
                State::Backup { own: OWN, interval: SECOND, down_at: NOW + skew },
                none.clone(),
            ),
            (active(500, 0), Event::Shutdown, State::Initialize, vec![Action::Release, LEAVES]),
            (active(500, 0), start, active(500, 0), none.clone()),
            (active(500, 4), Event::Timer, active(500, 4), none.clone()),
            (active(0, 4), Event::Timer, active(1000, 3), vec![TELLS, Action::Announce]),
            (active(0, 0), Event::Timer, active(1000, 0), vec![TELLS]),
            (active(500, 0), heard(LOWER, 0), active(1000, 0), vec![TELLS]),
            (active(500, 0), heard(LOWER, 101), down(2 * SECOND, 2 * skew), vec![Action::Release]),
            (active(500, 0), heard(HIGHER, 100), down(2 * SECOND, 2 * skew), vec![Action::Release]),
            (active(500, 0), heard(LOWER, 100), active(1000, 4), vec![TELLS, Action::Announce]),
            (active(500, 0), heard(HIGHER, 99), active(1000, 4), vec![TELLS, Action::Announce]),
        ];
        for (state, event, next, actions) in table {
            let mut election = in_state(state, true);
            let done = election.step(event, NOW);
            assert_eq!((election.state, done), (next, actions), "{state:?} {event:?}");
        }
    }

    #[test]
    fn without_preemption_a_lower_priority_is_left_alone() {
        let mut election = in_state(backup(500), false);
        assert_eq!(election.step(heard(LOWER, 1), NOW), []);
        let State::Backup { interval, down_at, .. } = election.state else { panic!("{:?}", election.state) };
        assert_eq!((interval, down_at > NOW + 6 * SECOND), (2 * SECOND, true));
    }

    proptest! {
        /// Some machines on a link that loses nothing: whoever falls silent, one of the others has the address soon, and
        /// never more than one for longer than an advertisement takes.
        #[test]
        fn one_of_those_that_run_has_it(
            priorities in prop::collection::vec(1_u8..=254, 2..5),
            preempt in any::<bool>(),
            gone in prop::collection::vec((0_usize..5, any::<bool>()), 0..6),
        ) {
            let own = |index: usize| IpAddr::from([10, 0, 0, u8::try_from(index + 1).unwrap()]);
            let rules = |priority: &u8| Rules { priority: *priority, preempt, interval: SECOND };
            let mut machines: Vec<Election> = priorities.iter().map(|it| Election::new(rules(it))).collect();
            let mut now = Duration::ZERO;
            for (index, machine) in machines.iter_mut().enumerate() {
                machine.step(Event::Startup { own: own(index) }, now);
            }
            let changes = [(usize::MAX, false)].into_iter().chain(gone);
            for (which, is_told) in changes {
                // Somebody leaves, or falls over; he is back at the next change.
                for (index, machine) in machines.iter_mut().enumerate() {
                    machine.step(Event::Startup { own: own(index) }, now);
                }
                let mut queue = Vec::new();
                if let Some(machine) = machines.get_mut(which) {
                    let actions = machine.step(Event::Shutdown, now);
                    queue.extend(actions.into_iter().filter(|_| is_told).map(|action| (which, action)));
                }
                let until = now + 6 * SECOND;
                while now < until {
                    for (index, machine) in machines.iter_mut().enumerate() {
                        let actions = machine.step(Event::Timer, now);
                        queue.extend(actions.into_iter().map(|action| (index, action)));
                    }
                    for _round in 0..20 {
                        for (from, action) in std::mem::take(&mut queue) {
                            let Action::Advertise { priority } = action else { continue };
                            for index in (0..machines.len()).filter(|index| *index != from) {
                                let event = Event::Advertisement { from: own(from), priority, interval: SECOND };
                                let actions = machines[index].step(event, now);
                                queue.extend(actions.into_iter().map(|action| (index, action)));
                            }
                        }
                    }
                    prop_assert!(queue.is_empty(), "they never stop to answer each other");
                    prop_assert!(machines.iter().filter(|it| it.is_active()).count() <= 1);
                    now += Duration::from_millis(10);
                }
                let holder = machines.iter().position(Election::is_active);
                prop_assert!(holder.is_some_and(|holder| holder != which));
                if preempt {
                    let running = (0..machines.len()).filter(|index| *index != which);
                    prop_assert_eq!(holder.map(|it| priorities[it]), running.map(|it| priorities[it]).max());
                }
            }
        }
    }
}
