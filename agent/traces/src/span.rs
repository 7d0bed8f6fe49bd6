//! Spans while they are made.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use client::Way;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::export::{Exporter, QUEUE_LEN, channel};
use crate::proto::{self, KeyValue, Link, Status};
use crate::settings::Settings;

/// Most attributes of a span, as with OpenTelemetry's libraries.
const MAX_ATTRIBUTES: usize = 128;
/// The status of what failed.
const ERROR: i32 = 2;

tokio::task_local! {
    /// The span that is running.
    pub(crate) static CURRENT: Arc<Current>;
}

pub(crate) struct Current {
    pub(crate) context: Context,
    tracer: Tracer,
}

/// Makes spans.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    /// Traces that nobody asked for are recorded if their random part is below this, of 2^63.
    below: u64,
    queue: mpsc::Sender<proto::Span>,
    dropped: Arc<AtomicU64>,
}

/// What a span is a part of.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A span of somebody who may say whether the trace is recorded, if there is one.
    Trusted(Option<Context>),
    /// Another trace, which the new one refers to.
    Stranger(Option<Context>),
}

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither.
    Internal = 1,
    /// Somebody asks here.
    Server = 2,
    /// Somebody else is asked.
    Client = 3,
}

/// Something that takes time. It ends when it is dropped.
pub struct Span {
    context: Context,
    tracer: Tracer,
    started: Instant,
    /// None where it is not recorded.
    record: Option<Box<proto::Span>>,
}

impl Tracer {
    /// A tracer of a service, by its name and that of its instance, and what takes its spans to the collector: straight, or
    /// by a way that leads there.
    #[must_use]
    pub fn new(settings: &Settings, service: (&str, &str), way: Option<Arc<dyn Way>>) -> (Self, Exporter) {
        let (queue, spans) = mpsc::channel(QUEUE_LEN);
        let dropped = Arc::new(AtomicU64::new(0));
        let below = u64::try_from((u128::from(settings.rate_per_million) << 63) / 1_000_000).unwrap_or(1 << 63);
        let exporter = Exporter::new(channel(&settings.endpoint, way), service, (spans, dropped.clone()));
        (Self(Arc::new(Shared { below, queue, dropped })), exporter)
    }

    /// Begins a span.
    #[must_use]
    pub fn begin(&self, origin: Origin, name: impl FnOnce() -> String, kind: Kind) -> Span {
        match origin {
            Origin::Trusted(Some(parent)) => self.span(Some(&parent), None, name, kind),
            Origin::Trusted(None) => self.span(None, None, name, kind),
            Origin::Stranger(other) => self.span(None, other, name, kind),
        }
    }

    fn span(&self, parent: Option<&Context>, link: Option<Context>, name: impl FnOnce() -> String, kind: Kind) -> Span {
        let (trace, is_sampled) = match parent {
            Some(parent) => (parent.trace, parent.is_sampled),
            None => {
                let trace: [u8; 16] = rand::random();
                (trace, self.samples(&trace))
            }
        };
        let state = parent.map(|parent| parent.state.clone()).unwrap_or_default();
        let context = Context { trace, span: rand::random(), is_sampled, state };
        let record = is_sampled.then(|| {
            let parent_span_id = parent.map(|parent| parent.span.to_vec()).unwrap_or_default();
            let link = link.map(|link| Link {
                trace_id: link.trace.to_vec(),
                span_id: link.span.to_vec(),
                flags: link.flags(),
                trace_state: link.state,
            });
            Box::new(proto::Span {
                trace_id: trace.to_vec(),
                span_id: context.span.to_vec(),
                trace_state: context.state.clone(),
                parent_span_id,
                name: name(),
                kind: kind as i32,
                start_time_unix_nano: nanos(),
                links: link.into_iter().collect(),
                flags: context.flags(),
                ..proto::Span::default()
            })
        });
        Span { context, tracer: self.clone(), started: Instant::now(), record }
    }

    /// Every server that has the same rate decides the same about a trace.
    fn samples(&self, trace: &[u8; 16]) -> bool {
        let random = trace[8..].iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)) >> 1;
        random < self.0.below
    }
}

impl Span {
    /// Whether anybody will see it; then what is told of it is worth making.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// It began earlier than it was made, if that is known.
    pub fn since(&mut self, started: Option<Instant>) {
        let (Some(started), Some(record)) = (started, &mut self.record) else { return };
        let before = u64::try_from(self.started.saturating_duration_since(started).as_nanos()).unwrap_or(0);
        record.start_time_unix_nano = record.start_time_unix_nano.saturating_sub(before);
        self.started = self.started.min(started);
    }

    /// Tells something about it.
    pub fn text(&mut self, key: &str, value: &str) {
        self.push(|| KeyValue::new(key, value));
    }

    /// Tells something about it.
    pub fn number(&mut self, key: &str, value: i64) {
        self.push(|| KeyValue::new(key, value));
    }

    fn push(&mut self, attribute: impl FnOnce() -> KeyValue) {
        if let Some(record) = &mut self.record
            && record.attributes.len() < MAX_ATTRIBUTES
        {
            record.attributes.push(attribute());
        }
    }

    /// What it did failed.
    pub fn fail(&mut self, message: &str) {
        if let Some(record) = &mut self.record {
            record.status = Some(Status { message: message.to_owned(), code: ERROR });
        }
    }

    /// Runs something as a part of it.
    pub async fn within<F: Future>(&self, work: F) -> F::Output {
        let current = Current { context: self.context.clone(), tracer: self.tracer.clone() };
        CURRENT.scope(Arc::new(current), work).await
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        let took = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        record.end_time_unix_nano = record.start_time_unix_nano.saturating_add(took);
        if self.tracer.0.queue.try_send(*record).is_err() {
            self.tracer.0.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Begins a span below the one that is running; none if that is not recorded, or nothing runs.
#[must_use]
pub fn child(name: &str, kind: Kind) -> Option<Span> {
    let below = CURRENT.try_with(|current| {
        let parent = &current.context;
        parent.is_sampled.then(|| current.tracer.span(Some(parent), None, || name.to_owned(), kind))
    });
    below.ok().flatten()
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::Endpoint;

    fn tracer(rate_per_million: u32) -> (Tracer, mpsc::Receiver<proto::Span>) {
        let settings = Settings { endpoint: Endpoint::default(), rate_per_million };
        let (tracer, exporter) = Tracer::new(&settings, ("test", "1"), None);
        (tracer, exporter.into_spans())
    }

    fn parent(is_sampled: bool) -> Context {
        Context { trace: [7; 16], span: [9; 8], is_sampled, state: "a=1".to_owned() }
    }

    fn root(tracer: &Tracer, origin: Origin) -> Span {
        tracer.begin(origin, || "root".to_owned(), Kind::Server)
    }

    #[tokio::test]
    async fn trusted_parents_decide_and_strangers_are_referred_to() {
        let (tracer, mut spans) = tracer(0);
        assert!(!root(&tracer, Origin::Trusted(None)).is_recorded());
        assert!(!root(&tracer, Origin::Trusted(Some(parent(false)))).is_recorded());
        assert!(!root(&tracer, Origin::Stranger(Some(parent(true)))).is_recorded());
        drop(root(&tracer, Origin::Trusted(Some(parent(true)))));
        let span = spans.try_recv().unwrap();
        assert_eq!((span.trace_id, span.parent_span_id, span.trace_state), (vec![7; 16], vec![9; 8], "a=1".to_owned()));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && spans.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_new_trace_is_recorded_as_often_as_is_said() {
        let (always, mut spans) = tracer(1_000_000);
        drop(root(&always, Origin::Stranger(Some(parent(false)))));
        let span = spans.try_recv().unwrap();
        assert!(span.trace_id != vec![7; 16] && span.parent_span_id.is_empty());
        assert_eq!(span.links[0].trace_id, vec![7; 16]);
        let (half, _spans) = tracer(500_000);
        let mut trace = [0xff; 16];
        assert!(!half.samples(&trace));
        trace[8] = 0x7f;
        assert!(half.samples(&trace));
    }

    #[tokio::test]
    async fn a_span_may_have_begun_before_it_was_made() {
        let (tracer, mut spans) = tracer(1_000_000);
        let mut span = root(&tracer, Origin::Trusted(None));
        let now = nanos();
        span.since(Instant::now().checked_sub(Duration::from_secs(7)));
        drop(span);
        let span = spans.try_recv().unwrap();
        let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
        assert!(
            now.abs_diff(start + 7_000_000_000) < 1_000_000_000 && now.abs_diff(end) < 1_000_000_000,
            "{start} {end}"
        );
    }

    #[tokio::test]
    async fn children_are_below_what_runs() {
        let (tracer, mut spans) = tracer(1_000_000);
        assert!(child("alone", Kind::Client).is_none());
        let span = root(&tracer, Origin::Trusted(None));
        let mut headers = http::HeaderMap::new();
        span.within(async {
            let mut below = child("below", Kind::Client).unwrap();
            below.text("a", "b");
            below.fail("it broke");
            below.within(async { crate::inject(&mut headers) }).await;
        })
        .await;
        drop(span);
        let (below, above) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
        assert_eq!((&below.trace_id, &below.parent_span_id), (&above.trace_id, &above.span_id));
        assert_eq!((below.kind, below.status.unwrap().code), (3, ERROR));
        assert_eq!(Context::extract(&headers).unwrap().span.to_vec(), below.span_id);
    }

    #[tokio::test]
    async fn a_queue_that_is_full_holds_nobody_up() {
        let (tracer, _spans) = tracer(1_000_000);
        for _ in 0..QUEUE_LEN + 3 {
            drop(root(&tracer, Origin::Trusted(None)));
        }
        assert_eq!(tracer.0.dropped.load(Relaxed), 3);
    }
}
