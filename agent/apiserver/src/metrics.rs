//! The counters that `/metrics` shows, under the names that dashboards know.

mod admission;
mod checks;
mod kinds;
mod process;
mod requests;
mod storage;

pub use process::process_start;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use api::Kind;
use parking_lot::RwLock;
pub use stdx::Histogram;
pub use stdx::exposition::{Text, without};

use crate::app::App;

pub use admission::{Admission, Asked, Judged, Looked, Question, Step};
pub use requests::{Labels, Requests};
pub use storage::{Calls, Metered};

const EVENT_SIZES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];

/// Names of a kind.
type GroupVersionKind = (&'static str, &'static str, &'static str);

/// Counters of one server.
#[derive(Default)]
pub struct Metrics {
    /// Requests and their answers.
    pub requests: Requests,
    /// Calls of the store.
    pub calls: Arc<Calls>,
    /// What is counted for each kind.
    pub kinds: kinds::Kinds,
    /// How the checks of health went.
    pub checks: checks::Checks,
    /// What admission did.
    pub admission: Admission,
    /// Connections that did not agree on TLS.
    pub handshake_errors: AtomicU64,
    watched: RwLock<HashMap<GroupVersionKind, Arc<Histogram>>>,
}

impl Metrics {
    /// Sizes of the events that watches of a kind are told.
    #[must_use]
    pub fn watched(&self, kind: &'static Kind) -> Arc<Histogram> {
        let key = (kind.group, kind.plural, kind.version);
        if let Some(known) = self.watched.read().get(&key) {
            return known.clone();
        }
        self.watched.write().entry(key).or_insert_with(|| Arc::new(Histogram::new(EVENT_SIZES))).clone()
    }

    fn write(&self, out: &mut Text) {
        self.requests.write(out);
        self.calls.write(out);
        self.admission.write(out);
        self.kinds.write(out);
        crate::custom::write_timings(out);
        let mut watched: Vec<_> = self.watched.read().iter().map(|(key, sizes)| (*key, sizes.clone())).collect();
        watched.sort_by_key(|(key, _)| *key);
        let name = "apiserver_watch_events_total";
        out.family(name, "counter", "Events that watches were told.");
        for ((group, resource, version), sizes) in &watched {
            let count = sizes.cumulative().last().map_or(0, |(_, count)| count);
            out.sample(name, &[("group", group), ("resource", resource), ("version", version)], count);
        }
        let name = "apiserver_watch_events_sizes";
        out.family(name, "histogram", "Bytes of the events that watches were told.");
        for ((group, resource, version), sizes) in &watched {
            out.histogram(name, &[("group", group), ("resource", resource), ("version", version)], sizes);
        }
        let name = ("apiserver_tls_handshake_errors_total", "counter");
        out.single(name, "Connections that did not agree on TLS.", self.handshake_errors.load(Relaxed));
    }
}

/// How long the store may take to say how large it is.
const SIZE_WITHIN: Duration = Duration::from_secs(2);

/// Everything that `/metrics` shows.
pub async fn all(app: &App) -> String {
    let size = tokio::time::timeout(SIZE_WITHIN, app.cache.store().size()).await;
    let mut out = Text::default();
    let name = "apiserver_storage_size_bytes";
    out.family(name, "gauge", "Bytes that the database of the store takes.");
    if let Ok(Ok(Some(bytes))) = size {
        out.sample(name, &[("storage_cluster_id", "etcd-0")], bytes);
    }
    crate::services::write_allocated(app, &mut out);
    app.metrics.write(&mut out);
    app.flows.metrics(&mut out);
    app.access.attempts.write(&mut out);
    app.access.reloads.write(&mut out);
    dialled(app.config.egress.counts(), &mut out);
    stored(app, &mut out);
    crate::features::write(&app.config.features, &mut out);
    let version: serde_json::Value = serde_json::from_str(&crate::nonresource::version()).unwrap_or_default();
    let text = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
    let build = ["gitVersion", "major", "minor", "platform"].map(text);
    out.family("kubernetes_build_info", "gauge", "What this server is built from.");
    let labels = [("git_version", &*build[0]), ("major", &build[1]), ("minor", &build[2]), ("platform", &build[3])];
    out.sample("kubernetes_build_info", &labels, 1);
    process::write(&mut out);
    out.finish()
}

/// What was dialled by way of proxies.
fn dialled(counts: &egress::Counts, out: &mut Text) {
    for family in counts.families() {
        out.family(family.name, family.kind, family.help);
        for (values, count) in family.values() {
            let labels: Vec<_> = family.labels.iter().copied().zip(values).collect();
            out.sample(family.name, &labels, count);
        }
    }
    out.family(egress::Counts::LATENCY, "histogram", "Seconds that dials by way of a proxy took.");
    for ((protocol, transport), seconds) in counts.latencies() {
        let labels = [("protocol", protocol), ("transport", transport)];
        out.histogram(egress::Counts::LATENCY, &labels, &seconds);
    }
}

/// What is stored, by kind.
fn stored(app: &App, out: &mut Text) {
    let is_served = |storage: &&crate::cache::Storage| {
        let mut kinds = app.config.served.kinds().iter();
        crate::custom::is_custom(storage.kind) || kinds.any(|kind| kind.etcd_prefix == storage.kind.etcd_prefix)
    };
    let all: Vec<_> = app.cache.all().into_iter().filter(is_served).map(|s| (s, s.stored())).collect();
    let name = "apiserver_storage_objects";
    out.family(name, "gauge", "Objects that are stored.");
    for (storage, stored) in &all {
        let kind = storage.kind;
        let dot = if kind.group.is_empty() { "" } else { "." };
        out.sample(name, &[("resource", &format!("{}{dot}{}", kind.plural, kind.group))], stored.objects);
    }
    for (name, kind, help, value) in [
        ("apiserver_resource_objects", "gauge", "Objects that are stored.", 0),
        ("apiserver_resource_size_estimate_bytes", "gauge", "Bytes of the objects that are stored.", 1),
        ("apiserver_storage_events_received_total", "counter", "Events that came from the store.", 2),
        ("apiserver_watch_cache_events_received_total", "counter", "Events that watches could be told.", 2),
        ("apiserver_watch_cache_resource_version", "gauge", "Version of the newest event.", 3),
    ] {
        out.family(name, kind, help);
        for (storage, stored) in &all {
            let labels = [("group", storage.kind.group), ("resource", storage.kind.plural)];
            let events = storage.events();
            let values = [stored.objects as u64, stored.bytes as u64, events.0, events.1];
            out.sample(name, &labels, values[value]);
        }
    }
}
