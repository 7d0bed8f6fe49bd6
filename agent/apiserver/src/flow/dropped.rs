//! How long a client that was turned away is told to wait.

use std::collections::VecDeque;

/// The longest that is told, in seconds.
const MAX_SECONDS: i64 = 32;

/// Requests turned away per second, and what follows from it.
#[derive(Debug)]
pub struct Dropped {
    /// Seconds that are over, with what was turned away in them.
    history: VecDeque<(i64, i64)>,
    second: i64,
    count: i64,
    wait: i64,
    raised_at: i64,
}

impl Default for Dropped {
    fn default() -> Self {
        Self { history: VecDeque::new(), second: 0, count: 0, wait: 1, raised_at: 0 }
    }
}

impl Dropped {
    /// Counts a request turned away now; returns the seconds to tell. They double while too many come, and go down by
    /// one when few do.
    pub fn note(&mut self, second: i64) -> u32 {
        if second == self.second {
            self.count += 1;
        } else {
            self.history.push_back((self.second, self.count));
            let kept = (2 * self.wait).min(MAX_SECONDS);
            while self.history.front().is_some_and(|(at, _)| self.second - at > kept) {
                self.history.pop_front();
            }
            (self.second, self.count) = (second, 1);
            self.adjust();
        }
        u32::try_from(self.wait).unwrap_or(1)
    }

    fn adjust(&mut self) {
        let recent = |at: i64| at < self.second && self.second - at <= self.wait;
        let dropped: i64 = self.history.iter().filter(|(at, _)| recent(*at)).map(|(_, count)| count).sum();
        if self.second - self.raised_at >= self.wait && dropped >= 3 * self.wait {
            self.wait = (2 * self.wait).min(MAX_SECONDS);
            self.raised_at = self.second;
        } else if dropped < self.wait && self.wait > 1 {
            self.wait -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_under_load_and_falls_after_it() {
        let mut dropped = Dropped::default();
        let mut waits = Vec::new();
        for second in 100..110 {
            waits.push(dropped.note(second));
            for _ in 0..9 {
                dropped.note(second);
            }
        }
        assert_eq!(waits[0], 1);
        assert_eq!(waits[1], 2);
        assert!(waits.windows(2).all(|w| w[0] <= w[1]) && waits[9] >= 4, "{waits:?}");
        let before = dropped.note(200);
        assert!(before < waits[9] || before == 1);
        assert!((300..340).map(|s| dropped.note(s * 10)).last() == Some(1));
    }
}
