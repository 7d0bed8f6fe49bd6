//! Printer columns of custom resources: a subset of JSONPath, and what a cell shows; pure.

use serde_json::{Value, json};

use super::Version;
use crate::printers::Cell;
use crate::tree;

/// One step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(i64),
    Every,
    /// `[?(@.key=="value")]`
    Where(Vec<String>, String),
}

/// Reads `.a['b'].c[0][*][?(@.x=="y")]`. What is not understood leads nowhere.
fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = key_end(after);
            let key = after[..end].replace("\\.", ".");
            if !key.is_empty() {
                steps.push(if key == "*" { Step::Every } else { Step::Key(key) });
            }
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix("[?(") {
            let (condition, after) = after.split_once(")]")?;
            let (left, right) = condition.split_once("==")?;
            let keys = left.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
            steps.push(Step::Where(keys, right.trim().trim_matches(['"', '\'']).to_owned()));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (inner, after) = after.split_once(']')?;
            steps.push(match inner.trim() {
                "*" => Step::Every,
                text if text.starts_with(['\'', '"']) => Step::Key(text.trim_matches(['"', '\'']).replace("\\.", ".")),
                number => Step::Index(number.parse().ok()?),
            });
            rest = after;
        } else {
            return None;
        }
    }
    Some(steps)
}

/// Where a plain key ends: at a dot or bracket that has no backslash before it.
fn key_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'.' | b'[' => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The first value a path leads to.
pub(super) fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let steps = parse(path)?;
    let mut found = vec![value];
    for step in &steps {
        found = found.into_iter().flat_map(|v| follow(v, step)).collect();
    }
    found.into_iter().find(|v| !v.is_null())
}

fn follow<'v>(value: &'v Value, step: &Step) -> Vec<&'v Value> {
    match (step, value) {
        (Step::Key(key), Value::Object(map)) => map.get(key).into_iter().collect(),
        (Step::Index(index), Value::Array(items)) => {
            let at = if *index < 0 {
                items.len().checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX))
            } else {
                usize::try_from(*index).ok()
            };
            at.and_then(|at| items.get(at)).into_iter().collect()
        }
        (Step::Every, Value::Array(items)) => items.iter().collect(),
        (Step::Every, Value::Object(map)) => map.values().collect(),
        (Step::Where(keys, wanted), Value::Array(items)) => {
            let fits = |item: &&Value| {
                let at = keys.iter().try_fold(*item, |v, key| v.get(key));
                at.is_some_and(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned) == *wanted)
            };
            items.iter().filter(fits).collect()
        }
        _ => Vec::new(),
    }
}

fn columns(version: &Version) -> Vec<Value> {
    let own = &version.columns;
    if own.is_empty() {
        let text = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
                    guaranteed to be set in happens-before order across separate operations. Clients may not set this value. \
                    It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. \
                    More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
        return vec![
            json!({"name": "Age", "type": "date", "description": text, "jsonPath": ".metadata.creationTimestamp"}),
        ];
    }
    own.clone()
}

/// The column definitions of a version as JSON text, in the order of their fields.
#[must_use]
pub fn definitions(version: &Version) -> String {
    let text = "Name must be unique within a namespace. Is required when creating resources, although some resources may \
                allow a client to request the generation of an appropriate name automatically. Name is primarily intended \
                for creation idempotence and configuration definition. Cannot be updated. More info: \
                https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
    let shown = |[name, ty, format, description]: [&str; 4], priority: i64| {
        let quoted = |text: &str| Value::from(text).to_string();
        format!(
            r#"{{"name":{},"type":{},"format":{},"description":{},"priority":{priority}}}"#,
            quoted(name),
            quoted(ty),
            quoted(format),
            quoted(description)
        )
    };
    let mut all = vec![shown(["Name", "string", "name", text], 0)];
    all.extend(columns(version).iter().map(|c| {
        let of = |key: &str| c[key].as_str().unwrap_or_default();
        let description = c["description"].as_str().filter(|d| !d.is_empty()).map_or_else(
            || format!("Custom resource definition column (in JSONPath format): {}", of("jsonPath")),
            str::to_owned,
        );
        shown([of("name"), of("type"), of("format"), &description], c["priority"].as_i64().unwrap_or(0))
    }));
    format!("[{}]", all.join(","))
}

/// The cells of an object.
#[must_use]
pub fn cells(version: &Version, object: &Value) -> Vec<Cell> {
    let mut cells = vec![Cell::Value(object["metadata"]["name"].clone())];
    for column in columns(version) {
        let value = find(object, tree::text(&column, "/jsonPath"));
        let cell = value.and_then(|v| cell(v, tree::text(&column, "/type")));
        cells.push(cell.unwrap_or(Cell::Value(Value::Null)));
    }
    cells
}

fn cell(value: &Value, kind: &str) -> Option<Cell> {
    match kind {
        "string" => Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned).into()),
        "integer" => value.as_i64().or_else(|| value.as_f64().map(|f| f.trunc()).and_then(whole)).map(Cell::from),
        "number" => value.as_f64().map(|number| Cell::Value(number.into())),
        "boolean" => value.as_bool().map(Cell::from),
        "date" => {
            let time: Option<jiff::Timestamp> = value.as_str()?.parse().ok();
            let nanos = time.and_then(|t| i64::try_from(t.as_nanosecond()).ok());
            Some(Cell::since(nanos))
        }
        _ => None,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the value was cut to a whole number and is checked to fit")]
fn whole(value: f64) -> Option<i64> {
    (value.abs() < 9e15).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({"spec": {"a": [{"n": 1}, {"n": 2}], "b.c": 3, "d": {"e": 4}},
            "status": {"conditions": [{"type": "X", "status": "no"}, {"type": "Ready", "status": "True"}]}});
        for (path, expected) in [
            (".spec.a[1].n", json!(2)),
            (".spec.a[*].n", json!(1)),
            (".spec['b.c']", json!(3)),
            (".spec.b\\.c", json!(3)),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='X')].status", json!("no")),
            (".spec.d", json!({"e": 4})),
        ] {
            assert_eq!(find(&object, path), Some(&expected), "{path}");
        }
        assert_eq!(find(&object, ".spec.none"), None);
        assert_eq!(find(&object, "nonsense"), None);
    }
}
