//! What kinds share that make Pods from a template.

use std::collections::BTreeMap;

use api::IntOrString;
use api::core::v1::PodTemplateSpec;
use api::labels::Selector;
use api::meta::v1::LabelSelector;
use serde_json::json;

use super::labels::{self, SelectorOptions};
use super::pod::{self, Options};
use super::{Errors, Path, checks, names, shown};
use crate::status::{FieldError, Shown};

const SELECTOR: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.LabelSelector";

/// A selector as it is shown.
pub fn shown_selector(selector: Option<&LabelSelector>) -> Shown {
    shown::optional(SELECTOR, selector)
}

/// Labels as they are shown; none are null.
pub fn shown_labels(labels: &BTreeMap<String, String>) -> Shown {
    if labels.is_empty() { Shown::spelled("null") } else { json!(labels).into() }
}

/// A selector that has to select something; `kind` is whose it is.
pub fn selector(path: &Path<'_>, selector: Option<&LabelSelector>, kind: &str, errors: &mut Errors) {
    let Some(own) = selector else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    labels::selector(path, own, SelectorOptions::default(), errors);
    not_empty(path, own, kind, errors);
}

/// A selector that would select everything.
pub fn not_empty(path: &Path<'_>, selector: &LabelSelector, kind: &str, errors: &mut Errors) {
    if selector.match_labels.is_empty() && selector.match_expressions.is_empty() {
        let why = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid(path, shown_selector(Some(selector)), why));
    }
}

/// The selector, if it can be used; without any nothing is selected.
pub fn usable(selector: Option<&LabelSelector>) -> Option<Selector> {
    let mut errors = Errors::new();
    if let Some(selector) = selector {
        labels::selector(&Path::root(""), selector, SelectorOptions::default(), &mut errors);
    }
    if errors.is_empty() { Selector::from_object(selector).ok() } else { None }
}

/// The labels of a template, which a selector has to match.
pub fn labels_match(path: &Path<'_>, template: &PodTemplateSpec, selector: &Selector, errors: &mut Errors) {
    let own = &template.metadata.labels;
    if !selector.is_empty() && !selector.matches(own) {
        let at = path.child("metadata");
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(at.child("labels"), shown_labels(own), why));
    }
}

/// The template of Pods that run for ever; `kind` is whose it is.
pub fn running_template(
    path: &Path<'_>,
    template: &PodTemplateSpec,
    (kind, options): (&str, Options),
    errors: &mut Errors,
) {
    pod::template(path, template, options, errors);
    always_running(path, template, kind, errors);
}

/// Pods that are started again and never end by themselves.
pub fn always_running(path: &Path<'_>, template: &PodTemplateSpec, kind: &str, errors: &mut Errors) {
    let (path, policy) = (path.child("spec"), &template.spec.restart_policy);
    if policy != "Always" {
        errors.push(FieldError::not_supported(path.child("restartPolicy"), shown::word(policy), &["Always"]));
    }
    if template.spec.active_deadline_seconds.is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(path.child("activeDeadlineSeconds"), why));
    }
}

/// A selector that stays as it was.
pub fn same_selector(new: Option<&LabelSelector>, old: Option<&LabelSelector>, errors: &mut Errors) {
    if new != old {
        let path = Path::root("spec");
        errors.push(FieldError::invalid(path.child("selector"), shown_selector(new), checks::IMMUTABLE));
    }
}

/// Numbers that are not below 0.
pub fn counters(path: &Path<'_>, numbers: &[(&str, i64)], errors: &mut Errors) {
    for (name, number) in numbers {
        checks::non_negative(&path.child(name), *number, errors);
    }
}

/// Numbers that are not above another one, which `most` tells.
pub fn at_most(path: &Path<'_>, numbers: &[(&str, i32)], (most, why): (i32, &str), errors: &mut Errors) {
    for (name, number) in numbers.iter().filter(|(_, number)| *number > most) {
        errors.push(FieldError::invalid(path.child(name), *number, why));
    }
}

/// A number of collisions, which only grows.
pub fn growing_collisions(path: &Path<'_>, new: Option<i32>, old: Option<i32>, errors: &mut Errors) {
    if let (Some(new), Some(old)) = (new, old)
        && new < old
    {
        errors.push(FieldError::invalid(path.child("collisionCount"), new, "cannot be decremented"));
    }
}

/// A number or a percentage as it is shown.
pub fn shown_number(number: &IntOrString) -> Shown {
    if number.r#type == 0 { number.int_val.into() } else { shown::word(&number.str_val) }
}

/// A number or a percentage.
pub fn number_or_percent(path: &Path<'_>, number: &IntOrString, errors: &mut Errors) {
    if number.r#type == 0 {
        checks::non_negative(path, number.int_val, errors);
        return;
    }
    for why in names::percent(&number.str_val) {
        errors.push(FieldError::invalid(path, shown_number(number), why));
    }
}

fn percentage(number: &IntOrString) -> Option<i64> {
    let digits = number.str_val.strip_suffix('%').filter(|_| number.r#type != 0)?;
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(i64::MAX))
}

/// Whether it is nothing, be it a number or a percentage.
pub fn is_nothing(number: &IntOrString) -> bool {
    match percentage(number) {
        Some(percent) => percent == 0,
        None if number.r#type == 0 => number.int_val == 0,
        None => number.str_val.parse::<i64>().unwrap_or(0) == 0,
    }
}

/// A percentage of what there is.
pub fn not_more_than_all(path: &Path<'_>, number: &IntOrString, errors: &mut Errors) {
    if percentage(number).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, shown_number(number), "must not be greater than 100%"));
    }
}
