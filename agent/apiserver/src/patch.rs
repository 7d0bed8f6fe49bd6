//! Patches on trees: JSON patch, merge patch, and strategic merge driven by the schema.

mod strategic;

use api::schema::Message;
use serde_json::Value;

use crate::status::{Failure, Result};

/// A patch that was read.
pub enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, by merge keys.
    Strategic(Value),
}

/// Most operations of one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// Reads a JSON patch.
pub fn json_patch(body: &[u8]) -> Result<Patch> {
    let value: Value = crate::codec::parse_patch(body)?;
    let patch: json_patch::Patch = serde_json::from_value(value).map_err(|_| rejected())?;
    if patch.0.len() > MAX_OPERATIONS {
        return Err(Failure::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            patch.0.len()
        )));
    }
    Ok(Patch::Json(patch))
}

/// Replacing a key that an object does not have adds it.
fn lenient(target: &Value, operation: &json_patch::PatchOperation) -> json_patch::PatchOperation {
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
        match self {
            Self::Json(patch) => {
                for operation in &patch.0 {
                    let operation = lenient(&new, operation);
                    json_patch::patch(&mut new, std::slice::from_ref(&operation)).map_err(|_| rejected())?;
                }
            }
            Self::Merge(patch) => json_patch::merge(&mut new, patch),
            Self::Strategic(patch) => strategic::apply(Some(message), &mut new, patch)?,
        }
        Ok(new)
    }
}
