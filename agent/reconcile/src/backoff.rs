//! Growing, jittered pauses.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Pauses that double from `base` to `cap`, each lengthened by up to half.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// No failures yet.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The pause after one more failure.
    pub fn next_pause(&mut self) -> Duration {
        let pause = pause(self.base, self.cap, self.failures);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// It worked: the next pause is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The jittered pause after `failures` earlier failures.
pub(crate) fn pause(base: Duration, cap: Duration, failures: u32) -> Duration {
    // A fresh RandomState is seeded randomly: enough to keep clients from marching in step.
    let random = RandomState::new().build_hasher().finish() % 1024;
    let random = f64::from(u16::try_from(random).unwrap_or(0)) / 1024.0;
    stdx::Backoff { initial: base, factor: 2.0, max: cap, jitter: 0.5 }.next(failures, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(base, cap);
        for plain in [100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.next_pause().as_millis();
            assert!(pause >= plain && pause <= plain * 3 / 2, "{pause} after {plain}");
        }
        backoff.reset();
        assert!(backoff.next_pause() < base * 2);
        assert!(pause(base, cap, u32::MAX) <= cap * 3 / 2);
    }
}
