//! How large and how deep operations may make an object.

use serde_json::Value;

/// Bytes that all copies of one patch may add.
const MAX_COPIED: usize = 3 << 20;
/// Lists and objects inside one another, as deep as bodies may be.
const MAX_DEPTH: usize = 127;

/// Nothing if what is put at a path would lie deeper than anything in a body can.
pub(super) fn check(path: &str, added: &Value) -> Option<()> {
    (path.matches('/').count() + depth(added) <= MAX_DEPTH).then_some(())
}

/// Nothing if too much is copied by now. `copied` counts over all operations.
pub(super) fn count(added: &Value, copied: &mut usize) -> Option<()> {
    *copied += size(added);
    (*copied <= MAX_COPIED).then_some(())
}

/// Lists and objects inside one another. What is asked about was bounded when it was read, or by [`check`].
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// About as many bytes as its text has.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 2 + list.iter().map(|item| size(item) + 1).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, value)| key.len() + 4 + size(value)).sum::<usize>(),
        Value::String(text) => 2 + text.len(),
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::patch::{Reading, json_patch};

    fn apply(patch: &serde_json::Value) -> Option<serde_json::Value> {
        let message = api::all_kinds()[0].schema();
        json_patch(patch.to_string().as_bytes(), Reading::Strict)
            .unwrap()
            .apply(message, &json!({"a": {"b": "c"}}))
            .ok()
    }

    #[test]
    fn copies_that_double_an_object_again_and_again_are_refused() {
        let copy = |n: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/x{n}")});
        assert!(apply(&json!((0..4).map(copy).collect::<Vec<_>>())).is_some());
        assert!(apply(&json!((0..40).map(copy).collect::<Vec<_>>())).is_none());
    }

    #[test]
    fn an_object_does_not_grow_deeper_step_by_step() {
        let add = |n: usize| json!({"op": "add", "path": format!("/a{}", "/x".repeat(n)), "value": {}});
        assert!(apply(&json!((1..100).map(add).collect::<Vec<_>>())).is_some());
        assert!(apply(&json!((1..200).map(add).collect::<Vec<_>>())).is_none());
        let copy = json!({"op": "copy", "from": "/a", "path": "/a/x"});
        assert!(apply(&json!(vec![copy; 200])).is_none());
    }
}
