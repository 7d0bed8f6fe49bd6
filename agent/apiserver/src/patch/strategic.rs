//! Strategic merge: lists of structs merge by key, lists of scalars as sets, as the schema says.
//!
//! Directives: `$patch: replace|delete`, `$retainKeys`, `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`.

mod order;

use api::schema::{Field, FieldType, Message};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::codec::{go_map, go_type};
use crate::status::{Failure, Result};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList";
const ORDER: &str = "$setElementOrder";

/// Merges `patch` into `target`, an object of the message.
pub(super) fn apply(message: &'static Message, target: &mut Value, patch: &Value) -> Result<()> {
    let (Value::Object(old), Value::Object(patch)) = (std::mem::take(target), patch) else {
        return Err(Failure::bad_request("invalid JSON document"));
    };
    *target = Value::Object(merge_map(Below::Message(message), old, patch.clone())?);
    Ok(())
}

/// What the schema says about the members of a map.
#[derive(Clone, Copy)]
enum Below {
    /// They are the fields of a struct.
    Message(&'static Message),
    /// It is no struct but this kind of a Go type.
    Other(&'static str),
}

impl Below {
    fn of(ty: FieldType) -> Self {
        match (ty, ty.message()) {
            (_, Some(message)) => Self::Message(message),
            (FieldType::Map(_), _) => Self::Other("map"),
            (FieldType::String, _) => Self::Other("string"),
            (FieldType::Bytes, _) => Self::Other("slice"),
            _ => Self::Other("interface"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Message(_) => "struct",
            Self::Other(kind) => kind,
        }
    }

    fn field(self, name: &str) -> Result<&'static Field> {
        match self {
            Self::Message(message) => message.field(name).ok_or_else(|| {
                let ty = message.name.rsplit('.').next().unwrap_or_default();
                failed(format!("unable to find api field in struct {ty} for the json field {name:?}"))
            }),
            Self::Other(kind) => {
                Err(failed(format!("merging an object in json but data type is not struct, instead is: {kind}")))
            }
        }
    }
}

/// The failure of a patch that cannot be merged.
fn failed(text: String) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
}

fn bad_format(what: &str) -> Failure {
    Failure::bad_request(format!("invalid patch format of {what}"))
}

fn no_merge_key(map: &Value, key: &str) -> Failure {
    failed(format!("map: {} does not contain declared merge key: {key}", go_map(map)))
}

fn bad_type(expected: &str, found: &Value) -> Failure {
    failed(format!("expected a {expected}, but received a {}", go_type(found)))
}

const MAP: &str = "map[string]interface {}";
const LIST: &str = "[]interface {}";

fn merge_map(below: Below, mut old: Map<String, Value>, mut patch: Map<String, Value>) -> Result<Map<String, Value>> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => {
                patch.insert(PATCH.to_owned(), directive.clone());
                let shown = go_map(&Value::Object(patch));
                Err(failed(format!("unknown patch type: {} in map: {shown}", go_map(&directive))))
            }
        };
    }
    retain(&mut old, &mut patch)?;
    order::merge_ordered(below, &mut old, &mut patch)?;
    for (key, change) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_PRIMITIVES) {
            Some(rest) => {
                let name = rest.strip_prefix('/').ok_or_else(|| bad_format("primitive list"))?;
                (name.to_owned(), true)
            }
            None => (key, false),
        };
        if change.is_null() {
            old.remove(&key);
            continue;
        }
        match (old.remove(&key), change) {
            (Some(Value::Object(had)), Value::Object(change)) => {
                let field = below.field(&key)?;
                let merged =
                    if strategy(field) == "replace" { change } else { merge_map(Below::of(field.ty), had, change)? };
                old.insert(key, Value::Object(merged));
            }
            (Some(Value::Array(had)), Value::Array(change)) => {
                let field = below.field(&key)?;
                old.insert(key, Value::Array(merge_list(field, had, change, deletes)?));
            }
            (had, change) if deletes => {
                drop(change);
                old.extend(had.map(|had| (key, had)));
            }
            (_, change) => old.extend(made(change).map(|made| (key, made))),
        }
    }
    Ok(old)
}

fn strategy(field: &Field) -> &'static str {
    field.patch.iter().copied().find(|s| *s != "retainKeys").unwrap_or_default()
}

/// A part of a patch where there was nothing to merge into; `None` if it is only a directive.
fn made(mut patch: Value) -> Option<Value> {
    discard_nulls(&mut patch);
    without_directives(patch)
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// Drops what the patch does not say to keep.
fn retain(old: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let Some(keep) = patch.remove(RETAIN) else { return Ok(()) };
    let Value::Array(keep) = keep else { return Err(bad_format("retainKeys")) };
    let is_kept = |key: &str| keep.iter().any(|k| k == key);
    let is_directive = |key: &str| key.starts_with(DELETE_PRIMITIVES) || key.starts_with(ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !is_kept(key)) {
        return Err(bad_format("retainKeys"));
    }
    old.retain(|key, _| is_kept(key));
    Ok(())
}

fn merge_list(field: &'static Field, old: Vec<Value>, patch: Vec<Value>, deletes: bool) -> Result<Vec<Value>> {
    if strategy(field) != "merge" && !deletes {
        return Ok(patch);
    }
    if old.is_empty() && patch.is_empty() {
        return Ok(old);
    }
    let of_maps = are_maps(&old, &patch)?;
    let key = field.merge_key;
    let (merged, old, patch) = if !of_maps {
        if deletes {
            return Ok(old.into_iter().filter(|item| !patch.contains(item)).collect());
        }
        let mut merged: Vec<Value> = Vec::new();
        for item in old.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        (merged, old, patch)
    } else {
        let below = Below::of(field.ty);
        if key.is_empty() {
            return Err(failed(format!("cannot merge lists without merge key for {}", below.name())));
        }
        let (old, patch) = special_items(old, patch, key)?;
        (merge_items(below, old.clone(), &patch, key)?, old, patch)
    };
    let (of_patch, of_server) = order::split(merged, &patch, key)?;
    order::arranged((of_patch, of_server), (&patch, &old), key, of_maps)
}

/// Whether the lists hold maps; all items have to be of one type.
fn are_maps(old: &[Value], patch: &[Value]) -> Result<bool> {
    let mut types = old.iter().chain(patch).map(go_type);
    let Some(first) = types.next() else {
        return Err(failed("no elements in any of the given slices".to_owned()));
    };
    if first == LIST {
        return Err(Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ));
    }
    if types.any(|ty| ty != first) {
        let lists = Value::from(vec![Value::from(old), Value::from(patch)]);
        return Err(failed(format!("list element types are not identical: {}", go_map(&lists))));
    }
    Ok(first == MAP)
}

/// Follows the directives among the items of a patch.
fn special_items(mut old: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut plain = Vec::new();
    let mut replaces = false;
    for item in patch {
        match item.get(PATCH) {
            None => plain.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let id = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                    old.retain(|have| have.get(key) != Some(id));
                }
                Some("replace") => replaces = true,
                Some("merge") => {
                    return Err(failed("merging lists cannot yet be specified in the patch".to_owned()));
                }
                _ => {
                    let shown = go_map(directive);
                    return Err(failed(format!("unknown patch type: {shown} in map: {}", go_map(&item))));
                }
            },
        }
    }
    if replaces { Ok((plain, Vec::new())) } else { Ok((old, plain)) }
}

fn merge_items(below: Below, mut old: Vec<Value>, patch: &[Value], key: &str) -> Result<Vec<Value>> {
    for item in patch {
        let id = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
        let found = old.iter_mut().find(|have| have.get(key) == Some(id));
        match (found, item) {
            (Some(have), Value::Object(change)) => {
                let Value::Object(had) = std::mem::take(have) else { continue };
                *have = Value::Object(merge_map(below, had, change.clone())?);
            }
            _ => old.push(item.clone()),
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(old: Value, patch: Value) -> Value {
        let mut new = old;
        apply(crate::codec::schema("k8s.io.api.core.v1.Pod"), &mut new, &patch).unwrap();
        new
    }

    fn told(old: Value, patch: Value) -> String {
        let mut new = old;
        let failure = apply(crate::codec::schema("k8s.io.api.core.v1.Pod"), &mut new, &patch).unwrap_err();
        format!("{} {}", failure.code().as_u16(), failure.message())
    }

    #[test]
    fn patches_that_cannot_be_merged_are_told() {
        let old = json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
        let of_spec = |spec: Value| told(old.clone(), json!({"spec": spec}));
        assert_eq!(
            of_spec(json!({"containers": [{"image": "i"}]})),
            "500 map: map[image:i] does not contain declared merge key: name"
        );
        assert_eq!(of_spec(json!({"$patch": "x"})), "500 unknown patch type: x in map: map[$patch:x]");
        assert_eq!(
            of_spec(json!({"containers": [{"name": "a", "$patch": "merge"}]})),
            "500 merging lists cannot yet be specified in the patch"
        );
        assert_eq!(of_spec(json!({"$retainKeys": 1})), "400 invalid patch format of retainKeys");
        assert_eq!(of_spec(json!({"$retainKeys": ["a"], "b": 1})), "400 invalid patch format of retainKeys");
        let order = json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]});
        assert!(of_spec(order).starts_with("500 The order in patch list:\n[map[name:b]]\n doesn't match"));
        assert_eq!(
            of_spec(json!({"containers": ["x"]})),
            "500 list element types are not identical: [[map[name:a]] [x]]"
        );
    }

    #[test]
    fn volumes_keep_what_the_patch_retains() {
        let old = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let volume = json!({"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]});
        let new = patched(old, json!({"spec": {"volumes": [volume]}}));
        assert_eq!(new["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/"}}]));
    }

    #[test]
    fn what_is_made_has_no_directives() {
        let patch = json!({"spec": {"containers": [{"name": "a", "image": null}, {"$patch": "delete", "name": "b"}]}});
        assert_eq!(patched(json!({}), patch)["spec"], json!({"containers": [{"name": "a"}]}));
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
