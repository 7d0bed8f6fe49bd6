//! Conditions of the common form, in the status of newer kinds.

use api::meta::v1::Condition;

use super::{Errors, Path, checks, names, shown};
use crate::status::FieldError;

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const MAX_REASON_LEN: usize = 1024;
const MAX_MESSAGE_LEN: usize = 32 * 1024;
const BAD_REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// A list of conditions, one of each type.
pub fn conditions(path: &Path<'_>, list: &[Condition], errors: &mut Errors) {
    for (i, condition) in list.iter().enumerate() {
        let item = path.index(i);
        if list[..i].iter().any(|other| other.r#type == condition.r#type) {
            errors.push(FieldError::duplicate(item.child("type"), condition.r#type.as_str()));
        }
        one(&item, condition, errors);
    }
}

fn one(path: &Path<'_>, condition: &Condition, errors: &mut Errors) {
    checks::text(&path.child("type"), &condition.r#type, names::qualified(&condition.r#type), errors);
    if !STATUSES.contains(&condition.status.as_str()) {
        errors.push(FieldError::not_supported(path.child("status"), shown::word(&condition.status), &STATUSES));
    }
    if condition.observed_generation < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(path.child("observedGeneration"), condition.observed_generation, why));
    }
    if condition.last_transition_time.unix().is_none() {
        errors.push(FieldError::required(path.child("lastTransitionTime"), ""));
    }
    let reason = condition.reason.as_str();
    if reason.is_empty() {
        errors.push(FieldError::required(path.child("reason"), ""));
    } else {
        if !is_reason(reason) {
            errors.push(FieldError::invalid(path.child("reason"), reason, BAD_REASON));
        }
        if reason.len() > MAX_REASON_LEN {
            errors.push(FieldError::too_long(path.child("reason"), MAX_REASON_LEN));
        }
    }
    if condition.message.len() > MAX_MESSAGE_LEN {
        errors.push(FieldError::too_long(path.child("message"), MAX_MESSAGE_LEN));
    }
}

fn is_reason(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| word(c) || c == ',' || c == ':';
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.ends_with(word) && text.chars().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_words() {
        assert!(["A", "ReasonA,ReasonB", "a_1", "A_"].into_iter().all(is_reason));
        assert!(!["", "1a", "a,", "a b", "é"].into_iter().any(is_reason));
    }
}
