//! Where events go: log and webhook, at once or through a queue.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use jiff::Timestamp;
use lifecycle::Shutdown;
use parking_lot::Mutex;

use crate::batch::{self, Batch, Queue, Worker};
use crate::event::Event;
use crate::log::{Format, Log, LogConfig, LogError};
use crate::policy::{Level, Policy, PolicyError, Request};
use crate::record::Record;
use crate::webhook::{Webhook, WebhookConfig};

/// Whether a request waits for its events.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// It does not: they are gathered and delivered by the way.
    Batch(Batch),
    /// It waits until they are delivered, or failed to be.
    Blocking,
    /// The same, and it fails if the first one cannot be delivered.
    BlockingStrict,
}

/// How large events may be; larger ones lose their objects, or are not written at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Largest event in bytes.
    pub max_event_bytes: usize,
}

/// What is written down, and where to.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file of the policy.
    pub policy: PathBuf,
    /// A log.
    pub log: Option<(LogConfig, Mode, Option<Truncation>)>,
    /// A webhook.
    pub webhook: Option<(WebhookConfig, Mode, Option<Truncation>)>,
}

/// Why nothing can be written down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy's file cannot be read.
    #[error("loading audit policy file: failed to read file path {path:?}")]
    ReadPolicy {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The policy is no good.
    #[error("loading audit policy file: {source}: from file {path}", path = path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Why; part of the message.
        source: PolicyError,
    },
    /// The log cannot be opened.
    #[error("the audit log cannot be used")]
    Log(#[from] LogError),
    /// The webhook's kubeconfig cannot be used.
    #[error("the audit webhook's kubeconfig cannot be used")]
    Webhook(#[from] client::Error),
}

/// Who takes events.
pub(crate) enum Target {
    Log(Format, Mutex<Log>),
    Webhook(Webhook),
}

impl Target {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Log(..) => "log",
            Self::Webhook(_) => "webhook",
        }
    }

    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Self::Log(..))
    }

    fn render(&self, event: &Event) -> Bytes {
        let mut text = match self {
            Self::Log(Format::Legacy, _) => event.to_line().into_bytes(),
            Self::Log(Format::Json, _) | Self::Webhook(_) => event.to_json(),
        };
        text.push(b'\n');
        text.into()
    }

    /// Delivers events; false if they are lost.
    pub(crate) async fn deliver(&self, events: &[Bytes]) -> bool {
        match self {
            Self::Webhook(webhook) => webhook.deliver(events).await,
            Self::Log(_, log) => {
                let mut log = log.lock();
                let now = Timestamp::now();
                let mut is_done = true;
                for event in events {
                    if let Err(error) = log.write(event, now) {
                        tracing::error!(error = %stdx::chain(&error), "an audit event was not written");
                        is_done = false;
                    }
                }
                is_done
            }
        }
    }
}

/// Counters for the metrics.
#[derive(Default)]
pub(crate) struct Counters(Mutex<Counts>);

/// How many events there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that were made.
    pub events: u64,
    /// Events that were lost, by who lost them.
    pub lost: BTreeMap<&'static str, u64>,
    /// Requests by the level they were judged to need.
    pub levels: BTreeMap<&'static str, u64>,
    /// Requests that failed because their first event was lost.
    pub rejected: u64,
}

impl Counters {
    pub(crate) fn lost(&self, who: &'static str, events: usize) {
        *self.0.lock().lost.entry(who).or_default() += events as u64;
    }
}

enum Delivery {
    Queue(Queue),
    Direct { is_strict: bool },
}

struct Backend {
    target: Arc<Target>,
    delivery: Delivery,
    truncation: Option<Truncation>,
}

/// Writes down what is asked of a server.
pub struct Auditor {
    policy: Policy,
    backends: Vec<Backend>,
    workers: Mutex<Vec<Worker>>,
    counters: Arc<Counters>,
}

impl Auditor {
    /// Reads the policy and opens the log. The webhook is told straight, or by another way.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn new(config: &Config, way: Option<Arc<dyn client::Way>>) -> Result<Arc<Self>, Error> {
        let path = config.policy.clone();
        let text = std::fs::read_to_string(&path).map_err(|source| Error::ReadPolicy { path: path.clone(), source })?;
        let policy = text.parse().map_err(|source| Error::Policy { path, source })?;
        let mut auditor =
            Self { policy, backends: Vec::new(), workers: Mutex::default(), counters: Arc::new(Counters::default()) };
        if let Some((log, mode, truncation)) = &config.log {
            let target = Target::Log(log.format, Mutex::new(Log::open(log.clone())?));
            auditor.add(target, mode, *truncation);
        }
        if let Some((webhook, mode, truncation)) = &config.webhook {
            auditor.add(Target::Webhook(Webhook::new(webhook, way)?), mode, *truncation);
        }
        Ok(Arc::new(auditor))
    }

    fn add(&mut self, target: Target, mode: &Mode, truncation: Option<Truncation>) {
        let target = Arc::new(target);
        let delivery = match mode {
            Mode::Blocking => Delivery::Direct { is_strict: false },
            Mode::BlockingStrict => Delivery::Direct { is_strict: true },
            Mode::Batch(batch) => {
                let (queue, worker) = batch::queue(batch.clone(), target.clone(), self.counters.clone());
                self.workers.lock().push(worker);
                Delivery::Queue(queue)
            }
        };
        self.backends.push(Backend { target, delivery, truncation });
    }

    /// Delivers what waits, until shutdown and then the rest. To be called once.
    pub async fn run(&self, shutdown: &Shutdown) {
        let workers = std::mem::take(&mut *self.workers.lock());
        join_all(workers.into_iter().map(|worker| worker.run(shutdown.clone()))).await;
    }

    /// Begins the record of a request; `make` makes its first event where there is to be one.
    pub fn begin(self: &Arc<Self>, request: &Request<'_>, make: impl FnOnce(Level) -> Event) -> Record {
        let rule = self.policy.rule_for(request);
        *self.counters.0.lock().levels.entry(rule.level.as_str()).or_default() += 1;
        if rule.level == Level::None || self.backends.is_empty() {
            return Record::default();
        }
        Record::new(self.clone(), rule, make(rule.level))
    }

    /// Counts a request that failed because its first event was lost.
    pub fn count_rejected(&self) {
        self.counters.0.lock().rejected += 1;
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.0.lock().clone()
    }

    pub(crate) async fn write(&self, event: &Event) -> bool {
        self.counters.0.lock().events += 1;
        let mut is_good = true;
        for backend in &self.backends {
            is_good &= self.write_to(backend, event).await;
        }
        is_good
    }

    async fn write_to(&self, backend: &Backend, event: &Event) -> bool {
        let Some(text) = backend.fitting(event) else {
            tracing::error!(audit_id = event.audit_id, "an audit event is too large even without its objects");
            self.counters.lost("truncate", 1);
            return true;
        };
        match &backend.delivery {
            Delivery::Queue(queue) => {
                if !queue.put(text) {
                    self.counters.lost("buffered", 1);
                }
                true
            }
            Delivery::Direct { is_strict } => {
                let is_done = backend.target.deliver(&[text]).await;
                if !is_done {
                    self.counters.lost(backend.target.name(), 1);
                }
                is_done || !is_strict
            }
        }
    }
}

impl Backend {
    /// The event's text, without its objects if it would be too large with them.
    fn fitting(&self, event: &Event) -> Option<Bytes> {
        let text = self.target.render(event);
        let Some(max) = self.truncation.map(|t| t.max_event_bytes) else { return Some(text) };
        if text.len() <= max {
            return Some(text);
        }
        if event.level < Level::Request {
            return None;
        }
        let mut event = event.clone();
        event.request_object = None;
        event.response_object = None;
        event.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
        Some(self.target.render(&event)).filter(|text| text.len() <= max)
    }
}
