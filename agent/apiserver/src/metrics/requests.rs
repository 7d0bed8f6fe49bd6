//! What requests were asked, how they were answered, and how long that took.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use api::Kind;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::{Mutex, RwLock};

use super::{Histogram, Text};
use crate::answer::{Body, BodyError};
use crate::request::{Query, RequestInfo};

pub(super) const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const OBJECTIVE_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Subresources that are told apart.
const SUBRESOURCES: [&str; 14] = [
    "approval",
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "finalize",
    "log",
    "portforward",
    "proxy",
    "resize",
    "scale",
    "status",
    "token",
];

/// A subresource that is told apart from others; empty for all those that are not.
pub(super) fn subresource(name: &str) -> &'static str {
    SUBRESOURCES.into_iter().find(|known| *known == name).unwrap_or("")
}

/// Paths that are told apart; all others are one.
const PATHS: [&str; 10] =
    ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version", "/debug"];

/// What tells the series of requests apart. All of it is known when the server is built or a definition is made, so
/// that nobody can make up series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    component: &'static str,
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    dry_run: &'static str,
}

impl Labels {
    /// Of a request, with the kind it is about.
    #[must_use]
    pub fn of(info: &RequestInfo, query: &Query, kind: Option<&'static Kind>, is_apply: bool) -> Self {
        let Some(kind) = kind else {
            let path = PATHS.into_iter().find(|path| info.path.starts_with(path)).unwrap_or("");
            return Self {
                component: "",
                verb: verb(info, is_apply),
                group: "",
                version: "",
                resource: "",
                subresource: path.strip_prefix('/').filter(|p| p.contains('/')).unwrap_or(path),
                scope: "",
                dry_run: "",
            };
        };
        Self {
            component: "apiserver",
            verb: verb(info, is_apply),
            group: kind.group,
            version: kind.version,
            resource: kind.plural,
            subresource: subresource(&info.subresource),
            scope: Requests::scope(info),
            dry_run: if query.get("dryRun") == "All" { "All" } else { "" },
        }
    }

    /// Without what only some families tell.
    fn pairs(&self) -> [(&'static str, &'static str); 7] {
        [
            ("component", self.component),
            ("group", self.group),
            ("resource", self.resource),
            ("scope", self.scope),
            ("subresource", self.subresource),
            ("verb", self.verb),
            ("version", self.version),
        ]
    }
}

fn verb(info: &RequestInfo, is_apply: bool) -> &'static str {
    match info.verb {
        "list" => "LIST",
        "watch" => "WATCH",
        "patch" if is_apply => "APPLY",
        "create" | "post" if matches!(&*info.subresource, "exec" | "attach" | "portforward" | "proxy") => "CONNECT",
        "get" if matches!(&*info.subresource, "exec" | "attach" | "portforward" | "proxy") => "CONNECT",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        "get" => "GET",
        "head" => "HEAD",
        "options" => "OPTIONS",
        _ => "other",
    }
}

/// Requests that are the same in all labels.
struct Series {
    codes: Mutex<Vec<(u16, u64)>>,
    /// Those that this server did not let finish, or did not begin with.
    terminated: Mutex<Vec<(u16, u64)>>,
    seconds: Histogram,
    objective: Histogram,
    sizes: Histogram,
    long_running: AtomicUsize,
}

/// All requests.
#[derive(Default)]
pub struct Requests(RwLock<HashMap<Labels, Arc<Series>>>);

impl Requests {
    fn series(&self, labels: Labels) -> Arc<Series> {
        if let Some(series) = self.0.read().get(&labels) {
            return series.clone();
        }
        let new = || {
            Arc::new(Series {
                codes: Mutex::default(),
                terminated: Mutex::default(),
                seconds: Histogram::new(SECONDS),
                objective: Histogram::new(OBJECTIVE_SECONDS),
                sizes: Histogram::new(SIZES),
                long_running: AtomicUsize::new(0),
            })
        };
        self.0.write().entry(labels).or_insert_with(new).clone()
    }

    /// Counts a request that is answered with this body; once that has been read if it is not there as a whole.
    pub fn answered(&self, labels: Labels, (code, started): (u16, Instant), is_long: bool, body: Body) -> Body {
        let series = self.series(labels);
        series.long_running.fetch_add(usize::from(is_long), Relaxed);
        let mut answer = Answer { series, labels, code, started, is_long, bytes: 0 };
        if let Some(size) = body.size_hint().exact() {
            answer.bytes = size;
            return body;
        }
        http_body_util::BodyExt::boxed_unsync(Counted { body, answer })
    }

    /// Counts a request that took too long, or one too many.
    pub fn terminated(&self, labels: Labels, code: u16) {
        count(&mut self.series(labels).terminated.lock(), code);
    }

    /// The scope of a request.
    #[must_use]
    pub fn scope(info: &RequestInfo) -> &'static str {
        match () {
            () if !info.name.is_empty() || info.verb == "create" => "resource",
            () if !info.namespace.is_empty() => "namespace",
            () => "cluster",
        }
    }

    /// All families.
    pub fn write(&self, out: &mut Text) {
        let mut all: Vec<(Labels, Arc<Series>)> = self.0.read().iter().map(|(l, s)| (*l, s.clone())).collect();
        all.sort_by_key(|(l, _)| (l.group, l.resource, l.subresource, l.version, l.verb, l.scope, l.dry_run));
        let name = "apiserver_request_total";
        out.family(name, "counter", "Requests that were answered.");
        for (labels, series) in &all {
            for (code, count) in series.codes.lock().iter() {
                let code = code.to_string();
                let mut pairs = labels.pairs().to_vec();
                pairs.extend([("code", &*code), ("dry_run", labels.dry_run)]);
                out.sample(name, &pairs, count);
            }
        }
        let name = "apiserver_request_terminations_total";
        out.family(name, "counter", "Requests that were not begun with, or not let finish.");
        for (labels, series) in &all {
            for (code, count) in series.terminated.lock().iter() {
                let code = code.to_string();
                let mut pairs = labels.pairs().to_vec();
                pairs.push(("code", &*code));
                out.sample(name, &pairs, count);
            }
        }
        let name = "apiserver_longrunning_requests";
        out.family(name, "gauge", "Long-running requests that go on.");
        for (labels, series) in all.iter().filter(|(l, _)| is_long_running(l)) {
            out.sample(name, &labels.pairs(), series.long_running.load(Relaxed));
        }
        let name = "apiserver_request_duration_seconds";
        out.family(name, "histogram", "Seconds from a request to the end of its answer.");
        for (labels, series) in &all {
            let mut pairs = labels.pairs().to_vec();
            pairs.push(("dry_run", labels.dry_run));
            out.histogram(name, &pairs, &series.seconds);
        }
        let name = "apiserver_request_sli_duration_seconds";
        out.family(name, "histogram", "Seconds that requests took which are no watches.");
        for (labels, series) in all.iter().filter(|(l, _)| !is_long_running(l)) {
            out.histogram(name, &labels.pairs(), &series.objective);
        }
        let name = "apiserver_response_sizes";
        out.family(name, "histogram", "Bytes of answers to reads.");
        for (labels, series) in all.iter().filter(|(l, _)| matches!(l.verb, "GET" | "LIST")) {
            out.histogram(name, &labels.pairs(), &series.sizes);
        }
    }
}

fn is_long_running(labels: &Labels) -> bool {
    matches!(labels.verb, "WATCH" | "CONNECT") || labels.subresource == "log"
}

fn count(codes: &mut Vec<(u16, u64)>, code: u16) {
    match codes.iter_mut().find(|(known, _)| *known == code) {
        Some((_, count)) => *count += 1,
        None => codes.push((code, 1)),
    }
}

/// An answer on its way.
struct Answer {
    series: Arc<Series>,
    labels: Labels,
    code: u16,
    started: Instant,
    is_long: bool,
    bytes: u64,
}

impl Drop for Answer {
    #[allow(clippy::cast_precision_loss, reason = "for a histogram")]
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        count(&mut self.series.codes.lock(), self.code);
        self.series.seconds.observe(seconds);
        self.series.long_running.fetch_sub(usize::from(self.is_long), Relaxed);
        if !self.is_long {
            self.series.objective.observe(seconds);
        }
        if matches!(self.labels.verb, "GET" | "LIST") {
            self.series.sizes.observe(self.bytes as f64);
        }
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    answer: Answer,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let bytes = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref).map_or(0, Bytes::len);
        self.answer.bytes += bytes as u64;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(requests: &Requests) -> String {
        let mut out = Text::default();
        requests.write(&mut out);
        out.finish()
    }

    fn labels(target: &str) -> Labels {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        let info = RequestInfo::parse(&http::Method::GET, path, &query);
        Labels::of(&info, &query, api::kind_by_resource(&info.group, &info.version, &info.resource), false)
    }

    #[test]
    fn a_request_is_counted_under_upstreams_labels() {
        let requests = Requests::default();
        let body = crate::answer::full("12345");
        drop(requests.answered(labels("/api/v1/namespaces/a/pods"), (200, Instant::now()), false, body));
        let text = text(&requests);
        let labels = "component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",\
                      version=\"v1\"";
        assert!(text.contains(&format!("apiserver_request_total{{{labels},code=\"200\",dry_run=\"\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("apiserver_response_sizes_sum{{{labels}}} 5\n")), "{text}");
    }

    #[test]
    fn a_request_that_is_not_let_finish_is_counted() {
        let requests = Requests::default();
        requests.terminated(labels("/api/v1/nodes"), 504);
        let line = "apiserver_request_terminations_total{component=\"apiserver\",group=\"\",resource=\"nodes\",scope=\"cluster\",\
                    subresource=\"\",verb=\"LIST\",version=\"v1\",code=\"504\"} 1\n";
        assert!(text(&requests).contains(line), "{}", text(&requests));
    }

    #[test]
    fn a_watch_is_counted_at_its_end() {
        let requests = Requests::default();
        let endless = http_body_util::StreamBody::new(futures::stream::pending());
        let body = http_body_util::BodyExt::boxed_unsync(endless);
        let body = requests.answered(labels("/api/v1/pods?watch=1"), (200, Instant::now()), true, body);
        let going = |n: u8| format!("verb=\"WATCH\",version=\"v1\"}} {n}\n");
        assert!(text(&requests).contains(&going(1)) && !text(&requests).contains("code=\"200\""));
        drop(body);
        assert!(text(&requests).contains(&going(0)) && text(&requests).contains("code=\"200\""));
    }

    #[test]
    fn nobody_makes_up_series() {
        assert_eq!(labels("/some/where"), labels("/else/where"));
        assert_eq!(labels("/api/v1/pods/a/nonsense"), labels("/api/v1/pods/a/other"));
        assert_eq!(labels("/openapi/v3/apis/apps/v1").subresource, "openapi/v3");
    }
}
