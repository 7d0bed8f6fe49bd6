//! Label selectors, in the query form (`a=b,c in (d,e),!f`) and the object form.

use std::collections::BTreeMap;

use crate::meta::v1::LabelSelector;

/// A conjunction of requirements; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    matches_nothing: bool,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The relation.
    pub operator: Operator,
    /// Values it relates to, sorted.
    pub values: Vec<String>,
}

/// Relation between a label and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of these.
    In,
    /// The value is none of these, or the label is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The value is an integer above this one.
    GreaterThan,
    /// The value is an integer below this one.
    LessThan,
}

/// Why text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text is no selector.
    #[error("{0}")]
    Syntax(String),
    /// An operator of the object form is unknown.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

mod parse;
mod words;

pub use words::{NO_SUBDOMAIN, key_complaints, value_complaints};

impl Selector {
    /// Matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), matches_nothing: true }
    }

    /// Labels that have to be exactly so.
    #[must_use]
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        Self { requirements: labels.iter().map(requirement).collect(), matches_nothing: false }
    }

    /// From the object form; none at all matches nothing, an empty one everything.
    ///
    /// # Errors
    /// When an operator is unknown.
    pub fn from_object(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut made = Self::from_map(&selector.match_labels);
        for expression in &selector.match_expressions {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            let mut values = expression.values.clone();
            values.sort();
            made.requirements.push(Requirement { key: expression.key.clone(), operator, values });
        }
        Ok(made)
    }

    /// From the query form.
    ///
    /// # Errors
    /// When a part is no requirement.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::requirements(text).map(|requirements| Self { requirements, ..Self::default() })
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// As [`Selector::matches`], for labels that are kept in another form.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.matches_nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Whether everything matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.matches_nothing
    }

    /// The requirements.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|wanted| wanted == v);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value, |a, b| a > b),
            Operator::LessThan => self.compare(value, |a, b| a < b),
        }
    }

    fn compare(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let parsed = |text: &str| text.parse::<i64>().ok();
        let limit = self.values.first().and_then(|v| parsed(v));
        value.and_then(parsed).zip(limit).is_some_and(|(a, b)| holds(a, b))
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let (key, values) = (&r.key, r.values.join(","));
            match r.operator {
                Operator::In if r.values.len() == 1 => write!(f, "{key}={values}")?,
                Operator::In => write!(f, "{key} in ({values})")?,
                Operator::NotIn if r.values.len() == 1 => write!(f, "{key}!={values}")?,
                Operator::NotIn => write!(f, "{key} notin ({values})")?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan => write!(f, "{key}>{values}")?,
                Operator::LessThan => write!(f, "{key}<{values}")?,
            }
        }
        Ok(())
    }
}

/// Whether `text` is a label key: an optional DNS prefix, a slash, a name of at most 63 characters.
#[must_use]
pub fn is_qualified_name(text: &str) -> bool {
    key_complaints(text).is_empty()
}

/// Whether `text` may be a label's value: empty, or at most 63 characters of the allowed ones.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    value_complaints(text).is_empty()
}

/// Whether `text` is a DNS label: lower case letters, digits and dashes, at most 63.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&bytes.len())
        && bytes.first().is_some_and(word)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|c| word(c) || *c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn query_selectors_select() {
        let object = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier in (back, front)", true),
            ("app!=web", false),
            ("!missing", true),
            ("missing", false),
            ("tier notin (back)", true),
            ("other notin (x)", true),
            ("n>4", true),
            ("n<5", false),
            ("other!=x", true),
            ("app in (a,b)", false),
            ("app", true),
            ("empty=", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&object), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["a in b", "a in (b", "a b", "=x", "a=b=c", "-a=b", ","] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        for (text, told) in [
            ("/a=b", "<nil>: Invalid value: \"/a\": prefix part must be non-empty"),
            ("a>x", "values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"),
            (&format!("a={}", "b".repeat(64)), "must be no more than 63 bytes"),
            ("a in (-,b,_)", "[values[0][a]: Invalid value: \"-\": a valid label must be"),
        ] {
            let failure = Selector::parse(text).unwrap_err().to_string();
            assert!(failure.contains(told), "{failure}");
        }
    }

    #[test]
    fn no_object_selector_matches_nothing_and_an_empty_one_everything() {
        assert!(!Selector::from_object(None).unwrap().matches(&labels(&[])));
        assert!(Selector::from_object(Some(&LabelSelector::default())).unwrap().matches(&labels(&[])));
    }

    #[test]
    fn selectors_are_written_as_they_are_read() {
        for text in ["a=b", "a in (b,c)", "!x", "y", "a!=b", "n>3"] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        }
    }
}
