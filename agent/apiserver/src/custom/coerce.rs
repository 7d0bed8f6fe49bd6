//! Metadata in custom resources: of the object, and of objects inside it; pure.

use api::transcode::{self, Issue, Report};
use serde_json::Value;

use super::schema::Schema;
use crate::codec;
use crate::tree;

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A value in the metadata of an embedded object that does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{field}: Invalid value: {value}: {why}")]
pub(super) struct Misfit {
    field: String,
    value: String,
    why: String,
}

/// Gives the metadata of an object its canonical form, and notes the paths of fields that are unknown there.
pub(super) fn metadata(object: &mut Value, field: &str, unknown: &mut Report) -> Result<(), Issue> {
    let Some(given) = object.get_mut("metadata") else { return Ok(()) };
    if given.is_null() {
        *given = Value::Object(serde_json::Map::new());
    }
    let schema = codec::schema(META);
    let mut report = Report::default();
    let raw = transcode::value_to_proto(schema, given, &mut report)?;
    let dot = if field.is_empty() { "" } else { "." };
    report.unknown.iter().for_each(|path| unknown.note(|| format!("{field}{dot}metadata.{path}")));
    if let Ok(mut canonical) = transcode::proto_to_value(schema, &raw, None) {
        if canonical["creationTimestamp"].is_null() {
            tree::remove(&mut canonical, "creationTimestamp");
        }
        object["metadata"] = canonical;
    }
    Ok(())
}

/// Checks the type names of embedded objects and gives their metadata its canonical form.
pub(super) fn coerce(schema: &Schema, value: &mut Value, unknown: &mut Report) -> Result<(), Misfit> {
    if schema.any(&|s| s.embedded) { walk(schema, value, "", unknown) } else { Ok(()) }
}

fn walk(schema: &Schema, value: &mut Value, field: &str, unknown: &mut Report) -> Result<(), Misfit> {
    if schema.embedded && value.is_object() {
        one(value, field, unknown)?;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let dot = if field.is_empty() { "" } else { "." };
                if let Some(inner) = schema.property(key).or(schema.values()) {
                    walk(inner, value, &format!("{field}{dot}{key}"), unknown)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else { return Ok(()) };
            for (i, item) in items.iter_mut().enumerate() {
                walk(inner, item, &format!("{field}[{i}]"), unknown)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Ok(())
}

fn one(value: &mut Value, field: &str, unknown: &mut Report) -> Result<(), Misfit> {
    let misfit = |key: &str, value: &Value, why: String| Misfit {
        field: if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") },
        value: value.to_string(),
        why,
    };
    for key in ["apiVersion", "kind"] {
        if let Some(given) = value.get(key).filter(|v| !v.is_string()) {
            return Err(misfit(key, given, "must be a string".to_owned()));
        }
    }
    metadata(value, field, unknown)
        .map_err(|issue| misfit("metadata", &value["metadata"], codec::alone(&issue, "v1.ObjectMeta")))
}

/// What is told about finalizers that are new and have no domain.
pub(super) fn finalizer_warnings(value: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map_or(&[][..], |old| tree::list(old, "/metadata/finalizers"));
    let mut added: Vec<&str> = tree::list(value, "/metadata/finalizers")
        .iter()
        .filter(|f| !before.contains(f))
        .filter_map(Value::as_str)
        .collect();
    added.sort_unstable();
    added.dedup();
    let standard = ["orphan", "foregroundDeletion", "kubernetes"];
    let plain = added.into_iter().filter(|name| !name.contains('/') && !standard.contains(name));
    let text = |name: &str| {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        format!(
            "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts \
             with other finalizer writers"
        )
    };
    plain.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_of_embedded_objects_is_known() {
        let schema = Schema::parse(&json!({"properties": {"t": {"x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true}}}));
        let mut value =
            json!({"t": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "nope": 1}, "other": 1}});
        let mut unknown = Report::default();
        coerce(&schema, &mut value, &mut unknown).unwrap();
        assert_eq!(unknown.unknown, ["t.metadata.nope"]);
        assert_eq!(value["t"], json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "other": 1}));
        let mut wrong = json!({"t": {"kind": 1}});
        assert_eq!(
            coerce(&schema, &mut wrong, &mut unknown).unwrap_err().to_string(),
            "t.kind: Invalid value: 1: must be a string"
        );
    }

    #[test]
    fn new_finalizers_want_a_domain() {
        let value = json!({"metadata": {"finalizers": ["a", "b.c", "d.e/f", "orphan"]}});
        assert_eq!(finalizer_warnings(&value, None).len(), 2);
        assert!(finalizer_warnings(&value, Some(&value)).is_empty());
    }
}
