//! Named formats of text, such as names of objects.

use base64::Engine as _;

use super::{Row, time, url};
use crate::error::{EvalError, Result};
use crate::value::Value;

pub(crate) const ROWS: &[Row] = &[
    ("validate", "format.(string) -> optional(list(string))", validate),
    ("format.named", "(string) -> optional(format)", named),
    ("format.dns1123Label", "() -> format", |_| Ok(Value::Format(&FORMATS[0]))),
    ("format.dns1123Subdomain", "() -> format", |_| Ok(Value::Format(&FORMATS[1]))),
    ("format.dns1035Label", "() -> format", |_| Ok(Value::Format(&FORMATS[2]))),
    ("format.qualifiedName", "() -> format", |_| Ok(Value::Format(&FORMATS[3]))),
    ("format.dns1123LabelPrefix", "() -> format", |_| Ok(Value::Format(&FORMATS[4]))),
    ("format.dns1123SubdomainPrefix", "() -> format", |_| Ok(Value::Format(&FORMATS[5]))),
    ("format.dns1035LabelPrefix", "() -> format", |_| Ok(Value::Format(&FORMATS[6]))),
    ("format.labelValue", "() -> format", |_| Ok(Value::Format(&FORMATS[7]))),
    ("format.uri", "() -> format", |_| Ok(Value::Format(&FORMATS[8]))),
    ("format.uuid", "() -> format", |_| Ok(Value::Format(&FORMATS[9]))),
    ("format.byte", "() -> format", |_| Ok(Value::Format(&FORMATS[10]))),
    ("format.date", "() -> format", |_| Ok(Value::Format(&FORMATS[11]))),
    ("format.datetime", "() -> format", |_| Ok(Value::Format(&FORMATS[12]))),
];

/// A named format of text.
pub struct Format {
    name: &'static str,
    check: fn(&str) -> Vec<String>,
    /// What the cost model takes for the length of its pattern.
    pub(crate) pattern_length: u64,
}

static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", check: |t| label_1123(t), pattern_length: 30 },
    Format { name: "dns1123Subdomain", check: |t| subdomain(t), pattern_length: 60 },
    Format { name: "dns1035Label", check: |t| label_1035(t), pattern_length: 30 },
    Format { name: "qualifiedName", check: qualified_name, pattern_length: 60 },
    Format { name: "dns1123LabelPrefix", check: |t| label_1123(&without_dash(t)), pattern_length: 30 },
    Format { name: "dns1123SubdomainPrefix", check: |t| subdomain(&without_dash(t)), pattern_length: 60 },
    Format { name: "dns1035LabelPrefix", check: |t| label_1035(&without_dash(t)), pattern_length: 30 },
    Format { name: "labelValue", check: label_value, pattern_length: 40 },
    Format { name: "uri", check: |t| url::read(t).err().into_iter().collect(), pattern_length: 1000 },
    Format { name: "uuid", check: |t| simple(is_uuid(t), "does not match the UUID format"), pattern_length: 66 },
    Format { name: "byte", check: |t| simple(is_base64(t), "invalid base64"), pattern_length: 90 },
    Format { name: "date", check: |t| simple(is_date(t), "invalid date"), pattern_length: 100 },
    Format {
        name: "datetime",
        check: |t| simple(time::parse_timestamp(t).is_some(), "invalid datetime"),
        pattern_length: 100,
    },
];

fn simple(holds: bool, otherwise: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![otherwise.to_owned()] }
}

/// A prefix may end in a dash: something will follow it.
fn without_dash(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.to_owned(),
    }
}

fn too_long(most: usize) -> String {
    format!("must be no more than {most} bytes")
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(is_alphanumeric);
    ends(text.chars().next()) && ends(text.chars().last()) && text.chars().all(|c| is_alphanumeric(c) || c == '-')
}

fn label_1123(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(too_long(63));
    }
    if !is_label(text) {
        errors.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    errors
}

fn subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push(too_long(253));
    }
    if !text.split('.').all(is_label) {
        errors.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    errors
}

fn label_1035(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(too_long(63));
    }
    if !is_label(text) || text.starts_with(|c: char| c.is_ascii_digit()) {
        errors.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    errors
}

fn is_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ends(text.chars().next()) && ends(text.chars().last()) && text.chars().all(inside)
}

fn qualified_name(text: &str) -> Vec<String> {
    const FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation \
                        is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let parts: Vec<&str> = text.split('/').collect();
    let mut errors = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            let hint = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {FORM}{hint}")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", too_long(63)));
    }
    if !is_name(name) {
        errors.push(format!("name part {FORM}"));
    }
    errors
}

fn label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push(too_long(63));
    }
    if !text.is_empty() && !is_name(text) {
        errors.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    errors
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && time::parse_timestamp(&format!("{text}T00:00:00Z")).is_some()
}

fn validate<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Value::Format(format), Value::String(text)] = args else { return Err(EvalError::no_overload()) };
    let errors = (format.check)(text);
    if errors.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(errors.into_iter().map(Value::from).collect())))
}

fn named<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let name = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    let found = FORMATS.iter().find(|f| f.name == name);
    Ok(found.map_or(Value::Optional(None), |f| Value::some(Value::Format(f))))
}
