//! What a service is, as its author says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sys::Confinement;

/// A service to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Unique; also the name of its control group and log file.
    pub name: String,
    /// The program (absolute) and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment; the notify socket is added.
    pub env: Vec<(String, String)>,
    /// Services that must be ready first.
    pub depends_on: Vec<String>,
    /// Whether it stays or does something and ends.
    pub kind: Kind,
    /// When it counts as ready.
    pub readiness: Readiness,
    /// What happens when it ends by itself.
    pub restart: Restart,
    /// What it may use.
    pub limits: ResourceLimits,
    /// What it gives up before it runs.
    pub confinement: Confinement,
    /// How long it has between being asked to end and being ended.
    pub stop_timeout: Duration,
    /// Whether pods end with it when everything does.
    pub ends_pods: bool,
}

impl ServiceSpec {
    /// A daemon that says when it is ready and is always restarted.
    #[must_use]
    pub fn daemon(name: &str, argv: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            argv,
            env: Vec::new(),
            depends_on: Vec::new(),
            kind: Kind::Daemon,
            readiness: Readiness::Notify,
            restart: Restart::Always,
            limits: ResourceLimits::default(),
            confinement: Confinement::default(),
            stop_timeout: Duration::from_secs(10),
            ends_pods: false,
        }
    }

    /// A program that is run until it succeeds once.
    #[must_use]
    pub fn oneshot(name: &str, argv: Vec<String>) -> Self {
        Self {
            kind: Kind::Oneshot,
            readiness: Readiness::Exit,
            restart: Restart::OnFailure,
            ..Self::daemon(name, argv)
        }
    }

    /// The same, after these services.
    #[must_use]
    pub fn after(mut self, names: &[&str]) -> Self {
        self.depends_on = names.iter().map(|&name| name.to_owned()).collect();
        self
    }
}

/// Whether a service stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It runs until it is stopped.
    Daemon,
    /// It does something and ends.
    Oneshot,
}

/// When a service counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// When it says so on the notify socket.
    Notify,
    /// As soon as it runs.
    Immediate,
    /// When it has ended with success.
    Exit,
}

/// What happens when a service ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It is started again.
    Always,
    /// It is started again unless it succeeded.
    OnFailure,
    /// It is left alone.
    Never,
}

/// What a service may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory that is kept for it.
    pub memory_min: Option<u64>,
    /// The most memory it gets.
    pub memory_max: Option<u64>,
    /// Its share of the processors, 100 is normal.
    pub cpu_weight: Option<u64>,
    /// How readily it is ended when memory runs out, -1000 (never) to 1000 (first).
    pub oom_score_adj: Option<i32>,
}

/// A set of services that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Two of them have one name.
    #[error("there are two services called {0}")]
    Duplicate(String),
    /// One needs another that does not exist.
    #[error("service {service} depends on {missing}, which does not exist")]
    UnknownDependency {
        /// Who needs it.
        service: String,
        /// What it needs.
        missing: String,
    },
    /// They wait for each other.
    #[error("services wait for each other: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// One has no program.
    #[error("service {0} has no program to run")]
    NoProgram(String),
}

pub(crate) fn validate(specs: &[ServiceSpec]) -> Result<(), SpecError> {
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for spec in specs {
        if spec.argv.is_empty() {
            return Err(SpecError::NoProgram(spec.name.clone()));
        }
        let previous = needs.insert(&spec.name, spec.depends_on.iter().map(String::as_str).collect());
        if previous.is_some() {
            return Err(SpecError::Duplicate(spec.name.clone()));
        }
    }
    for spec in specs {
        if let Some(missing) = spec.depends_on.iter().find(|name| !needs.contains_key(name.as_str())) {
            return Err(SpecError::UnknownDependency { service: spec.name.clone(), missing: missing.clone() });
        }
    }
    // Take away what needs nothing until nothing can be taken away; what is left goes round in a circle.
    while let Some(free) = needs.iter().find(|(_, needs)| needs.is_empty()).map(|(name, _)| *name) {
        needs.remove(free);
        for others in needs.values_mut() {
            others.remove(free);
        }
    }
    if needs.is_empty() { Ok(()) } else { Err(SpecError::Cycle(needs.keys().map(|&name| name.to_owned()).collect())) }
}
