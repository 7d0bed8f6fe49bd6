//! Custom objects, and what is alike in two objects of one sample.

use serde_json::{Value, json};

use crate::support::golden::{NAMESPACE, Sample};

const GROUP: &str = "mixed.example.test";

/// An answer without what differs between two objects of one sample.
pub(crate) fn masked(answer: &str, name: &str) -> String {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    mask(&mut answer);
    let text = serde_json::to_string_pretty(&answer).unwrap();
    text.replace(name, "NAME")
}

fn mask(value: &mut Value) {
    const OWN: [&str; 7] =
        ["uid", "resourceVersion", "creationTimestamp", "time", "clusterIP", "nodePort", "healthCheckNodePort"];
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match name.as_str() {
            name if OWN.contains(&name) && !value.is_object() => *value = "*".into(),
            name if name.ends_with("controller-uid") && value.is_string() => *value = "*".into(),
            "clusterIPs" => *value = "*".into(),
            _ => mask(value),
        }),
        Value::Array(list) => list.iter_mut().for_each(mask),
        _ => {}
    }
}

/// A definition of custom objects.
pub(crate) fn definition(plural: &str) -> Value {
    let number = json!({"type": "integer", "default": 7});
    let spec = json!({"type": "object", "properties": {"text": {"type": "string"}, "number": number}});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind_named(plural)},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// A custom object of it.
pub(crate) fn custom(plural: &str) -> Sample {
    Sample {
        collection: format!("/apis/{GROUP}/v1/namespaces/{NAMESPACE}/{plural}"),
        plural: plural.to_owned(),
        name: "custom".to_owned(),
        object: json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": kind_named(plural), "metadata": {},
            "spec": {"text": "é", "unknown": 1},
        }),
    }
}

fn kind_named(plural: &str) -> String {
    format!("Kind{plural}")
}
