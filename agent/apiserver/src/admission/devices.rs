//! What a claim for devices needs beside a right spec: a namespace for administrators' access, and the right to bind.
//!
//! Upstream's strategies look at these, so they are told with the errors of the object, before them.

use serde_json::Value;

use crate::app::Call;
use crate::auth::authz::{Attributes, forbidden_message};
use crate::codec;
use crate::status::FieldError;
use crate::strategy::Part;
use crate::tree;

const GROUP: &str = "resource.k8s.io";
/// The label of namespaces whose claims may have administrators' access.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";

/// Errors of a claim, or a template of one, that come from who writes it and where.
#[must_use]
pub fn claim_errors(call: &Call, part: Part, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if call.kind.group != GROUP {
        return Vec::new();
    }
    match (call.kind.plural, part, old) {
        ("resourceclaims", Part::Main, None) => admin_request(call, new, "/spec/devices/requests"),
        ("resourceclaimtemplates", Part::Main, None) => admin_request(call, new, "/spec/spec/devices/requests"),
        ("resourceclaims", Part::Status, Some(old)) => {
            let mut errors = admin_result(call, new, old);
            if call.app.config.features.is_on("DRAResourceClaimGranularStatusAuthorization") {
                errors.extend(unbound(call, new, old));
            }
            errors
        }
        _ => Vec::new(),
    }
}

fn admin_request(call: &Call, claim: &Value, requests: &str) -> Vec<FieldError> {
    // A claim's own form of old versions has the field in the request itself.
    let is_admin = |request: &Value| request["exactly"]["adminAccess"] == true || request["adminAccess"] == true;
    let at = tree::list(claim, requests).iter().position(is_admin);
    // Of templates, too, upstream names the field as that of a claim.
    at.map(|index| format!("spec.devices.requests[{index}].adminAccess"))
        .and_then(|field| refused(call, field))
        .into_iter()
        .collect()
}

fn admin_result(call: &Call, new: &Value, old: &Value) -> Vec<FieldError> {
    let at = |claim: &Value| {
        let results = tree::list(claim, "/status/allocation/devices/results");
        results.iter().position(|result| result["adminAccess"] == true)
    };
    if at(old).is_some() {
        return Vec::new();
    }
    at(new)
        .map(|index| format!("status.allocation.devices.results[{index}].adminAccess"))
        .and_then(|field| refused(call, field))
        .into_iter()
        .collect()
}

fn refused(call: &Call, field: String) -> Option<FieldError> {
    let storage = call.app.cache.known("", "namespaces");
    let namespace = storage.get("", call.namespace());
    let namespace = namespace.and_then(|object| codec::to_value(storage, storage.kind, &object).ok());
    if namespace.is_some_and(|namespace| namespace["metadata"]["labels"][ADMIN_LABEL] == "true") {
        return None;
    }
    let why = format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace");
    Some(FieldError::forbidden(field, why))
}

/// Who decides for a claim needs the right to bind claims, beside that on the status.
fn unbound(call: &Call, new: &Value, old: &Value) -> Option<FieldError> {
    let is_same = |key: &str| tree::same(&new["status"][key], &old["status"][key]);
    if is_same("allocation") && is_same("reservedFor") {
        return None;
    }
    let resource = Attributes::resource(&call.user, call.info.verb, GROUP, "resourceclaims");
    let attributes = Attributes { version: call.kind.version, subresource: "binding", ..resource };
    let decision = call.app.access.decide(&attributes);
    if decision.is_allow() {
        return None;
    }
    let why = format!(
        "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
         verb=\"{}\" permission: {}",
        call.info.verb,
        forbidden_message(&attributes, decision.reason())
    );
    Some(FieldError::forbidden("status.allocation", why))
}
