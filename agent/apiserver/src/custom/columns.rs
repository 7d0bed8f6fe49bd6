//! Printer columns of custom resources: a subset of JSONPath, and what a cell shows; pure.

use serde_json::{Value, json};

use super::Version;
use crate::printers::Cell;
use crate::tree;

/// What a path leads to from one value; none where it cannot be followed.
type Found<'v> = Option<Vec<&'v Value>>;

/// One step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    /// Members from one to before another, each so many.
    Range(Option<i64>, Option<i64>, i64),
    Every,
    /// The value and all maps, lists and texts inside it.
    Within,
    /// What can be read, but leads to nothing.
    Nowhere,
    /// What any of these paths leads to.
    Any(Vec<Vec<Step>>),
    /// Members with something at the end of a path.
    Has(Vec<Step>),
    /// Members where what is at the end of a path compares so with something.
    Where(Vec<Step>, Compare, Operand),
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Equal,
    Other,
    Less,
    AtMost,
    More,
    AtLeast,
}

const COMPARES: [(&str, Compare); 6] = [
    ("==", Compare::Equal),
    ("!=", Compare::Other),
    ("<=", Compare::AtMost),
    (">=", Compare::AtLeast),
    ("<", Compare::Less),
    (">", Compare::More),
];

#[derive(Debug, PartialEq)]
enum Operand {
    Value(Value),
    Path(Vec<Step>),
}

/// Reads `.a['b'].c[0:2]..d[*][?(@.x=="y")]`; nothing if it cannot be read.
fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("..") {
            if steps.last() == Some(&Step::Within) {
                return None;
            }
            steps.push(Step::Within);
            let end = if after.starts_with(is_word) { key_end(after) } else { 0 };
            steps.extend((end > 0).then(|| Step::Key(after[..end].replace('\\', ""))));
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = key_end(after);
            let key = after[..end].replace('\\', "");
            if !key.is_empty() {
                steps.push(if key == "*" { Step::Every } else { Step::Key(key) });
            }
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix("[?(") {
            let (condition, after) = after.split_once(")]")?;
            steps.push(filter(condition)?);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (inner, after) = after.split_once(']')?;
            let all: Option<Vec<Vec<Step>>> = inner.split(',').map(|one| member(one.trim())).collect();
            let mut all = all?;
            if all.len() == 1 {
                steps.append(&mut all[0])
            } else {
                steps.push(Step::Any(all))
            }
            rest = after;
        } else if matches!(first, ' ' | '@' | '$') {
            rest = &rest[1..];
        } else if is_word(first) {
            steps.push(Step::Nowhere);
            rest = &rest[key_end(rest)..];
        } else {
            return None;
        }
    }
    Some(steps)
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Reads what stands between brackets: a name is a path of its own.
fn member(text: &str) -> Option<Vec<Step>> {
    if text == "*" {
        return Some(vec![Step::Every]);
    }
    if let Some(name) = text.strip_prefix('\'') {
        return parse(&format!(".{}", name.strip_suffix('\'')?));
    }
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    let parts: Option<Vec<Option<i64>>> = text.split(':').map(number).collect();
    Some(vec![match *parts?.as_slice() {
        // The last member is followed by none.
        [Some(at)] => Step::Range(Some(at), if at == -1 { None } else { Some(at.saturating_add(1)) }, 1),
        [start, end] => Step::Range(start, end, 1),
        [start, end, step] => Step::Range(start, end, step.unwrap_or(1)),
        _ => return None,
    }])
}

fn filter(condition: &str) -> Option<Step> {
    let Some((sign, compare)) = COMPARES.iter().find(|(sign, _)| condition.contains(sign)) else {
        return Some(Step::Has(parse(condition)?));
    };
    let (left, right) = condition.split_once(sign)?;
    let right = right.trim();
    let operand = if right.starts_with('@') {
        Operand::Path(parse(right)?)
    } else if let Some(text) = right.strip_prefix(['\'', '"']) {
        Operand::Value(text.trim_end_matches(['\'', '"']).into())
    } else {
        serde_json::from_str(right).map_or_else(|_| Operand::Path(vec![Step::Nowhere]), Operand::Value)
    };
    Some(Step::Where(parse(left.trim())?, *compare, operand))
}

/// Where a plain key ends: at a sign or space that has no backslash before it.
fn key_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'.' | b',' | b'[' | b']' | b'{' | b'}' | b'$' | b'@' | b' ' | b'\t' | b'\n' | b'\r' => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The first value a path leads to.
pub(super) fn find<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    walk(value, &parse(path)?)?.into_iter().next()
}

fn walk<'v>(value: &'v Value, steps: &[Step]) -> Found<'v> {
    let mut found = vec![value];
    for step in steps {
        let next: Option<Vec<Vec<&Value>>> = found.into_iter().map(|v| follow(v, step)).collect();
        found = next?.into_iter().flatten().collect();
    }
    Some(found)
}

fn follow<'v>(value: &'v Value, step: &Step) -> Found<'v> {
    Some(match (step, value) {
        (Step::Key(key), Value::Object(map)) => map.get(key).into_iter().collect(),
        (Step::Range(start, end, step), Value::Array(items)) => range(items, (*start, *end, *step))?,
        (Step::Within, _) => within(value),
        (Step::Every, Value::Array(items)) => items.iter().collect(),
        (Step::Every, Value::Object(map)) => map.values().collect(),
        (Step::Any(paths), _) => {
            let all: Option<Vec<Vec<&Value>>> = paths.iter().map(|path| walk(value, path)).collect();
            all?.into_iter().flatten().collect()
        }
        (Step::Has(path), Value::Array(items)) => {
            items.iter().filter(|item| walk(item, path).is_some_and(|found| !found.is_empty())).collect()
        }
        (Step::Where(left, compare, right), Value::Array(items)) => {
            let mut kept = Vec::new();
            for item in items {
                if passes(item, left, *compare, right)? {
                    kept.push(item);
                }
            }
            kept
        }
        (Step::Nowhere | Step::Range(..) | Step::Has(_) | Step::Where(..), _) => return None,
        _ => Vec::new(),
    })
}

/// A value that holds something and those inside it, the outer before the inner.
fn within(value: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) if !map.is_empty() => open.extend(map.values().rev()),
            Value::Array(items) if !items.is_empty() => open.extend(items.iter().rev()),
            Value::String(text) if !text.is_empty() => {}
            _ => continue,
        }
        found.push(value);
    }
    found
}

/// Members of a list; none if there are no such.
fn range(items: &[Value], (start, end, step): (Option<i64>, Option<i64>, i64)) -> Found<'_> {
    let count = i64::try_from(items.len()).ok()?;
    let from_start = |at: i64| if at < 0 { at + count } else { at };
    let (start, end) = (from_start(start.unwrap_or(0)), from_start(end.unwrap_or(count)));
    let is_inside = (0..count).contains(&start) && (0..=count).contains(&end) && start <= end;
    let (start, end, step) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?, usize::try_from(step).ok()?);
    (is_inside && step > 0).then(|| items[start..end].iter().step_by(step).collect())
}

/// Whether a member passes a filter; none if it cannot be compared.
fn passes(item: &Value, left: &[Step], compare: Compare, right: &Operand) -> Option<bool> {
    let found = walk(item, left)?;
    let left = match found.as_slice() {
        [] => return Some(false),
        [one] => *one,
        _ => return None,
    };
    let other;
    let right = match right {
        Operand::Value(value) => value,
        Operand::Path(path) => match walk(item, path)?.as_slice() {
            [] => return Some(false),
            [one] => {
                other = *one;
                other
            }
            _ => return None,
        },
    };
    let order = match (left, right) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        // Whole numbers and others do not compare.
        (Value::Number(a), Value::Number(b)) if a.is_f64() == b.is_f64() => a.as_f64()?.partial_cmp(&b.as_f64()?)?,
        (Value::Bool(a), Value::Bool(b)) if matches!(compare, Compare::Equal | Compare::Other) => a.cmp(b),
        _ => return None,
    };
    Some(match compare {
        Compare::Equal => order.is_eq(),
        Compare::Other => order.is_ne(),
        Compare::Less => order.is_lt(),
        Compare::AtMost => order.is_le(),
        Compare::More => order.is_gt(),
        Compare::AtLeast => order.is_ge(),
    })
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
    // With one that cannot be read, those behind it are not looked at.
    let read = |column: &&Value| parse(tree::text(column, "/jsonPath")).is_some();
    own.iter().take_while(read).cloned().collect()
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
    match (kind, value) {
        ("string", Value::String(text)) => Some(text.as_str().into()),
        ("string", Value::Null) => Some("<no value>".into()),
        ("string", Value::Number(number)) => Some(stdx::go_number(number).into()),
        ("string", Value::Bool(_)) => Some(value.to_string().into()),
        ("string", _) => Some(crate::status::escaped(&value.to_string()).into()),
        ("integer", Value::Number(number)) => number.as_i64().or_else(|| number.as_f64().map(whole)).map(Cell::from),
        ("number", Value::Number(number)) => number.as_f64().map(|number| Cell::Value(plain(number))),
        ("boolean", Value::Bool(flag)) => Some((*flag).into()),
        ("date", Value::String(text)) => Some(match text.parse::<jiff::Timestamp>() {
            Ok(time) => match i64::try_from(time.as_nanosecond()) {
                Err(_) if time.as_second() > 0 => "<invalid>".into(),
                nanos => Cell::since(nanos.ok()),
            },
            Err(_) => "<invalid>".into(),
        }),
        _ => None,
    }
}

/// A number without a fraction if it has none.
fn plain(number: f64) -> Value {
    serde_json::from_str(&stdx::go_json_float(number)).unwrap_or_default()
}

/// The whole part of a number, as a processor makes it: what is too much is the least there is.
#[allow(clippy::cast_possible_truncation, reason = "what does not fit is told apart")]
fn whole(value: f64) -> i64 {
    if value.abs() < 9.2e18 { value.trunc() as i64 } else { i64::MIN }
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
            (".spec['b\\.c']", json!(3)),
            (".spec.b\\.c", json!(3)),
            (".spec.a[0:2].n", json!(1)),
            (".spec.a[-1].n", json!(2)),
            (".spec.a[?(@.n>1)].n", json!(2)),
            (".spec.a[?(@.n)].n", json!(1)),
            (".spec['none','d'].e", json!(4)),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='X')].status", json!("no")),
            (".spec.d", json!({"e": 4})),
            ("$..e", json!(4)),
            (".spec..n", json!(1)),
            (".status..", object["status"].clone()),
            ("..['none','e']", json!(4)),
            (".spec.a[?(@..n==2)].n", json!(2)),
        ] {
            assert_eq!(find(&object, path), Some(&expected), "{path}");
        }
        // A name in quotes is read as a path; what cannot be compared ends everything.
        for path in [".spec.none", ".spec['b.c']", ".spec.a[?(@.n>1.5)].n", ".spec.a[9].n", ".spec.d[0]"] {
            assert_eq!(find(&object, path), None, "{path}");
        }
        assert_eq!(find(&json!({"a": null}), ".a"), Some(&Value::Null));
        assert_eq!(find(&object, "nonsense"), None);
        for path in [".spec..*", ".spec....n", ".a[x]", "{.spec}", ".a[0", ".a[?(@.b]"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn cells_show_values_by_the_type_of_their_column() {
        let shown = |kind: &str, value: Value| match cell(&value, kind) {
            Some(Cell::Value(value)) => value.to_string(),
            Some(_) => "a time".to_owned(),
            None => "nothing".to_owned(),
        };
        assert_eq!(shown("string", json!({"a": "<&>"})), r#""{\"a\":\"\\u003c\\u0026\\u003e\"}""#);
        assert_eq!((shown("string", Value::Null), shown("number", json!(7))), ("\"<no value>\"".into(), "7".into()));
        assert_eq!((shown("integer", json!(2.75)), shown("integer", json!(1e21))), ("2".into(), i64::MIN.to_string()));
        assert_eq!((shown("date", json!("x")), shown("date", json!(1))), ("\"<invalid>\"".into(), "nothing".into()));
    }
}
