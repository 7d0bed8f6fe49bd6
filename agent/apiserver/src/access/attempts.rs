//! How often and how long it was asked who makes a request and whether they may, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use stdx::Histogram;

use crate::auth::authz::Decision;
use crate::metrics::Text;

/// Seconds: upstream's, which double.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Users whose names are told, and the sorts that all others are of.
const USERS: [&str; 7] =
    ["admin", "client", EMAIL, "kube_proxy", "kubelet", OTHER, "system:serviceaccount:kube-system:default"];
const EMAIL: &str = "email_id";
const OTHER: &str = "other";

/// What became of the question who somebody is, in the order of [`WHO`].
#[derive(Clone, Copy)]
enum Who {
    Error,
    Failure,
    Success,
}
const WHO: [&str; 3] = ["error", "failure", "success"];

/// What became of the question whether somebody may do something, in the order of [`MAY`].
#[derive(Clone, Copy)]
enum May {
    Allowed,
    Denied,
    Error,
    NoOpinion,
}
const MAY: [&str; 4] = ["allowed", "denied", "error", "no-opinion"];

/// Seconds by outcome. No request waits for another one that is counted.
struct Asked<const N: usize> {
    outcomes: [&'static str; N],
    seconds: [Histogram; N],
}

impl<const N: usize> Asked<N> {
    fn new(outcomes: [&'static str; N]) -> Self {
        Self { outcomes, seconds: std::array::from_fn(|_| Histogram::new(SECONDS)) }
    }

    fn note(&self, outcome: usize, took: Duration) {
        self.seconds[outcome].observe(took.as_secs_f64());
    }

    fn write(&self, [count, seconds]: [&str; 2], help: &str, out: &mut Text) {
        let total = |histogram: &Histogram| histogram.cumulative().last().map_or(0, |(_, total)| total);
        let seen = || self.outcomes.into_iter().zip(&self.seconds).filter(|(_, histogram)| total(histogram) > 0);
        out.family(count, "counter", help);
        for (outcome, histogram) in seen() {
            out.sample(count, &[("result", outcome)], total(histogram));
        }
        out.family(seconds, "histogram", "Seconds that it took.");
        for (outcome, histogram) in seen() {
            out.histogram(seconds, &[("result", outcome)], histogram);
        }
    }
}

/// Questions of one server.
pub struct Attempts {
    who: Asked<3>,
    may: Asked<4>,
    users: [AtomicU64; USERS.len()],
}

impl Default for Attempts {
    fn default() -> Self {
        Self { who: Asked::new(WHO), may: Asked::new(MAY), users: Default::default() }
    }
}

impl Attempts {
    /// Somebody was recognized, nobody was there to be (`failure`), or credentials were no good (`error`).
    pub(super) fn recognized(&self, found: Result<Option<&str>, ()>, took: Duration) {
        let outcome = match found {
            Ok(Some(name)) => {
                if let Some(at) = USERS.iter().position(|user| *user == sort_of(name)) {
                    self.users[at].fetch_add(1, Relaxed);
                }
                Who::Success
            }
            Ok(None) => Who::Failure,
            Err(()) => Who::Error,
        };
        self.who.note(outcome as usize, took);
    }

    /// It was decided whether somebody may do something.
    pub(super) fn decided(&self, decision: &Decision, took: Duration) {
        let outcome = match decision {
            Decision::Allow(_) => May::Allowed,
            Decision::Failed { .. } => May::Error,
            Decision::Deny(_) => May::Denied,
            Decision::NoOpinion(_) => May::NoOpinion,
        };
        self.may.note(outcome as usize, took);
    }

    /// Writes what was counted.
    pub fn write(&self, out: &mut Text) {
        let name = "authenticated_user_requests";
        out.family(name, "counter", "Requests by who makes them.");
        let counted = USERS.into_iter().zip(self.users.iter().map(|count| count.load(Relaxed)));
        for (user, count) in counted.filter(|(_, count)| *count > 0) {
            out.sample(name, &[("username", user)], count);
        }
        let who = ["authentication_attempts", "authentication_duration_seconds"];
        self.who.write(who, "Requests by whether it is known who sent them.", out);
        let may = ["authorization_attempts_total", "authorization_duration_seconds"];
        self.may.write(may, "Requests by whether they were allowed.", out);
    }
}

/// The few sorts of users that are told apart.
fn sort_of(name: &str) -> &str {
    match name {
        EMAIL | OTHER => OTHER,
        _ if USERS.contains(&name) => name,
        _ if name.contains('@') => EMAIL,
        _ => OTHER,
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
