//! What makes objects of the built-in kinds valid.
//!
//! ```text
//!  tree ─▶ protobuf ─▶ typed object ─┐
//!                                    ├─▶ the kind's rule ─▶ field errors, in upstream's order and words
//!  stored tree ─▶ typed object ──────┘
//! ```
//!
//! A rule is a pure function of a [`Change`]; `RULES` says which kind has which. Metadata is looked at for every kind
//! before that, in `strategy`. What depends on other objects is admission.

pub mod addresses;
mod admissionregistration;
pub mod checks;
pub mod conditions;
mod core;
pub mod diff;
mod field;
pub mod labels;
pub mod metadata;
pub mod names;
mod pod;
pub mod resources;
pub mod shown;
#[cfg(test)]
mod tests;

use api::admissionregistration::v1 as registration;
use api::{Kind, Resource};
use serde_json::Value;

use crate::status::{FieldError, Result};
use crate::strategy::Part;

pub use field::Path;

/// Field errors, in the order in which they are told.
pub type Errors = Vec<FieldError>;

/// A typed object on its way to the store.
pub struct Change<'a, K> {
    /// Which part of the object the request may change.
    pub part: Part,
    /// The object as it would be stored.
    pub new: &'a K,
    /// The object as it is stored; none for a new one.
    pub old: Option<&'a K>,
}

/// What is said of a change.
#[derive(Default)]
pub struct Judgement {
    /// What is wrong with it.
    pub errors: Errors,
    /// What is taken, if nothing is wrong, but is not what the client may think.
    pub warnings: Vec<String>,
}

/// Encoded objects in, judgement out: a rule without its type.
type Check = fn(Part, &[u8], Option<&[u8]>) -> std::result::Result<Judgement, prost::DecodeError>;

struct Rule {
    group: &'static str,
    plural: &'static str,
    check: Check,
}

/// `rule!(group, plural, stored type, function)`, with a function for warnings if there are any.
macro_rules! rule {
    ($group:literal, $plural:literal, $type:ty, $check:path) => {
        rule!($group, $plural, $type, $check, |_, _| {})
    };
    ($group:literal, $plural:literal, $type:ty, $check:path, $warn:expr) => {
        Rule { group: $group, plural: $plural, check: |part, new, old| typed::<$type>(part, (new, old), $check, $warn) }
    };
}

/// The rule of each kind, by the type that the kind is stored as.
const RULES: &[Rule] = &[
    rule!("", "services", api::core::v1::Service, core::service::service),
    rule!("", "endpoints", api::core::v1::Endpoints, core::endpoints::endpoints),
    rule!("", "events", api::core::v1::Event, core::event::core_event),
    rule!("events.k8s.io", "events", api::core::v1::Event, core::event::event),
    rule!("", "namespaces", api::core::v1::Namespace, core::namespace::namespace),
    rule!("", "resourcequotas", api::core::v1::ResourceQuota, core::quota::resource_quota),
    rule!("", "limitranges", api::core::v1::LimitRange, core::quota::limit_range),
    rule!("", "configmaps", api::core::v1::ConfigMap, core::config::config_map),
    rule!("", "pods", api::core::v1::Pod, pod::pod, pod::warnings::pod),
    rule!("", "secrets", api::core::v1::Secret, core::config::secret),
    rule!(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        registration::ValidatingWebhookConfiguration,
        admissionregistration::webhooks::validating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        registration::MutatingWebhookConfiguration,
        admissionregistration::webhooks::mutating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        registration::ValidatingAdmissionPolicy,
        admissionregistration::policies::validating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        registration::ValidatingAdmissionPolicyBinding,
        admissionregistration::policies::validating_binding
    ),
    rule!(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        registration::MutatingAdmissionPolicy,
        admissionregistration::policies::mutating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        registration::MutatingAdmissionPolicyBinding,
        admissionregistration::policies::mutating_binding
    ),
];

fn typed<K: Resource>(
    part: Part,
    (new, old): (&[u8], Option<&[u8]>),
    check: fn(&Change<'_, K>, &mut Errors),
    warn: fn(&Change<'_, K>, &mut Vec<String>),
) -> std::result::Result<Judgement, prost::DecodeError> {
    let new = K::decode(new)?;
    let old = old.map(K::decode).transpose()?;
    let change = Change { part, new: &new, old: old.as_ref() };
    let mut told = Judgement::default();
    check(&change, &mut told.errors);
    if told.errors.is_empty() {
        warn(&change, &mut told.warnings);
    }
    Ok(told)
}

/// Whether the kind's objects are looked at here.
#[must_use]
pub fn covers(kind: &Kind) -> bool {
    rule(kind).is_some()
}

fn rule(kind: &Kind) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.group == kind.group && r.plural == kind.plural)
}

/// What is said of a change from `old`, if there was one, to `new`; both are trees in the version of `kind`, and `encode`
/// makes protobuf of the stored version of them.
///
/// # Errors
/// If a tree does not fit the kind's schema.
pub fn judge(
    kind: &'static Kind,
    part: Part,
    (new, old): (&Value, Option<&Value>),
    encode: impl Fn(&Value) -> Result<Vec<u8>>,
) -> Result<Judgement> {
    let Some(rule) = rule(kind) else { return Ok(Judgement::default()) };
    let new = encode(new)?;
    let old = old.map(encode).transpose()?;
    (rule.check)(part, &new, old.as_deref()).map_err(crate::status::Failure::internal)
}
