//! What is wrong with a field of an object.

use std::fmt;

use api::schema::Message;
use serde_json::Value;
use stdx::quoted;

/// What is wrong with one field.
#[derive(Clone, Debug)]
pub struct FieldError {
    kind: Fault,
    field: String,
    value: Option<Shown>,
    detail: String,
}

/// A value as error texts show it.
#[derive(Clone, Debug)]
pub struct Shown {
    text: String,
    /// What the text was made of, where that is a structure.
    origin: Option<Box<Origin>>,
    /// Whether it is a list.
    is_list: bool,
}

/// A structure, and how it is spelled.
#[derive(Clone, Debug)]
struct Origin {
    message: &'static Message,
    value: Value,
    spell: Spell,
}

/// Spells a structure, completed by what the client gave for it.
pub type Spell = fn(&'static Message, &Value, given: Option<&Value>) -> String;

impl Shown {
    /// A structure that is already spelled as it is shown.
    #[must_use]
    pub fn spelled(text: impl Into<String>) -> Self {
        Self { text: text.into(), origin: None, is_list: false }
    }

    /// A structure that is spelled anew once it is known what the client gave.
    #[must_use]
    pub fn structure(message: &'static Message, value: Value, spell: Spell) -> Self {
        let text = spell(message, &value, None);
        Self { text, origin: Some(Box::new(Origin { message, value, spell })), is_list: false }
    }

    /// A list without members.
    #[must_use]
    pub fn no_list() -> Self {
        Self { is_list: true, ..Self::spelled("null") }
    }

    /// Shows the lists and maps, too, that hold nothing: `given` is what the client wrote for the field.
    fn complete(&mut self, given: &Value) {
        match (&self.origin, given) {
            (Some(origin), _) if !origin.value.is_null() => {
                self.text = (origin.spell)(origin.message, &origin.value, Some(given));
            }
            (_, Value::Array(list)) if list.is_empty() && self.text == "null" => self.text = "[]".to_owned(),
            (_, Value::Object(map)) if map.is_empty() && self.text == "null" && !self.is_list => {
                self.text = "{}".to_owned();
            }
            _ => {}
        }
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        Self::spelled(quoted(text).to_string())
    }
}

impl From<&String> for Shown {
    fn from(text: &String) -> Self {
        Self::spelled(quoted(text).to_string())
    }
}

impl From<String> for Shown {
    fn from(text: String) -> Self {
        Self::spelled(quoted(&text).to_string())
    }
}

/// A JSON text that is safe within HTML.
#[must_use]
pub fn escaped(text: &str) -> String {
    const ESCAPED: [(char, &str); 5] =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    ESCAPED.iter().fold(text.to_owned(), |text, (c, escape)| text.replace(*c, escape))
}

impl From<Value> for Shown {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => Self::spelled(quoted(&text).to_string()),
            // Structures are shown as JSON that is safe within HTML.
            Value::Array(_) | Value::Object(_) => Self::spelled(escaped(&value.to_string())),
            Value::Number(number) => Self::spelled(stdx::go_number(&number)),
            Value::Null | Value::Bool(_) => Self::spelled(value.to_string()),
        }
    }
}

macro_rules! shown_as_they_are {
    ($($type:ty),*) => {$(
        impl From<$type> for Shown {
            fn from(value: $type) -> Self {
                Self::spelled(value.to_string())
            }
        }
    )*};
}

shown_as_they_are!(bool, i32, i64, u32, u64, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Required,
    Invalid,
    TypeInvalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    NotFound,
    Internal,
}

impl Fault {
    /// The machine readable reason and the text.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Required => ("FieldValueRequired", "Required value"),
            Self::Invalid => ("FieldValueInvalid", "Invalid value"),
            Self::TypeInvalid => ("FieldValueTypeInvalid", "Invalid value"),
            Self::NotSupported => ("FieldValueNotSupported", "Unsupported value"),
            Self::Duplicate => ("FieldValueDuplicate", "Duplicate value"),
            Self::Forbidden => ("FieldValueForbidden", "Forbidden"),
            Self::TooLong => ("FieldValueTooLong", "Too long"),
            Self::TooShort => ("FieldValueTooShort", "Too short"),
            Self::TooMany => ("FieldValueTooMany", "Too many"),
            Self::TooFew => ("FieldValueTooFew", "Too few"),
            Self::NotFound => ("FieldValueNotFound", "Not found"),
            Self::Internal => ("InternalError", "Internal error"),
        }
    }
}

impl FieldError {
    fn new(kind: Fault, field: impl Into<String>, value: Option<Shown>, detail: impl Into<String>) -> Self {
        Self { kind, field: field.into(), value, detail: detail.into() }
    }

    /// A value has to be given.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Required, field, None, detail)
    }

    /// The value given is not allowed.
    pub fn invalid(field: impl Into<String>, value: impl Into<Shown>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Invalid, field, Some(value.into()), detail)
    }

    /// The value given is not allowed, and is not shown.
    pub fn invalid_omitted(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Invalid, field, None, detail)
    }

    /// The value occurs twice, and is not shown.
    pub fn duplicate_omitted(field: impl Into<String>) -> Self {
        Self::new(Fault::Duplicate, field, None, "")
    }

    /// The value given has the wrong type.
    pub fn type_invalid(field: impl Into<String>, value: impl Into<Shown>, detail: impl Into<String>) -> Self {
        Self::new(Fault::TypeInvalid, field, Some(value.into()), detail)
    }

    /// The value is none of those allowed.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Shown>, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|a| quoted(a).to_string()).collect();
        let detail =
            if allowed.is_empty() { String::new() } else { format!("supported values: {}", allowed.join(", ")) };
        Self::new(Fault::NotSupported, field, Some(value.into()), detail)
    }

    /// The value occurs twice.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Shown>) -> Self {
        Self::new(Fault::Duplicate, field, Some(value.into()), "")
    }

    /// The value occurs twice, with what has to be unique.
    pub fn duplicate_because(field: impl Into<String>, value: impl Into<Shown>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Duplicate, field, Some(value.into()), detail)
    }

    /// The field must not be set, or not be changed.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Forbidden, field, None, detail)
    }

    /// The value is longer than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let s = if max == 1 { "" } else { "s" };
        Self::new(Fault::TooLong, field, None, format!("may not be more than {max} byte{s}"))
    }

    /// The value is longer than `max` characters.
    pub fn too_long_characters(field: impl Into<String>, max: usize) -> Self {
        let s = if max == 1 { "" } else { "s" };
        Self::new(Fault::TooLong, field, None, format!("may not be more than {max} character{s}"))
    }

    /// The value is shorter than `min` characters.
    pub fn too_short(field: impl Into<String>, min: usize) -> Self {
        let s = if min == 1 { "" } else { "s" };
        Self::new(Fault::TooShort, field, None, format!("must be at least {min} character{s}"))
    }

    /// The list or map holds more than `max`.
    pub fn too_many(field: impl Into<String>, count: usize, max: u64) -> Self {
        let s = if max == 1 { "" } else { "s" };
        Self::new(Fault::TooMany, field, Some(count.into()), format!("must have at most {max} item{s}"))
    }

    /// The list or map holds less than `min`.
    pub fn too_few(field: impl Into<String>, count: usize, min: u64) -> Self {
        let s = if min == 1 { "" } else { "s" };
        Self::new(Fault::TooFew, field, Some(count.into()), format!("must have at least {min} item{s}"))
    }

    /// The value names something that is not there, with what would be.
    pub fn not_found_because(field: impl Into<String>, value: impl Into<Shown>, detail: impl Into<String>) -> Self {
        Self::new(Fault::NotFound, field, Some(value.into()), detail)
    }

    /// The value names something that is not there.
    pub fn not_found(field: impl Into<String>, value: impl Into<Shown>) -> Self {
        Self::new(Fault::NotFound, field, Some(value.into()), "")
    }

    /// The field could not be looked at.
    pub fn internal(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Internal, field, None, detail)
    }

    /// The same, told of a field below another.
    #[must_use]
    pub fn below(mut self, field: &str) -> Self {
        if !field.is_empty() {
            self.field = format!("{field}.{}", self.field);
        }
        self
    }

    /// Shows the lists and maps of its value, too, that hold nothing; `object` is what the client wrote.
    pub fn complete(&mut self, object: &Value) {
        if let (Some(value), Some(given)) = (&mut self.value, at_path(object, &self.field)) {
            value.complete(given);
        }
    }

    /// Whether values are not what their schema says, so that rules about them make no sense.
    #[must_use]
    pub fn is_about_shape(&self) -> bool {
        matches!(
            self.kind,
            Fault::NotSupported | Fault::Required | Fault::TooLong | Fault::TooMany | Fault::TypeInvalid
        )
    }

    /// The path of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The machine readable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.kind.words().0
    }

    /// The text without the field.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.words().1.to_owned();
        for part in self.value.iter().map(|v| &v.text).chain(Some(&self.detail).filter(|d| !d.is_empty())) {
            text.push_str(": ");
            text.push_str(part);
        }
        text
    }
}

/// What is at the path of a field, such as `spec.items[0].labels[a.b/c]`.
fn at_path<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    let mut at = object;
    let mut rest = path;
    while !rest.is_empty() {
        let key;
        (key, rest) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => {
                let name = rest.trim_start_matches('.');
                name.split_at(name.find(['.', '[']).unwrap_or(name.len()))
            }
        };
        at = match at {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?)?,
            at => at.get(key)?,
        };
    }
    Some(at)
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.body()) } else { write!(f, "{}: {}", self.field, self.body()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_nothing_is_shown_as_it_was_given() {
        let object = serde_json::json!({"a": [{"b": {"c.d/e": []}}]});
        assert_eq!(at_path(&object, "a[0].b[c.d/e]"), Some(&serde_json::json!([])));
        assert_eq!((at_path(&object, "a[1]"), at_path(&object, "a[x].b")), (None, None));
        let mut error = FieldError::invalid("a[0].b[c.d/e]", Value::Null, "no");
        error.complete(&object);
        assert_eq!(error.to_string(), "a[0].b[c.d/e]: Invalid value: []: no");
    }

    #[test]
    fn texts_are_quoted_as_clients_know_it() {
        let cases = [("a", "\"a\""), ("a\"\\\n\u{1}\u{7f}é", r#""a\"\\\n\x01\x7fé""#), ("\u{200b}", r#""\u200b""#)];
        for (text, expected) in cases {
            assert_eq!(quoted(text).to_string(), expected);
        }
        let shown = FieldError::invalid("a", serde_json::json!({"k": "<b>"}), "no").to_string();
        assert_eq!(shown, r#"a: Invalid value: {"k":"\u003cb\u003e"}: no"#);
    }
}
