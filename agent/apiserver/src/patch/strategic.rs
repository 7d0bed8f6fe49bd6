//! Strategic merge: lists of structs merge by key, lists of scalars as sets, as the schema says.
//!
//! Directives: `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/FIELD`,
//! `$setElementOrder/FIELD`.

use api::schema::{Field, Message};
use serde_json::{Map, Value};

use crate::status::{Failure, Result};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `target`. Without a message the merge is by JSON types alone.
pub(super) fn apply(message: Option<&'static Message>, target: &mut Value, patch: &Value) -> Result<()> {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    match patch.get(PATCH).and_then(Value::as_str) {
        Some("replace") => {
            let rest = patch.iter().filter(|(k, _)| *k != PATCH).map(|(k, v)| (k.clone(), v.clone()));
            *target = Value::Object(rest.collect());
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        None | Some("merge") => {}
        Some(other) => return Err(Failure::bad_request(format!("Unknown patch type found: {other}"))),
    }
    let Value::Object(map) = target else { return Ok(()) };
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        map.retain(|key, _| keep.iter().any(|k| k == key));
    }
    let before = map.clone();
    for (key, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        let field = message.and_then(|m| m.field(key));
        merge_key(field, map, (key, value), patch)?;
    }
    for (key, value) in patch {
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES)
            && let (Some(Value::Array(list)), Some(gone)) = (map.get_mut(name), value.as_array())
        {
            list.retain(|item| !gone.contains(item));
        }
    }
    for (key, order) in patch {
        if let Some(name) = key.strip_prefix(ORDER)
            && let (Some(Value::Array(list)), Some(order)) = (map.get_mut(name), order.as_array())
        {
            let field = message.and_then(|m| m.field(name));
            let merge_key = field.map_or("", |f| f.merge_key);
            let in_patch = patch.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let server = before.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            sort(list, order, (server, in_patch), merge_key);
        }
    }
    Ok(())
}

fn merge_key(
    field: Option<&'static Field>,
    map: &mut Map<String, Value>,
    (key, value): (&String, &Value),
    patch: &Map<String, Value>,
) -> Result<()> {
    if value.is_null() {
        map.remove(key);
        return Ok(());
    }
    let merges = field.is_some_and(|f| f.patch.contains(&"merge"));
    let replaces = field.is_some_and(|f| f.patch.contains(&"replace"));
    match value {
        Value::Object(_) if !replaces => {
            let below = field.and_then(|f| match f.ty {
                api::schema::FieldType::Map(ty) => ty.message(),
                ty => ty.message(),
            });
            // Of a map the schema describes the values, not the object itself.
            let is_map = field.is_some_and(|f| matches!(f.ty, api::schema::FieldType::Map(_)));
            let target = map.entry(key.clone()).or_insert(Value::Null);
            if target.is_null() {
                *target = Value::Object(Map::new());
            }
            apply(if is_map { None } else { below }, target, value)
        }
        Value::Array(items) if merges => {
            let merge_key = field.map_or("", |f| f.merge_key);
            let below = field.and_then(|f| f.ty.message());
            let target = map.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
            if !target.is_array() {
                *target = Value::Array(Vec::new());
            }
            let Value::Array(list) = target else { return Ok(()) };
            let before = list.clone();
            if merge_key.is_empty() || items.iter().all(|i| !i.is_object()) && !items.is_empty() {
                for item in items.iter().filter(|i| !i.is_object()) {
                    if !list.contains(item) {
                        list.push(item.clone());
                    }
                }
            } else {
                merge_list(below, list, items, merge_key)?;
            }
            // Without an order of its own, a patch's items come in its order.
            if !patch.contains_key(&format!("{ORDER}{key}")) {
                sort(list, items, (&before, items), merge_key);
            }
            Ok(())
        }
        _ => {
            map.insert(key.clone(), value.clone());
            Ok(())
        }
    }
}

fn merge_list(below: Option<&'static Message>, list: &mut Vec<Value>, items: &[Value], key: &str) -> Result<()> {
    if items.iter().any(|i| i.get(PATCH).and_then(Value::as_str) == Some("replace")) {
        *list = items.iter().filter(|i| i.get(PATCH).is_none()).cloned().collect();
        return Ok(());
    }
    for item in items {
        let Some(id) = item.get(key) else {
            let text = format!("map: {item} does not contain declared merge key: {key}");
            return Err(Failure::bad_request(text));
        };
        let at = list.iter().position(|have| have.get(key) == Some(id));
        if item.get(PATCH).and_then(Value::as_str) == Some("delete") {
            list.retain(|have| have.get(key) != Some(id));
            continue;
        }
        match at.and_then(|at| list.get_mut(at)) {
            Some(have) => apply(below, have, item)?,
            None => {
                let mut made = Value::Object(Map::new());
                apply(below, &mut made, item)?;
                list.push(made);
            }
        }
    }
    Ok(())
}

/// Puts what the patch names into its order and leaves what only the server has where it was among the others.
fn sort(list: &mut Vec<Value>, order: &[Value], (before, in_patch): (&[Value], &[Value]), key: &str) {
    let id = |item: &Value| if key.is_empty() { item.clone() } else { item.get(key).cloned().unwrap_or_default() };
    let wanted: Vec<Value> = order.iter().map(|o| if o.is_object() { id(o) } else { o.clone() }).collect();
    let added = |item: &Value| in_patch.iter().any(|p| id(p) == id(item));
    let server: Vec<Value> = before.iter().map(id).collect();
    let mut ours: Vec<Value> = list.iter().filter(|i| wanted.contains(&id(i)) || added(i)).cloned().collect();
    ours.sort_by_key(|i| wanted.iter().position(|w| *w == id(i)).unwrap_or(usize::MAX));
    let theirs: Vec<Value> = list.iter().filter(|i| !ours.iter().any(|o| id(o) == id(i))).cloned().collect();
    // What the server did not have goes where the patch puts it.
    let place = |item: &Value| server.iter().position(|s| *s == id(item)).unwrap_or(0);
    let (mut left, mut right) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    list.clear();
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) if place(r) < place(l) => right.next(),
            (Some(_), _) => left.next(),
            (None, _) => right.next(),
        };
        match next {
            Some(item) => list.push(item),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(old: Value, patch: Value) -> Value {
        let message = api::schema::message("k8s.io.api.core.v1.Pod");
        let mut new = old;
        apply(message, &mut new, &patch).unwrap();
        new
    }

    #[test]
    fn containers_merge_by_name() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]}});
        let new = patched(old, json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "c"}]}}));
        let expected = json!([{"name": "a", "image": "2", "args": ["x"]}, {"name": "c"}, {"name": "b"}]);
        assert_eq!(new["spec"]["containers"], expected);
    }

    #[test]
    fn directives_delete_replace_and_order() {
        let old = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "s"}]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
            "containers": [{"name": "c", "image": "i"}],
        }});
        let new = patched(old.clone(), patch);
        let names: Vec<&str> =
            new["spec"]["containers"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names, ["b", "c", "a", "s"]);
        let new = patched(old.clone(), json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}));
        assert_eq!(new["spec"]["containers"], json!([{"name": "b"}, {"name": "s"}]));
        let new = patched(old, json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}));
        assert_eq!(new["spec"]["containers"], json!([{"name": "z"}]));
    }

    #[test]
    fn primitive_lists_are_sets_where_the_schema_says_so() {
        let old = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}}});
        let patch = json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "labels": {"x": null}}});
        let new = patched(old, patch);
        assert_eq!(new["metadata"]["finalizers"], json!(["c", "b"]));
        assert_eq!(new["metadata"]["labels"], json!({}));
    }
}
