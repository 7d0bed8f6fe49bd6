//! The forms of documents: a table per object says which keys it has, in the order of upstream's JSON, and which
//! number and type each has in the protobuf form. Both forms are written from the same tables.

mod protobuf;
mod text;
mod v2;
mod v3;

use serde_json::{Map, Value};

pub(super) use protobuf::encode;
pub(super) use text::write;

use super::Style;

/// How the value of a key is written.
#[derive(Clone, Copy)]
enum Ty {
    Text,
    Texts,
    Flag,
    Integer,
    Double,
    /// Any JSON; YAML text in protobuf.
    Any,
    Anys,
    /// One message.
    One(Pick),
    /// A list of messages.
    Many(Pick),
    /// An object whose keys are names: a message holding (name, value) pairs under this number.
    Named(u32, Pick),
    /// A type, which may be a list of types.
    Types,
    /// `items`: a message holding schemas.
    Items(Pick),
    /// `additionalProperties`: a schema or a boolean.
    Additional(Pick),
    /// A simple value under the number of its type; nothing of any other.
    Simple,
    /// Names with empty lists.
    Requirement,
    /// An extension with keys in the order of upstream's type, which is kept where nobody has read the document again.
    Ordered(&'static [&'static str], fn(&Value) -> bool),
}

/// Finds the shape of an object, and the numbers of the `oneof` messages around it, outermost first.
type Pick = fn(&Map<String, Value>) -> (&'static [u32], &'static Shape);

/// The keys of an object.
struct Shape {
    /// Keys in the order of JSON, numbers and types. All other keys follow in the order of their names.
    keys: &'static [(&'static str, u32, Ty)],
    /// The number of extensions, which are keys that begin with `x-`; 0 without.
    extensions: u32,
}

/// The keys of an extension that names a kind, in the order of upstream's type.
const KIND: &[&str] = &["group", "version", "kind"];
/// The keys of a rule of a custom resource.
const RULE: &[&str] = &["rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf"];

fn document(style: Style) -> &'static Shape {
    match style {
        Style::V2 => &v2::DOCUMENT,
        Style::V3 => &v3::DOCUMENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_in_upstreams_order_and_names_in_that_of_the_alphabet() {
        let document = json!({
            "paths": {"/b/": {"get": {"tags": ["t"], "responses": {"200": {"description": "OK", "content": {}}},
                "x-kubernetes-group-version-kind": {"group": "g", "kind": "K", "version": "v"}, "x-a": 1}}, "/a/": {}},
            "openapi": "3.0.0",
            "components": {"schemas": {"S": {"allOf": [{"$ref": "r"}], "default": {}, "description": "a < b",
                "properties": {"b": {"type": "string"}, "a": {"format": "f", "type": "t"}}}}},
        });
        assert_eq!(
            write(&document, Style::V3),
            r##"{"openapi":"3.0.0","paths":{"/a/":{},"/b/":{"get":{"tags":["t"],"responses":{"200":{"description":"OK","content":{}}},"x-a":1,"x-kubernetes-group-version-kind":{"group":"g","version":"v","kind":"K"}}}},"components":{"schemas":{"S":{"description":"a \u003c b","default":{},"allOf":[{"$ref":"r"}],"properties":{"a":{"type":"t","format":"f"},"b":{"type":"string"}}}}}}"##
        );
    }

    #[test]
    fn rules_keep_upstreams_order() {
        let rules = json!([{"fieldPath": ".a", "rule": "true", "message": "m"}]);
        let document = json!({"components": {"schemas": {"S": {"x-kubernetes-validations": rules}}}});
        let expected = r#"[{"rule":"true","message":"m","fieldPath":".a"}]"#;
        assert!(write(&document, Style::V3).contains(expected));
    }

    #[test]
    fn only_the_older_version_shows_signs_as_they_are() {
        let document = json!({"swagger": "2.0", "definitions": {"S": {"description": "a < b", "$ref": "r"}}});
        let expected = r#"{"swagger":"2.0","definitions":{"S":{"description":"a < b","$ref":"r"}}}"#;
        assert_eq!(write(&document, Style::V2), expected);
    }
}
