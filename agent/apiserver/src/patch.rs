//! Patches on trees: JSON patch, merge patch, and strategic merge driven by the schema.

mod bounds;
mod strategic;
mod text;

use api::schema::Message;
use serde_json::Value;

use crate::status::{Failure, Result};

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
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, by merge keys.
    Strategic(Value),
}

/// Most operations of one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// Names of what an operation of a JSON patch has.
const OPERATION_FIELDS: [&str; 4] = ["op", "path", "from", "value"];

/// Reads a JSON patch.
pub fn json_patch(body: &[u8]) -> Result<Patch> {
    let parsed = crate::codec::parse_patch(body)?;
    let Value::Array(operations) = &parsed.value else {
        return Err(not_a("[]handlers.jsonPatchOp", &parsed.value));
    };
    let mut complaints = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        let unknown = operation.as_object().into_iter().flat_map(|o| o.keys());
        let unknown = unknown.filter(|key| !OPERATION_FIELDS.contains(&key.as_str()));
        complaints.extend(unknown.map(|key| format!("json patch unknown field \"[{at}].{key}\"")));
    }
    complaints.extend(parsed.duplicates.iter().map(|told| format!("json patch {told}")));
    let patch: json_patch::Patch = serde_json::from_value(parsed.value).map_err(|_| rejected())?;
    if patch.0.len() > MAX_OPERATIONS {
        return Err(Failure::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            patch.0.len()
        )));
    }
    Ok(Patch { change: Change::Json(patch), text: String::new(), complaints })
}

/// Reads a merge patch.
pub fn merge_patch(body: &[u8]) -> Result<Patch> {
    let parsed = crate::codec::parse_patch(body)?;
    if !parsed.value.is_object() {
        return Err(not_a("map[string]interface {}", &parsed.value));
    }
    let complaints = parsed.duplicates;
    let text = String::from_utf8_lossy(body).into_owned();
    Ok(Patch { change: Change::Merge(parsed.value), text, complaints })
}

/// Reads a strategic merge patch.
pub fn strategic_patch(body: &[u8]) -> Result<Patch> {
    let mut patch = merge_patch(body)?;
    if let Change::Merge(value) = patch.change {
        patch.change = Change::Strategic(value);
    }
    Ok(patch)
}

fn not_a(ty: &str, value: &Value) -> Failure {
    let found = crate::codec::json_type(value);
    Failure::bad_request(format!("error decoding patch: json: cannot unmarshal {found} into Go value of type {ty}"))
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

/// Replacing a key that an object does not have adds it.
pub fn lenient(target: &Value, operation: &json_patch::PatchOperation) -> json_patch::PatchOperation {
    match operation {
        json_patch::PatchOperation::Replace(replace) if target.pointer(replace.path.as_str()).is_none() => {
            let (path, value) = (replace.path.clone(), replace.value.clone());
            json_patch::PatchOperation::Add(json_patch::AddOperation { path, value })
        }
        other => other.clone(),
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
            Change::Json(patch) => {
                let mut copied = 0;
                for operation in &patch.0 {
                    let operation = lenient(&new, operation);
                    bounds::check(&new, &operation, &mut copied)?;
                    json_patch::patch(&mut new, std::slice::from_ref(&operation)).map_err(|_| rejected())?;
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
            Change::Json(patch) => text::patched(old, patch),
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
