//! Who may do what, and who says who they are.

use api::certificates::v1::CertificateSigningRequest;
use api::certificates::v1beta1::{ClusterTrustBundle, PodCertificateRequest};
use api::meta::v1::ObjectMeta;
use api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};

use super::cell::{Cell, age};
use super::cells;
use super::text::{duration, labels, or_none};

pub(super) fn role_binding(object: &RoleBinding) -> Vec<Cell> {
    binding(&object.metadata, &object.role_ref, &object.subjects)
}

pub(super) fn cluster_role_binding(object: &ClusterRoleBinding) -> Vec<Cell> {
    binding(&object.metadata, &object.role_ref, &object.subjects)
}

fn binding(metadata: &ObjectMeta, role: &RoleRef, subjects: &[Subject]) -> Vec<Cell> {
    let names = |kind: &str| {
        let name = |s: &Subject| match kind {
            "ServiceAccount" => format!("{}/{}", s.namespace, s.name),
            _ => s.name.clone(),
        };
        subjects.iter().filter(|s| s.kind == kind).map(name).collect::<Vec<_>>().join(", ")
    };
    cells![
        metadata.name.as_str(),
        format!("{}/{}", role.kind, role.name),
        age(&metadata.creation_timestamp),
        names("User"),
        names("Group"),
        names("ServiceAccount"),
    ]
}

pub(super) fn cluster_trust_bundle(object: &ClusterTrustBundle) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), or_none(&object.spec.signer_name)]
}

pub(super) fn pod_certificate_request(object: &PodCertificateRequest) -> Vec<Cell> {
    let (spec, conditions) = (&object.spec, &object.status.conditions);
    let decided = conditions.iter().map(|condition| condition.r#type.as_str());
    let state = decided.rev().find(|kind| ["Issued", "Denied", "Failed"].contains(kind));
    cells![
        object.metadata.name.as_str(),
        spec.pod_name.as_str(),
        spec.service_account_name.as_str(),
        spec.node_name.as_str(),
        spec.signer_name.as_str(),
        state.unwrap_or("Pending"),
        labels(&spec.unverified_user_annotations),
    ]
}

pub(super) fn certificate_signing_request(object: &CertificateSigningRequest) -> Vec<Cell> {
    let wanted = object.spec.expiration_seconds.map(|seconds| duration(i64::from(seconds) * 1_000_000_000));
    cells![
        object.metadata.name.as_str(),
        age(&object.metadata.creation_timestamp),
        or_none(&object.spec.signer_name),
        object.spec.username.as_str(),
        wanted.unwrap_or_else(|| "<none>".to_owned()),
        condition(object),
    ]
}

fn condition(object: &CertificateSigningRequest) -> String {
    let has = |name: &str| object.status.conditions.iter().any(|c| c.r#type == name);
    let decision = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let is_issued = object.status.certificate.as_ref().is_some_and(|c| !c.is_empty());
    format!("{decision}{failed}{}", if is_issued { ",Issued" } else { "" })
}

#[cfg(test)]
mod tests {
    use api::certificates::v1::CertificateSigningRequestCondition;

    use super::*;

    #[test]
    fn a_signing_request_tells_how_far_it_is() {
        let mut object = CertificateSigningRequest::default();
        assert_eq!(condition(&object), "Pending");
        let approved = CertificateSigningRequestCondition { r#type: "Approved".into(), ..Default::default() };
        object.status.conditions.push(approved);
        object.status.certificate = Some(vec![1]);
        assert_eq!(condition(&object), "Approved,Issued");
    }
}
