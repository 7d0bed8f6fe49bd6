//! Collects findings while a manifest is read.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::source::{Source, hide_user};

/// More findings than this help nobody; the rest is counted.
const FINDINGS: usize = 200;

/// One finding before its position is known as line and column.
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) span: Range<usize>,
    pub(crate) key: String,
    pub(crate) reason: String,
    pub(crate) expected: Option<String>,
    pub(crate) help: Option<String>,
}

impl Finding {
    pub(crate) fn error(span: Range<usize>, key: impl Into<String>, reason: impl Into<String>) -> Self {
        let (key, reason) = (key.into(), reason.into());
        Self { severity: Severity::Error, span, key, reason, expected: None, help: None }
    }

    pub(crate) fn warning(span: Range<usize>, key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, key, reason) }
    }

    pub(crate) fn expected(&mut self, expected: impl Into<String>) -> &mut Self {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn did_you_mean(&mut self, suggestion: Option<&str>) -> &mut Self {
        match suggestion {
            Some(suggestion) => self.help(format!("did you mean `{suggestion}`?")),
            None => self,
        }
    }
}

/// Findings so far.
#[derive(Default)]
pub(crate) struct Findings {
    all: Vec<Finding>,
    /// Where the text is not TOML.
    broken: Vec<usize>,
}

impl Findings {
    /// Keeps a finding and hands it back, so that more can be said about it.
    pub(crate) fn push(&mut self, finding: Finding) -> &mut Finding {
        let index = self.all.len();
        self.all.push(finding);
        &mut self.all[index]
    }

    /// Keeps an error of syntax. What the parser made up to go on is not reported as well.
    pub(crate) fn push_broken_syntax(&mut self, span: Range<usize>, reason: String) {
        self.broken.push(span.start);
        self.push(Finding::error(span, "", reason));
    }

    pub(crate) fn has_broken_syntax(&self) -> bool {
        !self.broken.is_empty()
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.all.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Sorts the findings by place and gives them their lines.
    pub(crate) fn finish(mut self, file: &str, source: &Source<'_>) -> Diagnostics {
        let broken = self.broken;
        self.all.retain(|finding| finding.key.is_empty() || !broken.contains(&finding.span.start));
        self.all.sort_by_key(|finding| (finding.span.start, finding.span.end));
        let more = self.all.len().saturating_sub(FINDINGS);
        self.all.truncate(FINDINGS);
        if let (1.., Some(last)) = (more, self.all.last_mut()) {
            last.help = Some(format!("{more} more findings are not shown"));
        }
        let findings = self.all.into_iter().map(|finding| located(finding, source)).collect();
        Diagnostics { file: file.to_owned(), findings }
    }
}

fn located(finding: Finding, source: &Source<'_>) -> Diagnostic {
    let position = source.position(finding.span.start);
    let line = source.line(position.line);
    let room = (line.chars().count() + 1).saturating_sub(position.column).max(1);
    Diagnostic {
        severity: finding.severity,
        line: position.line,
        column: position.column,
        key: finding.key,
        reason: hide_user(&finding.reason),
        expected: finding.expected,
        help: finding.help.as_deref().map(hide_user),
        marked: source.marked_chars(&finding.span).min(room),
        source: line,
    }
}
