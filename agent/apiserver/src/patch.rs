//! Patches on trees: JSON patch, merge patch, and strategic merge driven by the schema.

mod bounds;
mod operation;
mod strategic;
mod text;

use api::schema::Message;
use serde_json::Value;

use crate::status::{Failure, Result};
pub(crate) use operation::Operation;

/// A patch that was read.
#[derive(Clone, Debug)]
pub struct Patch {
    /// What it changes.
    pub change: Change,
    /// As it was written.
    text: String,
    /// What strict decoding objects to in the patch itself.
    pub complaints: Vec<String>,
}

/// What a patch changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// RFC 6902.
    Json(Vec<Operation>),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, by merge keys.
    Strategic(Value),
}

/// Most operations of one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// Names of what an operation of a JSON patch has.
const OPERATION_FIELDS: [&str; 4] = ["op", "path", "from", "value"];

/// How closely a patch is looked at when it is read: what is wrong with one is told in other words then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// For fields that are not known, or there twice.
    Strict,
    /// Not.
    Lenient,
}

/// Reads a JSON patch.
pub fn json_patch(body: &[u8], reading: Reading) -> Result<Patch> {
    let (prefix, list, item) = match reading {
        Reading::Strict => ("error decoding patch: ", "[]handlers.jsonPatchOp", "handlers.jsonPatchOp"),
        Reading::Lenient => ("", "jsonpatch.Patch", "jsonpatch.Operation"),
    };
    let bad = |why: String| Failure::bad_request(format!("{prefix}{why}"));
    let no_value = |value: &Value, ty: &str| bad(format!("{} into Go value of type {ty}", unfit(value)));
    let parsed = crate::codec::parse_patch(body).map_err(bad)?;
    let complaints = complaints_about(&parsed);
    let values = match parsed.value {
        Value::Array(values) => values,
        Value::Null => Vec::new(),
        other => return Err(no_value(&other, list)),
    };
    let mut operations = Vec::with_capacity(values.len());
    for value in values {
        operations.push(match value {
            Value::Object(fields) => match Operation::read(fields) {
                Ok(operation) => operation,
                Err(_) if reading == Reading::Lenient => Operation::default(),
                Err((key, other)) => {
                    return Err(bad(format!(
                        "{} into Go struct field jsonPatchOp.{key} of type string",
                        unfit(&other)
                    )));
                }
            },
            Value::Null => Operation::default(),
            other => return Err(no_value(&other, item)),
        });
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(Failure::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    Ok(Patch { change: Change::Json(operations), text: String::new(), complaints })
}

/// What strict decoding says of a JSON patch.
fn complaints_about(parsed: &crate::codec::Parsed<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, operation) in parsed.value.as_array().into_iter().flatten().enumerate() {
        let unknown = operation.as_object().into_iter().flat_map(|o| o.keys());
        let unknown = unknown.filter(|key| !OPERATION_FIELDS.contains(&key.as_str()));
        complaints.extend(unknown.map(|key| format!("json patch unknown field \"[{at}].{key}\"")));
    }
    complaints.extend(parsed.duplicates.iter().map(|told| format!("json patch {told}")));
    complaints
}

/// Reads a merge patch.
pub fn merge_patch(body: &[u8], reading: Reading) -> Result<Patch> {
    let no_patch = || Failure::bad_request("Invalid JSON Patch");
    let bad = |why: String| match reading {
        Reading::Strict => Failure::bad_request(format!("error decoding patch: {why}")),
        Reading::Lenient => no_patch(),
    };
    let parsed = crate::codec::parse_patch(body).map_err(bad)?;
    match &parsed.value {
        Value::Object(_) => {}
        Value::Null => return Err(no_patch()),
        other => return Err(bad(no_map(other))),
    }
    let text = String::from_utf8_lossy(body).into_owned();
    Ok(Patch { change: Change::Merge(parsed.value), text, complaints: parsed.duplicates })
}

/// Reads a strategic merge patch.
pub fn strategic_patch(body: &[u8]) -> Result<Patch> {
    let parsed = crate::codec::parse_patch(body).map_err(Failure::bad_request)?;
    let change = match parsed.value {
        Value::Null => Value::Object(Default::default()),
        map @ Value::Object(_) => map,
        other => return Err(Failure::bad_request(no_map(&other))),
    };
    Ok(Patch { change: Change::Strategic(change), text: String::new(), complaints: parsed.duplicates })
}

fn no_map(value: &Value) -> String {
    format!("{} into Go value of type map[string]interface {{}}", unfit(value))
}

fn unfit(value: &Value) -> String {
    format!("json: cannot unmarshal {}", crate::codec::json_type(value))
}

/// Merges a patch as upstream does: what takes a place that nothing like it had is cleared of nulls, also inside lists.
fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(target), Value::Object(patch)) = (&mut *target, patch) else {
        let was_object = target.is_object();
        *target = patch.clone();
        if !was_object {
            prune(target);
        }
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Removes the nulls of all objects.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The answer to a patch that does not fit the object: what does not is not told.
fn rejected() -> Failure {
    let text = "the server rejected our request due to an error in our request";
    Failure::new(http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text)
}

impl Patch {
    /// The patched object.
    pub fn apply(&self, message: &'static Message, old: &Value) -> Result<Value> {
        let mut new = old.clone();
        match &self.change {
            Change::Json(operations) => {
                let mut copied = 0;
                for operation in operations {
                    operation.apply(&mut new, &mut copied).ok_or_else(rejected)?;
                }
                if !new.is_object() {
                    return Err(rejected());
                }
            }
            Change::Merge(patch) => merge(&mut new, patch),
            Change::Strategic(patch) => strategic::apply(message, &mut new, patch)?,
        }
        Ok(new)
    }

    /// What errors about the patched object show, given the JSON text of the object before.
    #[must_use]
    pub fn shown(&self, old: &str) -> String {
        let text = match &self.change {
            Change::Json(operations) => text::patched(old, operations),
            Change::Merge(_) => text::merged(old, &self.text),
            Change::Strategic(patch) => Some(crate::codec::go_map(patch)),
        };
        text.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_are_cleared_from_what_is_new_also_in_lists() {
        let merged = |mut target: Value, patch: Value| {
            merge(&mut target, &patch);
            target
        };
        let patch = json!({"a": null, "l": [{"x": null, "y": 1}, null], "o": {"n": {"x": null}}});
        let expected = json!({"l": [{"y": 1}, null], "o": {"n": {}}, "z": 1});
        assert_eq!(merged(json!({"a": 1, "z": 1, "l": [2]}), patch), expected);
        // A list in the place of an object is taken as it is.
        assert_eq!(merged(json!({"o": {}}), json!({"o": [{"x": null}]})), json!({"o": [{"x": null}]}));
        assert_eq!(merged(json!({"o": {"a": 1}}), json!({"o": {"a": null, "b": 2}})), json!({"o": {"b": 2}}));
    }
}
