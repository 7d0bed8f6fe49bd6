//! Whatever the bytes, reading them ends with an answer.

use api::schema::Message;
use api::transcode::{Report, proto_to_value, value_to_proto};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::parse_body;
use crate::negotiate::Encoding;
use crate::{cache, patch};

fn pod() -> &'static api::Kind {
    api::kind_by_resource("", "v1", "pods").unwrap()
}

fn schema() -> &'static Message {
    pod().schema()
}

/// Names that a pod has, and some that it has not.
const NAMES: [&str; 16] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "labels",
    "annotations",
    "spec",
    "containers",
    "env",
    "value",
    "ports",
    "containerPort",
    "resources",
    "limits",
    "a",
    "",
];

/// What selectors are made of, and a little else.
const WORDS: [&str; 26] = [
    "a",
    "b",
    "example.com/a",
    "spec.nodeName",
    "metadata.name",
    "status.phase",
    "in",
    "notin",
    "exists",
    "(",
    ")",
    ",",
    "=",
    "==",
    "!=",
    "!",
    "<",
    ">",
    " ",
    "\\",
    "\\,",
    "1",
    "-1",
    "_",
    "é",
    "a123456789b123456789c123456789d123456789e123456789f123456789g123",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".{0,12}".prop_map(Value::from),
        "[0-9]{1,3}(m|Mi|Gi|e3)?".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        let entry = (prop::sample::select(&NAMES[..]), inner.clone());
        let map = prop::collection::vec(entry, 0..6).prop_map(|entries| {
            Value::Object(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>())
        });
        prop_oneof![map, prop::collection::vec(inner, 0..4).prop_map(Value::from)]
    })
}

fn a_pod() -> Vec<u8> {
    let value = json!({
        "metadata": {"name": "x", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{
            "name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}],
            "resources": {"limits": {"cpu": "100m"}},
        }]},
    });
    value_to_proto(schema(), &value, &mut Report::default()).unwrap()
}

fn operation() -> impl Strategy<Value = Value> {
    let path = || prop::collection::vec(prop::sample::select(&["a", "b", "0", "-", "~1", "~", ""][..]), 0..6);
    let op = prop::sample::select(&["add", "remove", "replace", "move", "copy", "test", "other"][..]);
    (op, path(), path(), value()).prop_map(|(op, path, from, value)| {
        let text = |parts: Vec<&str>| parts.iter().map(|p| format!("/{p}")).collect::<String>();
        json!({"op": op, "path": text(path), "from": text(from), "value": value})
    })
}

fn labels() -> impl Strategy<Value = Value> {
    let text = prop::option::of("[a-b]{0,1}".prop_map(Value::from));
    let entries = prop::collection::btree_map("[a-c]", text, 0..3);
    entries.prop_map(|all| all.into_iter().filter_map(|(key, text)| Some((key, text?))).collect())
}

/// Variables of a container, each with a name of its own.
fn variables() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[A-C]", "[a-b]{0,1}", 0..3)
        .prop_map(|all| all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
}

/// A patch of a pod with one of the things that only strategic merges have.
fn patch() -> impl Strategy<Value = Value> {
    let special = prop_oneof![
        Just(json!({})),
        Just(json!({"$deleteFromPrimitiveList/args": ["a"]})),
        Just(json!({"env": [{"name": "A", "$patch": "delete"}]})),
        Just(json!({"env": [{"$patch": "replace"}, {"name": "B", "value": "b"}]})),
        Just(
            json!({"$setElementOrder/env": [{"name": "B"}, {"name": "A"}], "env": [{"name": "B", "value": "b"}, {"name": "A"}]})
        ),
        variables().prop_map(|env| json!({"env": env})),
    ];
    (labels(), special).prop_map(|(labels, mut container)| {
        container["name"] = "c".into();
        json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}})
    })
}

/// Brackets inside one another.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for encoding in [Encoding::Json, Encoding::Yaml, Encoding::Protobuf] {
            let _read = parse_body(&bytes, encoding, schema());
        }
        let enveloped = api::envelope::wrap("v1", "Pod", &bytes);
        let _read = parse_body(&enveloped, Encoding::Protobuf, schema());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"'&*!|>%@` \\n\\-?#~a-c0-9\\\\u]{0,80}") {
        for encoding in [Encoding::Json, Encoding::Yaml] {
            let _read = parse_body(text.as_bytes(), encoding, schema());
        }
        let _read = super::parse_apply(text.as_bytes());
        let _read = super::parse_patch(text.as_bytes());
    }

    #[test]
    fn a_broken_pod_is_read_or_refused(at in 0..120usize, byte in any::<u8>(), cut in 0..160usize) {
        let mut bytes = a_pod();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(value) = proto_to_value(schema(), &bytes, None) {
            // What can be read can be stored, or is refused; and what is stored reads the same.
            if let Ok(stored) = value_to_proto(schema(), &value, &mut Report::default()) {
                let again = proto_to_value(schema(), &stored, None);
                prop_assert!(again.is_ok());
            }
        }
    }

    #[test]
    fn json_is_read_as_it_was_written(value in value()) {
        let text = value.to_string();
        let read = parse_body(text.as_bytes(), Encoding::Json, schema()).unwrap();
        prop_assert_eq!(read.value.to_string(), value.to_string());
    }

    #[test]
    fn what_fits_a_schema_is_stored_and_read_the_same(value in value()) {
        let Ok(stored) = value_to_proto(schema(), &value, &mut Report::default()) else { return Ok(()) };
        let read = proto_to_value(schema(), &stored, None).unwrap();
        let again = value_to_proto(schema(), &read, &mut Report::default()).unwrap();
        prop_assert_eq!(again, stored);
    }

    #[test]
    fn any_json_patch_ends(operations in prop::collection::vec(operation(), 0..12), object in value()) {
        if let Ok(patch) = patch::json_patch(json!(operations).to_string().as_bytes(), patch::Reading::Strict)
            && let Ok(new) = patch.apply(schema(), &object)
        {
            prop_assert!(depth(&new) <= 127);
        }
    }

    #[test]
    fn any_merge_ends(patch in value(), object in value()) {
        for read in [|body: &[u8]| patch::merge_patch(body, patch::Reading::Strict), patch::strategic_patch] {
            if let Ok(patch) = read(patch.to_string().as_bytes()) {
                let _patched = patch.apply(schema(), &object);
            }
        }
    }

    #[test]
    fn a_strategic_merge_twice_is_one(labels in labels(), env in variables(), patch in patch()) {
        let object = json!({
            "metadata": {"name": "x", "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i", "env": env}]},
        });
        let patch = patch::strategic_patch(patch.to_string().as_bytes()).unwrap();
        let once = patch.apply(schema(), &object).unwrap();
        prop_assert_eq!(patch.apply(schema(), &once).unwrap(), once);
    }

    #[test]
    fn any_row_of_words_is_a_selector_or_refused(row in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..40)) {
        let text = row.concat();
        for (labels, fields) in [(text.as_str(), ""), ("", &text), (&text, &text)] {
            let _read = cache::Selection::parse(labels, fields, pod(), &["spec.nodeName"]);
        }
    }

    #[test]
    fn any_selector_is_read_or_refused(labels in "[a-c=!,() \\-./innot]{0,40}", fields in ".{0,30}") {
        let _read = cache::Selection::parse(&labels, &fields, pod(), &["spec.nodeName"]);
        let _read = cache::Selection::parse(&fields, &labels, pod(), &["spec.nodeName"]);
    }
}
