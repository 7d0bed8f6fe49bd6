//! The lines in which two texts differ, as errors show them.

use std::collections::HashMap;
use std::fmt::Write;

/// Equal lines shown around those that differ.
const CONTEXT: usize = 3;
/// From so many lines on, those that occur often say little about what belongs together.
const MANY_LINES: usize = 200;

/// Lines of two ranges, equal or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    equal: bool,
    old: (usize, usize),
    new: (usize, usize),
}

/// Hunks of the lines in which `new` differs from `old`.
#[must_use]
pub fn unified(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.split('\n').collect();
    let new: Vec<&str> = new.split('\n').collect();
    let mut out = String::new();
    for hunk in hunks(runs(&old, &new)) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let ranges = (range(first.old.0, last.old.1), range(first.new.0, last.new.1));
        // Writing to a String cannot fail.
        _ = writeln!(out, "@@ -{} +{} @@", ranges.0, ranges.1);
        for run in hunk {
            if run.equal {
                put(' ', &old[run.old.0..run.old.1], &mut out);
            } else {
                put('-', &old[run.old.0..run.old.1], &mut out);
                put('+', &new[run.new.0..run.new.1], &mut out);
            }
        }
    }
    out
}

fn put(sign: char, lines: &[&str], out: &mut String) {
    for line in lines {
        out.push(sign);
        out.push_str(line);
        out.push('\n');
    }
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => (start + 1).to_string(),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    }
}

/// Runs one after the other, equal and unequal ones in turn.
fn runs(old: &[&str], new: &[&str]) -> Vec<Run> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(i);
    }
    if new.len() >= MANY_LINES {
        places.retain(|_, at| at.len() <= new.len() / 100 + 1);
    }
    let matcher = Matcher { old, new, places };
    let mut blocks = Vec::new();
    matcher.blocks((0, old.len()), (0, new.len()), &mut blocks);
    let mut out: Vec<Run> = Vec::new();
    let (mut i, mut j) = (0, 0);
    let end = Block { old: old.len(), new: new.len(), size: 0 };
    for block in blocks.into_iter().chain([end]) {
        if i < block.old || j < block.new {
            out.push(Run { equal: false, old: (i, block.old), new: (j, block.new) });
        }
        (i, j) = (block.old + block.size, block.new + block.size);
        match out.last_mut() {
            Some(last) if last.equal => (last.old.1, last.new.1) = (i, j),
            _ if block.size > 0 => out.push(Run { equal: true, old: (block.old, i), new: (block.new, j) }),
            _ => {}
        }
    }
    out
}

/// Groups of runs with little equal in between.
fn hunks(mut runs: Vec<Run>) -> Vec<Vec<Run>> {
    if let Some(first) = runs.first_mut().filter(|run| run.equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = runs.last_mut().filter(|run| run.equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let (mut out, mut hunk) = (Vec::new(), Vec::new());
    for mut run in runs {
        if run.equal && run.old.1 - run.old.0 > 2 * CONTEXT {
            let ends = (run.old.1.min(run.old.0 + CONTEXT), run.new.1.min(run.new.0 + CONTEXT));
            hunk.push(Run { equal: true, old: (run.old.0, ends.0), new: (run.new.0, ends.1) });
            out.push(std::mem::take(&mut hunk));
            run.old.0 = run.old.1 - CONTEXT;
            run.new.0 = run.new.1 - CONTEXT;
        }
        hunk.push(run);
    }
    if hunk.iter().any(|run| !run.equal) {
        out.push(hunk);
    }
    out
}

#[derive(Clone, Copy)]
struct Block {
    old: usize,
    new: usize,
    size: usize,
}

struct Matcher<'a> {
    old: &'a [&'a str],
    new: &'a [&'a str],
    /// Where in `new` a line is.
    places: HashMap<&'a str, Vec<usize>>,
}

impl Matcher<'_> {
    /// The longest equal block, and those before and after it.
    fn blocks(&self, old: (usize, usize), new: (usize, usize), out: &mut Vec<Block>) {
        let block = self.longest(old, new);
        if block.size == 0 {
            return;
        }
        if old.0 < block.old && new.0 < block.new {
            self.blocks((old.0, block.old), (new.0, block.new), out);
        }
        out.push(block);
        let (i, j) = (block.old + block.size, block.new + block.size);
        if i < old.1 && j < new.1 {
            self.blocks((i, old.1), (j, new.1), out);
        }
    }

    fn longest(&self, old: (usize, usize), new: (usize, usize)) -> Block {
        let mut best = Block { old: old.0, new: new.0, size: 0 };
        // How long the block is that ends at a line of `new` and the line of `old` before this one.
        let mut lengths: HashMap<usize, usize> = HashMap::new();
        for i in old.0..old.1 {
            let mut next = HashMap::new();
            let places = self.places.get(self.old[i]).map_or(&[][..], Vec::as_slice);
            for &j in places.iter().filter(|j| (new.0..new.1).contains(j)) {
                let before = j.checked_sub(1).and_then(|j| lengths.get(&j)).copied().unwrap_or(0);
                let size = before + 1;
                next.insert(j, size);
                if size > best.size {
                    best = Block { old: i + 1 - size, new: j + 1 - size, size };
                }
            }
            lengths = next;
        }
        while best.old > old.0 && best.new > new.0 && self.old[best.old - 1] == self.new[best.new - 1] {
            best = Block { old: best.old - 1, new: best.new - 1, size: best.size + 1 };
        }
        while best.old + best.size < old.1
            && best.new + best.size < new.1
            && self.old[best.old + best.size] == self.new[best.new + best.size]
        {
            best.size += 1;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_a_change_is_shown() {
        let old: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let mut new = old.clone();
        new[4] = "x".into();
        new.remove(15);
        let text = unified(&old.join("\n"), &new.join("\n"));
        assert_eq!(
            text,
            "@@ -2,7 +2,7 @@\n 1\n 2\n 3\n-4\n+x\n 5\n 6\n 7\n@@ -13,7 +13,6 @@\n 12\n 13\n 14\n-15\n 16\n 17\n 18\n"
        );
        assert_eq!(unified("a", "b"), "@@ -1 +1 @@\n-a\n+b\n");
        assert_eq!(unified("a", "a"), "");
    }
}
