//! Configuration documents, read so that everything wrong with one is told at once and by its path.
//!
//! A [`Document`] is YAML or JSON. A [`Node`] is a place in it; its readers return what is there, or a default, and
//! note what is not as it should be. [`Document::finish`] hands out the notes.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde_json::Value;

/// Largest document that is read: a configuration file, not data.
const MAX_BYTES: usize = 8 << 20;
/// Most notes that are kept.
const MAX_NOTES: usize = 64;

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            some => write!(f, "[{}]", some.join(", ")),
        }
    }
}

impl std::error::Error for Invalid {}

/// A document that is being read.
#[derive(Debug)]
pub struct Document {
    root: Value,
    notes: RefCell<Vec<String>>,
    unknown: RefCell<Vec<String>>,
}

impl Document {
    /// Reads the text of a document of one of these API versions, of this kind.
    ///
    /// # Errors
    /// When it is no YAML, or says that it is something else.
    pub fn parse(text: &str, versions: &[&str], kind: &str) -> Result<Self, Invalid> {
        let document = Self::parse_any(text)?;
        let told = |key: &str| document.root[key].as_str().unwrap_or_default().to_owned();
        if !versions.contains(&told("apiVersion").as_str()) {
            let expected = versions.join(" or ");
            return Err(Invalid(vec![format!("apiVersion: {:?} is not {expected}", told("apiVersion"))]));
        }
        if told("kind") != kind {
            return Err(Invalid(vec![format!("kind: {:?} is not {kind}", told("kind"))]));
        }
        Ok(document)
    }

    /// Reads the text of a document of any kind.
    ///
    /// # Errors
    /// When it is no YAML.
    pub fn parse_any(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_BYTES {
            return Err(Invalid(vec![format!("the document is larger than {MAX_BYTES} bytes")]));
        }
        let tree: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|e| Invalid(vec![e.to_string()]))?;
        let root = serde_json::to_value(tree).map_err(|e| Invalid(vec![e.to_string()]))?;
        Ok(Self { root, notes: RefCell::default(), unknown: RefCell::default() })
    }

    /// The document as a whole.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        Node { document: self, path: String::new(), hidden: 0..0, value: &self.root }
    }

    /// The `apiVersion`.
    #[must_use]
    pub fn api_version(&self) -> &str {
        self.root["apiVersion"].as_str().unwrap_or_default()
    }

    /// Fields that nobody asked for, where a reader looked for them with [`Node::only`].
    #[must_use]
    pub fn unknown(&self) -> Vec<String> {
        self.unknown.borrow().clone()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When anything was noted.
    pub fn finish(&self) -> Result<(), Invalid> {
        let notes = self.notes.borrow();
        if notes.is_empty() { Ok(()) } else { Err(Invalid(notes.clone())) }
    }

    /// Ends the reading, with fields that nobody knows among what is wrong.
    ///
    /// # Errors
    /// When anything was noted.
    pub fn finish_strictly(&self) -> Result<(), Invalid> {
        let mut notes: Vec<String> =
            self.unknown.borrow().iter().map(|path| format!("unknown field {path:?}")).collect();
        notes.extend(self.notes.borrow().iter().cloned());
        if notes.is_empty() { Ok(()) } else { Err(Invalid(notes)) }
    }
}

/// A place in a document.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    document: &'a Document,
    path: String,
    /// The part of the path that notes leave out.
    hidden: Range<usize>,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is there.
    #[must_use]
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Whether something is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.value.is_null()
    }

    /// Notes that something is wrong here.
    pub fn note(&self, what: impl fmt::Display) {
        let mut notes = self.document.notes.borrow_mut();
        if notes.len() < MAX_NOTES {
            let (start, end) = (&self.path[..self.hidden.start], &self.path[self.hidden.end..]);
            notes.push(if self.path.is_empty() { what.to_string() } else { format!("{start}{end}: {what}") });
        }
    }

    /// The place as one whose own name notes leave out, so that its fields look like those of `parent`.
    #[must_use]
    pub fn merged_into(mut self, parent: &Self) -> Self {
        self.hidden = parent.path.len()..self.path.len();
        self
    }

    /// Notes that something has to be here.
    pub fn require(&self, why: &str) {
        self.note(if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") });
    }

    /// Notes that the value is no good.
    pub fn invalid(&self, why: &str) {
        self.note(format!("Invalid value: {}: {why}", self.value));
    }

    /// Remembers which fields of an object are unknown.
    #[must_use]
    pub fn only(self, known: &[&str]) -> Self {
        match self.value {
            Value::Object(map) => {
                let mut unknown = self.document.unknown.borrow_mut();
                for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
                    if unknown.len() < MAX_NOTES {
                        unknown.push(self.below(key));
                    }
                }
            }
            Value::Null => {}
            other => self.note(format!("expected an object, not {}", shape(other))),
        }
        self
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A field of an object; it may not be there.
    #[must_use]
    pub fn field(&self, key: &str) -> Self {
        let value = self.value.get(key).unwrap_or(&Value::Null);
        Self { document: self.document, path: self.below(key), hidden: self.hidden.clone(), value }
    }

    /// The elements of a list field.
    #[must_use]
    pub fn list(&self, key: &str) -> Vec<Self> {
        let field = self.field(key);
        match field.value {
            Value::Null => Vec::new(),
            Value::Array(items) => {
                let item = |(at, value)| Self { path: format!("{}[{at}]", field.path), value, ..field.clone() };
                items.iter().enumerate().map(item).collect()
            }
            other => {
                field.note(format!("expected a list, not {}", shape(other)));
                Vec::new()
            }
        }
    }

    /// The entries of an object field, by key.
    #[must_use]
    pub fn entries(&self, key: &str) -> Vec<(&'a str, Self)> {
        let field = self.field(key);
        match field.value {
            Value::Null => Vec::new(),
            Value::Object(map) => map.keys().map(|key| (key.as_str(), field.field(key))).collect(),
            other => {
                field.note(format!("expected an object, not {}", shape(other)));
                Vec::new()
            }
        }
    }

    /// The text here; empty if there is none.
    #[must_use]
    pub fn as_text(&self) -> &'a str {
        match self.value {
            Value::Null => "",
            Value::String(text) => text,
            other => {
                self.note(format!("expected a string, not {}", shape(other)));
                ""
            }
        }
    }

    /// A text field; empty if it is not there.
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        self.field(key).as_text().to_owned()
    }

    /// A field that is a list of texts.
    #[must_use]
    pub fn texts(&self, key: &str) -> Vec<String> {
        self.list(key).iter().map(|item| item.as_text().to_owned()).collect()
    }

    /// A field that is true or false.
    #[must_use]
    pub fn switch(&self, key: &str) -> Option<bool> {
        let field = self.field(key);
        match field.value {
            Value::Null => None,
            Value::Bool(value) => Some(*value),
            other => {
                field.note(format!("expected true or false, not {}", shape(other)));
                None
            }
        }
    }

    /// A field that is a whole number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<i64> {
        let field = self.field(key);
        match field.value {
            Value::Null => None,
            Value::Number(number) if number.as_i64().is_some() => number.as_i64(),
            other => {
                field.note(format!("expected a whole number, not {}", shape(other)));
                None
            }
        }
    }

    /// A text field that has to be one of these; the default stands for nothing.
    #[must_use]
    pub fn one_of(&self, key: &str, allowed: &[&'static str], default: Option<&'static str>) -> &'static str {
        let field = self.field(key);
        let text = field.as_text();
        if let Some(found) = allowed.iter().find(|value| **value == text) {
            return found;
        }
        match default {
            Some(default) if text.is_empty() => return default,
            _ if text.is_empty() => field.require(""),
            _ => field.note(format!("Unsupported value: {text:?}: supported values: {}", quoted_list(allowed))),
        }
        default.or(allowed.first().copied()).unwrap_or_default()
    }
}

fn quoted_list(values: &[&str]) -> String {
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "apiVersion: a/v1\nkind: Thing\nname: 3\nrules:\n- level: Low\n- level: Odd\n  more: 1\n";

    #[test]
    fn everything_wrong_is_told_by_its_path() {
        let document = Document::parse(TEXT, &["a/v1"], "Thing").unwrap();
        let root = document.root().only(&["apiVersion", "kind", "name", "rules"]);
        assert_eq!(root.text("name"), "");
        let levels: Vec<&str> = root
            .list("rules")
            .into_iter()
            .map(|rule| rule.only(&["level"]).one_of("level", &["Low", "High"], None))
            .collect();
        assert_eq!(levels, ["Low", "Low"]);
        assert_eq!(
            document.finish_strictly().unwrap_err().0,
            [
                r#"unknown field "rules[1].more""#,
                "name: expected a string, not a number",
                r#"rules[1].level: Unsupported value: "Odd": supported values: "Low", "High""#,
            ]
        );
    }

    #[test]
    fn notes_leave_out_the_name_of_a_place_that_is_merged() {
        let document = Document::parse_any("outer: {inner: {list: [{name: 1, odd: 1}]}}").unwrap();
        let outer = document.root().field("outer");
        for item in outer.field("inner").merged_into(&outer).list("list") {
            assert_eq!(item.only(&["name"]).text("name"), "");
        }
        let expected =
            [r#"unknown field "outer.inner.list[0].odd""#, "outer.list[0].name: expected a string, not a number"];
        assert_eq!(document.finish_strictly().unwrap_err().0, expected);
    }

    #[test]
    fn other_kinds_and_repeated_keys_are_refused() {
        let refused = |text| Document::parse(text, &["a/v1", "a/v1beta1"], "Thing").unwrap_err().to_string();
        assert_eq!(refused("apiVersion: b/v1"), r#"apiVersion: "b/v1" is not a/v1 or a/v1beta1"#);
        assert_eq!(refused("apiVersion: a/v1\nkind: X"), r#"kind: "X" is not Thing"#);
        assert!(refused("a: 1\na: 2").contains("duplicate"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\n]{0,200}") {
            if let Ok(document) = Document::parse_any(&text) {
                let root = document.root().only(&["a"]);
                let _read = (root.text("a"), root.list("b").len(), root.number("c"), root.switch("d"), root.entries("e").len());
                let _either_way = document.finish();
            }
        }
    }
}
