//! Conditions, as those kinds have them that share their type.

use api::meta::v1::Condition;

use super::{Errors, Path, checks, names, shown};
use crate::status::FieldError;

const STATUSES: &[&str] = &["False", "True", "Unknown"];
const MAX_REASON_LEN: usize = 1 << 10;
const MAX_MESSAGE_LEN: usize = 32 << 10;
const BAD_REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Conditions in the status of an object.
pub fn conditions(path: &Path<'_>, conditions: &[Condition], errors: &mut Errors) {
    for (i, each) in conditions.iter().enumerate() {
        let path = path.index(i);
        if conditions[..i].iter().any(|earlier| earlier.r#type == each.r#type) {
            errors.push(FieldError::duplicate(path.child("type"), &each.r#type));
        }
        condition(&path, each, errors);
    }
}

fn condition(path: &Path<'_>, condition: &Condition, errors: &mut Errors) {
    checks::text(&path.child("type"), &condition.r#type, names::qualified(&condition.r#type), errors);
    if !STATUSES.contains(&condition.status.as_str()) {
        errors.push(FieldError::not_supported(path.child("status"), shown::word(&condition.status), STATUSES));
    }
    if condition.observed_generation < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(path.child("observedGeneration"), condition.observed_generation, why));
    }
    if condition.last_transition_time.unix().is_none() {
        errors.push(FieldError::required(path.child("lastTransitionTime"), ""));
    }
    let (at, reason) = (path.child("reason"), &condition.reason);
    if reason.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        if !is_reason(reason.as_bytes()) {
            errors.push(FieldError::invalid(at, reason, BAD_REASON));
        }
        if reason.len() > MAX_REASON_LEN {
            errors.push(FieldError::too_long(at, MAX_REASON_LEN));
        }
    }
    if condition.message.len() > MAX_MESSAGE_LEN {
        errors.push(FieldError::too_long(path.child("message"), MAX_MESSAGE_LEN));
    }
}

fn is_reason(text: &[u8]) -> bool {
    let end = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.last().is_some_and(|c| end(*c))
        && text.iter().all(|c| end(*c) || matches!(c, b',' | b':'))
}
