//! The text of a manifest, its lines and positions in it.

use std::ops::Range;

use crate::keys;

/// A text with an index of its lines.
pub(crate) struct Source<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
}

/// A place in a text, counted from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, line_starts }
    }

    /// The position of a byte. A byte inside a character counts as that character's first.
    pub(crate) fn position(&self, at: usize) -> Position {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start <= at).max(1);
        let start = self.line_starts[line - 1];
        Position { line, column: self.text[start..at].chars().count() + 1 }
    }

    /// The line (from 1) without its end, with the values of secrets and users of URLs hidden.
    pub(crate) fn line(&self, line: usize) -> String {
        let start = self.line_starts[line - 1];
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        let text = self.text[start..end].trim_end_matches('\r');
        if self.is_inside_secret(line) { "***".to_owned() } else { hide_user(&hide_secrets(text)) }
    }

    /// Whether a line is a further one of a secret over several lines: what the last key before it begins. Quotes are
    /// not counted, as those of a text that is no TOML do not come in pairs.
    fn is_inside_secret(&self, line: usize) -> bool {
        let text = |line: usize| {
            let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
            &self.text[self.line_starts[line - 1]..end]
        };
        let key_of = |text: &str| text.split_once('=').and_then(|(key, _)| key_name(key));
        if key_of(text(line)).is_some() {
            return false;
        }
        let before = (1..line).rev().find_map(|before| key_of(text(before)).map(|name| (name, text(before))));
        before.is_some_and(|(name, text)| {
            let opens = text.contains("\"\"\"") || text.contains("'''");
            opens && keys::secret_names().any(|secret| secret == name)
        })
    }

    /// How many characters of its first line a span marks, at least one.
    pub(crate) fn marked_chars(&self, span: &Range<usize>) -> usize {
        let text = self.text.get(span.clone()).unwrap_or_default();
        text.lines().next().unwrap_or_default().chars().count().max(1)
    }
}

/// The name of a known key that stands before `=`.
fn key_name(text: &str) -> Option<&'static str> {
    let name = text.trim().rsplit('.').next()?.trim_matches(['"', '\'', ' ', '\t']);
    keys::all().iter().map(keys::Key::name).find(|known| *known == name)
}

/// Whether a value says in which file a secret is, and nothing else.
fn is_reference(value: &str) -> bool {
    let name = value.trim_start().strip_prefix('{').map(str::trim_start);
    let text = name.and_then(|name| name.strip_prefix("file")?.trim_start().strip_prefix('='));
    let path = text.and_then(|text| text.trim_start().strip_prefix("\"/")?.split_once('"'));
    path.is_some_and(|(_, rest)| rest.trim_start().starts_with('}'))
}

/// Cuts a line off after `KEY =` if KEY holds a secret: consoles and bundles show these lines.
fn hide_secrets(line: &str) -> String {
    let ends = keys::secret_names().filter_map(|name| {
        line.match_indices(name).find_map(|(at, _)| {
            let rest = &line[at + name.len()..];
            let value = rest.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=')?;
            (!is_reference(value)).then_some(line.len() - value.len())
        })
    });
    match ends.min() {
        Some(end) => format!("{} ***", &line[..end]),
        None => line.to_owned(),
    }
}

/// Puts `***` in the place of the users and passwords of the URLs in a text.
pub(crate) fn hide_user(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['/', '"', '\'', '`', ' ', '\t']).unwrap_or(part.len());
        let host = part[..end].rfind('@').filter(|user| *user > 0);
        shown.push_str("://");
        shown.push_str(if host.is_some() { "***" } else { "" });
        shown.push_str(&part[host.unwrap_or(0)..]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_urls_are_not_shown() {
        for (text, shown) in [
            (r#"a = "https://jane:secret@host:1/x@y""#, r#"a = "https://***@host:1/x@y""#),
            (r#"a = ["http://host", 'http://a@b@host']"#, r#"a = ["http://host", 'http://***@host']"#),
            ("`jane@example.com` is no URL", "`jane@example.com` is no URL"),
        ] {
            assert_eq!(hide_user(text), shown);
        }
    }
}
