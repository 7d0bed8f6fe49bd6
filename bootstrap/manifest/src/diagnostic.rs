//! What is wrong with a manifest, as data and as text.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The manifest is refused.
    Error,
    /// The manifest is taken, but probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key path, such as `network.interfaces[0].mac`; empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was probably meant, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line of the manifest, without values of secrets.
    pub source: String,
    /// How many characters of the line are marked.
    pub marked: usize,
}

/// Everything that was found in one manifest, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Diagnostics {
    /// The name of the file.
    pub file: String,
    /// The findings.
    pub findings: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The findings that make the manifest unusable.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }

    /// The findings that do not.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Warning)
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// The findings as a JSON value.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    fn write_summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let parts: Vec<String> = [(self.errors().count(), "error"), (self.warnings().count(), "warning")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| counted(count, what))
            .collect();
        write!(f, "{}: {}", self.file, if parts.is_empty() { "no findings".to_owned() } else { parts.join(", ") })
    }
}

impl fmt::Display for Diagnostics {
    /// One block per finding and a summary line, without a final line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write_finding(f, &self.file, finding)?;
        }
        self.write_summary(f)
    }
}

/// So many characters of a line are shown, and so many of these before what is marked.
const SHOWN_CHARS: usize = 160;
const BEFORE_CHARS: usize = 60;
const CUT: &str = "...";

/// The part of a line that is shown, and the line of marks below it.
fn excerpt(finding: &Diagnostic) -> (String, String) {
    let (first, count) = (finding.column - 1, finding.source.chars().count());
    let begin = if count > SHOWN_CHARS { first.min(count).saturating_sub(BEFORE_CHARS) } else { 0 };
    let end = count.min(begin + SHOWN_CHARS);
    let head = if begin > 0 { CUT } else { "" };
    let tail = if end < count { CUT } else { "" };
    let shown: String = finding.source.chars().skip(begin).take(SHOWN_CHARS).collect();
    // Tabs are kept in front of the marks, so that the marks stand below the marked text on any terminal.
    let blank = |letter| if letter == '\t' { '\t' } else { ' ' };
    let before: String = head.chars().chain(shown.chars().take(first - begin)).map(blank).collect();
    let pad = " ".repeat((first - begin + head.len()).saturating_sub(before.chars().count()));
    let marks = "^".repeat(finding.marked.min(SHOWN_CHARS.saturating_sub(first - begin)).max(1));
    (format!("{head}{shown}{tail}"), format!("{before}{pad}{marks}"))
}

fn write_finding(f: &mut fmt::Formatter<'_>, file: &str, finding: &Diagnostic) -> fmt::Result {
    let number = finding.line.to_string();
    let gutter = " ".repeat(number.len());
    let (source, marks) = excerpt(finding);
    let source = format!("{number} | {source}");
    writeln!(f, "{}: {}", finding.severity, finding.reason)?;
    writeln!(f, "{gutter}--> {file}:{}:{}", finding.line, finding.column)?;
    writeln!(f, "{gutter} |")?;
    writeln!(f, "{}", source.trim_end())?;
    writeln!(f, "{gutter} | {marks}")?;
    if !finding.key.is_empty() {
        writeln!(f, "{gutter} = key: {}", finding.key)?;
    }
    if let Some(expected) = &finding.expected {
        writeln!(f, "{gutter} = expected: {expected}")?;
    }
    if let Some(help) = &finding.help {
        writeln!(f, "{gutter} = help: {help}")?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt_of(source: &str, column: usize, marked: usize) -> (String, String) {
        let source = source.to_owned();
        let (key, reason) = (String::new(), String::new());
        let severity = Severity::Error;
        let (expected, help) = (None, None);
        excerpt(&Diagnostic { severity, line: 1, column, key, reason, expected, help, source, marked })
    }

    #[test]
    fn of_a_long_line_the_marked_part_is_shown() {
        assert_eq!(excerpt_of("a = \"b\"", 5, 3), ("a = \"b\"".to_owned(), "    ^^^".to_owned()));
        assert_eq!(excerpt_of("\ta = 1", 6, 1).1, "\t    ^");
        assert_eq!(excerpt_of("a = ", 7, 1).1, "      ^");
        let long = format!("{}x{}", "a".repeat(1000), "b".repeat(1000));
        let (shown, marks) = excerpt_of(&long, 1001, 1);
        assert_eq!((shown.find('x'), marks.find('^')), (Some(63), Some(63)));
        assert!(shown.starts_with("...aa") && shown.ends_with("bb...") && shown.len() == 166, "{shown}");
        assert_eq!(excerpt_of(&long, 1, 2001).1, "^".repeat(160));
        assert_eq!(excerpt_of(&long, 2001, 1).1, format!("{}^", " ".repeat(63)));
    }
}
