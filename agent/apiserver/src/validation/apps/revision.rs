//! ControllerRevisions.

use api::apps::v1::ControllerRevision;
use serde_json::Value;

use crate::status::{FieldError, Shown};
use crate::validation::{Change, Errors, Path, checks};

pub fn controller_revision(change: &Change<'_, ControllerRevision>, errors: &mut Errors) {
    let new = change.new;
    checks::non_negative(&Path::root("revision"), new.revision, errors);
    let data = |revision: &ControllerRevision| -> Option<Value> {
        revision.data.raw.as_deref().and_then(|raw| serde_json::from_slice(raw).ok())
    };
    let own = data(new);
    if let Some(old) = change.old {
        if own != data(old) {
            let raw = new.data.raw.as_deref().map_or_else(|| "null".into(), String::from_utf8_lossy);
            errors.push(FieldError::invalid("data", Shown::spelled(raw), checks::IMMUTABLE));
        }
        return;
    }
    match own {
        None | Some(Value::Null) => errors.push(FieldError::required("data", "data is mandatory")),
        Some(Value::Object(_)) => {}
        Some(_) => errors.push(FieldError::required("data", "data must be a valid JSON object")),
    }
}
