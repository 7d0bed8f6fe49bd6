//! How long to wait before the next try.

use std::time::Duration;

/// A growing wait: `initial * factor^attempt`, at most `max`, spread by `jitter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub initial: Duration,
    /// By how much each further failure multiplies the wait.
    pub factor: f64,
    /// The longest wait, before the jitter.
    pub max: Duration,
    /// Up to which share of the wait is added at random (0.1 = ten percent).
    pub jitter: f64,
}

impl Backoff {
    /// The wait after failure number `attempt` (0 is the first). `random` is uniform in 0..1 and decides the jitter.
    #[must_use]
    pub fn next(&self, attempt: u32, random: f64) -> Duration {
        let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
        let cap = self.max.as_secs_f64();
        let grown = self.initial.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        let wait = if grown.is_finite() { grown.min(cap) } else { cap };
        let spread = 1.0 + self.jitter.max(0.0) * random.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(wait * spread).unwrap_or(self.max)
    }

    /// The wait without jitter.
    #[must_use]
    pub fn base(&self, attempt: u32) -> Duration {
        self.next(attempt, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Backoff =
        Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(60), jitter: 0.1 };

    #[test]
    fn waits_grow_to_the_maximum_and_stay() {
        let waits: Vec<u64> = (0..8).map(|attempt| SERVICE.base(attempt).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(SERVICE.base(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn jitter_only_adds() {
        assert_eq!(SERVICE.next(0, 1.0), Duration::from_millis(1100));
        assert_eq!(SERVICE.next(0, 0.5), Duration::from_millis(1050));
    }
}
