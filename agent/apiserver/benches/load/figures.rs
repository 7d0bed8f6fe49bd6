//! What is measured, and what the project promises of it.

use std::fmt;
use std::time::Duration;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Upstream,
    Ours,
}

/// What is asked for: how a list or a watch tells its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Protobuf,
    Table,
}

impl Form {
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Protobuf, Self::Table];
    /// In which clients watch: people's programs, and Kubernetes' own.
    pub(crate) const WATCHED: [Self; 2] = [Self::Json, Self::Protobuf];

    /// As a client asks for it.
    pub(crate) fn accept(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
            Self::Table => "application/json;as=Table;v=v1;g=meta.k8s.io",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Start,
    Idle,
    Definition,
    Create,
    StoredPod,
    Get,
    MergePatch,
    Apply,
    List(Form),
    ListMemory(Form),
    IdleWatcher,
    Events(Form),
    Bursts(Form),
}

/// What is promised of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// In the unit of the figure.
    AtMost(f64),
    /// As many times what upstream's does.
    TimesUpstream(f64),
}

impl Figure {
    /// What is measured with its unit, and its goal.
    pub(crate) fn row(self) -> (String, Goal) {
        use Goal::{AtMost, TimesUpstream};
        let (what, goal) = match self {
            Self::Start => ("start until ready, store in memory, ms", AtMost(100.0)),
            Self::Idle => ("idle memory (PSS), MB", AtMost(40.0)),
            Self::Definition => ("memory per definition, KB", AtMost(300.0)),
            Self::Create => ("creates per CPU second", TimesUpstream(5.0)),
            Self::StoredPod => ("memory per pod beyond its bytes, KB", AtMost(4.0)),
            Self::Get => ("gets per CPU second", TimesUpstream(5.0)),
            Self::MergePatch => ("merge patches per CPU second", TimesUpstream(5.0)),
            Self::Apply => ("applies per CPU second", TimesUpstream(5.0)),
            Self::List(form) => return (format!("listed pods per CPU second, {form:?}"), TimesUpstream(10.0)),
            Self::ListMemory(form) => return (format!("memory of a list under way, {form:?}, KB"), AtMost(1024.0)),
            Self::IdleWatcher => ("memory per idle watcher, KB", AtMost(20.0)),
            Self::Events(form) => return (format!("watched events per CPU second, {form:?}"), TimesUpstream(5.0)),
            Self::Bursts(form) => {
                return (format!("watched events of bursts per CPU second, {form:?}"), TimesUpstream(10.0));
            }
        };
        (what.to_owned(), goal)
    }
}

/// What work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// How often it was done.
    pub(crate) done: usize,
    pub(crate) wall: Duration,
    /// Seconds of the server's processor time.
    pub(crate) cpu: f64,
}

/// A figure as it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) figure: Figure,
    /// How many pods there were, where that matters.
    pub(crate) pods: Option<usize>,
    pub(crate) value: f64,
    pub(crate) cost: Option<Cost>,
}

impl Found {
    pub(crate) fn new(figure: Figure, value: f64) -> Self {
        Self { figure, pods: None, value, cost: None }
    }

    #[allow(clippy::cast_precision_loss, reason = "nothing is done that often")]
    pub(crate) fn rate(figure: Figure, cost: Cost) -> Self {
        Self { figure, pods: None, value: cost.done as f64 / cost.cpu.max(crate::subject::TICK), cost: Some(cost) }
    }

    /// What was measured, as it is told.
    pub(crate) fn name(&self) -> String {
        let (what, _) = self.figure.row();
        self.pods.map_or_else(|| what.clone(), |pods| format!("{pods} pods: {what}"))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.1}", self.name(), self.value)?;
        let Some(Cost { done, wall, cpu }) = self.cost else { return Ok(()) };
        write!(f, " ({done} in {:.2} s, {cpu:.2} CPU s)", wall.as_secs_f64())
    }
}
