//! The text format that monitoring reads: Prometheus' exposition format, version 0.0.4.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

use crate::Histogram;

/// What the text is sent as.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics written out, one family after the other.
#[derive(Default)]
pub struct Text(String);

/// Names and values that tell the series of one family apart.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    /// Begins a family: its name, its type, and what it tells.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One series with its value.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _infallible = writeln!(self.0, " {value}");
    }

    /// One series with its value and when it was measured, in milliseconds since 1970.
    pub fn sample_at(&mut self, name: &str, labels: Labels<'_>, value: impl Display, millis: i64) {
        self.sample(name, labels, format_args!("{value} {millis}"));
    }

    /// A family of a single series without labels.
    pub fn single(&mut self, (name, kind): (&str, &str), help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The series of a histogram.
    pub fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let mut total = 0;
        for (bound, count) in histogram.cumulative() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            let _infallible = write!(self.0, "{name}_bucket");
            self.labels(labels, Some(&bound));
            let _infallible = writeln!(self.0, " {count}");
            total = count;
        }
        for (suffix, value) in [("_sum", histogram.sum().to_string()), ("_count", total.to_string())] {
            let _infallible = write!(self.0, "{name}{suffix}");
            self.labels(labels, None);
            let _infallible = writeln!(self.0, " {value}");
        }
    }

    fn labels(&mut self, labels: Labels<'_>, bound: Option<&str>) {
        let all = labels.iter().copied().chain(bound.map(|b| ("le", b)));
        for (at, (name, value)) in all.enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _infallible = write!(self.0, "{name}=\"{value}\"");
        }
        if !labels.is_empty() || bound.is_some() {
            self.0.push('}');
        }
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

/// A text without some families, by their names.
#[must_use]
pub fn without(text: String, disabled: &BTreeSet<String>) -> String {
    if disabled.is_empty() {
        return text;
    }
    let mut is_shown = true;
    let lines = text.split_inclusive('\n').filter(|line| {
        if let Some(name) = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()) {
            is_shown = !disabled.contains(name);
        }
        is_shown
    });
    lines.collect()
}

/// One text of several that tell of the same families: each family once, with the series of all.
#[must_use]
pub fn merged<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut families: Vec<(&str, Vec<&str>)> = Vec::new();
    for text in texts {
        let mut at = None;
        for line in text.split_inclusive('\n') {
            let head = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next());
            if let Some(name) = head {
                at = Some(families.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                    families.push((name, Vec::new()));
                    families.len() - 1
                }));
            }
            let Some((_, lines)) = at.and_then(|at| families.get_mut(at)) else { continue };
            if !line.starts_with('#') || !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    families.into_iter().flat_map(|(_, lines)| lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_is_not_shown_is_gone_as_a_whole() {
        let mut text = Text::default();
        for name in ["a", "b", "c"] {
            text.family(name, "gauge", "About it.");
            text.sample(name, &[("x", "y")], 1);
        }
        let left = without(text.finish(), &BTreeSet::from(["b".to_owned()]));
        assert!(
            left.contains("\nc{x=") && left.starts_with("# HELP a ") && !left.contains("b{") && !left.contains(" b\n"),
            "{left}"
        );
    }

    #[test]
    fn families_of_several_texts_are_told_once() {
        let text = |names: &[&str], server: &str| {
            let mut text = Text::default();
            for name in names {
                text.family(name, "counter", "About it.");
                text.sample(name, &[("server", server)], 1);
            }
            text.finish()
        };
        let (one, other) = (text(&["a", "b"], "x"), text(&["b", "c"], "y"));
        let expected = "# HELP a About it.\n# TYPE a counter\na{server=\"x\"} 1\n\
                        # HELP b About it.\n# TYPE b counter\nb{server=\"x\"} 1\nb{server=\"y\"} 1\n\
                        # HELP c About it.\n# TYPE c counter\nc{server=\"y\"} 1\n";
        assert_eq!(merged([one.as_str(), other.as_str()]), expected);
        assert_eq!(merged(["", "no metrics at all\n", one.as_str()]), one);
    }

    #[test]
    fn series_are_lines_with_quoted_labels() {
        let mut text = Text::default();
        text.family("a", "gauge", "About a.");
        text.sample("a", &[("x", "say \"hi\"\n")], 3);
        text.sample_at("a", &[], 1.5, 2000);
        let histogram = Histogram::new(&[0.5]);
        histogram.observe(2.0);
        text.histogram("b", &[], &histogram);
        let expected = "# HELP a About a.\n# TYPE a gauge\na{x=\"say \\\"hi\\\"\\n\"} 3\na 1.5 2000\n\
                        b_bucket{le=\"0.5\"} 0\nb_bucket{le=\"+Inf\"} 1\nb_sum 2\nb_count 1\n";
        assert_eq!(text.finish(), expected);
    }
}
