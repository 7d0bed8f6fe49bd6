//! StorageClasses and VolumeAttributesClasses.

use std::collections::{BTreeMap, BTreeSet};

use api::core::v1::TopologySelectorTerm;
use api::storage::v1::{StorageClass, VolumeAttributesClass};

use crate::status::{FieldError, Shown};
use crate::validation::{Change, Errors, Path, checks, names, shown};

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 << 10;

type Parameters = BTreeMap<String, String>;

pub fn storage_class(change: &Change<'_, StorageClass>, errors: &mut Errors) {
    let new = change.new;
    provisioner(&Path::root("provisioner"), &new.provisioner, errors);
    parameters(&new.parameters, true, errors);
    if let Some(policy) = new.reclaim_policy.as_ref().filter(|policy| !policy.is_empty()) {
        checks::supported(&Path::root("reclaimPolicy"), policy, &["Delete", "Retain"], errors);
    }
    let mode = Path::root("volumeBindingMode");
    match &new.volume_binding_mode {
        Some(text) => checks::supported(&mode, text, &["Immediate", "WaitForFirstConsumer"], errors),
        None => errors.push(FieldError::required(mode, "")),
    }
    topologies(&new.allowed_topologies, errors);
    if let Some(old) = change.old {
        unchanged(new, old, errors);
    }
}

fn unchanged(new: &StorageClass, old: &StorageClass, errors: &mut Errors) {
    let map = |parameters: &Parameters| match parameters.is_empty() {
        true => Shown::spelled("null"),
        false => Shown::from(serde_json::json!(parameters)),
    };
    let word = |text: &Option<String>| text.as_ref().map_or_else(|| Shown::spelled("null"), |text| shown::word(text));
    checks::immutable(&Path::root("parameters"), (&new.parameters, &old.parameters), map, errors);
    checks::immutable(&Path::root("provisioner"), (&new.provisioner, &old.provisioner), String::clone, errors);
    checks::immutable(&Path::root("reclaimPolicy"), (&new.reclaim_policy, &old.reclaim_policy), word, errors);
    let modes = (&new.volume_binding_mode, &old.volume_binding_mode);
    checks::immutable(&Path::root("volumeBindingMode"), modes, word, errors);
}

fn provisioner(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let name = name.to_lowercase();
    checks::text(path, &name, names::qualified(&name), errors);
}

fn parameters(parameters: &Parameters, may_be_empty: bool, errors: &mut Errors) {
    let path = Path::root("parameters");
    if parameters.len() > MAX_PARAMETERS {
        return errors.push(FieldError::too_long(path, MAX_PARAMETERS));
    }
    if parameters.contains_key("") {
        errors.push(FieldError::invalid(path, "", "field can not be empty."));
    }
    if parameters.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_PARAMETER_BYTES {
        errors.push(FieldError::too_long(path, MAX_PARAMETER_BYTES));
    }
    if !may_be_empty && parameters.is_empty() {
        errors.push(FieldError::required(path, "must contain at least one key/value pair"));
    }
}

/// Values by key of a term.
type Term<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn topologies(terms: &[TopologySelectorTerm], errors: &mut Errors) {
    let list = Path::root("allowedTopologies");
    let mut seen: Vec<Term<'_>> = Vec::with_capacity(terms.len());
    for (i, each) in terms.iter().enumerate() {
        let path = list.index(i);
        let map = term(&path, each, errors);
        // A term without expressions is the same as the empty ones that the list is compared with first.
        let empty = if map.is_empty() { terms.len() } else { 0 };
        for _ in 0..seen.iter().filter(|earlier| **earlier == map).count() + empty {
            errors.push(FieldError::duplicate(path.child("matchLabelExpressions"), ""));
        }
        seen.push(map);
    }
}

fn term<'a>(path: &Path<'_>, term: &'a TopologySelectorTerm, errors: &mut Errors) -> Term<'a> {
    let list = path.child("matchLabelExpressions");
    let mut map = Term::new();
    for (i, requirement) in term.match_label_expressions.iter().enumerate() {
        let path = list.index(i);
        let (values, at) = (&requirement.values, path.child("values"));
        if values.is_empty() {
            errors.push(FieldError::required(at, ""));
        }
        for (i, value) in values.iter().enumerate() {
            if values[..i].contains(value) {
                errors.push(FieldError::duplicate(at.index(i), value));
            }
        }
        checks::text(&path.child("key"), &requirement.key, names::qualified(&requirement.key), errors);
        if map.insert(&requirement.key, values.iter().map(String::as_str).collect()).is_some() {
            errors.push(FieldError::duplicate(path.child("key"), &requirement.key));
        }
    }
    map
}

pub fn volume_attributes_class(change: &Change<'_, VolumeAttributesClass>, errors: &mut Errors) {
    let new = change.new;
    if let Some(old) = change.old {
        if new.driver_name != old.driver_name {
            errors.push(FieldError::forbidden("driverName", "updates to driverName are forbidden."));
        }
        if new.parameters != old.parameters {
            errors.push(FieldError::forbidden("parameters", "updates to parameters are forbidden."));
        }
    }
    provisioner(&Path::root("driverName"), &new.driver_name, errors);
    parameters(&new.parameters, false, errors);
}
