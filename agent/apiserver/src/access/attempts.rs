//! How often and how long it was asked who makes a request and whether they may, for the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use stdx::Histogram;

use crate::auth::authz::Decision;
use crate::metrics::Text;

/// Seconds: upstream's, which double.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Users whose names are told; all others are of a few sorts.
const NAMED: [&str; 5] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

/// What became of a question.
pub(super) type Outcome = &'static str;

/// Seconds by outcome.
#[derive(Default)]
struct Asked(Mutex<BTreeMap<Outcome, Histogram>>);

impl Asked {
    fn note(&self, outcome: Outcome, took: Duration) {
        let mut known = self.0.lock();
        known.entry(outcome).or_insert_with(|| Histogram::new(SECONDS)).observe(took.as_secs_f64());
    }

    fn write(&self, [count, seconds]: [&str; 2], help: &str, out: &mut Text) {
        let known = self.0.lock();
        out.family(count, "counter", help);
        for (outcome, histogram) in known.iter() {
            let total = histogram.cumulative().last().map_or(0, |(_, total)| total);
            out.sample(count, &[("result", outcome)], total);
        }
        out.family(seconds, "histogram", "Seconds that it took.");
        for (outcome, histogram) in known.iter() {
            out.histogram(seconds, &[("result", outcome)], histogram);
        }
    }
}

/// Questions of one server.
#[derive(Default)]
pub struct Attempts {
    who: Asked,
    may: Asked,
    users: Mutex<BTreeMap<&'static str, u64>>,
}

impl Attempts {
    /// Somebody was recognized, nobody was there to be (`failure`), or credentials were no good (`error`).
    pub(super) fn recognized(&self, found: Result<Option<&str>, ()>, took: Duration) {
        let outcome = match found {
            Ok(Some(name)) => {
                *self.users.lock().entry(sort_of(name)).or_default() += 1;
                "success"
            }
            Ok(None) => "failure",
            Err(()) => "error",
        };
        self.who.note(outcome, took);
    }

    /// It was decided whether somebody may do something.
    pub(super) fn decided(&self, decision: &Decision, took: Duration) {
        let outcome = match decision {
            Decision::Allow(_) => "allowed",
            Decision::Failed { .. } => "error",
            Decision::Deny(_) => "denied",
            Decision::NoOpinion(_) => "no-opinion",
        };
        self.may.note(outcome, took);
    }

    /// Writes what was counted.
    pub fn write(&self, out: &mut Text) {
        let name = "authenticated_user_requests";
        out.family(name, "counter", "Requests by who makes them.");
        for (user, count) in self.users.lock().iter() {
            out.sample(name, &[("username", user)], count);
        }
        let who = ["authentication_attempts", "authentication_duration_seconds"];
        self.who.write(who, "Requests by whether it is known who sent them.", out);
        let may = ["authorization_attempts_total", "authorization_duration_seconds"];
        self.may.write(may, "Requests by whether they were allowed.", out);
    }
}

/// The few sorts of users that are told apart.
fn sort_of(name: &str) -> &'static str {
    match NAMED.into_iter().find(|known| *known == name) {
        Some(known) => known,
        None if name.contains('@') => "email_id",
        None => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_told_by_what_became_of_them() {
        let attempts = Attempts::default();
        let short = Duration::from_millis(3);
        for name in ["kubelet", "jane@example.com", "jane", "joe"] {
            attempts.recognized(Ok(Some(name)), short);
        }
        attempts.recognized(Err(()), short);
        attempts.decided(&Decision::NoOpinion(String::new()), short);
        let mut out = Text::default();
        attempts.write(&mut out);
        let text = out.finish();
        for line in [
            "authenticated_user_requests{username=\"email_id\"} 1\n",
            "authenticated_user_requests{username=\"kubelet\"} 1\n",
            "authenticated_user_requests{username=\"other\"} 2\n",
            "authentication_attempts{result=\"success\"} 4\n",
            "authentication_attempts{result=\"error\"} 1\n",
            "authentication_duration_seconds_bucket{result=\"success\",le=\"0.002\"} 0\n",
            "authentication_duration_seconds_bucket{result=\"success\",le=\"0.004\"} 4\n",
            "authorization_attempts_total{result=\"no-opinion\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("failure"), "{text}");
    }
}
