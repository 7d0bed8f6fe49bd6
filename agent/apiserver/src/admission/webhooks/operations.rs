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
        let mut copied = 0;
        self.0.iter().try_for_each(|fields| {
            // Of what has another type nothing is known, not even what it is to do.
            Operation::read(fields.clone()).unwrap_or_default().apply_or_tell(tree, &mut copied)
        })
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
