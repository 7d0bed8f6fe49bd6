//! Where keys of a YAML text stand, for the messages about those that occur twice.

use std::collections::{HashMap, HashSet};

/// Bytes of paths that are noted of one text. Keys behind them are told at the line of what they are in.
const MAX_BYTES: usize = 16 << 20;
/// How far up somebody looks for a line.
const MAX_LEVELS: usize = 128;

/// The lines at which keys stand, by their paths.
type Lines<'t> = HashMap<&'t str, Vec<usize>>;

/// What to say about each key that occurs twice, by the paths of those keys.
///
/// Only block style is looked at line by line; a key inside `{}` is told at the line its braces begin in.
pub(super) fn of_duplicates(text: &[u8], paths: &[&str]) -> Vec<String> {
    if paths.is_empty() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(text);
    let places = places(&text);
    let mut lines = Lines::new();
    for (line, path) in &places {
        lines.entry(path).or_default().push(*line);
    }
    let mut taken: HashSet<usize> = HashSet::new();
    let mut out = Vec::new();
    for path in paths {
        let key = path.rsplit('.').next().unwrap_or(path);
        let seen = lines.get(path).map_or(&[][..], Vec::as_slice);
        // As many were taken as keys are told, and no more.
        let line = seen.iter().skip(1).find(|line| taken.insert(**line)).or(seen.first()).copied();
        let line = line.or_else(|| nearest(&lines, path)).unwrap_or(1);
        out.push(format!("line {line}: key {key:?} already set in map"));
    }
    out
}

/// The line of the closest ancestor that has one.
fn nearest(lines: &Lines<'_>, path: &str) -> Option<usize> {
    let mut above = path.rmatch_indices(['.', '[']).take(MAX_LEVELS);
    above.find_map(|(at, _)| lines.get(&path[..at])?.first().copied())
}

/// One level of the text: its indentation, its path, and how many members it has had if it is a list.
struct Level {
    indent: usize,
    path: String,
    items: usize,
    is_list: bool,
}

/// The keys in block style with their lines.
fn places(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut levels: Vec<Level> = Vec::new();
    // Deeper lines than this belong to a text that spans lines.
    let mut block: Option<usize> = None;
    let mut bytes = 0;
    for (number, line) in text.lines().enumerate() {
        if bytes >= MAX_BYTES {
            break;
        }
        let mut rest = line.trim_start_matches(' ');
        let mut indent = line.len() - rest.len();
        if rest.is_empty() || rest.starts_with('#') || block.is_some_and(|b| indent > b) {
            continue;
        }
        block = None;
        while let Some(after) = rest.strip_prefix("- ").or_else(|| (rest == "-").then_some("")) {
            enter_item(&mut levels, indent);
            bytes += levels.last().map_or(0, |level| level.path.len());
            if bytes >= MAX_BYTES {
                break;
            }
            let shift = rest.len() - after.trim_start_matches(' ').len();
            indent += shift;
            rest = after.trim_start_matches(' ');
        }
        let Some((key, value)) = split_key(rest) else { continue };
        while levels.last().is_some_and(|l| l.indent >= indent) {
            levels.pop();
        }
        let parent = levels.last().map_or(String::new(), |l| {
            if l.is_list { format!("{}[{}]", l.path, l.items.saturating_sub(1)) } else { l.path.clone() }
        });
        let path = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
        bytes += path.len();
        out.push((number + 1, path.clone()));
        if value.starts_with(['|', '>']) {
            block = Some(indent);
        }
        levels.push(Level { indent, path, items: 0, is_list: false });
    }
    out
}

/// A member of a list begins at this indentation.
fn enter_item(levels: &mut Vec<Level>, indent: usize) {
    while levels.last().is_some_and(|l| l.indent > indent) {
        levels.pop();
    }
    // A list may stand as deep as the key it belongs to.
    match levels.last_mut() {
        Some(level) if level.is_list && level.indent == indent => level.items += 1,
        other => {
            let path = other.map_or(String::new(), |l| {
                if l.is_list { format!("{}[{}]", l.path, l.items.saturating_sub(1)) } else { l.path.clone() }
            });
            levels.push(Level { indent, path, items: 1, is_list: true });
        }
    }
}

/// The key that a line begins with, and what follows its colon.
fn split_key(line: &str) -> Option<(&str, &str)> {
    if line.starts_with(['{', '[']) {
        return None;
    }
    if let Some(quote) = line.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (key, rest) = line[1..].split_once(quote)?;
        return Some((key, rest.trim_start().strip_prefix(':')?.trim()));
    }
    let at = line.find(": ").or_else(|| line.ends_with(':').then(|| line.len() - 1))?;
    Some((&line[..at], line[at + 1..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_block_style() {
        let text = "# x\na:\n  b: 1\n  list:\n  - k: 1\n    v: 2\n  - k: 2\n    k: 3\n  text: |\n    b: no\n  b: 2\n";
        let paths = ["a.list[1].k", "a.b", "a.flow.z"];
        assert_eq!(
            of_duplicates(text.as_bytes(), &paths),
            [
                "line 8: key \"k\" already set in map",
                "line 11: key \"b\" already set in map",
                "line 2: key \"z\" already set in map",
            ]
        );
        assert!(of_duplicates(b"a: 1", &[]).is_empty());
    }
}
