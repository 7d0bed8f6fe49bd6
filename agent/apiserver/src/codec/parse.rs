//! Request bodies as trees, with what strict decoding finds.

use std::fmt;

use api::schema::Message;
use api::transcode::{self, Report};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{hostile, lines, plain, syntax};
use crate::negotiate::Encoding;
use crate::status::{Failure, Result};

/// A body as a tree.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The tree, with `kind` and `apiVersion` where the body names them.
    pub value: Value,
    /// What strict decoding says about fields that occur twice.
    pub duplicates: Vec<String>,
    /// Fields that are not known, once somebody has looked.
    pub unknown: Option<Vec<String>>,
}

/// Reads a body. `message` is the schema that protobuf bodies have.
pub fn parse_body(bytes: &[u8], encoding: Encoding, message: &'static Message) -> Result<Parsed> {
    match encoding {
        Encoding::Json => parse_json(bytes),
        Encoding::Yaml => parse_yaml(bytes),
        Encoding::Protobuf => parse_protobuf(bytes, message),
    }
}

/// Reads JSON and notes duplicate fields.
fn parse_json(bytes: &[u8]) -> Result<Parsed> {
    read_json(bytes).or_else(|| read_json(&hostile::mended(bytes)?)).ok_or_else(|| {
        let why = syntax::complaint(bytes);
        Failure::bad_request(format!("couldn't get version/kind; json parse error: {why}"))
    })
}

fn read_json(bytes: &[u8]) -> Option<Parsed> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Tree { path: String::new(), duplicates: &mut duplicates };
    let value = seed.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v)).ok()?;
    Some(Parsed { value, duplicates: told(duplicates), unknown: None })
}

fn told(duplicates: Vec<String>) -> Vec<String> {
    duplicates.into_iter().map(|path| format!("duplicate field {path:?}")).collect()
}

/// Reads the JSON of a patch, or says why it is none.
pub fn parse_patch(bytes: &[u8]) -> std::result::Result<Parsed, String> {
    let read = read_json(bytes).or_else(|| read_json(&hostile::mended(bytes)?));
    read.ok_or_else(|| syntax::complaint(bytes))
}

/// A value as Go prints maps and lists of interfaces.
#[must_use]
pub fn go_map(value: &Value) -> String {
    syntax::go_map(value)
}

/// A value as Go prints it with its types.
#[must_use]
pub fn go_syntax(value: &Value) -> String {
    syntax::go_syntax(value)
}

/// The type that a decoded value has in Go.
#[must_use]
pub fn go_type(value: &Value) -> &'static str {
    syntax::go_type(value)
}

/// Reads an applied configuration.
pub fn parse_apply(bytes: &[u8]) -> Result<Parsed> {
    let told = |f: Failure| {
        Failure::bad_request(format!("error decoding YAML: error converting YAML to JSON: {}", f.message()))
    };
    let parsed = parse_yaml(bytes).map_err(told)?;
    let found = match &parsed.value {
        Value::Object(_) | Value::Null => return Ok(parsed),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    Err(Failure::bad_request(format!(
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value \
         of type map[string]interface {{}}"
    )))
}

/// Reads the first document of a YAML text.
fn parse_yaml(bytes: &[u8]) -> Result<Parsed> {
    // JSON is YAML, and is read much faster as what it is.
    if let Some(parsed) = read_json(bytes).filter(|parsed| parsed.duplicates.is_empty()) {
        return Ok(parsed);
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(Parsed::default());
    }
    if hostile::nests_deeply(bytes) {
        return Err(Failure::bad_request(yaml_complaint(TOO_DEEP)));
    }
    let mut duplicates = Vec::new();
    let modern = std::str::from_utf8(bytes).map(plain::modern).unwrap_or_default();
    let read = if modern.is_empty() { bytes } else { modern.as_bytes() };
    let Some(reader) = serde_yaml_ng::Deserializer::from_slice(read).next() else {
        return Ok(Parsed::default());
    };
    let seed = Tree { path: String::new(), duplicates: &mut duplicates };
    let value = seed.deserialize(reader).map_err(|e| Failure::bad_request(yaml_complaint(&e.to_string())))?;
    let lines = lines::of_duplicates(bytes, &duplicates);
    let text = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
    Ok(Parsed { value, duplicates: if lines.is_empty() { Vec::new() } else { vec![text] }, unknown: None })
}

/// How the reader begins to say that there is too much inside one another.
const TOO_DEEP: &str = "recursion limit exceeded";

/// What is wrong with a YAML text, in the words of the reader that clients know: it counts lines from nought, but not
/// those of single words.
fn yaml_complaint(text: &str) -> String {
    if text.starts_with("repetition limit exceeded") {
        return "yaml: document contains excessive aliasing".to_owned();
    }
    if text.starts_with(TOO_DEEP) {
        return format!("yaml: exceeded max depth of {}", syntax::MAX_DEPTH);
    }
    let text = text.split(" at position ").next().unwrap_or(text);
    let Some((what, place)) = text.split_once(" at line ") else { return format!("yaml: {text}") };
    let digits = place.find(|c: char| !c.is_ascii_digit()).unwrap_or(place.len());
    let line: usize = place[..digits].parse().unwrap_or(0);
    let line = if text.contains("while scanning") { line } else { line.saturating_sub(1) };
    if line == 0 { format!("yaml: {what}") } else { format!("yaml: line {line}: {what}") }
}

fn parse_protobuf(bytes: &[u8], message: &'static Message) -> Result<Parsed> {
    if !bytes.starts_with(b"k8s\0") {
        let text = if bytes.is_empty() {
            "empty data"
        } else {
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        };
        return Err(Failure::bad_request(text));
    }
    if bytes == b"k8s\0" {
        return Err(Failure::bad_request("empty body"));
    }
    let bad = |e: &(dyn std::error::Error + 'static)| Failure::bad_request(hostile::proto_complaint(e));
    let view = api::envelope::view(bytes).map_err(|e| bad(&e))?;
    let mut value = transcode::proto_to_value(message, view.raw, None).map_err(|e| bad(&e))?;
    if let Some(map) = value.as_object_mut() {
        for (key, text) in [("apiVersion", view.api_version), ("kind", view.kind)] {
            if !text.is_empty() {
                map.insert(key.into(), text.into());
            }
        }
    }
    Ok(Parsed { value, ..Parsed::default() })
}

impl Parsed {
    /// Everything strict decoding objects to: unknown fields first, then duplicates, which in YAML are seen before.
    #[must_use]
    pub fn complaints(&self, message: &'static Message) -> Vec<String> {
        let looked = || {
            let mut report = Report::default();
            // Values that do not fit are told by the decoding itself, later.
            let _told_later = transcode::value_to_proto(message, &self.value, &mut report);
            report.unknown
        };
        let unknown = self.unknown.clone().unwrap_or_else(looked);
        let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
        let (early, late): (Vec<_>, Vec<_>) = self.duplicates.iter().cloned().partition(|d| d.starts_with("yaml:"));
        early.into_iter().chain(unknown).chain(late).collect()
    }
}

struct Tree<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> std::result::Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> std::result::Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> std::result::Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match seq.next_element_seed(Tree { path, duplicates: &mut *self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if map.contains_key(&key) {
                self.duplicates.push(path.clone());
            }
            let value = access.next_value_seed(Tree { path, duplicates: &mut *self.duplicates })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_fields_are_noted_with_their_path() {
        let parsed = parse_json(br#"{"a":[{"b":1,"b":2}],"c":1}"#).unwrap();
        assert_eq!(parsed.duplicates, ["duplicate field \"a[0].b\""]);
        let parsed = parse_yaml(b"a: 1\nb:\n  c: 1\n  c: 2\n").unwrap();
        assert_eq!(parsed.duplicates, ["yaml: unmarshal errors:\n  line 4: key \"c\" already set in map"]);
        assert_eq!(parsed.value["b"]["c"], 2);
        let parsed = parse_json(br#"{"a":[{"b":1,"b":2}],"c":1}"#).unwrap();
        assert_eq!(parsed.value["a"][0]["b"], 2);
        assert!(parse_json(b"{").is_err());
    }
}
