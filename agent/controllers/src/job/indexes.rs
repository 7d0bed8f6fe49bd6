//! Sets of completion indexes, as ranges: `1,3-5`.

use std::fmt;

/// Ascending ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    ranges: Vec<(i32, i32)>,
}

impl Indexes {
    /// Reads what a status or a policy says; what is not below `completions` or no number does not count.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut made = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
            if first < completions && first <= last {
                made.ranges.push((first, last.min(completions - 1)));
            }
        }
        made.normalize();
        made
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut made = Self { ranges: self.ranges.iter().chain(&other.ranges).copied().collect() };
        made.normalize();
        made
    }

    pub(super) fn with(&self, indexes: impl IntoIterator<Item = i32>) -> Self {
        let mut made = Self { ranges: indexes.into_iter().map(|i| (i, i)).chain(self.ranges.clone()).collect() };
        made.normalize();
        made
    }

    pub(super) fn has(&self, index: i32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }

    pub(super) fn total(&self) -> i32 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many indexes both have.
    pub(super) fn common(&self, other: &Self) -> i32 {
        let overlap = |a: &(i32, i32), b: &(i32, i32)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
        self.ranges.iter().map(|a| other.ranges.iter().map(|b| overlap(a, b)).sum::<i32>()).sum()
    }

    /// The first indexes below `completions` that are missing, at most `count`.
    pub(super) fn missing(&self, completions: i32, count: usize) -> Vec<i32> {
        (0..completions).filter(|index| !self.has(*index)).take(count).collect()
    }

    fn normalize(&mut self) {
        self.ranges.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::with_capacity(self.ranges.len());
        for (first, last) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        self.ranges = merged;
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_and_written_as_ranges() {
        for (text, written) in
            [("", ""), ("1,2", "1,2"), ("1-3,5", "1-3,5"), ("1,2,3", "1-3"), ("8-12", "8,9"), ("x,4", "4")]
        {
            assert_eq!(Indexes::parse(text, 10).to_string(), written, "{text}");
        }
    }

    #[test]
    fn sets_are_united_and_compared() {
        let set = Indexes::parse("0,3-5", 10).with([4, 6, 1]);
        assert_eq!(set.to_string(), "0,1,3-6");
        assert_eq!((set.total(), set.has(2), set.has(6)), (6, false, true));
        assert_eq!(set.missing(9, 2), [2, 7]);
        assert_eq!(set.common(&Indexes::parse("5-9", 10)), 2);
        assert_eq!(set.union(&Indexes::parse("2", 10)).to_string(), "0-6");
    }
}
