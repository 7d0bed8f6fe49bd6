//! Tolerations, and the effects of taints.

use api::core::v1::Toleration;

use super::Options;
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, names, shown};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Tolerations of taints.
pub(in crate::validation) fn tolerations(path: &Path<'_>, list: &[Toleration], options: Options, errors: &mut Errors) {
    for (i, toleration) in list.iter().enumerate() {
        one(&path.index(i), toleration, options, errors);
    }
}

fn one(path: &Path<'_>, toleration: &Toleration, options: Options, errors: &mut Errors) {
    let Toleration { key, operator, value, effect, toleration_seconds } = toleration;
    let at = path.child("operator");
    if !key.is_empty() {
        checks::text(&path.child("key"), key, names::qualified(key), errors);
    } else if operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(at, shown::word(operator), why));
    }
    if toleration_seconds.is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(path.child("effect"), shown::word(effect), why));
    }
    match operator.as_str() {
        "Equal" | "" => {
            let complaints = names::label_value(value);
            if !complaints.is_empty() {
                errors.push(FieldError::invalid(at, value, complaints.join(";")));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                errors.push(FieldError::invalid(at, value, "value must be empty when `operator` is 'Exists'"));
            }
        }
        "Lt" | "Gt" if options.comparing_tolerations => {
            if value.parse::<i64>().map_or(true, |number| number.to_string() != *value) {
                let why = "must be a valid decimal integer in canonical form";
                errors.push(FieldError::invalid(path.child("value"), value, why));
            }
        }
        "Lt" | "Gt" => {
            errors.push(FieldError::not_supported(at, shown::word(operator), &["Equal", "Exists", "Lt", "Gt"]))
        }
        _ => errors.push(FieldError::not_supported(at, shown::word(operator), &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        self::effect(&path.child("effect"), effect, errors);
    }
}

/// What a taint does.
pub(in crate::validation) fn effect(path: &Path<'_>, effect: &str, errors: &mut Errors) {
    checks::one_of(path, effect, &EFFECTS, errors);
}
