//! What can be wrong with an expression, or with its evaluation.

use std::fmt;

/// One thing that is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1.
    pub line: u32,
    /// From 0.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// An expression does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct CompileError {
    /// Everything that is wrong, in order of the source.
    pub issues: Vec<Issue>,
    source_lines: Vec<String>,
    /// Why no program can be made of an expression that is right by its types.
    instantiation: Option<String>,
}

/// Messages that are listed; the rest is counted.
const MAX_ISSUES: usize = 100;
/// Longer lines are not shown.
const MAX_SNIPPET_BYTES: usize = 16_384;

impl CompileError {
    pub(crate) fn new(source: &str, mut problems: Vec<(u32, String)>) -> Self {
        problems.sort_by_key(|(at, _)| *at);
        let starts: Vec<usize> = std::iter::once(0)
            .chain(source.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(i, _)| i + 1))
            .collect();
        let issues = problems.into_iter().map(|(at, message)| {
            let line = starts.partition_point(|start| *start <= at as usize).max(1);
            let column = at as usize - starts[line - 1];
            Issue { line: line.try_into().unwrap_or(u32::MAX), column: column.try_into().unwrap_or(u32::MAX), message }
        });
        Self {
            issues: issues.collect(),
            source_lines: source.split('\n').map(str::to_owned).collect(),
            instantiation: None,
        }
    }

    pub(crate) fn instantiation(text: String) -> Self {
        Self { issues: Vec::new(), source_lines: Vec::new(), instantiation: Some(text) }
    }

    /// The whole message, with what failed.
    #[must_use]
    pub fn detail(&self) -> String {
        match &self.instantiation {
            Some(_) => format!("program instantiation failed: {self}"),
            None => format!("compilation failed: {self}"),
        }
    }

    fn text(&self) -> String {
        if let Some(text) = &self.instantiation {
            return text.clone();
        }
        let shown = self.issues.iter().take(MAX_ISSUES).map(|issue| self.one(issue));
        let mut lines: Vec<String> = shown.collect();
        if self.issues.len() > MAX_ISSUES {
            lines.push(format!("{} more errors were truncated", self.issues.len() - MAX_ISSUES));
        }
        lines.join("\n")
    }

    fn one(&self, issue: &Issue) -> String {
        if self.source_lines.iter().all(String::is_empty) {
            return format!("ERROR: <input>:1:0: {}", issue.message);
        }
        let mut text = format!("ERROR: <input>:{}:{}: {}", issue.line, issue.column + 1, issue.message);
        let line = self.source_lines.get(issue.line as usize - 1).filter(|l| l.len() <= MAX_SNIPPET_BYTES);
        if let Some(line) = line {
            let line = line.replace('\t', " ");
            text.push_str("\n | ");
            text.push_str(&line);
            text.push_str("\n | ");
            let mut chars = line.chars();
            for _ in 0..issue.column {
                match chars.next() {
                    Some(c) if c.len_utf8() > 1 => text.push('\u{ff0e}'),
                    Some(_) => text.push('.'),
                    None => break,
                }
            }
            text.push(if chars.next().is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' });
        }
        text
    }
}

/// An evaluation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// What failed.
    pub kind: EvalErrorKind,
    text: String,
}

/// What failed in an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalErrorKind {
    /// The expression itself; `||` and `&&` may make up for it.
    Value,
    /// One call of the program cost too much.
    CallLimit,
    /// All calls together cost too much.
    Budget,
}

impl EvalError {
    /// An error of the expression itself.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { kind: EvalErrorKind::Value, text: text.into() }
    }

    pub(crate) fn call_limit() -> Self {
        Self { kind: EvalErrorKind::CallLimit, text: "operation cancelled: actual cost limit exceeded".to_owned() }
    }

    pub(crate) fn budget() -> Self {
        let text = "validation failed due to running out of cost budget, no further validation rules will be run";
        Self { kind: EvalErrorKind::Budget, text: text.to_owned() }
    }

    pub(crate) fn no_overload() -> Self {
        Self::new("no such overload")
    }

    /// Whether nothing can make up for it.
    pub(crate) fn is_final(&self) -> bool {
        self.kind != EvalErrorKind::Value
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for EvalError {}

pub(crate) type Result<T> = std::result::Result<T, EvalError>;
