//! Whether a system on trial has proved itself.

use std::time::Duration;

use disk::Entry;

/// How long a machine must be ready before it counts.
pub const SETTLE: Duration = Duration::from_secs(10);

/// A system on trial. Times are since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The boot entry that it was started by.
    pub entry: Entry,
    deadline: Duration,
    ready_since: Option<Duration>,
}

/// What to do about it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing; look again at this time.
    Wait(Duration),
    /// It has proved itself.
    Good,
    /// It has not, and has no more time.
    Bad {
        /// Why.
        reason: String,
    },
}

impl Trial {
    /// Begins. It must have proved itself before `deadline`.
    #[must_use]
    pub fn new(entry: Entry, deadline: Duration) -> Self {
        Self { entry, deadline, ready_since: None }
    }

    /// Judges by what the machine lacks now.
    pub fn observe(&mut self, now: Duration, unmet: &[String]) -> Verdict {
        if unmet.is_empty() {
            let since = *self.ready_since.get_or_insert(now);
            return if now >= since + SETTLE { Verdict::Good } else { Verdict::Wait(since + SETTLE) };
        }
        self.ready_since = None;
        if now < self.deadline {
            return Verdict::Wait(self.deadline);
        }
        let seconds = self.deadline.as_secs();
        Verdict::Bad { reason: format!("it was not ready within {seconds} s: {}", unmet.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ready_for_a_while_is_good() {
        let mut trial = Trial::new(Entry::parse("keelson-2-b+1-1.efi").unwrap(), DEADLINE);
        let unmet = ["etcd is starting".to_owned()];
        assert_eq!(trial.observe(at(1), &unmet), Verdict::Wait(DEADLINE));
        assert_eq!(trial.observe(at(20), &[]), Verdict::Wait(at(30)));
        assert_eq!(trial.observe(at(25), &unmet), Verdict::Wait(DEADLINE));
        assert_eq!(trial.observe(at(295), &[]), Verdict::Wait(at(305)));
        assert_eq!(trial.observe(at(305), &[]), Verdict::Good);
    }

    #[test]
    fn the_deadline_ends_it_with_what_is_missing() {
        let mut trial = Trial::new(Entry::parse("keelson-2-b+1-1.efi").unwrap(), DEADLINE);
        let verdict = trial.observe(DEADLINE, &["node: no network".to_owned()]);
        assert_eq!(verdict, Verdict::Bad { reason: "it was not ready within 300 s: node: no network".to_owned() });
    }
}
