//! The group of certificates: CertificateSigningRequests and ClusterTrustBundles here.

mod issued;
pub(super) mod keys;
pub(super) mod pod_request;

use std::collections::BTreeMap;

use api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition as Condition, CertificateSigningRequestStatus,
};
use api::certificates::v1beta1::ClusterTrustBundle;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use super::{Change, Errors, Path, checks, diff, names, shown};
use crate::status::FieldError;
use crate::strategy::Part;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const MIN_SECONDS: i32 = 600;
const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub fn signing_request(change: &Change<'_, CertificateSigningRequest>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old);
    spec(new, old, errors);
    conditions(new, old, errors);
    let (own, before) = (certificate(&new.status), old.map(|old| certificate(&old.status)));
    let kept = before.is_some_and(|before| before == own || bad_certificate(before).is_some());
    if let Some(why) = bad_certificate(own).filter(|_| !kept) {
        errors.push(FieldError::invalid(STATUS.child("certificate"), "<certificate data>", why));
    }
    if let Some(old) = old {
        decisions(change.part, &new.status.conditions, &old.status.conditions, errors);
        let (path, before) = (STATUS.child("certificate"), certificate(&old.status));
        if own != before && change.part != Part::Status {
            errors.push(FieldError::forbidden(path, "updates may not set certificate content"));
        } else if own != before && !before.is_empty() {
            errors.push(FieldError::forbidden(path, "updates may not modify existing certificate content"));
        }
    }
}

/// Most bytes of a bundle.
const MAX_BUNDLE_BYTES: usize = 1 << 20;

pub fn trust_bundle(change: &Change<'_, ClusterTrustBundle>, errors: &mut Errors) {
    let (new, signer) = (change.new, change.new.spec.signer_name.as_str());
    let name = Path::root("metadata");
    checks::text(&name.child("name"), &new.metadata.name, bundle_name(&new.metadata.name, signer), errors);
    if !signer.is_empty() {
        signer_name(&SPEC.child("signerName"), signer, errors);
    }
    if change.old.is_none_or(|old| old.spec.trust_bundle != new.spec.trust_bundle) {
        anchors(&SPEC.child("trustBundle"), &new.spec.trust_bundle, errors);
    }
    if let Some(old) = change.old {
        let signers = (&new.spec.signer_name, &old.spec.signer_name);
        checks::immutable(&SPEC.child("signerName"), signers, String::clone, errors);
    }
}

/// A bundle of a signer is named for it.
pub(super) fn bundle_name(name: &str, signer: &str) -> names::Complaints {
    if signer.is_empty() {
        return match name.contains(':') {
            true => vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()],
            false => names::dns1123_subdomain(name),
        };
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}").into()],
    }
}

/// Certificates of authorities, each once.
fn anchors(path: &Path<'_>, bundle: &str, errors: &mut Errors) {
    if bundle.len() > MAX_BUNDLE_BYTES {
        return errors.push(FieldError::too_long(path, MAX_BUNDLE_BYTES));
    }
    let mut complaints = Vec::new();
    let mut found: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    for (index, block) in Pem::iter_from_buffer(bundle.as_bytes()).map_while(Result::ok).enumerate() {
        match bad_anchor(&block) {
            Some(why) => complaints.push(format!("entry {index} {why}")),
            None => found.entry(block.contents).or_default().push(index.to_string()),
        }
    }
    if complaints.is_empty() && found.is_empty() {
        complaints.push("at least one trust anchor must be provided".to_owned());
    } else if complaints.is_empty() {
        let repeated = found.values().filter(|indices| indices.len() > 1);
        complaints.extend(repeated.map(|i| format!("duplicate trust anchor (indices [{}])", i.join(" "))));
    }
    errors.extend(complaints.into_iter().map(|why| FieldError::invalid(path, "<value omitted>", why)));
}

fn bad_anchor(block: &Pem) -> Option<String> {
    if block.label != "CERTIFICATE" {
        return Some(format!("has bad block type: {}", block.label));
    }
    let Ok((_, certificate)) = X509Certificate::from_der(&block.contents) else {
        return Some("does not parse as X.509".to_owned());
    };
    let is_authority = certificate.basic_constraints().ok().flatten().is_some_and(|c| c.value.ca);
    (!is_authority).then(|| "does not have the CA bit set".to_owned())
}

fn certificate(status: &CertificateSigningRequestStatus) -> &[u8] {
    status.certificate.as_deref().unwrap_or_default()
}

fn spec(new: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>, errors: &mut Errors) {
    let request = new.spec.request.as_deref().unwrap_or_default();
    if let Some(why) = bad_request(request) {
        let value = shown::bytes(new.spec.request.as_deref());
        errors.push(FieldError::invalid(SPEC.child("request"), value, why));
    }
    let (list, usages) = (SPEC.child("usages"), &new.spec.usages);
    if usages.is_empty() {
        errors.push(FieldError::required(list, ""));
    }
    let known = |usage: &String| USAGES.contains(&usage.as_str());
    if old.is_none_or(|old| old.spec.usages.iter().all(known)) {
        for (i, usage) in usages.iter().enumerate() {
            checks::supported(&list.index(i), usage, USAGES, errors);
        }
    }
    let repeats = |usages: &[String], i: usize| usages[..i].contains(&usages[i]);
    if old.is_none_or(|old| !(0..old.spec.usages.len()).any(|i| repeats(&old.spec.usages, i))) {
        for i in (0..usages.len()).filter(|i| repeats(usages, *i)) {
            errors.push(FieldError::duplicate(list.index(i), shown::word(&usages[i])));
        }
    }
    let (path, signer) = (SPEC.child("signerName"), &new.spec.signer_name);
    if signer == LEGACY_SIGNER && old.is_none_or(|old| old.spec.signer_name != LEGACY_SIGNER) {
        errors.push(FieldError::invalid(path, signer, "the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(&path, signer, errors);
    }
    if let Some(seconds) = new.spec.expiration_seconds.filter(|seconds| *seconds < MIN_SECONDS) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(SPEC.child("expirationSeconds"), seconds, why));
    }
}

/// A domain, a slash and what the signer is called there.
pub fn signer_name(path: &Path<'_>, signer: &str, errors: &mut Errors) {
    const MAX_DOMAIN_LEN: usize = 253;
    const MAX_PATH_LEN: usize = MAX_DOMAIN_LEN + 63 + 1;
    if signer.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let Some((domain, name)) = signer.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(FieldError::invalid(path, signer, why));
    };
    if domain.len() > MAX_DOMAIN_LEN {
        errors.push(FieldError::too_long(path, MAX_DOMAIN_LEN));
    }
    labels(path, domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, why));
    }
    labels(path, name, names::dns1123_subdomain, errors);
    if signer.len() > MAX_DOMAIN_LEN + MAX_PATH_LEN + 1 {
        errors.push(FieldError::too_long(path, MAX_DOMAIN_LEN + MAX_PATH_LEN + 1));
    }
}

/// Labels between dots; only the first that is wrong is told.
fn labels(path: &Path<'_>, text: &str, form: fn(&str) -> names::Complaints, errors: &mut Errors) {
    let bad = text.split('.').map(|label| (label, form(label))).find(|(_, complaints)| !complaints.is_empty());
    let Some((label, complaints)) = bad else { return };
    for why in complaints {
        let why = format!("validating label {}: {why}", stdx::quoted(label));
        errors.push(FieldError::invalid(path, text, why));
    }
}

fn bad_request(pem: &[u8]) -> Option<String> {
    let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
    let Some(block) = block.filter(|block| block.label == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    match X509CertificationRequest::from_der(&block.contents) {
        Err(error) => Some(error.to_string()),
        Ok((_, request)) => request.verify_signature().err().map(|error| error.to_string()),
    }
}

fn bad_certificate(pem: &[u8]) -> Option<String> {
    if pem.is_empty() {
        return None;
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            let label = stdx::quoted(&block.label);
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {label}"));
        }
        blocks += 1;
        if let Err(error) = X509Certificate::from_der(&block.contents) {
            return Some(error.to_string());
        }
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn conditions(new: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>, errors: &mut Errors) {
    let before = old.map_or(&[][..], |old| &old.status.conditions);
    let had = |kind: &str| before.iter().any(|c| c.r#type == kind);
    let repeats = |list: &[Condition], i: usize| list[..i].iter().any(|c| c.r#type == list[i].r#type);
    let may_be_empty = had("");
    let may_contradict = had(APPROVED) && had(DENIED);
    let may_repeat = (0..before.len()).any(|i| repeats(before, i));
    let (list, own) = (STATUS.child("conditions"), &new.status.conditions);
    for (i, condition) in own.iter().enumerate() {
        let (path, kind) = (list.index(i), condition.r#type.as_str());
        if !may_be_empty {
            checks::required(&path.child("type"), kind, errors);
        }
        let statuses: &[&str] =
            if matches!(kind, APPROVED | DENIED | FAILED) { &["True"] } else { &["False", "True", "Unknown"] };
        checks::one_of(&path.child("status"), &condition.status, statuses, errors);
        let other = match kind {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        let contradicts = !other.is_empty() && own[..i].iter().any(|c| c.r#type == other);
        if contradicts && !may_contradict {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(list, shown::word(kind), why));
        }
        if repeats(own, i) && !may_repeat {
            errors.push(FieldError::duplicate(path.child("type"), shown::word(kind)));
        }
    }
}

/// What was decided stays, and is decided where approvers do it.
fn decisions(part: Part, new: &[Condition], old: &[Condition], errors: &mut Errors) {
    let of = |list: &[Condition], kind: &str| -> Vec<Condition> {
        list.iter().filter(|condition| condition.r#type == kind).cloned().collect()
    };
    let path = STATUS.child("conditions");
    for kind in [APPROVED, DENIED, FAILED] {
        if of(new, kind).len() < of(old, kind).len() {
            let why = format!("updates may not remove a condition of type \"{kind}\"");
            errors.push(FieldError::forbidden(path, why));
        }
    }
    if part == Part::Approval {
        return;
    }
    for kind in [APPROVED, DENIED] {
        let (before, after) = (of(old, kind), of(new, kind));
        if after.len() > before.len() {
            let why = format!("updates may not add a condition of type \"{kind}\"");
            errors.push(FieldError::forbidden(path, why));
        } else if after.len() == before.len() && after != before {
            let text = |list: &[Condition]| {
                let name = "k8s.io.api.certificates.v1.CertificateSigningRequestCondition";
                let all: Vec<String> = list.iter().map(|condition| shown::text(name, condition, None)).collect();
                shown::indented(&format!("[{}]", all.join(",")))
            };
            let changes = diff::unified(&text(&before), &text(&after));
            let why = format!("updates may not modify a condition of type \"{kind}\"\n{changes}");
            errors.push(FieldError::forbidden(path, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_have_a_domain_and_a_name() {
        let cases = [
            ("example.com/a", ""),
            ("a", "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
            ("example/a", "should be a domain with at least two segments separated by dots"),
            ("example.com/A", "validating label \"A\": a lowercase RFC 1123 subdomain must consist"),
        ];
        for (name, expected) in cases {
            let mut errors = Errors::new();
            signer_name(&Path::root("f"), name, &mut errors);
            let told = errors.first().map(ToString::to_string).unwrap_or_default();
            assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{told}");
        }
    }
}
