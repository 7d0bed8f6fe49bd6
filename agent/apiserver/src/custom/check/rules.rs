//! Rules in CEL have to compile, and what they may cost has to stay within bounds.

use cel::Checked;
use serde_json::Value;

use super::{Errors, Grounds, shown};
use crate::custom::rules::environment;
use crate::status::{FieldError, Shown};
use crate::tree;

/// What one rule may cost for one object, by the sizes that its schema allows.
const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may cost.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// How many of the most expensive rules are told.
const MOST_TOLD: usize = 4;

/// Checks the rules of a schema in which `known` is wrong already: nothing is said about rules around such places.
pub(super) fn check(schema: &Value, field: &str, grounds: Grounds, known: &[FieldError]) -> Errors {
    let mut walk = Walk { errors: Errors::new(), total: 0, expensive: Vec::new(), unchanged: grounds.unchanged, known };
    walk.node(schema, field, &Place { times: Some(1), is_object: true, uncorrelatable: None });
    if walk.total > SCHEMA_LIMIT {
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        walk.errors.extend(walk.expensive.iter().map(|(field, _)| FieldError::forbidden(field, why)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        walk.errors.push(FieldError::forbidden(field, too_much(what, walk.total, SCHEMA_LIMIT)));
    }
    walk.errors
}

/// Where a schema stands.
struct Place {
    /// How many values of it there can be, if that is bounded.
    times: Option<u64>,
    /// Whether its values are objects of the API.
    is_object: bool,
    /// The list around it whose members have no old selves.
    uncorrelatable: Option<String>,
}

struct Walk<'k> {
    errors: Errors,
    total: u64,
    expensive: Vec<(String, u64)>,
    unchanged: bool,
    known: &'k [FieldError],
}

/// By how much a schema multiplies what is inside it.
fn factor(schema: &Value) -> Option<u64> {
    let limit = |key: &str| schema[key].as_i64().map(|n| u64::try_from(n).unwrap_or(0));
    match tree::text(schema, "/type") {
        "object" if !schema["additionalProperties"].is_null() => limit("maxProperties"),
        "array" => limit("maxItems"),
        _ => Some(1),
    }
}

fn too_much(what: &str, cost: u64, limit: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "it is told with one digit")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

impl Walk<'_> {
    fn node(&mut self, schema: &Value, field: &str, place: &Place) {
        if !schema.is_object() {
            return;
        }
        let times = place.times.and_then(|t| Some(t.saturating_mul(factor(schema)?)));
        let inner = |of: &Value, uncorrelatable: Option<String>| Place {
            times,
            is_object: of["x-kubernetes-embedded-resource"] == true,
            uncorrelatable,
        };
        let same = || place.uncorrelatable.clone();
        let additional = &schema["additionalProperties"];
        self.node(additional, &format!("{field}.additionalProperties"), &inner(additional, same()));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.node(property, &format!("{field}.properties[{name}]"), &inner(property, same()));
        }
        let items = &schema["items"];
        let keyed = tree::text(schema, "/x-kubernetes-list-type") == "map";
        let apart = same().or_else(|| (!keyed).then(|| field.to_owned()));
        self.node(items, &format!("{field}.items"), &inner(items, apart));
        self.own(schema, field, place);
    }

    fn own(&mut self, schema: &Value, field: &str, place: &Place) {
        let rules = tree::list(schema, "/x-kubernetes-validations");
        let is_below =
            |e: &FieldError| e.field().strip_prefix(field).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        if rules.is_empty() || self.known.iter().any(is_below) {
            return;
        }
        let at = format!("{field}.x-kubernetes-validations");
        let Some(seen) = cel::Schema::new(schema, "selfType", place.is_object) else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to \
                       convert structural schema to CEL declarations";
            self.errors.push(FieldError::internal(at, why));
            return;
        };
        for (i, rule) in rules.iter().enumerate() {
            self.rule(rule, &seen, (&format!("{at}[{i}]"), place));
        }
    }

    fn observe(&mut self, what: &str, field: String, cost: u64) {
        if !self.unchanged && cost > RULE_LIMIT {
            self.errors.push(FieldError::forbidden(&field, too_much(what, cost, RULE_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.expensive.push((field, cost));
            self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.expensive.truncate(MOST_TOLD);
        }
    }

    fn rule(&mut self, rule: &Value, seen: &cel::Schema, (field, place): (&str, &Place)) {
        let at = |key: &str| format!("{field}.{key}");
        let expression = tree::text(rule, "/rule");
        let environment = environment(seen, rule["optionalOldSelf"] == true);
        let shown = || Shown::spelled(shown::rule(rule));
        let cost = |checked: &Checked| checked.cost(&[("self", seen), ("oldSelf", seen)]).max;
        let checked = environment.check(expression);
        let wrong = match &checked {
            Err(error) => Some(error.detail()),
            Ok(checked) if *checked.output_type() != cel::Type::Bool => {
                Some("cel expression must evaluate to a bool".to_owned())
            }
            Ok(_) => None,
        };
        if let Some(why) = wrong {
            self.observe("estimated rule cost", at("rule"), 0);
            self.errors.push(FieldError::invalid(at("rule"), shown(), why));
            if !rule["optionalOldSelf"].is_null() {
                self.unused_option(rule, at("optionalOldSelf"));
            }
            return;
        }
        let Ok(checked) = checked else { return };
        let times = place.times.unwrap_or_else(|| seen.max_occurrences());
        self.observe("estimated rule cost", at("rule"), cost(&checked).saturating_mul(times));
        let made = tree::text(rule, "/messageExpression");
        if !made.is_empty() {
            match environment.check(made) {
                Err(error) => {
                    let why = format!("messageExpression {}", error.detail());
                    self.errors.push(FieldError::invalid(at("messageExpression"), shown(), why));
                }
                Ok(made) if *made.output_type() != cel::Type::String => {
                    let why = "messageExpression must evaluate to a string";
                    self.errors.push(FieldError::invalid(at("messageExpression"), shown(), why));
                }
                Ok(made) => self.observe("estimated messageExpression cost", at("messageExpression"), cost(&made)),
            }
        }
        if !checked.uses("oldSelf") {
            if !rule["optionalOldSelf"].is_null() {
                self.unused_option(rule, at("optionalOldSelf"));
            }
        } else if let Some(around) = &place.uncorrelatable {
            let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {around}");
            self.errors.push(FieldError::invalid(at("rule"), expression, why));
        }
    }

    fn unused_option(&mut self, rule: &Value, field: String) {
        let why = "may not be set if oldSelf is not used in rule";
        self.errors.push(FieldError::invalid(field, rule["optionalOldSelf"].clone(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(schema: &Value) -> Vec<String> {
        let grounds = Grounds { status: false, unchanged: false };
        check(schema, "s", grounds, &[]).iter().map(ToString::to_string).collect()
    }

    fn with(rules: Value) -> Value {
        json!({"type": "object", "properties": {"x": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}},
            "x-kubernetes-validations": rules})
    }

    #[test]
    fn rules_compile_to_truths() {
        let sound = json!([{"rule": "self.x > 0", "messageExpression": "string(self.x)"}]);
        assert_eq!(texts(&with(sound)), Vec::<String>::new());
        let found = texts(&with(
            json!([{"rule": "self.x"}, {"rule": "self.y > 1"}, {"rule": "true", "messageExpression": "self.x"},
            {"rule": "self.x > 0", "optionalOldSelf": true}]),
        ));
        assert!(found[0].ends_with("cel expression must evaluate to a bool"), "{found:?}");
        assert!(found[1].contains("compilation failed: ERROR: <input>:1:5: undefined field 'y'"), "{found:?}");
        assert!(found[2].ends_with("messageExpression must evaluate to a string"), "{found:?}");
        assert_eq!(
            found[3],
            "s.x-kubernetes-validations[3].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
        );
    }

    #[test]
    fn costs_stay_within_bounds() {
        let found = texts(&with(json!([{"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a == b && b == c)))"}])));
        assert!(found[0].starts_with(
            "s.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x"
        ));
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn members_without_keys_have_no_old_selves() {
        let schema = json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 9,
            "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}});
        assert_eq!(
            texts(&schema),
            [
                "s.properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[l]"
            ]
        );
    }
}
