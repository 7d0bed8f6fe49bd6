//! The order of `fieldsV1`: members of lists by the values of their keys, not by their text.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// Appends JSON text of a field set in upstream's order.
pub(super) fn put(value: &Value, out: &mut Vec<u8>) {
    let Value::Object(map) = value else { return put_json(value, out) };
    let mut keys: Vec<(&String, &Value)> = map.iter().collect();
    // The names of fields have their order already.
    if !map.keys().all(|key| key.starts_with("f:") || key == ".") {
        keys.sort_by(|(a, _), (b, _)| compare(a, b));
    }
    out.push(b'{');
    for (i, (key, value)) in keys.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_json(key, out);
        out.push(b':');
        put(value, out);
    }
    out.push(b'}');
}

fn put_json(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    // Into memory, a tree and a text can always be written.
    let _infallible = serde_json::to_writer(out, value);
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
        let mut text = Vec::new();
        super::put(&value, &mut text);
        assert_eq!(String::from_utf8(text).unwrap(), r#"{".":{},"f:a":{},"k:{\"port\":80}":{},"k:{\"port\":443}":{}}"#);
    }
}
