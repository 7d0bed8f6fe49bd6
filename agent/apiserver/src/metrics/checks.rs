//! How the checks of health went: what `/metrics/slis` shows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::Text;
use super::admission::Series;

/// All checks.
#[derive(Default)]
pub struct Checks(Series<&'static str, Results, 2>);

#[derive(Default)]
struct Results {
    is_well: AtomicBool,
    passed: AtomicU64,
    failed: AtomicU64,
}

impl Checks {
    /// Counts a check that was made for an endpoint.
    pub fn count(&self, name: &'static str, endpoint: &'static str, passes: bool) {
        let results = self.0.at([name, endpoint], Results::default);
        results.is_well.store(passes, Relaxed);
        let count = if passes { &results.passed } else { &results.failed };
        count.fetch_add(1, Relaxed);
    }

    /// Both families.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = Text::default();
        let name = "kubernetes_healthcheck";
        out.family(name, "gauge", "Whether a check passed when it was made last.");
        self.0.write(["name", "type"], |labels, results| {
            out.sample(name, labels, u8::from(results.is_well.load(Relaxed)));
        });
        let name = "kubernetes_healthchecks_total";
        out.family(name, "counter", "Checks that were made.");
        self.0.write(["name", "type"], |labels, results| {
            for (status, count) in [("error", &results.failed), ("success", &results.passed)] {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [labels[0], ("status", status), labels[1]];
                    out.sample(name, &labels, count);
                }
            }
        });
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_is_shown_and_all_are_counted() {
        let checks = Checks::default();
        for passes in [true, true, false] {
            checks.count("etcd", "readyz", passes);
        }
        let text = checks.text();
        for line in [
            "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 0\n",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"error\",type=\"readyz\"} 1\n",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} 2\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
