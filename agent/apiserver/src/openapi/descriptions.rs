//! Descriptions of types, their fields and parameters, as upstream's documents carry them.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::LazyLock;

use serde_json::Value;

/// The table, packed by the build script; `facts/import` says what its rows are.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions"));

/// The names of the rows that hold parameters, and fields that all kinds have.
const PARAMETERS: &str = "?";
const OF_KINDS: &str = "*";

/// By type and field; the type itself has an empty field. Unpacked with the first document that is made.
static TEXTS: LazyLock<HashMap<(&str, &str), &str>> = LazyLock::new(|| {
    let mut table = String::new();
    if let Err(error) = flate2::read::DeflateDecoder::new(PACKED).read_to_string(&mut table) {
        tracing::error!(%error, "the descriptions of built-in kinds cannot be unpacked");
    }
    let mut texts = HashMap::new();
    let mut name = "";
    // They stay for as long as the process, like any other table.
    for line in String::leak(table).lines() {
        match line.strip_prefix('\t') {
            Some(row) => {
                let (field, text) = row.split_once('\t').unwrap_or((row, ""));
                texts.insert((name, field), text);
            }
            None => {
                let (of, text) = line.split_once('\t').unwrap_or((line, ""));
                name = of;
                texts.insert((name, ""), text);
            }
        }
    }
    texts
});

fn find(name: &str, field: &str) -> Option<String> {
    let text = TEXTS.get(&(name, field)).or_else(|| TEXTS.get(&(OF_KINDS, field)).filter(|_| !field.is_empty()))?;
    (!text.is_empty()).then(|| unescaped(text))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => out.extend(letters.next().map(|escaped| match escaped {
                'n' => '\n',
                't' => '\t',
                other => other,
            })),
            (letter, false) => out.push(letter),
        }
    }
    out
}

/// Adds the descriptions that are known to a schema and its properties.
pub(super) fn add(openapi_name: &str, schema: &mut Value) {
    if let Some(text) = find(openapi_name, "") {
        schema["description"] = text.into();
    }
    for (name, property) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(text) = find(openapi_name, name) {
            property["description"] = text.into();
        }
    }
}

/// What a field of options says of itself.
pub(super) fn option(openapi_name: &str, field: &str) -> Option<String> {
    find(openapi_name, field)
}

/// What a parameter that many operations have says of itself; patches say more of some.
pub(super) fn parameter(name: &str, is_patch: bool) -> Option<String> {
    let patched = is_patch.then(|| find(PARAMETERS, &format!("patch {name}"))).flatten();
    patched.or_else(|| find(PARAMETERS, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_and_fields_are_described() {
        let mut schema = json!({"properties": {"name": {"type": "string"}, "other": {}}});
        add("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", &mut schema);
        assert!(schema["properties"]["name"]["description"].as_str().unwrap().starts_with("Name must be unique"));
        assert!(schema["properties"]["other"]["description"].is_null() && schema["description"].is_string());
        let mut schema = json!({"properties": {"kind": {}}});
        add("io.k8s.api.core.v1.Pod", &mut schema);
        assert!(schema["properties"]["kind"]["description"].as_str().unwrap().starts_with("Kind is a string"));
        let mut schema = json!({});
        add("example.v1.Unknown", &mut schema);
        assert_eq!(schema, json!({}));
    }

    #[test]
    fn parameters_are_described_by_what_they_are_for() {
        let [plain, patch] = [false, true].map(|is_patch| parameter("fieldManager", is_patch).unwrap());
        assert!(patch.contains("required for apply requests") && !plain.contains("apply"));
        assert!(option("io.k8s.api.core.v1.PodLogOptions", "follow").unwrap().starts_with("Follow"));
        assert!(parameter("sendInitialEvents", false).unwrap().contains("\n\nWhen"));
    }
}
