//! PodCertificateRequests: a pod asks for a certificate of the key that it has.

use std::collections::BTreeMap;

use api::certificates::v1beta1::{
    PodCertificateRequest, PodCertificateRequestSpec as Spec, PodCertificateRequestStatus as Status,
};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::keys::{KeyKind, proves};
use super::{SPEC, STATUS, issued, signer_name};
use crate::status::{FieldError, Shown};
use crate::strategy::Part;
use crate::validation::conditions;
use crate::validation::{Change, Errors, Path, checks, names, shown};

const ISSUED: &str = "Issued";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
const KNOWN: &[&str] = &[ISSUED, DENIED, FAILED];

const MAX_UID_BYTES: usize = 128;
const MAX_KEY_BYTES: usize = 10 << 10;
const MAX_ANNOTATION_BYTES: usize = 256 << 10;
pub(in crate::validation) const MIN_SECONDS: i32 = 60 * 60;
const MAX_SECONDS: i32 = 91 * 24 * 60 * 60;
const MAX_SECONDS_OF_KUBERNETES: i32 = 24 * 60 * 60;

pub(super) const REQUEST: Path<'static> = SPEC.child("stubPKCS10Request");
pub(super) const KEY: Path<'static> = SPEC.child("pkixPublicKey");
pub(super) const NO_REQUEST: &str = "must be a valid PKCS#10 CSR";
pub(super) const NO_KEY: &str = "must be a valid PKIX-serialized public key";
const BAD_SIZE: &str = "RSA keys must have modulus size 3072 or 4096";
const UNKNOWN_KEY: &str = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";

pub fn pod_certificate_request(change: &Change<'_, PodCertificateRequest>, errors: &mut Errors) {
    let new = change.new;
    match change.old {
        None => spec(&new.spec, errors),
        Some(old) if change.part == Part::Status => {
            status((&new.spec, &new.status), &old.status, change.context.now, errors)
        }
        Some(old) if without_blanks(&new.spec) != without_blanks(&old.spec) => {
            let value = shown::structure("k8s.io.api.certificates.v1beta1.PodCertificateRequestSpec", &new.spec);
            errors.push(FieldError::invalid(SPEC, value, checks::IMMUTABLE));
        }
        Some(_) => {}
    }
}

/// Bytes that are none are as good as no bytes.
fn without_blanks(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    for bytes in [&mut spec.pkix_public_key, &mut spec.proof_of_possession, &mut spec.stub_pkc_s10_request] {
        bytes.take_if(|bytes| bytes.is_empty());
    }
    spec
}

fn spec(spec: &Spec, errors: &mut Errors) {
    signer_name(&SPEC.child("signerName"), &spec.signer_name, errors);
    user_annotations(&SPEC.child("unverifiedUserAnnotations"), &spec.unverified_user_annotations, errors);
    let named = [
        ("podName", &spec.pod_name, "podUID", &spec.pod_uid),
        ("serviceAccountName", &spec.service_account_name, "serviceAccountUID", &spec.service_account_uid),
        ("nodeName", &spec.node_name, "nodeUID", &spec.node_uid),
    ];
    for (name_field, name, uid_field, uid) in named {
        // That of a node has a type of its own, which is shown as JSON.
        let value = || if name_field == "nodeName" { shown::word(name) } else { Shown::from(name) };
        let complaints = names::dns1123_subdomain(name).into_iter();
        errors.extend(complaints.map(|why| FieldError::invalid(SPEC.child(name_field), value(), why)));
        let path = SPEC.child(uid_field);
        match uid.len() {
            0 => errors.push(FieldError::invalid(path, "", "must not be empty")),
            1..=MAX_UID_BYTES => {}
            _ => errors.push(FieldError::too_long(path, MAX_UID_BYTES)),
        }
    }
    let path = SPEC.child("maxExpirationSeconds");
    let Some(seconds) = spec.max_expiration_seconds else {
        return errors.push(FieldError::required(path, "must be set"));
    };
    let max = max_seconds(&spec.signer_name);
    if !(MIN_SECONDS..=max).contains(&seconds) {
        errors.push(FieldError::invalid(path, seconds, format!("must be in the range [{MIN_SECONDS}, {max}]")));
    }
    let (request, key, proof) =
        (bytes(&spec.stub_pkc_s10_request), bytes(&spec.pkix_public_key), bytes(&spec.proof_of_possession));
    match (request.is_empty(), key.is_empty(), proof.is_empty()) {
        (false, true, true) => errors.extend(bad_request(request)),
        (true, false, false) => errors.extend(bad_key(key, proof, &spec.pod_uid)),
        _ => {
            let why = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            errors.push(FieldError::invalid_omitted(SPEC, why));
        }
    }
}

/// How long a signer's certificates last at most.
pub(in crate::validation) fn max_seconds(signer: &str) -> i32 {
    let domain = signer.split('/').next().unwrap_or_default();
    let is_own = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    if is_own { MAX_SECONDS_OF_KUBERNETES } else { MAX_SECONDS }
}

pub(super) fn bytes(field: &Option<Vec<u8>>) -> &[u8] {
    field.as_deref().unwrap_or_default()
}

/// Annotations of which the key has a domain.
pub(in crate::validation) fn user_annotations(
    path: &Path<'_>,
    annotations: &BTreeMap<String, String>,
    errors: &mut Errors,
) {
    for key in annotations.keys().map(|key| key.to_lowercase()) {
        let complaints = names::qualified(&key);
        if key.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if complaints.is_empty() && !key.contains('/') {
            errors.push(FieldError::invalid(path, key, "must be a domain-prefixed key (such as \"acme.io/foo\")"));
        } else {
            checks::text(path, &key, complaints, errors);
        }
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_ANNOTATION_BYTES {
        errors.push(FieldError::too_long(path, MAX_ANNOTATION_BYTES));
    }
}

/// The request of a key: nothing counts of it but the key, and that it is signed by it.
fn bad_request(der: &[u8]) -> Option<FieldError> {
    if der.len() > MAX_KEY_BYTES {
        return Some(FieldError::too_long(REQUEST, MAX_KEY_BYTES));
    }
    let Some((request, kind)) = read_request(der) else {
        return Some(FieldError::invalid_omitted(REQUEST, NO_REQUEST));
    };
    match kind {
        Some(KeyKind::Ed25519 | KeyKind::Curve("P-256" | "P-384" | "P-521") | KeyKind::Rsa(3072 | 4096)) => {}
        Some(KeyKind::Curve(name)) => {
            let why = "elliptic public keys must use curve P256, P384, or P521";
            return Some(FieldError::invalid(REQUEST, format!("curve {name}"), why));
        }
        Some(KeyKind::Rsa(bits)) => return Some(FieldError::invalid(REQUEST, format!("{bits}-bit modulus"), BAD_SIZE)),
        None => return Some(FieldError::invalid_omitted(REQUEST, UNKNOWN_KEY)),
    }
    let is_signed = request.verify_signature().is_ok();
    (!is_signed).then(|| FieldError::invalid_omitted(REQUEST, "invalid signature"))
}

fn read_request(der: &[u8]) -> Option<(X509CertificationRequest<'_>, Option<KeyKind>)> {
    let (rest, request) = X509CertificationRequest::from_der(der).ok()?;
    let kind = KeyKind::of(&request.certification_request_info.subject_pki);
    rest.is_empty().then_some((request, kind))
}

/// A key, and the UID of the pod signed by it.
fn bad_key(der: &[u8], proof: &[u8], uid: &str) -> Option<FieldError> {
    let proof_path = SPEC.child("proofOfPossession");
    for (path, value) in [(KEY, der), (proof_path, proof)] {
        if value.len() > MAX_KEY_BYTES {
            return Some(FieldError::too_long(path, MAX_KEY_BYTES));
        }
    }
    let read = SubjectPublicKeyInfo::from_der(der).ok().filter(|(rest, _)| rest.is_empty());
    let read = read.and_then(|(_, key)| KeyKind::of(&key).map(|kind| (key, kind)));
    let Some((key, kind)) = read else { return Some(FieldError::invalid(KEY, shown::bytes(Some(der)), NO_KEY)) };
    match kind {
        KeyKind::Ed25519 | KeyKind::Curve("P-256" | "P-384" | "P-521") | KeyKind::Rsa(3072 | 4096) => {}
        KeyKind::Curve(name) => {
            let why = "elliptic public keys must use curve P256 or P384";
            return Some(FieldError::invalid(KEY, format!("curve {name}"), why));
        }
        KeyKind::Rsa(bits) => return Some(FieldError::invalid(KEY, format!("{bits}-bit modulus"), BAD_SIZE)),
    }
    let is_proved = proves(kind, &key, uid.as_bytes(), proof);
    (!is_proved).then(|| FieldError::invalid_omitted(proof_path, "could not verify proof-of-possession signature"))
}

fn has(status: &Status, kind: &str) -> bool {
    status.conditions.iter().any(|condition| condition.r#type == kind && condition.status == "True")
}

fn status((spec, new): (&Spec, &Status), old: &Status, now: i64, errors: &mut Errors) {
    let told = errors.len();
    decisions(new, errors);
    conditions::conditions(&STATUS.child("conditions"), &new.conditions, errors);
    if errors.len() > told {
        return;
    }
    let is_kept = |why: &str| (new != old).then(|| FieldError::invalid_omitted(STATUS, why));
    if KNOWN.iter().any(|kind| has(old, kind)) {
        errors.extend(is_kept("immutable after PodCertificateRequest is issued, denied, or failed"));
    } else if has(new, DENIED) || has(new, FAILED) {
        let bare = Status { conditions: new.conditions.clone(), ..Status::default() };
        if *new != bare {
            let why = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
            errors.push(FieldError::invalid_omitted(STATUS, why));
        }
    } else if has(new, ISSUED) {
        issued::certificate(spec, new, now, errors);
    } else {
        errors.extend(is_kept("status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\""));
    }
}

/// A request is decided once, and one way.
fn decisions(status: &Status, errors: &mut Errors) {
    let list = STATUS.child("conditions");
    let mut is_decided = false;
    for (i, condition) in status.conditions.iter().enumerate() {
        // Upstream writes the index as if it were a field.
        let index = format!("[{i}]");
        let (item, kind) = (list.child(&index), condition.r#type.as_str());
        if !KNOWN.contains(&kind) {
            errors.push(FieldError::not_supported(item.child("type"), kind, KNOWN));
            continue;
        }
        if is_decided {
            let why = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(FieldError::invalid(item.child("type"), kind, why));
        }
        is_decided = true;
        checks::supported(&item.child("status"), &condition.status, &["True"], errors);
    }
}

#[cfg(test)]
mod tests;
