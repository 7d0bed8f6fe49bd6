//! Nobody grants rights they lack: writes of roles and bindings, and decisions about certificates.

use api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::auth::authz::Attributes;
use crate::auth::authz::rbac::{GROUP, missing_rights};
use crate::status::{Failure, FieldError, Result};
use crate::strategy::Part;
use crate::tree;

/// Refuses roles and bindings that grant more than their writer has, before it is looked at whether they are valid.
pub(super) fn check(call: &Call, new: &Value, old: Option<&Value>) -> Result<()> {
    if call.kind.group != GROUP
        || call.user.is_in("system:masters")
        || old.is_some_and(|old| is_only_released(old, new))
    {
        return Ok(());
    }
    match call.kind.plural {
        "roles" | "clusterroles" => check_role(call, new, old),
        "rolebindings" | "clusterrolebindings" => check_binding(call, new),
        _ => Ok(()),
    }
}

/// Whether no more changes than what the garbage collector has to change.
fn is_only_released(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut rest = object.clone();
        for key in ["ownerReferences", "finalizers", "managedFields"] {
            tree::remove(&mut rest["metadata"], key);
        }
        rest
    };
    tree::same(&rest(old), &rest(new))
}

fn may(call: &Call, verb: &str, plural: &str, (namespace, name): (&str, &str)) -> bool {
    let attributes =
        Attributes { version: "*", namespace, name, ..Attributes::resource(&call.user, verb, GROUP, plural) };
    call.app.access.decide(&attributes).is_allow()
}

fn is_aggregated(role: &Value) -> bool {
    !tree::list(role, "/aggregationRule/clusterRoleSelectors").is_empty()
}

fn check_role(call: &Call, role: &Value, old: Option<&Value>) -> Result<()> {
    let name = tree::text(role, "/metadata/name");
    // The name is the one of the path, which creations have none in.
    if may(call, "escalate", call.kind.plural, (call.namespace(), &call.info.name)) {
        return Ok(());
    }
    confirm(call, name, &crate::auth::bootstrap::parse_rules(role))?;
    if is_aggregated(role) || old.is_some_and(is_aggregated) {
        let all = || vec!["*".to_owned()];
        let everything = [
            PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
            PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
        ];
        if !missing_rights(&call.app.access.rules_for(&call.user, "").rules, &everything).is_empty() {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(Failure::forbidden(call.subject(), name, why));
        }
    }
    Ok(())
}

fn check_binding(call: &Call, binding: &Value) -> Result<()> {
    let name = tree::text(binding, "/metadata/name");
    let text = |key: &str| binding["roleRef"][key].as_str().unwrap_or_default().to_owned();
    let reference = RoleRef { api_group: text("apiGroup"), kind: text("kind"), name: text("name") };
    let (plural, namespace) = match reference.kind.as_str() {
        "Role" => ("roles", call.namespace()),
        "ClusterRole" => ("clusterroles", ""),
        other => {
            let text = format!("unsupported role reference kind: {other:?}");
            return Err(Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", text));
        }
    };
    if may(call, "bind", plural, (call.namespace(), &reference.name)) {
        return Ok(());
    }
    let rules = call.app.access.role_rules(&reference, namespace);
    confirm(call, name, &rules.ok_or_else(|| Failure::not_found(call.subject(), &reference.name))?)
}

fn confirm(call: &Call, name: &str, wanted: &[PolicyRule]) -> Result<()> {
    let held = call.app.access.rules_for(&call.user, call.namespace());
    let missing = missing_rights(&held.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = call.user.groups.iter().map(|g| format!("{g:?}")).collect();
    let mut why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        call.user.name,
        groups.join(" "),
        missing.join("\n")
    );
    let errors = held.errors(Some(call.kind.plural));
    if !errors.is_empty() {
        why += &format!("; resolution errors: [{errors}]");
    }
    Err(Failure::forbidden(call.subject(), name, &why))
}

/// Whether the user may do something in the name of a signer.
fn may_for(call: &Call, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    let allowed = |name: &str| {
        let resource = Attributes::resource(&call.user, verb, "certificates.k8s.io", "signers");
        call.app.access.decide(&Attributes { version: "*", name, ..resource }).is_allow()
    };
    allowed(signer) || allowed(&format!("{domain}/*"))
}

/// What is wrong if somebody answers a request of a pod's certificate who may not sign for its signer.
#[must_use]
pub fn signer_error(call: &Call, part: Part, new: &Value, old: &Value) -> Option<FieldError> {
    let is_request = (call.kind.group, call.kind.plural) == ("certificates.k8s.io", "podcertificaterequests");
    if !is_request || part != Part::Status || tree::same(&new["status"], &old["status"]) {
        return None;
    }
    let signer = tree::text(old, "/spec/signerName");
    let why = || format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", call.user.name);
    (!may_for(call, "sign", signer)).then(|| FieldError::forbidden("spec.signerName", why()))
}

/// Refuses bundles of authorities in the name of a signer to those who may not speak for it.
pub(super) fn check_attestation(call: &Call, new: &Value, old: Option<&Value>) -> Result<()> {
    let is_bundle = (call.kind.group, call.kind.plural) == ("certificates.k8s.io", "clustertrustbundles");
    if !is_bundle || !super::is_on(call, "ClusterTrustBundleAttest") {
        return Ok(());
    }
    let signer = tree::text(new, "/spec/signerName");
    // Who only says what it belongs to, and what waits for its end, says nothing for the signer.
    let others = ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"];
    let is_kept = old.is_some_and(|old| {
        tree::same(&old["spec"], &new["spec"]) && tree::equal_but(&old["metadata"], &new["metadata"], &others)
    });
    if signer.is_empty() || is_kept || may_for(call, "attest", signer) {
        return Ok(());
    }
    let why = format!("user not permitted to attest for signerName {signer:?}");
    Err(Failure::forbidden(call.subject(), tree::name_given(new), &why))
}

/// Approving and signing certificates needs rights on the signer.
pub(super) fn check_signer(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    if (call.kind.group, call.kind.plural) != ("certificates.k8s.io", "certificatesigningrequests") {
        return Ok(());
    }
    let Some(old) = old else { return Ok(()) };
    let changed = |pointer: &str| {
        let at = |v: &Value| tree::at(v, pointer).cloned().unwrap_or_default();
        !tree::same(&at(old), &at(new))
    };
    let (verb, doing) = match operation {
        Operation::Update(Part::Approval) => ("approve", "approve"),
        Operation::Update(Part::Status) if changed("/status/certificate") || changed("/status/conditions") => {
            ("sign", "sign")
        }
        _ => return Ok(()),
    };
    let plugin = if verb == "sign" { "CertificateSigning" } else { "CertificateApproval" };
    let signer = tree::text(old, "/spec/signerName");
    if !super::is_on(call, plugin) || may_for(call, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {doing} requests with signerName {signer:?}");
    Err(Failure::forbidden(call.subject(), tree::name_given(old), &why))
}
