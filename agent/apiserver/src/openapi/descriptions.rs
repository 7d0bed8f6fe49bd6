//! Descriptions of the types that all objects are made of.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

const TABLE: &str = include_str!("meta.tsv");
const PACKAGE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// By message and field; the message itself has an empty field.
static TEXTS: LazyLock<HashMap<(&str, &str), String>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    let cells = rows.filter_map(|line| {
        let mut cells = line.splitn(3, '\t');
        Some(((cells.next()?, cells.next()?), cells.next()?.replace("\\n", "\n").replace("\\t", "\t")))
    });
    cells.collect()
});

/// Adds the descriptions that are known to a schema and its properties.
pub(super) fn add(openapi_name: &str, schema: &mut Value) {
    let Some(message) = openapi_name.strip_prefix(PACKAGE) else { return };
    if let Some(text) = TEXTS.get(&(message, "")) {
        schema["description"] = text.as_str().into();
    }
    for (name, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(text) = TEXTS.get(&(message, name.as_str())) {
            property["description"] = text.as_str().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_described() {
        let mut schema = json!({"properties": {"name": {"type": "string"}, "other": {}}});
        add("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", &mut schema);
        assert!(schema["properties"]["name"]["description"].as_str().unwrap().starts_with("Name must be unique"));
        assert!(schema["properties"]["other"]["description"].is_null() && schema["description"].is_string());
        let mut schema = json!({});
        add("io.k8s.api.core.v1.Pod", &mut schema);
        assert_eq!(schema, json!({}));
    }
}
