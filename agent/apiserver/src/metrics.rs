//! The counters that `/metrics` shows.

mod histogram;
mod text;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use parking_lot::Mutex;

pub use histogram::Histogram;
pub use text::Text;

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 8] = [0.005, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 60.0];

/// Counters of requests.
#[derive(Default)]
pub struct Metrics(Mutex<BTreeMap<(&'static str, &'static str, u16), Series>>);

#[derive(Default)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

/// Everything that `/metrics` shows.
#[must_use]
pub fn all(app: &crate::app::App) -> String {
    let mut out = Text::default();
    app.flows.metrics(&mut out);
    app.metrics.text() + &out.finish()
}

impl Metrics {
    /// Counts a request that was answered.
    pub fn observe(&self, verb: &'static str, resource: &'static str, code: u16, seconds: f64) {
        let mut all = self.0.lock();
        let series = all.entry((verb, resource, code)).or_default();
        series.count += 1;
        series.seconds += seconds;
        for (bound, bucket) in BUCKETS.iter().zip(&mut series.buckets) {
            if seconds <= *bound {
                *bucket += 1;
            }
        }
    }

    /// All counters in the text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from(
            "# HELP apiserver_request_total Counter of apiserver requests broken out for each verb, resource and code.\n\
             # TYPE apiserver_request_total counter\n",
        );
        let all = self.0.lock();
        for ((verb, resource, code), series) in all.iter() {
            let verb = verb.to_uppercase();
            let _infallible = writeln!(
                out,
                "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {}",
                series.count
            );
        }
        out.push_str(
            "# HELP apiserver_request_duration_seconds Response latency distribution in seconds.\n\
             # TYPE apiserver_request_duration_seconds histogram\n",
        );
        for ((verb, resource, code), series) in all.iter() {
            let labels = format!("verb=\"{}\",resource=\"{resource}\",code=\"{code}\"", verb.to_uppercase());
            let name = "apiserver_request_duration_seconds";
            for (bound, count) in BUCKETS.iter().zip(series.buckets) {
                let _infallible = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _infallible = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _infallible = writeln!(out, "{name}_sum{{{labels}}} {}", series.seconds);
            let _infallible = writeln!(out, "{name}_count{{{labels}}} {}", series.count);
        }
        out
    }
}
