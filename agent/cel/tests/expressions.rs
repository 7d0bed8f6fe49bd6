//! What upstream makes of expressions: `expressions.jsonl` holds, for each, its result, its error or the text of the
//! compiler, and the estimated cost. The variables are `object` (of any type) and `self` (of `schema.json`), and both
//! hold `object.json`.

#![allow(clippy::unwrap_used)]

use cel::{Activation, Budget, Environment, Schema, Type, Value, to_json};
use serde_json::Value as Json;

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Optional(None) => "none".to_owned(),
        Value::Optional(Some(inner)) => format!("some({})", shown(inner)),
        Value::Type(ty) => format!("type {}", ty.name()),
        value => to_json(value).map_or_else(|_| format!("?{}", value.type_of().name()), |j| j.to_string()),
    }
}

fn same(expected: &str, found: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Json>(text).ok();
    let as_text = |json: Option<Json>| json.map(|j| j.as_str().map_or(j.to_string(), str::to_owned));
    expected == found || (read(expected).is_some() && as_text(read(expected)) == as_text(read(found)))
}

#[test]
fn expressions_mean_what_they_mean_upstream() {
    let read = |text: &str| serde_json::from_str::<Json>(text).unwrap();
    let (schema, object) = (read(include_str!("schema.json")), read(include_str!("object.json")));
    let schema = Schema::new(&schema, "selfType", true).unwrap();
    let environment = Environment::new().with("object", Type::Dyn).with("self", schema.ty().clone());
    let mut wrong = Vec::new();
    for line in include_str!("expressions.jsonl").lines() {
        let case = read(line);
        let expression = case["expr"].as_str().unwrap();
        let mut note = |what: &str, found: &str| {
            if !case[what].as_str().is_some_and(|expected| same(expected, found)) {
                wrong.push(format!("{expression}\n  {what}: {found}\n  upstream: {case}"));
            }
        };
        let checked = match environment.check(expression) {
            Ok(checked) => checked,
            Err(error) if error.issues.is_empty() => {
                note("program", &error.to_string());
                continue;
            }
            Err(error) => {
                note("compile", &error.to_string());
                continue;
            }
        };
        note("type", &checked.output_type().declared());
        let cost = checked.cost(&[("self", &schema)]);
        note("min", &cost.min.to_string());
        note("max", &cost.max.to_string());
        let program = checked.program();
        let activation = Activation::new().with("object", Value::json(&object)).with("self", Value::json(&object));
        match program.evaluate(&activation, &Budget::new(cel::OBJECT_BUDGET)) {
            Ok(value) => note("value", &shown(&value)),
            Err(error) => note("error", &error.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
