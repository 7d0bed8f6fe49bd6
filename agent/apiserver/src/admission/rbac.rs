//! Nobody grants rights they lack: writes of roles and bindings, and decisions about certificates.

use api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::auth::authz::Attributes;
use crate::auth::authz::rbac::{GROUP, missing_rights};
use crate::status::{Failure, FieldError, Result, Subject};
use crate::strategy::Part;
use crate::tree;

/// Refuses roles and bindings that grant more than their writer has.
pub(super) fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    if call.kind.group != GROUP || call.user.is_in("system:masters") {
        return Ok(());
    }
    let unchanged = |keys: &[&str]| old.is_some_and(|old| keys.iter().all(|k| tree::same(&old[*k], &new[*k])));
    match (call.kind.plural, operation) {
        ("roles" | "clusterroles", _) if unchanged(&["rules", "aggregationRule"]) => Ok(()),
        ("roles" | "clusterroles", _) => check_role(call, new),
        ("rolebindings" | "clusterrolebindings", _) if unchanged(&["roleRef", "subjects"]) => Ok(()),
        ("rolebindings" | "clusterrolebindings", _) => check_binding(call, new),
        _ => Ok(()),
    }
}

fn may(call: &Call, verb: &str, plural: &str, (namespace, name): (&str, &str)) -> bool {
    let attributes =
        Attributes { version: "v1", namespace, name, ..Attributes::resource(&call.user, verb, GROUP, plural) };
    call.app.access.decide(&attributes).is_allow()
}

fn check_role(call: &Call, role: &Value) -> Result<()> {
    let name = tree::text(role, "/metadata/name");
    if may(call, "escalate", call.kind.plural, (call.namespace(), name)) {
        return Ok(());
    }
    if tree::has(role, "/aggregationRule") {
        let all = || vec!["*".to_owned()];
        let everything = [
            PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
            PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
        ];
        if !missing_rights(&call.app.access.rules_for(&call.user, ""), &everything).is_empty() {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(Failure::forbidden(call.subject(), name, why));
        }
    }
    confirm(call, name, &crate::auth::bootstrap::parse_rules(role))
}

fn check_binding(call: &Call, binding: &Value) -> Result<()> {
    let name = tree::text(binding, "/metadata/name");
    let text = |key: &str| binding["roleRef"][key].as_str().unwrap_or_default().to_owned();
    let reference = RoleRef { api_group: text("apiGroup"), kind: text("kind"), name: text("name") };
    let (plural, namespace) = if reference.kind == "Role" { ("roles", call.namespace()) } else { ("clusterroles", "") };
    if may(call, "bind", plural, (call.namespace(), &reference.name)) {
        return Ok(());
    }
    let rules = call.app.access.role_rules(&reference, namespace);
    let subject = Subject { group: GROUP, resource: plural };
    confirm(call, name, &rules.ok_or_else(|| Failure::not_found(subject, &reference.name))?)
}

fn confirm(call: &Call, name: &str, wanted: &[PolicyRule]) -> Result<()> {
    let missing = missing_rights(&call.app.access.rules_for(&call.user, call.namespace()), wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = call.user.groups.iter().map(|g| format!("{g:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        call.user.name,
        groups.join(" "),
        missing.join("\n")
    );
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
