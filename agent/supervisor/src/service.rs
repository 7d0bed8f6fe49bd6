//! One service and its states.

use std::time::Duration;

use stdx::{Backoff, LineRing};

use crate::spec::ServiceSpec;

/// How much of a service's output is kept in memory.
pub(crate) const LOG_BYTES: usize = 64 * 1024;

/// A service that ran this long before it ended starts over with the shortest wait.
pub(crate) const STABLE: Duration = Duration::from_secs(60);

/// Waits between restarts. One machine's services need no jitter against each other.
pub(crate) const RESTART: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(60), jitter: 0.0 };

/// After how long the operator is told that a service is not ready; the wait then doubles up to a minute.
pub(crate) const OVERDUE: Backoff =
    Backoff { initial: Duration::from_secs(5), factor: 2.0, max: Duration::from_secs(60), jitter: 0.0 };

/// Where a service is. Times are since boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// Its dependencies are not all ready.
    Waiting {
        /// Since when.
        since: Duration,
    },
    /// Its process is about to be started or runs, but is not ready.
    Starting {
        /// Since when.
        since: Duration,
        /// The process; none until it was reported.
        pid: Option<u32>,
    },
    /// It serves.
    Ready {
        /// Since when.
        since: Duration,
        /// When the process was started.
        started: Duration,
        /// The process.
        pid: u32,
    },
    /// It did what it is for.
    Done {
        /// Since when.
        since: Duration,
    },
    /// It ended and will be started again.
    BackingOff {
        /// Since when.
        since: Duration,
        /// Until when.
        until: Duration,
        /// Why it ended.
        reason: String,
    },
    /// It was asked to end.
    Stopping {
        /// Since when.
        since: Duration,
        /// The process.
        pid: u32,
        /// When it will be ended; none if that was done.
        kill_at: Option<Duration>,
    },
    /// It ended because it was asked to.
    Stopped {
        /// Since when.
        since: Duration,
    },
    /// It ended and is not to be started again.
    Failed {
        /// Since when.
        since: Duration,
        /// Why.
        reason: String,
    },
}

impl ServiceState {
    /// The state's name for people and machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Done { .. } => "done",
            Self::BackingOff { .. } => "backing-off",
            Self::Stopping { .. } => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Failed { .. } => "failed",
        }
    }

    /// Since when, from boot.
    #[must_use]
    pub fn since(&self) -> Duration {
        match self {
            Self::Waiting { since }
            | Self::Starting { since, .. }
            | Self::Ready { since, .. }
            | Self::Done { since }
            | Self::BackingOff { since, .. }
            | Self::Stopping { since, .. }
            | Self::Stopped { since }
            | Self::Failed { since, .. } => *since,
        }
    }

    /// Its process, if there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Starting { pid, .. } => *pid,
            Self::Ready { pid, .. } | Self::Stopping { pid, .. } => Some(*pid),
            Self::Waiting { .. }
            | Self::Done { .. }
            | Self::BackingOff { .. }
            | Self::Stopped { .. }
            | Self::Failed { .. } => None,
        }
    }

    /// Whether those that need it may start.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Done { .. })
    }

    /// Whether it was asked to end, and perhaps did.
    pub(crate) fn is_going(&self) -> bool {
        matches!(self, Self::Stopping { .. } | Self::Stopped { .. })
    }

    /// Whether it has, or is about to have, a process.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Ready { .. } | Self::Stopping { .. })
    }
}

/// What follows when a service has been stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Successor {
    /// Nothing was asked for: stop means stop.
    None,
    /// It starts again in this form.
    Start(Box<ServiceSpec>),
    /// It is forgotten.
    Gone,
}

/// A service and its history.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    pub(crate) state: ServiceState,
    pub(crate) successor: Successor,
    /// How often it was started again, ever.
    pub(crate) restarts: u32,
    /// How often it failed in a row, for the back-off.
    pub(crate) failures: u32,
    pub(crate) log: LineRing,
    /// What it last said it is doing.
    pub(crate) doing: Option<String>,
    /// How often the operator was told that it is overdue, in this state.
    pub(crate) overdue: u32,
    /// When it was first started.
    pub(crate) started: Option<Duration>,
    /// When it was first ready, or done.
    pub(crate) ready: Option<Duration>,
    /// When and how it ended the last time.
    pub(crate) last_exit: Option<(Duration, String)>,
}

impl Service {
    pub(crate) fn new(spec: ServiceSpec, now: Duration) -> Self {
        Self {
            spec,
            state: ServiceState::Waiting { since: now },
            successor: Successor::None,
            restarts: 0,
            failures: 0,
            log: LineRing::new(LOG_BYTES),
            doing: None,
            overdue: 0,
            started: None,
            ready: None,
            last_exit: None,
        }
    }

    pub(crate) fn enter(&mut self, state: ServiceState) {
        if let ServiceState::Starting { since, .. } = state {
            self.started.get_or_insert(since);
        }
        if let ServiceState::Ready { since, .. } | ServiceState::Done { since } = state {
            self.ready.get_or_insert(since);
        }
        self.state = state;
        self.overdue = 0;
    }

    /// When the operator is next to be told that this service is not ready.
    pub(crate) fn overdue_at(&self) -> Option<Duration> {
        match self.state {
            ServiceState::Starting { since, .. } => {
                let waits: Duration = (0..=self.overdue).map(|told| OVERDUE.base(told)).sum();
                Some(since + waits)
            }
            ServiceState::Waiting { .. }
            | ServiceState::Ready { .. }
            | ServiceState::Done { .. }
            | ServiceState::BackingOff { .. }
            | ServiceState::Stopping { .. }
            | ServiceState::Stopped { .. }
            | ServiceState::Failed { .. } => None,
        }
    }

    /// When something happens by itself.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.state {
            ServiceState::BackingOff { until, .. } => Some(*until),
            ServiceState::Stopping { kill_at, .. } => *kill_at,
            ServiceState::Starting { .. } => self.overdue_at(),
            ServiceState::Waiting { .. }
            | ServiceState::Ready { .. }
            | ServiceState::Done { .. }
            | ServiceState::Stopped { .. }
            | ServiceState::Failed { .. } => None,
        }
    }
}
