//! How many seats a level could have used, over time.

use std::time::Instant;

/// Watches a number over time.
#[derive(Debug)]
pub struct Demand {
    since: Instant,
    last: Instant,
    now: f64,
    most: f64,
    sum: f64,
    squares: f64,
}

/// What was seen in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Seconds that were watched.
    pub seconds: f64,
    /// Mean over time.
    pub average: f64,
    /// Standard deviation over time.
    pub deviation: f64,
    /// The highest.
    pub most: f64,
}

impl Demand {
    /// Nothing is wanted yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { since: now, last: now, now: 0.0, most: 0.0, sum: 0.0, squares: 0.0 }
    }

    fn pass(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.last).as_secs_f64();
        self.sum += self.now * seconds;
        self.squares += self.now * self.now * seconds;
        self.last = now;
    }

    /// From now on it is this.
    pub fn set(&mut self, value: f64, now: Instant) {
        self.pass(now);
        self.now = value;
        self.most = self.most.max(value);
    }

    /// Ends a period and begins the next.
    pub fn take(&mut self, now: Instant) -> Seen {
        self.pass(now);
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        let average = if seconds > 0.0 { self.sum / seconds } else { 0.0 };
        let variance = if seconds > 0.0 { self.squares / seconds - average * average } else { 0.0 };
        let seen = Seen { seconds, average, deviation: variance.max(0.0).sqrt(), most: self.most };
        *self = Self { now: self.now, most: self.now, ..Self::new(now) };
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn averages_are_over_time() {
        let start = Instant::now();
        let after = |s: u64| start + Duration::from_secs(s);
        let mut demand = Demand::new(start);
        demand.set(4.0, after(5));
        demand.set(2.0, after(10));
        let seen = demand.take(after(10));
        assert_eq!(seen, Seen { seconds: 10.0, average: 2.0, deviation: 2.0, most: 4.0 });
        assert_eq!(demand.take(after(11)), Seen { seconds: 1.0, average: 2.0, deviation: 0.0, most: 2.0 });
    }
}
