//! What happens to a supervisor and what it wants done.

use std::time::Duration;

use machine_api::Event;
use sys::{Ended, Signal};

use crate::spec::ServiceSpec;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passed, or this is the beginning.
    Tick,
    /// A [`Action::Spawn`] worked.
    Spawned {
        /// Which service.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// A [`Action::Spawn`] did not work.
    SpawnFailed {
        /// Which service.
        name: String,
        /// Why.
        reason: String,
    },
    /// A process ended. Processes that are no service's are ignored.
    Ended {
        /// Which process.
        pid: u32,
        /// How.
        ended: Ended,
    },
    /// A service, known by its session, said something about itself.
    Notified {
        /// The session leader of the process that said it.
        session: u32,
        /// It is ready.
        ready: bool,
        /// What it is doing.
        status: Option<String>,
    },
    /// A service printed a line.
    Line {
        /// Which service.
        name: String,
        /// What.
        text: String,
    },
    /// End this service and start it again.
    Restart {
        /// Which service.
        name: String,
    },
    /// End everything, dependents first. Nothing is started any more.
    StopAll {
        /// No service gets longer than this, whatever it would get otherwise,
        within: Duration,
        /// but for those that end pods, which get this in addition.
        pods: Duration,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a process and report [`Input::Spawned`] or [`Input::SpawnFailed`].
    Spawn(Box<ServiceSpec>),
    /// Signal a service's process; [`Signal::Kill`] is meant for its whole control group.
    Signal {
        /// Which service.
        name: String,
        /// Its process.
        pid: u32,
        /// What to send.
        signal: Signal,
    },
    /// Tell what happened to a service, in one line that begins with its name.
    Tell(Event),
}
