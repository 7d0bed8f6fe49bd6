//! The last lines of a log, bounded in bytes.

use std::collections::VecDeque;

/// What one line costs besides its text, so that empty lines are bounded too.
const LINE_OVERHEAD_BYTES: usize = 32;

/// Keeps the newest lines whose sizes together fit a budget. A line longer than the budget is cut.
#[derive(Clone, Debug)]
pub struct LineRing {
    lines: VecDeque<String>,
    bytes: usize,
    budget: usize,
}

impl LineRing {
    /// An empty ring that holds at most `budget_bytes`, overhead included.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, budget: budget_bytes }
    }

    /// Adds a line and drops the oldest ones that no longer fit.
    pub fn push(&mut self, line: impl Into<String>) {
        let mut line = line.into();
        let room = self.budget.saturating_sub(LINE_OVERHEAD_BYTES);
        if line.len() > room {
            let mut end = room;
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
        }
        self.bytes += line.len() + LINE_OVERHEAD_BYTES;
        self.lines.push_back(line);
        while self.bytes > self.budget && self.lines.len() > 1 {
            if let Some(oldest) = self.lines.pop_front() {
                self.bytes -= oldest.len() + LINE_OVERHEAD_BYTES;
            }
        }
    }

    /// The newest line.
    #[must_use]
    pub fn last(&self) -> Option<&str> {
        self.lines.back().map(String::as_str)
    }

    /// All lines, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The newest `count` lines, oldest of them first.
    pub fn tail(&self, count: usize) -> impl Iterator<Item = &str> {
        self.iter().skip(self.lines.len().saturating_sub(count))
    }

    /// How many lines are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What the lines cost, overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_lines_go_first_and_the_budget_holds() {
        let mut ring = LineRing::new(3 * (LINE_OVERHEAD_BYTES + 4));
        for index in 0..10 {
            ring.push(format!("ln {index}"));
            assert!(ring.bytes() <= 3 * (LINE_OVERHEAD_BYTES + 4));
        }
        assert_eq!(ring.iter().collect::<Vec<_>>(), ["ln 7", "ln 8", "ln 9"]);
        assert_eq!(ring.tail(2).collect::<Vec<_>>(), ["ln 8", "ln 9"]);
        assert_eq!(ring.last(), Some("ln 9"));
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let mut ring = LineRing::new(LINE_OVERHEAD_BYTES + 4);
        ring.push("aaaé");
        assert_eq!(ring.last(), Some("aaa"));
        assert_eq!(ring.len(), 1);
    }
}
