//! Questions about what users may do.

use api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SubjectAccessReviewSpec,
};
use api::labels::{Operator, Requirement, Selector};
use api::meta::v1::{FieldSelectorRequirement, LabelSelector, LabelSelectorRequirement, ObjectMeta};

use super::labels::{self, SelectorOptions};
use super::{Errors, Path, shown};
use crate::access::Selection;
use crate::status::FieldError;

const SPEC: Path<'static> = Path::root("spec");
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const TOGETHER: &str = "may not specified at the same time as requirements";

/// Who is asked about, and where the question may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// Who asks.
    Own,
    /// Anybody.
    Any,
    /// Anybody, within the namespace that the question lies in.
    Local,
}

/// Errors of a question; of one about oneself the user is not looked at.
#[must_use]
pub fn access(review: Review, meta: &ObjectMeta, spec: &SubjectAccessReviewSpec) -> Errors {
    let mut errors = Errors::new();
    let (resource, other) = (&spec.resource_attributes, &spec.non_resource_attributes);
    let path = |other: Option<&NonResourceAttributes>| {
        shown::optional("k8s.io.api.authorization.v1.NonResourceAttributes", other)
    };
    if resource.is_some() && other.is_some() {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid(SPEC.child("nonResourceAttributes"), path(other.as_ref()), why));
    }
    if resource.is_none() && other.is_none() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid(SPEC.child("resourceAttributes"), path(None), why));
    }
    if review != Review::Own && spec.user.is_empty() && spec.groups.is_empty() {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(SPEC.child("user"), "", why));
    }
    if let Some(resource) = resource {
        let path = SPEC.child("resourceAttributes");
        field_selector(&path.child("fieldSelector"), resource.field_selector.as_ref(), &mut errors);
        label_selector(&path.child("labelSelector"), resource.label_selector.as_ref(), &mut errors);
    }
    metadata(review, meta, &mut errors);
    if review == Review::Local {
        if let Some(resource) = resource.as_ref().filter(|resource| resource.namespace != meta.namespace) {
            let path = SPEC.child("resourceAttributes");
            let why = "must match metadata.namespace";
            errors.push(FieldError::invalid(path.child("namespace"), &resource.namespace, why));
        }
        if other.is_some() {
            let why = "disallowed on this kind of request";
            errors.push(FieldError::invalid(SPEC.child("nonResourceAttributes"), path(other.as_ref()), why));
        }
    }
    errors
}

/// A question is no object, so it has no metadata.
fn metadata(review: Review, meta: &ObjectMeta, errors: &mut Errors) {
    let mut rest = ObjectMeta { managed_fields: Vec::new(), ..meta.clone() };
    let mut why = "must be empty";
    if review == Review::Local {
        rest.namespace.clear();
        why = "must be empty except for namespace";
    }
    if rest != ObjectMeta::default() {
        errors.push(FieldError::invalid("metadata", shown::structure(META, meta), why));
    }
}

/// A selector is given as a text or as requirements.
fn one_form(path: &Path<'_>, raw: &str, requirements: usize, errors: &mut Errors) {
    if !raw.is_empty() && requirements > 0 {
        errors.push(FieldError::invalid(path.child("rawSelector"), raw, TOGETHER));
    }
    if raw.is_empty() && requirements == 0 {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(path.child("requirements"), why));
    }
}

fn field_selector(path: &Path<'_>, selector: Option<&FieldSelectorAttributes>, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    one_form(path, &selector.raw_selector, selector.requirements.len(), errors);
    for (i, requirement) in selector.requirements.iter().enumerate() {
        let list = path.child("requirements");
        field_requirement(&list.index(i), requirement, errors);
    }
}

fn field_requirement(path: &Path<'_>, requirement: &FieldSelectorRequirement, errors: &mut Errors) {
    if requirement.key.is_empty() {
        errors.push(FieldError::required(path.child("key"), "must be specified"));
    }
    let (values, none) = (path.child("values"), requirement.values.is_empty());
    match requirement.operator.as_str() {
        "In" | "NotIn" if none => {
            errors.push(FieldError::required(values, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !none => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(values, why));
        }
        _ => {}
    }
}

fn label_selector(path: &Path<'_>, selector: Option<&LabelSelectorAttributes>, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    one_form(path, &selector.raw_selector, selector.requirements.len(), errors);
    let options = SelectorOptions { allow_unknown_operators: true, ..SelectorOptions::default() };
    for (i, requirement) in selector.requirements.iter().enumerate() {
        labels::requirement(&path.child("requirements").index(i), requirement, options, errors);
    }
}

/// What of a question's selectors could not be read, as its answer tells it.
#[must_use]
pub fn unread_selectors(resource: &ResourceAttributes) -> String {
    let parts = [
        ("fieldSelector", resource.field_selector.as_ref().map_or((0, 0), read_fields)),
        ("labelSelector", resource.label_selector.as_ref().map_or((0, 0), read_labels)),
    ];
    let told = parts.iter().filter(|(_, (_, unread))| *unread > 0).map(|(field, (read, _))| {
        let how = if *read > 0 { "partially ignored" } else { "ignored" };
        format!("spec.resourceAttributes.{field} {how} due to parse error")
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What a question's selectors require, as far as that can be read.
#[must_use]
pub fn selection(resource: &ResourceAttributes) -> Selection {
    let raw = |text: Option<&String>| text.cloned().unwrap_or_default();
    let (fields, labels) = (resource.field_selector.as_ref(), resource.label_selector.as_ref());
    let Selection { fields: of_fields, labels: of_labels } =
        Selection::parse(&raw(fields.map(|f| &f.raw_selector)), &raw(labels.map(|l| &l.raw_selector)));
    let given = fields.map(|f| f.requirements.iter().filter_map(field_required).collect::<Vec<_>>());
    let labelled = labels.map(|l| l.requirements.iter().filter_map(label_required).collect::<Vec<_>>());
    let or = |given: Option<Vec<Requirement>>, read: Vec<Requirement>| given.filter(|g| !g.is_empty()).unwrap_or(read);
    Selection { fields: or(given, of_fields), labels: or(labelled, of_labels) }
}

fn field_required(of: &FieldSelectorRequirement) -> Option<Requirement> {
    let operator = match of.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        _ => return None,
    };
    (of.values.len() == 1).then(|| Requirement { key: of.key.clone(), operator, values: of.values.clone() })
}

fn label_required(of: &LabelSelectorRequirement) -> Option<Requirement> {
    let alone = LabelSelector { match_expressions: vec![of.clone()], ..LabelSelector::default() };
    Selector::from_object(Some(&alone)).ok()?.requirements().first().cloned()
}

/// How many requirements can be read, and how many cannot.
fn counts<T>(list: &[T], is_read: impl Fn(&T) -> bool) -> (usize, usize) {
    let read = list.iter().filter(|item| is_read(item)).count();
    (read, list.len() - read)
}

fn read_fields(selector: &FieldSelectorAttributes) -> (usize, usize) {
    if !selector.requirements.is_empty() {
        return counts(&selector.requirements, |r| field_required(r).is_some());
    }
    crate::fields::parse(&selector.raw_selector).map_or((0, 1), |terms| (terms.len(), 0))
}

fn read_labels(selector: &LabelSelectorAttributes) -> (usize, usize) {
    if !selector.requirements.is_empty() {
        return counts(&selector.requirements, |r| label_required(r).is_some());
    }
    let unread = !selector.raw_selector.is_empty() && Selector::parse(&selector.raw_selector).is_err();
    (usize::from(!unread), usize::from(unread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_about_one_thing() {
        let resource = || Some(ResourceAttributes { namespace: "a".into(), ..ResourceAttributes::default() });
        let spec = SubjectAccessReviewSpec {
            resource_attributes: resource(),
            user: "u".into(),
            ..SubjectAccessReviewSpec::default()
        };
        let meta = ObjectMeta { namespace: "a".into(), ..ObjectMeta::default() };
        assert!(access(Review::Local, &meta, &spec).is_empty());
        assert!(access(Review::Any, &ObjectMeta::default(), &spec).is_empty());
        assert_eq!(access(Review::Any, &meta, &spec).len(), 1);
        assert_eq!(access(Review::Own, &ObjectMeta::default(), &SubjectAccessReviewSpec::default()).len(), 1);
        let other = SubjectAccessReviewSpec { non_resource_attributes: Some(NonResourceAttributes::default()), ..spec };
        assert_eq!(access(Review::Local, &meta, &other).len(), 2);
    }
}
