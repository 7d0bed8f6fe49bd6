//! Small steps on JSON trees.

use serde_json::{Map, Value};

/// The value at a JSON pointer.
///
/// Every request asks for dozens of them: unlike `Value::pointer`, this makes no text of its own for each step.
#[must_use]
pub fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.contains('~') {
        return value.pointer(pointer);
    }
    if pointer.is_empty() {
        return Some(value);
    }
    pointer.strip_prefix('/')?.split('/').try_fold(value, |value, step| match value {
        Value::Object(map) => map.get(step),
        list => list.pointer(&format!("/{step}")),
    })
}

/// The text at a JSON pointer, empty if there is none.
#[must_use]
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What a refusal calls an object that may have no name yet: what its name is to begin with, or that it is unknown.
#[must_use]
pub fn name_given(object: &Value) -> &str {
    match text(object, "/metadata/name") {
        "" => match text(object, "/metadata/generateName") {
            "" => "Unknown",
            start => start,
        },
        name => name,
    }
}

/// The list at a JSON pointer, empty if there is none.
#[must_use]
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The integer at a JSON pointer.
#[must_use]
pub fn integer(value: &Value, pointer: &str) -> Option<i64> {
    at(value, pointer).and_then(Value::as_i64)
}

/// Whether there is something at a JSON pointer: neither absent nor null.
#[must_use]
pub fn has(value: &Value, pointer: &str) -> bool {
    at(value, pointer).is_some_and(|v| !v.is_null())
}

/// Whether there is something at a JSON pointer that is no list or map without members.
#[must_use]
pub fn is_filled(value: &Value, pointer: &str) -> bool {
    match at(value, pointer) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

/// The object under a key, made if it is not there.
pub fn object_at<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let child = &mut value[key];
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    match child {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// The list under a key, made if it is not there.
pub fn list_at<'a>(value: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let child = &mut value[key];
    if !child.is_array() {
        *child = Value::Array(Vec::new());
    }
    match child {
        Value::Array(list) => list,
        _ => unreachable!("it was made a list above"),
    }
}

/// Takes a key over from another object: set if it is there, removed if not.
pub fn copy_key(to: &mut Value, from: &Value, key: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(key).filter(|v| !v.is_null()) {
        Some(value) => {
            map.insert(key.to_owned(), value.clone());
        }
        None => {
            map.remove(key);
        }
    }
}

/// Removes a key.
pub fn remove(value: &mut Value, key: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(key);
    }
}

/// Whether two values are equal, apart from these keys of theirs.
#[must_use]
pub fn equal_but(a: &Value, b: &Value, keys: &[&str]) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let rest = |map| Map::iter(map).filter(|(key, _)| !keys.contains(&key.as_str()));
            rest(a).eq(rest(b))
        }
        _ => a == b,
    }
}

/// Whether two trees say the same: absent, null, empty lists and empty objects are one.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            // Each pair is compared once: comparing from both sides would double the work at every level.
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&Value::Null)))
                && y.iter().all(|(k, v)| x.contains_key(k) || same(v, &Value::Null))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_null_and_empty_are_the_same() {
        assert!(same(&json!({"a": null, "b": {"c": []}}), &json!({})));
        assert!(!same(&json!({"a": 0}), &json!({})));
        assert!(!same(&json!([1]), &json!([2])));
        assert!(!same(&json!({}), &json!({"a": 0})));
    }

    #[test]
    fn values_are_found_as_pointers_say() {
        let tree = json!({"a": {"b/c": [{"d": 1}, 2], "": 3}});
        for pointer in ["", "/a", "/a/", "/a/b~1c/0/d", "/a/b~1c/01", "/a/x/y", "/x", "/a/b/c", "a"] {
            assert_eq!(at(&tree, pointer), tree.pointer(pointer), "{pointer:?}");
        }
        let list = json!({"l": [[1], {"m": 2}]});
        for pointer in ["/l/0/0", "/l/1/m", "/l/2", "/l/00", "/l/-", "/l/+1"] {
            assert_eq!(at(&list, pointer), list.pointer(pointer), "{pointer:?}");
        }
    }

    #[test]
    fn keys_are_left_out_of_a_comparison() {
        let (a, b) = (json!({"a": 1, "b": 2, "c": {"b": 1}}), json!({"a": 1, "b": 3, "c": {"b": 1}}));
        assert!(equal_but(&a, &b, &["b"]) && !equal_but(&a, &b, &["a"]));
        assert!(!equal_but(&a, &json!({"a": 1, "b": 2}), &["b"]));
        assert!(equal_but(&json!(1), &json!(1), &[]) && !equal_but(&json!(1), &json!({}), &[]));
    }

    #[test]
    fn deep_values_are_compared_once() {
        let deep = |leaf: i32| (0..100).fold(json!(leaf), |inner, _| json!({"a": inner}));
        assert!(same(&deep(1), &deep(1)));
        assert!(!same(&deep(1), &deep(2)));
    }
}
