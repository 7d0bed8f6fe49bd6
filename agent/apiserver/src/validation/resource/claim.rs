//! ResourceClaims and templates of them.

use std::collections::HashMap;

use api::dra::v1::{
    DeviceClaim, DeviceClaimConfiguration, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceSubRequest,
    DeviceToleration, ExactDeviceRequest, ResourceClaim, ResourceClaimTemplate,
};

use super::{
    MAX_CONFIGURATIONS, MAX_REQUESTS, configuration, distinct, distinct_names, fully_qualified_name, items, label,
    selectors,
};
use crate::status::{FieldError, Shown};
use crate::strategy::Part;
use crate::validation::core::claim::template_meta;
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");
const MAX_CONSTRAINTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MODES: &[&str] = &["All", "ExactCount"];
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

pub fn resource_claim(change: &Change<'_, ResourceClaim>, errors: &mut Errors) {
    let new = change.new;
    match change.old {
        Some(old) if change.part == Part::Status => super::status::claim_status(new, &old.status, errors),
        Some(old) => {
            let shown = |spec: &_| shown::structure("k8s.io.api.resource.v1.ResourceClaimSpec", spec);
            checks::immutable(&SPEC, (&new.spec, &old.spec), shown, errors);
        }
        None => device_claim(&SPEC.child("devices"), &new.spec.devices, errors),
    }
}

pub fn resource_claim_template(change: &Change<'_, ResourceClaimTemplate>, errors: &mut Errors) {
    let new = &change.new.spec;
    template_meta(&change.path("spec").child("metadata"), &new.metadata, errors);
    device_claim(&SPEC.child("spec").child("devices"), &new.spec.devices, errors);
    if let Some(old) = change.old {
        let shown = |spec: &_| shown::structure("k8s.io.api.resource.v1.ResourceClaimTemplateSpec", spec);
        checks::immutable(&SPEC, (new, &old.spec), shown, errors);
    }
}

/// Names of requests with those of their alternatives.
pub(super) struct Names<'a>(HashMap<&'a str, Vec<&'a str>>);

impl<'a> Names<'a> {
    pub(super) fn of(claim: &'a DeviceClaim) -> Self {
        let alternatives = |r: &'a DeviceRequest| r.first_available.iter().map(|sub| sub.name.as_str()).collect();
        Self(claim.requests.iter().map(|request| (request.name.as_str(), alternatives(request))).collect())
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, sub)) => self.0.get(request).is_some_and(|subs| subs.contains(&sub)),
        }
    }

    /// A reference to a request, or to an alternative of one.
    pub(super) fn reference(&self, path: &Path<'_>, name: &str, errors: &mut Errors) {
        const WHY: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let fits = name.matches('/').count() < 2;
        if fits {
            name.split('/').for_each(|part| label(path, part, errors));
        }
        if !fits || !self.has(name) {
            errors.push(FieldError::invalid(path, name, WHY));
        }
    }

    pub(super) fn references(&self, path: &Path<'_>, list: &[String], errors: &mut Errors) {
        let each = |path: &Path<'_>, name: &str, errors: &mut Errors| self.reference(path, name, errors);
        distinct_names(&path.child("requests"), list, MAX_REQUESTS, each, errors);
    }
}

fn device_claim(path: &Path<'_>, claim: &DeviceClaim, errors: &mut Errors) {
    let names = Names::of(claim);
    let key = (|r: &DeviceRequest| r.name.clone(), |r: &DeviceRequest| Shown::from(&r.name));
    distinct(&path.child("requests"), (&claim.requests, MAX_REQUESTS), request, key, errors);
    let each = |path: &Path<'_>, c: &DeviceConstraint, errors: &mut Errors| constraint(path, c, &names, errors);
    items(&path.child("constraints"), &claim.constraints, MAX_CONSTRAINTS, each, errors);
    let each = |path: &Path<'_>, config: &DeviceClaimConfiguration, errors: &mut Errors| {
        names.references(path, &config.requests, errors);
        configuration(path, &config.device_configuration, false, errors);
    };
    items(&path.child("config"), &claim.config, MAX_CONFIGURATIONS, each, errors);
}

fn request(path: &Path<'_>, request: &DeviceRequest, errors: &mut Errors) {
    label(&path.child("name"), &request.name, errors);
    match (&request.exactly, request.first_available.is_empty()) {
        (None, true) => {
            errors.push(FieldError::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (Some(_), false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, serde_json::Value::Null, why));
        }
        (Some(exactly), true) => exact_request(&path.child("exactly"), exactly, errors),
        (None, false) => {
            let key = (|r: &DeviceSubRequest| r.name.clone(), |r: &DeviceSubRequest| Shown::from(&r.name));
            let path = path.child("firstAvailable");
            distinct(&path, (&request.first_available, MAX_ALTERNATIVES), sub_request, key, errors);
        }
    }
}

/// What is asked of a device, whether there are alternatives or not.
struct Wish<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: &'a str,
    count: i64,
    tolerations: &'a [DeviceToleration],
}

fn sub_request(path: &Path<'_>, request: &DeviceSubRequest, errors: &mut Errors) {
    label(&path.child("name"), &request.name, errors);
    let wish = Wish {
        class: &request.device_class_name,
        selectors: &request.selectors,
        mode: &request.allocation_mode,
        count: request.count,
        tolerations: &request.tolerations,
    };
    wished(path, &wish, errors);
}

fn exact_request(path: &Path<'_>, request: &ExactDeviceRequest, errors: &mut Errors) {
    let wish = Wish {
        class: &request.device_class_name,
        selectors: &request.selectors,
        mode: &request.allocation_mode,
        count: request.count,
        tolerations: &request.tolerations,
    };
    wished(path, &wish, errors);
}

fn wished(path: &Path<'_>, wish: &Wish<'_>, errors: &mut Errors) {
    let class = path.child("deviceClassName");
    checks::required(&class, wish.class, errors);
    if !wish.class.is_empty() {
        checks::text(&class, wish.class, names::dns1123_subdomain(wish.class), errors);
    }
    selectors(&path.child("selectors"), wish.selectors, errors);
    let count = path.child("count");
    match wish.mode {
        "All" if wish.count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(count, wish.count, why));
        }
        "ExactCount" if wish.count <= 0 => {
            errors.push(FieldError::invalid(count, wish.count, "must be greater than zero"));
        }
        mode => checks::supported(&path.child("allocationMode"), mode, MODES, errors),
    }
    for (i, each) in wish.tolerations.iter().enumerate() {
        toleration(&path.child("tolerations").index(i), each, errors);
    }
}

fn toleration(path: &Path<'_>, toleration: &DeviceToleration, errors: &mut Errors) {
    let DeviceToleration { key, operator, value, effect, .. } = toleration;
    if !key.is_empty() {
        checks::text(&path.child("key"), key, names::qualified(key), errors);
    }
    let at = path.child("value");
    match operator.as_str() {
        "Exists" if !value.is_empty() => {
            errors.push(FieldError::invalid(at, value, "must be empty for operator `Exists`"));
        }
        "Exists" => {}
        "Equal" => checks::text(&at, value, names::label_value(value), errors),
        other => checks::one_of(&path.child("operator"), other, &["Equal", "Exists"], errors),
    }
    if !effect.is_empty() {
        checks::supported(&path.child("effect"), effect, EFFECTS, errors);
    }
}

fn constraint(path: &Path<'_>, constraint: &DeviceConstraint, names: &Names<'_>, errors: &mut Errors) {
    names.references(path, &constraint.requests, errors);
    if let Some(name) = &constraint.match_attribute {
        fully_qualified_name(&path.child("matchAttribute"), name, errors);
    } else if let Some(name) = &constraint.distinct_attribute {
        fully_qualified_name(&path.child("distinctAttribute"), name, errors);
    } else {
        let why = r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#;
        errors.push(FieldError::required(path, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::tests::told;

    #[test]
    fn claims_ask_for_devices() {
        let cases = [
            (r#"{"name":"a","exactly":{"deviceClassName":"c","allocationMode":"ExactCount","count":1}}"#, ""),
            (
                r#"{"name":"a"}"#,
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            ),
            (
                r#"{"name":"a","exactly":{"deviceClassName":"c","allocationMode":"All","count":1}}"#,
                "spec.devices.requests[0].exactly.count: Invalid value: 1: must not be specified when allocationMode is 'All'",
            ),
        ];
        for (request, expected) in cases {
            let object = format!(r#"{{"spec":{{"devices":{{"requests":[{request}]}}}}}}"#);
            assert_eq!(told("resource.k8s.io/v1", "ResourceClaim", Part::Main, &object, None), expected);
        }
    }
}
