//! The JSON patch of a hook. It is taken as leniently as upstream takes it, and what is wrong with it is told in the
//! same words; pure.

use serde_json::{Map, Value};

use crate::patch::Operation;

/// Operations in order.
#[derive(Clone, Debug)]
pub(super) struct Operations(Vec<Map<String, Value>>);

impl serde::Serialize for Operations {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sorted = self.0.iter().map(|operation| operation.iter().collect::<std::collections::BTreeMap<_, _>>());
        serializer.collect_seq(sorted)
    }
}

impl Operations {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let not_a = |value: &Value, what: &str| {
            format!("json: cannot unmarshal {} into Go value of type jsonpatch.{what}", crate::codec::json_type(value))
        };
        let value: Value = serde_json::from_slice(bytes).map_err(|_| crate::codec::syntax_complaint(bytes))?;
        match value {
            Value::Null => Ok(Self(Vec::new())),
            Value::Array(list) => {
                let operation = |value| match value {
                    Value::Object(operation) => Ok(operation),
                    other => Err(not_a(&other, "Operation")),
                };
                list.into_iter().map(operation).collect::<Result<_, _>>().map(Self)
            }
            other => Err(not_a(&other, "Patch")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes a tree.
    pub(super) fn apply(&self, tree: &mut Value) -> Result<(), String> {
        self.0.iter().try_for_each(|operation| apply(operation, tree))
    }
}

fn apply(operation: &Map<String, Value>, tree: &mut Value) -> Result<(), String> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    let (op, path) = (text("op"), text("path"));
    if !["add", "remove", "replace", "move", "copy", "test"].contains(&op) {
        return Err(format!("Unexpected kind: {}", if op.is_empty() { "unknown" } else { op }));
    }
    let done = Operation::read(operation.clone()).ok().and_then(|parsed| parsed.apply(tree, &mut 0));
    done.ok_or_else(|| explain(op, path, tree))
}

/// Why an operation could not be done.
fn explain(op: &str, path: &str, tree: &Value) -> String {
    if op == "test" {
        return format!("testing value {path} failed: test failed");
    }
    let (parent, key) = path.rsplit_once('/').unwrap_or_default();
    match tree.pointer(parent) {
        Some(Value::Object(_)) if op == "remove" => {
            let key = key.replace("~1", "/").replace("~0", "~");
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        }
        Some(Value::Array(_)) => {
            format!("error in {op} for path: '{path}': Unable to access invalid index: {key}: invalid index referenced")
        }
        _ => format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn done(patch: &Value) -> Result<Value, String> {
        let mut tree = json!({"data": {"a": "1"}, "list": [1]});
        Operations::read(patch.to_string().as_bytes())?.apply(&mut tree)?;
        Ok(tree)
    }

    #[test]
    fn what_can_be_done_is_done() {
        let patch = json!([{"op": "replace", "path": "/data/new", "value": "2"}, {"op": "add", "path": "/data/q"},
            {"op": "remove", "path": "/list", "extra": true}]);
        assert_eq!(done(&patch), Ok(json!({"data": {"a": "1", "new": "2", "q": null}})));
        assert!(Operations::read(b"null").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        for (operation, why) in [
            (
                json!({"op": "remove", "path": "/data/x"}),
                "error in remove for path: '/data/x': Unable to remove nonexistent key: x: missing value",
            ),
            (json!({"op": "test", "path": "/data/a", "value": "2"}), "testing value /data/a failed: test failed"),
            (json!({"op": "foo"}), "Unexpected kind: foo"),
            (
                json!({"op": "add", "path": "/x/y/z", "value": 1}),
                "add operation does not apply: doc is missing path: \"/x/y/z\": missing value",
            ),
        ] {
            assert_eq!(done(&json!([operation])), Err(why.to_owned()));
        }
        let not_a = "json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        assert_eq!(Operations::read(b"{}").unwrap_err(), not_a);
    }
}
