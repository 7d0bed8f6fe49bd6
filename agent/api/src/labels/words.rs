//! What is wrong with the keys and values of labels, in upstream's words; nothing is allocated if nothing is.

use std::borrow::Cow;

/// Bytes of a value, and of a key behind its prefix.
const MAX_WORD: usize = 63;
/// Bytes of a key's prefix.
const MAX_PREFIX: usize = 253;

/// What is said of a text that is no DNS subdomain.
pub const NO_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const NO_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const NO_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// What is wrong with a label's value.
#[must_use]
pub fn value_complaints(text: &str) -> Vec<Cow<'static, str>> {
    let mut found = Vec::new();
    if text.len() > MAX_WORD {
        found.push("must be no more than 63 bytes".into());
    }
    if !text.is_empty() && !is_word(text) {
        found.push(NO_VALUE.into());
    }
    found
}

/// What is wrong with a name that may have a DNS subdomain and a slash before it, such as a label's key.
#[must_use]
pub fn key_complaints(text: &str) -> Vec<Cow<'static, str>> {
    let mut found = Vec::new();
    let mut parts = text.split('/');
    let (name, prefix) = match (parts.next(), parts.next(), parts.next()) {
        (Some(prefix), Some(name), None) => (name, Some(prefix)),
        (Some(name), None, _) => (name, None),
        _ => {
            let optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {NO_NAME} {optional}").into()];
        }
    };
    match prefix {
        Some("") => found.push("prefix part must be non-empty".into()),
        Some(prefix) => {
            if prefix.len() > MAX_PREFIX {
                found.push("prefix part must be no more than 253 bytes".into());
            }
            if !is_subdomain(prefix) {
                found.push(format!("prefix part {NO_SUBDOMAIN}").into());
            }
        }
        None => {}
    }
    match name.len() {
        0 => found.push("name part must be non-empty".into()),
        1..=MAX_WORD => {}
        _ => found.push("name part must be no more than 63 bytes".into()),
    }
    if !is_word(name) {
        found.push(format!("name part {NO_NAME}").into());
    }
    found
}

/// Whether a text is a DNS subdomain, whatever its length.
fn is_subdomain(text: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_label = |part: &str| {
        let bytes = part.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|c| edge(Some(c)) || *c == b'-')
    };
    text.split('.').all(is_label)
}

/// Letters and digits, with dashes, lines and dots between them, whatever the length.
fn is_word(text: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|c| edge(Some(c)) || b"-_.".contains(c))
}
