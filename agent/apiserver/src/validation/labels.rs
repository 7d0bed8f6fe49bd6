//! Labels and what selects by them.

use std::collections::BTreeMap;

use api::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{Errors, Path, checks, names, shown};
use crate::status::FieldError;

/// What a selector may be in spite of the rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelectorOptions {
    /// Values in expressions need not be values of labels, as in objects of old.
    pub allow_invalid_values: bool,
    /// Operators need not be known.
    pub allow_unknown_operators: bool,
}

impl SelectorOptions {
    /// What may be in the successor of an object with these selectors: values as they please if one broke the rules.
    #[must_use]
    pub fn after<'a>(old: impl IntoIterator<Item = &'a LabelSelector>) -> Self {
        let mut found = Errors::new();
        for each in old {
            selector(&Path::root(""), each, Self::default(), &mut found);
        }
        Self { allow_invalid_values: !found.is_empty(), ..Self::default() }
    }
}

/// Keys and values of labels.
pub fn labels(path: &Path<'_>, labels: &BTreeMap<String, String>, errors: &mut Errors) {
    for (key, value) in labels {
        checks::text(path, key, names::qualified(key), errors);
        checks::text(path, value, names::label_value(value), errors);
    }
}

/// A selector of labels.
pub fn selector(path: &Path<'_>, selector: &LabelSelector, options: SelectorOptions, errors: &mut Errors) {
    labels(&path.child("matchLabels"), &selector.match_labels, errors);
    for (i, expression) in selector.match_expressions.iter().enumerate() {
        requirement(&path.child("matchExpressions").index(i), expression, options, errors);
    }
}

/// Whether an expression has a value that no label can have.
#[must_use]
pub fn has_invalid_values(selector: &LabelSelector) -> bool {
    selector.match_expressions.iter().flat_map(|e| &e.values).any(|value| !names::label_value(value).is_empty())
}

/// A requirement of a selector.
pub fn requirement(
    path: &Path<'_>,
    expression: &LabelSelectorRequirement,
    options: SelectorOptions,
    errors: &mut Errors,
) {
    let values = &expression.values;
    match expression.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(path.child("values"), why));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(path.child("values"), why));
            }
        }
        _ if options.allow_unknown_operators => {}
        other => errors.push(FieldError::invalid(
            path.child("operator"),
            shown::word(other),
            "not a valid selector operator",
        )),
    }
    checks::text(&path.child("key"), &expression.key, names::qualified(&expression.key), errors);
    if !options.allow_invalid_values {
        for (i, value) in values.iter().enumerate() {
            checks::text(&path.child("values").index(i), value, names::label_value(value), errors);
        }
    }
}
