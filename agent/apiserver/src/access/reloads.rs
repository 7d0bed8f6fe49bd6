//! How often files about who may do what were read again, for the metrics.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::metrics::Text;

/// Files that are read again.
const FILES: [&str; 2] = ["authentication", "authorization"];
/// What became of it.
const OUTCOMES: [&str; 2] = ["success", "failure"];

/// Counts by file and outcome.
#[derive(Default)]
pub struct Reloads([[Count; 2]; 2]);

#[derive(Default)]
struct Count {
    times: AtomicU64,
    /// Seconds since 1970 of the last time.
    last: AtomicI64,
}

impl Reloads {
    pub(super) fn count(&self, file: &str, is_used: bool, now: i64) {
        let at = FILES.iter().position(|known| *known == file).unwrap_or_default();
        let count = &self.0[at][usize::from(!is_used)];
        count.times.fetch_add(1, Relaxed);
        count.last.store(now, Relaxed);
    }

    /// Writes what was counted.
    pub fn write(&self, out: &mut Text) {
        for (file, counts) in FILES.iter().zip(&self.0) {
            let (total, last) = ("automatic_reloads_total", "automatic_reload_last_timestamp_seconds");
            let name = |what: &str| format!("apiserver_{file}_config_controller_{what}");
            let seen: Vec<_> = OUTCOMES.iter().zip(counts).filter(|(_, count)| count.times.load(Relaxed) > 0).collect();
            if seen.is_empty() {
                continue;
            }
            out.family(&name(total), "counter", "How often the changed file was read.");
            for (outcome, count) in &seen {
                out.sample(&name(total), &[("status", **outcome)], count.times.load(Relaxed));
            }
            out.family(&name(last), "gauge", "When the changed file was last read.");
            for (outcome, count) in &seen {
                out.sample(&name(last), &[("status", **outcome)], count.last.load(Relaxed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_told() {
        let reloads = Reloads::default();
        reloads.count("authorization", false, 7);
        let mut out = Text::default();
        reloads.write(&mut out);
        let text = out.finish();
        assert!(
            text.contains("apiserver_authorization_config_controller_automatic_reloads_total{status=\"failure\"} 1"),
            "{text}"
        );
        assert!(text.contains("last_timestamp_seconds{status=\"failure\"} 7"), "{text}");
        assert!(!text.contains("authentication") && !text.contains("success"), "{text}");
    }
}
