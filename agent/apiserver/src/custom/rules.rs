//! Rules in CEL that a schema has for its values: compiled once, evaluated on every write.
//!
//! A rule sees a value as `self` and what it was as `oldSelf`. A rule about a change is skipped where there is nothing
//! to compare with. What an update leaves as it was is warned of, not refused, unless the rule is about changes.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Instant;

use cel::{Activation, Budget, Environment, EvalErrorKind, Program, Type};
use serde_json::Value;

use super::check::follow;
use super::schema::Schema;
use super::validate::{correlated, unchanged};
use crate::metrics::{Histogram, Text};
use crate::status::FieldError;
use crate::tree;

const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Of the whole process: schemas keep their rules, and know no server.
static COMPILED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(SECONDS));
static EVALUATED: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(SECONDS));

/// The rules of a schema and of everything inside it.
#[derive(Debug, Default)]
pub struct Rules {
    own: Vec<Rule>,
    /// What the rules right here see; there if there are any.
    seen: Option<cel::Schema>,
    /// The type of values, for messages.
    ty: String,
    properties: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

#[derive(Debug)]
struct Rule {
    program: Result<Program, String>,
    message_program: Option<Program>,
    uses_old: bool,
    optional_old: bool,
    /// The rule as messages name it.
    name: String,
    /// What is told when it fails and nothing better is made.
    message: String,
    reason: String,
    /// Where it is told, below the value.
    path: String,
}

/// Longest message that an expression may make.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// The variables of a rule.
pub(super) fn environment(schema: &cel::Schema, optional_old: bool) -> Environment {
    let old = if optional_old { Type::optional(schema.ty().clone()) } else { schema.ty().clone() };
    Environment::new().with("self", schema.ty().clone()).with("oldSelf", old)
}

/// Whether a schema has a rule anywhere where rules may be.
fn has_rules(schema: &Value) -> bool {
    !tree::list(schema, "/x-kubernetes-validations").is_empty()
        || schema["properties"].as_object().is_some_and(|p| p.values().any(has_rules))
        || schema.get("items").is_some_and(|s| s.is_object() && has_rules(s))
        || schema.get("additionalProperties").is_some_and(|s| s.is_object() && has_rules(s))
}

impl Rules {
    /// Compiles the rules of a schema; none if it has none. `is_object` says that values are objects of the API.
    #[must_use]
    pub fn compile(schema: &Value, is_object: bool) -> Option<Self> {
        if !has_rules(schema) {
            return None;
        }
        let is_embedded = |s: &Value| s["x-kubernetes-embedded-resource"] == true;
        let inner = |key: &str| {
            let inner = schema.get(key).filter(|s| s.is_object())?;
            Self::compile(inner, is_embedded(inner)).map(Box::new)
        };
        let properties = schema["properties"].as_object().into_iter().flatten();
        let rules = tree::list(schema, "/x-kubernetes-validations");
        let seen = if rules.is_empty() { None } else { cel::Schema::new(schema, "selfType", is_object) };
        Some(Self {
            own: seen.as_ref().map(|seen| own(rules, seen, schema)).unwrap_or_default(),
            seen,
            ty: tree::text(schema, "/type").to_owned(),
            properties: properties.filter_map(|(k, s)| Some((k.clone(), Self::compile(s, is_embedded(s))?))).collect(),
            values: inner("additionalProperties"),
            items: inner("items"),
        })
    }

    /// What the rules refuse in a value, told below `field`. `warnings` get what an update left as it was.
    #[must_use]
    pub fn validate(
        &self,
        schema: &Schema,
        (value, old): (&Value, Option<&Value>),
        field: &str,
        warnings: &mut Vec<String>,
    ) -> Vec<FieldError> {
        let mut run = Run { budget: Budget::new(cel::OBJECT_BUDGET), errors: Vec::new(), warnings, is_over: false };
        let kept = Kept { own: old.map(|old| (schema, value, old)), above: None };
        let begun = Instant::now();
        run.node(self, schema, (value, old), (field, kept));
        EVALUATED.observe(begun.elapsed().as_secs_f64());
        run.errors
    }
}

/// The rules of one schema.
fn own(rules: &[Value], seen: &cel::Schema, schema: &Value) -> Vec<Rule> {
    let begun = Instant::now();
    let compiled = rules.iter().map(|rule| Rule::compile(rule, seen, schema)).collect();
    COMPILED.observe(begun.elapsed().as_secs_f64());
    compiled
}

/// How long rules took, as metrics.
pub fn write_timings(out: &mut Text) {
    for (name, help, seconds) in [
        (
            "apiserver_cel_compilation_duration_seconds",
            "Seconds that the rules of a schema took to compile.",
            &COMPILED,
        ),
        ("apiserver_cel_evaluation_duration_seconds", "Seconds that the rules about an object took.", &EVALUATED),
    ] {
        out.family(name, "histogram", help);
        out.histogram(name, &[], seconds);
    }
}

impl Rule {
    fn compile(rule: &Value, seen: &cel::Schema, schema: &Value) -> Self {
        let text = |key: &str| tree::text(rule, &format!("/{key}"));
        let optional_old = rule["optionalOldSelf"] == true;
        let environment = environment(seen, optional_old);
        let checked = environment.check(text("rule"));
        let uses_old = checked.as_ref().is_ok_and(|c| c.uses("oldSelf"));
        let made = Some(text("messageExpression")).filter(|e| !e.is_empty()).and_then(|e| environment.check(e).ok());
        let (message, expression) = (text("message").trim(), text("rule").trim());
        let name = if message.is_empty() { expression } else { message };
        Self {
            program: checked.map(cel::Checked::program).map_err(|e| e.detail()),
            message_program: made.map(cel::Checked::program),
            uses_old,
            optional_old,
            name: name.to_owned(),
            message: if message.is_empty() { format!("failed rule: {expression}") } else { message.to_owned() },
            reason: text("reason").to_owned(),
            path: follow(schema, text("fieldPath"), true).map(|(_, path)| path).unwrap_or_default(),
        }
    }

    fn error(&self, field: &str, shown: Option<&Value>, detail: &str) -> FieldError {
        match (self.reason.as_str(), shown) {
            ("FieldValueForbidden", _) => FieldError::forbidden(field, detail),
            ("FieldValueRequired", _) => FieldError::required(field, detail),
            ("FieldValueDuplicate", Some(value)) => FieldError::duplicate(field, value.clone()),
            ("FieldValueDuplicate", None) => FieldError::duplicate_omitted(field),
            (_, Some(value)) => FieldError::invalid(field, value.clone(), detail),
            (_, None) => FieldError::invalid_omitted(field, detail),
        }
    }
}

/// A value with its schema and what it was.
type Pair<'v> = (&'v Schema, &'v Value, &'v Value);

/// What an update may have left as it was.
#[derive(Clone, Copy)]
struct Kept<'v> {
    /// The value itself, if its old self is known.
    own: Option<Pair<'v>>,
    /// The nearest value around it of which that is so.
    above: Option<Pair<'v>>,
}

impl<'v> Kept<'v> {
    fn is_unchanged(&self) -> bool {
        self.own.or(self.above).is_some_and(|(schema, new, old)| unchanged(Some(schema), new, old))
    }

    fn below(self, child: Option<Pair<'v>>) -> Self {
        match self.own {
            None => self,
            Some(_) => Self { own: child, above: self.own },
        }
    }

    fn key(self, key: &str, schema: &'v Schema) -> Self {
        if self.above.is_none() && matches!(key, "apiVersion" | "kind") {
            return Self { own: None, above: None };
        }
        let child = self.own.and_then(|(_, new, old)| Some((schema, new.get(key)?, old.get(key)?)));
        self.below(child)
    }
}

struct Run<'r> {
    budget: Budget,
    errors: Vec<FieldError>,
    warnings: &'r mut Vec<String>,
    /// Whether nothing more is evaluated.
    is_over: bool,
}

/// Where errors are told that belong to no field.
fn named(field: &str) -> &str {
    if field.is_empty() { "<nil>" } else { field }
}

impl Run<'_> {
    fn node(
        &mut self,
        rules: &Rules,
        schema: &Schema,
        (value, old): (&Value, Option<&Value>),
        (field, kept): (&str, Kept<'_>),
    ) {
        if value.is_null() || self.is_over {
            return;
        }
        self.own(rules, (value, old.filter(|o| !o.is_null())), (field, kept));
        match value {
            Value::Object(map) => {
                let old_of = |key: &str| old.and_then(|o| o.get(key));
                for (key, value) in map {
                    if let (Some(inner), Some(schema)) = (&rules.values, schema.values()) {
                        let field = format!("{field}[{key}]");
                        self.node(inner, schema, (value, old_of(key)), (&field, kept.key(key, schema)));
                    }
                }
                for (key, value) in map {
                    if let (Some(inner), Some(schema)) = (rules.properties.get(key), schema.property(key)) {
                        let field = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
                        self.node(inner, schema, (value, old_of(key)), (&field, kept.key(key, schema)));
                    }
                }
            }
            Value::Array(items) => {
                let (Some(inner), Some(of_items)) = (&rules.items, &schema.items) else { return };
                for (i, item) in items.iter().enumerate() {
                    let before = correlated(schema, item, old);
                    let child = before.map(|b| (&**of_items, item, b));
                    self.node(inner, of_items, (item, before), (&format!("{field}[{i}]"), kept.below(child)));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn refuse(&mut self, rules: &Rules, field: &str, why: String) {
        self.errors.push(FieldError::invalid(named(field), rules.ty.as_str(), why));
    }

    fn own(&mut self, rules: &Rules, (value, old): (&Value, Option<&Value>), (field, kept): (&str, Kept<'_>)) {
        let Some(seen) = &rules.seen else { return };
        let (value_seen, old_seen) = match (seen.read(value), old.map(|o| seen.read(o)).transpose()) {
            (Ok(value), Ok(old)) => (value, old),
            (Err(error), _) | (_, Err(error)) => {
                for rule in &rules.own {
                    self.refuse(rules, field, format!("{error} evaluating rule: {}", rule.name));
                }
                return;
            }
        };
        for rule in &rules.own {
            let program = match &rule.program {
                Ok(program) => program,
                Err(why) => {
                    self.refuse(rules, field, format!("rule compile error: {why}"));
                    continue;
                }
            };
            if rule.uses_old && old_seen.is_none() && !rule.optional_old {
                continue;
            }
            let mut activation = Activation::new().with("self", value_seen.clone());
            match (&old_seen, rule.optional_old) {
                (before, true) => {
                    activation.set("oldSelf", cel::Value::Optional(before.clone().map(std::rc::Rc::new)));
                }
                (Some(before), false) => activation.set("oldSelf", before.clone()),
                (None, false) => {}
            }
            match program.evaluate(&activation, &self.budget) {
                Ok(cel::Value::Bool(true)) => {}
                Ok(_) => self.failed((rule, rules), &activation, value, (field, kept)),
                Err(error) => self.broken((rule, rules), &error, field),
            }
            if self.is_over {
                return;
            }
        }
    }

    /// A rule could not be evaluated.
    fn broken(&mut self, (rule, rules): (&Rule, &Rules), error: &cel::EvalError, field: &str) {
        let (text, name) = (error.to_string(), &rule.name);
        let why = match error.kind {
            EvalErrorKind::Budget => {
                self.is_over = true;
                text
            }
            EvalErrorKind::CallLimit => {
                self.is_over = true;
                format!(
                    "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
                )
            }
            EvalErrorKind::Value if text.starts_with("no such overload") => format!(
                "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
            ),
            EvalErrorKind::Value => format!("{text} evaluating rule: {name}"),
        };
        self.refuse(rules, field, why);
    }

    /// A rule is not fulfilled.
    fn failed<'a>(
        &mut self,
        (rule, rules): (&'a Rule, &Rules),
        activation: &Activation<'a>,
        value: &Value,
        (field, kept): (&str, Kept<'_>),
    ) {
        let mut at = field.to_owned();
        if !rule.path.is_empty() {
            at = if field.is_empty() { rule.path.clone() } else { format!("{field}.{}", rule.path) };
        }
        let mut detail = rule.message.clone();
        if let Some(program) = &rule.message_program {
            match program.evaluate(activation, &self.budget) {
                Ok(made) => {
                    let made = made.as_str().unwrap_or_default().trim().to_owned();
                    if !made.is_empty() && made.len() <= MAX_MESSAGE_BYTES && !made.contains('\n') {
                        detail = made;
                    }
                }
                Err(error) if error.kind == EvalErrorKind::Value => {}
                Err(error) => {
                    self.is_over = true;
                    let why = match error.kind {
                        EvalErrorKind::Budget => {
                            "messageExpression evaluation failed due to running out of cost budget, \
                                                  no further validation rules will be run"
                                .to_owned()
                        }
                        _ => format!(
                            "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                            rule.name
                        ),
                    };
                    self.refuse(rules, &at, why);
                    return;
                }
            }
        }
        let is_plain = !matches!(rules.ty.as_str(), "object" | "array");
        let error = rule.error(named(&at), Some(value).filter(|_| is_plain), &detail);
        if !rule.uses_old && kept.is_unchanged() {
            self.warnings.push(error.to_string());
        } else {
            self.errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(schema: &Value, value: &Value, old: Option<&Value>) -> (Vec<String>, Vec<String>) {
        let rules = Rules::compile(schema, true).unwrap();
        let mut warnings = Vec::new();
        let errors = rules.validate(&Schema::parse(schema), (value, old), "", &mut warnings);
        (errors.iter().map(ToString::to_string).collect(), warnings)
    }

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "messageExpression": "'min is ' + string(self.min)"},
                {"rule": "self.max < 100", "message": "too much", "fieldPath": ".max", "reason": "FieldValueForbidden"}],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
                "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "cannot change"}]},
                "once": {"type": "string", "x-kubernetes-validations": [
                    {"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true}]},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                    "type": "object", "properties": {"k": {"type": "string"}, "n": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "message": "shrank"}]}}}}}})
    }

    #[test]
    fn failed_rules_are_told_where_they_say() {
        let (errors, _) = run(&schema(), &json!({"spec": {"min": 200, "max": 150}}), None);
        assert_eq!(errors, ["spec: Invalid value: min is 200", "spec.max: Forbidden: too much"]);
    }

    #[test]
    fn rules_about_changes_need_something_to_compare_with() {
        let new = json!({"spec": {"min": 1, "max": 2, "fixed": "b", "once": "new", "list": [{"k": "a", "n": 1}, {"k": "b", "n": 1}]}});
        assert!(run(&schema(), &new, None).0.is_empty());
        let old = json!({"spec": {"min": 1, "max": 2, "fixed": "a", "list": [{"k": "b", "n": 2}]}});
        let (errors, _) = run(&schema(), &new, Some(&old));
        assert_eq!(errors, ["spec.fixed: Invalid value: \"b\": cannot change", "spec.list[1]: Invalid value: shrank"]);
        let (errors, _) = run(&schema(), &json!({"spec": {"min": 1, "max": 2, "once": "x"}}), Some(&old));
        assert_eq!(errors, ["spec.once: Invalid value: \"x\": failed rule: oldSelf.hasValue() || self == 'new'"]);
    }

    #[test]
    fn what_an_update_leaves_alone_is_only_warned_of() {
        let old = json!({"spec": {"min": 3, "max": 2}});
        let (errors, warnings) = run(&schema(), &old, Some(&old));
        assert_eq!((errors.len(), warnings), (0, vec!["spec: Invalid value: min is 3".to_owned()]));
        let (errors, _) = run(&schema(), &json!({"spec": {"min": 4, "max": 2}}), Some(&old));
        assert_eq!(errors.len(), 1);
    }
}
