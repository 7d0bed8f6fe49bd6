//! What keeps a machine from being ready, or should not stay as it is.

use std::fmt;

use crate::Condition;
use crate::table::span;

impl Condition {
    /// One that has just come up.
    #[must_use]
    pub fn new(name: &str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into(), fix: fix.into(), ..Self::default() }
    }

    /// The same, about something in particular.
    #[must_use]
    pub fn about(self, subject: &str) -> Self {
        Self { subject: subject.to_owned(), ..self }
    }

    /// Reads what [`Condition::to_text`] wrote; `None` of an empty text. A text without a name is named `fallback`.
    #[must_use]
    pub fn parse(fallback: &str, text: &str) -> Option<Self> {
        let (first, fix) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
        let is_name = |word: &str| word.starts_with(|c: char| c.is_ascii_uppercase()) && !word.contains(' ');
        let (name, why) = match first.split_once(": ") {
            Some((name, why)) if is_name(name) => (name, why),
            _ => (fallback, first),
        };
        (!first.is_empty()).then(|| Self::new(name, why, fix.trim()))
    }

    /// For a file that the first process reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line = |text: &str| text.replace('\n', " ");
        format!("{}: {}\n{}\n", self.name, line(&self.why), line(&self.fix))
    }

    /// For people, on the console and elsewhere, some seconds after boot.
    #[must_use]
    pub fn describe(&self, now_seconds: f64) -> String {
        let fix = if self.fix.is_empty() { String::new() } else { format!("\n  what helps: {}", self.fix) };
        format!("{}, for {}: {}{fix}", self.title(), span(now_seconds - self.since_seconds), self.why)
    }

    /// Its name, and what it is about.
    #[must_use]
    pub fn title(&self) -> String {
        if self.subject.is_empty() { self.name.clone() } else { format!("{} {}", self.name, self.subject) }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_reads_back_from_its_text() {
        let condition = Condition::new("EtcdAlarm", "etcd has raised NOSPACE", "defragment\nit");
        let read = Condition::parse("Etcd", &condition.to_text()).unwrap();
        assert_eq!(read, Condition { fix: "defragment it".to_owned(), ..condition });
        let plain = Condition::parse("Node", "the Node m1 is not Ready: it starts").unwrap();
        assert_eq!((plain.name.as_str(), plain.why.as_str()), ("Node", "the Node m1 is not Ready: it starts"));
        assert_eq!(Condition::parse("Node", "\n"), None);
    }

    #[test]
    fn a_description_says_since_when_and_what_helps() {
        let condition = Condition { since_seconds: 10.0, ..Condition::new("ServiceNotReady", "etcd starts", "wait") };
        let text = condition.about("etcd").describe(85.0);
        assert_eq!(text, "ServiceNotReady etcd, for 1m15s: etcd starts\n  what helps: wait");
    }
}
