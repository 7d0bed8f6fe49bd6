//! What a client hands back for the next page of a list. It is read from the outside, and may be anything.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use crate::codec;
use crate::status::{Failure, Result};

const VERSION: &str = "meta.k8s.io/v1";
/// The revision of whoever goes on in what is there now.
pub(super) const NOW: i64 = -1;

/// What a continue token holds.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Token {
    v: String,
    /// The revision of the list.
    pub(super) rv: i64,
    /// The first key of the next page, within what is listed.
    pub(super) start: String,
}

/// The token of a page after `last`, as keys of upstream's are spelt.
pub(super) fn encode(revision: i64, last: &str) -> String {
    let token = Token { v: VERSION.to_owned(), rv: revision, start: format!("{last}\0") };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// Reads a token; its key leads nowhere else.
pub(super) fn parse(text: &str) -> Result<Token> {
    let bad = |why: &str| Failure::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad(&base64_complaint(text)))?;
    // What is no JSON at all is told in the words that clients know, as is what is missing or of another type.
    let value = serde_json::from_slice(&bytes).map_err(|_| bad(&codec::syntax_complaint(&bytes)))?;
    let token = of_value(&value).map_err(|why| bad(&why))?;
    if token.v != VERSION {
        return Err(bad(&format!("server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(bad(&format!("incorrect encoded start resourceVersion (version {VERSION})")));
    }
    if token.start.is_empty() {
        return Err(bad(&format!("encoded start key empty (version {VERSION})")));
    }
    let leaves = |part: &str| matches!(part, "." | "..");
    if token.start.trim_start_matches('/').split('/').any(leaves) {
        return Err(bad(&token.start));
    }
    Ok(token)
}

/// The token in a document. What is missing is empty, and names may be in other cases.
fn of_value(value: &Value) -> std::result::Result<Token, String> {
    let mut token = Token { v: String::new(), rv: 0, start: String::new() };
    let refused = |value: &Value, what: &str| format!("json: cannot unmarshal {} into Go {what}", shown(value));
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => return Ok(token),
        other => return Err(refused(other, "value of type storage.continueToken")),
    };
    for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let key = key.to_ascii_lowercase();
        match (key.as_str(), value.as_str(), value.as_i64()) {
            ("v", Some(text), _) => token.v = text.to_owned(),
            ("start", Some(text), _) => token.start = text.to_owned(),
            ("rv", _, Some(revision)) => token.rv = revision,
            ("v" | "start", ..) => {
                return Err(refused(value, &format!("struct field continueToken.{key} of type string")));
            }
            ("rv", ..) => return Err(refused(value, "struct field continueToken.rv of type int64")),
            _ => {}
        }
    }
    Ok(token)
}

/// What was found, with a number's digits.
fn shown(value: &Value) -> String {
    let name = codec::json_type(value);
    if value.is_number() { format!("{name} {value}") } else { name.to_owned() }
}

/// Where a text stops being base64, in the words that clients know.
fn base64_complaint(text: &str) -> String {
    let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let at = text.bytes().position(|b| !known(&b)).unwrap_or(text.len().saturating_sub(1));
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mutation;

    fn is_sound(token: &Token) -> bool {
        let is_inside = token.start.trim_start_matches('/').split('/').all(|part| part != "." && part != "..");
        token.rv != 0 && !token.start.is_empty() && is_inside
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            if let Ok(token) = parse(&text) {
                prop_assert!(is_sound(&token));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(token) = parse(&URL_SAFE_NO_PAD.encode(bytes)) {
                prop_assert!(is_sound(&token));
            }
        }

        #[test]
        fn a_damaged_token_is_read_or_refused(revision in any::<i64>(), edits in mutation::edits(), is_inside in any::<bool>()) {
            let whole = encode(revision, "default/load-00001");
            let damaged = if is_inside {
                URL_SAFE_NO_PAD.encode(mutation::edited(&URL_SAFE_NO_PAD.decode(whole).unwrap(), &edits))
            } else {
                String::from_utf8_lossy(&mutation::edited(whole.as_bytes(), &edits)).into_owned()
            };
            if let Ok(token) = parse(&damaged) {
                prop_assert!(is_sound(&token));
            }
        }

        #[test]
        fn any_document_is_read_or_refused(
            version in prop::sample::select(&[VERSION, "v2", ""][..]),
            revision in prop_oneof![Just(0), Just(NOW), any::<i64>()],
            start in "(/?(\\.|\\.\\.|[a-z\\x00]{0,3})){0,4}",
        ) {
            let document = serde_json::json!({"v": version, "rv": revision, "start": start});
            let read = parse(&URL_SAFE_NO_PAD.encode(document.to_string()));
            let wanted = Token { v: version.to_owned(), rv: revision, start };
            prop_assert_eq!(read.is_ok(), version == VERSION && is_sound(&wanted));
        }

        #[test]
        fn a_token_is_read_as_it_was_written(revision in 1..i64::MAX, last in "/?[a-z0-9-]{1,9}(/[a-z0-9-]{1,9})?") {
            let read = parse(&encode(revision, &last)).unwrap();
            prop_assert_eq!((read.rv, read.start), (revision, format!("{last}\0")));
        }
    }
}
