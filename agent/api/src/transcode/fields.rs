//! The order of `fieldsV1`: members of lists by the values of their keys, not by their text.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// JSON text of a field set in upstream's order.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    put(value, &mut out);
    out
}

fn put(value: &Value, out: &mut String) {
    let Value::Object(map) = value else {
        out.push_str(&value.to_string());
        return;
    };
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by(|a, b| compare(a, b));
    out.push('{');
    for (i, key) in keys.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&Value::String(key.clone()).to_string());
        out.push(':');
        put(&map[key.as_str()], out);
    }
    out.push('}');
}

fn compare(a: &str, b: &str) -> Ordering {
    let rank = |key: &str| match key.get(..2) {
        None => 0,
        Some("f:") => 1,
        Some("k:") => 2,
        Some("v:") => 3,
        Some(_) => 4,
    };
    let parsed = |key: &str| key.get(2..).and_then(|rest| serde_json::from_str::<Value>(rest).ok());
    let by_value = || match (rank(a), parsed(a), parsed(b)) {
        (2 | 3, Some(x), Some(y)) => values(&x, &y),
        _ => a.cmp(b),
    };
    rank(a).cmp(&rank(b)).then_with(by_value)
}

fn values(a: &Value, b: &Value) -> Ordering {
    let pairs = |x: &Map<String, Value>, y: &Map<String, Value>| {
        let each = x.iter().zip(y).map(|(x, y)| x.0.cmp(y.0).then_with(|| values(x.1, y.1)));
        each.fold(Ordering::Equal, Ordering::then).then_with(|| x.len().cmp(&y.len()))
    };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => pairs(x, y),
        (Value::Number(x), Value::Number(y)) => {
            x.as_f64().unwrap_or_default().total_cmp(&y.as_f64().unwrap_or_default())
        }
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Number(_), _) => Ordering::Less,
        (_, Value::Number(_)) => Ordering::Greater,
        _ => a.to_string().cmp(&b.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_in_keys_are_ordered_by_value() {
        let value = serde_json::json!({"k:{\"port\":443}": {}, "k:{\"port\":80}": {}, ".": {}, "f:a": {}});
        let text = super::text(&value);
        assert_eq!(text, r#"{".":{},"f:a":{},"k:{\"port\":80}":{},"k:{\"port\":443}":{}}"#);
    }
}
