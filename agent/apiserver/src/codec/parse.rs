//! Request bodies as trees, with what strict decoding finds.

use std::fmt;

use api::schema::Message;
use api::transcode::{self, Report};
use serde::de::DeserializeSeed;
use serde_json::Value;

use super::guide::Guide;
use super::reading::{Notes, Tree};
use super::told::Complaint;
use super::{hostile, lines, plain, syntax};
use crate::negotiate::Encoding;
use crate::status::{Failure, Result};

/// A body as a tree.
#[derive(Clone, Debug, Default)]
pub struct Parsed<'b> {
    /// The JSON text that it was read from, or nothing.
    pub text: &'b [u8],
    /// The tree, with `kind` and `apiVersion` where the body names them.
    pub value: Value,
    /// What strict decoding says about fields that occur twice.
    pub duplicates: Vec<String>,
    /// Fields that are not known, once somebody has looked.
    pub unknown: Option<Vec<String>>,
}

/// Reads a body. `message` is the schema that protobuf bodies have.
pub fn parse_body<'b>(bytes: &'b [u8], encoding: Encoding, message: &'static Message) -> Result<Parsed<'b>> {
    match encoding {
        Encoding::Json => parse_json(bytes),
        Encoding::Yaml => parse_yaml(bytes),
        Encoding::Protobuf => parse_protobuf(bytes, message),
    }
}

/// Reads JSON and notes duplicate fields.
fn parse_json(bytes: &[u8]) -> Result<Parsed<'_>> {
    read_json(bytes).or_else(|| read_mended(bytes)).ok_or_else(|| {
        let why = syntax::complaint(bytes);
        Failure::bad_request(format!("couldn't get version/kind; json parse error: {why}"))
    })
}

fn read_json(text: &[u8]) -> Option<Parsed<'_>> {
    let mut notes = Notes::default();
    let value = read_noting(text, Guide::Anything, &mut notes)?;
    Some(Parsed { text, value, duplicates: notes.told.texts(), unknown: None })
}

/// Reads what only Go's reader takes.
fn read_mended(bytes: &[u8]) -> Option<Parsed<'static>> {
    let mended = hostile::mended(bytes)?;
    let Parsed { value, duplicates, .. } = read_json(&mended)?;
    Some(Parsed { value, duplicates, ..Parsed::default() })
}

fn read_noting(text: &[u8], guide: Guide, notes: &mut Notes) -> Option<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let seed = Tree { guide, notes };
    seed.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v)).ok()
}

/// Reads the JSON of a patch, or says why it is none.
pub fn parse_patch(bytes: &[u8]) -> std::result::Result<Parsed<'_>, String> {
    let read = read_json(bytes).or_else(|| read_mended(bytes));
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
pub fn parse_apply(bytes: &[u8]) -> Result<Parsed<'_>> {
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
fn parse_yaml(bytes: &[u8]) -> Result<Parsed<'_>> {
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
    let mut notes = Notes::of_yaml();
    let modern = std::str::from_utf8(bytes).map(plain::modern).unwrap_or_default();
    let read = if modern.is_empty() { bytes } else { modern.as_bytes() };
    let Some(reader) = serde_yaml_ng::Deserializer::from_slice(read).next() else {
        return Ok(Parsed::default());
    };
    let read = Tree { guide: Guide::Anything, notes: &mut notes }.deserialize(reader);
    let told = |e: &dyn fmt::Display| notes.problem.clone().unwrap_or_else(|| yaml_complaint(&e.to_string()));
    let value = read.map_err(|e| Failure::bad_request(told(&e)))?;
    let paths: Vec<&str> = notes.told.complaints().iter().map(Complaint::path).collect();
    let lines = lines::of_duplicates(bytes, &paths);
    let text = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
    let duplicates = if lines.is_empty() { Vec::new() } else { vec![text] };
    Ok(Parsed { value, duplicates, ..Parsed::default() })
}

/// How the reader begins to say that there is too much inside one another.
const TOO_DEEP: &str = "recursion limit exceeded";

/// What only the part of the reader says that looks for words.
const SCANNING: [&str; 4] = [
    "while scanning",
    "while parsing a quoted scalar",
    "are not allowed in this context",
    "found character that cannot start any token",
];

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
    // Whoever scans has not come to the next line yet.
    let is_scanning = SCANNING.iter().any(|part| text.contains(part));
    let line = if is_scanning { line } else { line.saturating_sub(1) };
    if line == 0 { format!("yaml: {what}") } else { format!("yaml: line {line}: {what}") }
}

fn parse_protobuf(bytes: &[u8], message: &'static Message) -> Result<Parsed<'static>> {
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

impl Parsed<'_> {
    /// Everything strict decoding objects to, in the order of the text. What YAML says twice is seen before it is JSON,
    /// of which the keys are in order.
    #[must_use]
    pub fn complaints(&self, message: &'static Message) -> Vec<String> {
        let looked = || {
            let mut report = Report::default();
            // Values that do not fit are told by the decoding itself, later.
            let _told_later = transcode::value_to_proto(message, &self.value, &mut report);
            report.unknown
        };
        let first = match &self.unknown {
            Some(unknown) => unknown.first().cloned(),
            None => looked().into_iter().next(),
        };
        let (mut told, twice): (Vec<_>, Vec<_>) = self.duplicates.iter().cloned().partition(|d| d.starts_with("yaml:"));
        match first {
            None => told.extend(twice),
            Some(first) => told.extend(self.in_order(message, first)),
        }
        told
    }

    /// What is said of fields that are not known, one of which is given, and of those that occur twice, in the order of
    /// the text.
    fn in_order(&self, message: &'static Message, one: String) -> Vec<String> {
        let sorted = if self.text.is_empty() { self.value.to_string().into_bytes() } else { Vec::new() };
        let text = if self.text.is_empty() { &sorted } else { self.text };
        let mut notes = Notes::default();
        // It was read before.
        let _same = read_noting(text, Guide::Message(message), &mut notes);
        let texts = notes.told.texts();
        if texts.is_empty() { vec![Complaint::Unknown(one).to_string()] } else { texts }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    #[test]
    fn what_strict_decoding_objects_to_comes_in_the_order_of_the_text() {
        let message = crate::codec::schema("k8s.io.api.core.v1.ConfigMap");
        let told = |text: &str| {
            let encoding = if text.starts_with('{') { Encoding::Json } else { Encoding::Yaml };
            let parsed = parse_body(text.as_bytes(), encoding, message).unwrap();
            parsed.complaints(message).join(", ").replace("field ", "").replace('"', "")
        };
        let json =
            r#"{"metadata":{"name":"a","name":"b","zig":1},"z":{"a":1,"a":2},"data":{"k":"v","k":"w"},"a":1,"z":2}"#;
        let all = "duplicate metadata.name, unknown metadata.zig, unknown z, duplicate data.k, unknown a";
        assert_eq!(told(json), all);
        assert_eq!(told(r#"{"z":1}"#), "unknown z");
        let yaml = "z: 1\na: 1\nmetadata: {zig: 1, big: 1}\n";
        assert_eq!(told(yaml), "unknown a, unknown metadata.big, unknown metadata.zig, unknown z");
    }

    #[test]
    fn numbers_are_read_to_their_last_digit() {
        // Without the reader's exact way of reading this one is off by one in its last place.
        let parsed = parse_json(b"[2.2250738585072014e-308, 122.416294033786585]").unwrap();
        assert_eq!(parsed.value, json!([2.2250738585072014e-308_f64, "122.416294033786585".parse::<f64>().unwrap()]));
    }

    #[test]
    fn yaml_is_read_as_clients_know_it() {
        let read =
            |text: &str| parse_yaml(text.as_bytes()).map(|parsed| parsed.value).map_err(|f| f.message().to_owned());
        for (text, expected) in [
            ("y: 1_0\n0x10: !!str 5\n1.50: !foo 7", json!({"true": 10, "16": "5", "1.5": "7"})),
            ("a: &x {b: 1, c: 2}\nd:\n  b: 0\n  <<: *x\n  c: 3", json!({"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}})),
            ("a:\n  <<: [{b: 1}, {b: 2, c: 3}]", json!({"a": {"b": 1, "c": 3}})),
            (
                "a: 18446744073709551616\nb: 9223372036854775808",
                json!({"a": 18446744073709551616.0, "b": 9223372036854775808_u64}),
            ),
            ("a: !foo\n  b: [1.0, 1e3]", json!({"a": {"b": [1, 1000]}})),
            ("123456789012345678901234567890: a", json!({"1.2345679e+29": "a"})),
            ("18446744073709551616: a\n1e308: b", json!({"1.8446744e+19": "a", ".inf": "b"})),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("a: .inf", "json: unsupported value: +Inf"),
            ("a:\n  <<: x", "yaml: map merge requires map or sequence of maps as the value"),
            ("9223372036854775808: x", "unsupported map key of type: uint64, key: 0x8000000000000000, value: \"x\""),
            ("~: x", "unsupported map key of type: %!s(<nil>), key: <nil>, value: \"x\""),
            ("? [a]\n: b", "yaml: invalid map key: []interface {}{\"a\"}"),
            ("a: 1\nb: c: d", "yaml: line 2: mapping values are not allowed in this context"),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text}");
        }
    }
}
