//! Certificates in volumes: those of authorities, and one of the Pod's own.

use api::core::v1::{ClusterTrustBundleProjection, PodCertificateProjection};

use crate::status::FieldError;
use crate::validation::certificates::pod_request::{MIN_SECONDS, max_seconds, user_annotations};
use crate::validation::certificates::{bundle_name, signer_name};
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::pod::mounts::local_path;
use crate::validation::{Errors, Path, checks, shown};

const KEY_TYPES: &[&str] = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// A bundle by its name, or all bundles of a signer.
pub(super) fn bundle(path: &Path<'_>, bundle: &ClusterTrustBundleProjection, errors: &mut Errors) {
    match (bundle.name.as_deref(), bundle.signer_name.as_deref()) {
        (Some(_), Some(_)) => {
            let value = shown::structure("k8s.io.api.core.v1.ClusterTrustBundleProjection", bundle);
            errors.push(FieldError::invalid(path, value, "only one of name and signerName may be used"));
        }
        (Some(name), None) => named_bundle(path, name, bundle, errors),
        (None, Some(signer)) => {
            let at = path.child("signerName");
            if signer.is_empty() {
                errors.push(FieldError::required(at, "must be a valid signer name"));
            }
            signer_name(&at, signer, errors);
            if let Some(selector) = &bundle.label_selector {
                labels::selector(&path.child("labelSelector"), selector, SelectorOptions::default(), errors);
            }
        }
        (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
    }
    let at = path.child("path");
    checks::required(&at, &bundle.path, errors);
    local_path(&at, &bundle.path, errors);
}

fn named_bundle(path: &Path<'_>, name: &str, bundle: &ClusterTrustBundleProjection, errors: &mut Errors) {
    let at = path.child("name");
    if name.is_empty() {
        errors.push(FieldError::required(at, "must be a valid object name"));
    }
    let signer = name.rsplit_once(':').map(|(signer, _)| signer.replace(':', "/")).unwrap_or_default();
    for why in bundle_name(name, &signer) {
        errors.push(FieldError::invalid(at, name, format!("not a valid clustertrustbundlename: {why}")));
    }
    if let Some(selector) = &bundle.label_selector {
        let value = shown::structure("k8s.io.apimachinery.pkg.apis.meta.v1.LabelSelector", selector);
        let why = "labelSelector must be unset if name is specified";
        errors.push(FieldError::invalid(path.child("labelSelector"), value, why));
    }
}

/// A certificate that the kubelet asks for; `file` looks at each file that it lies in.
pub(super) fn certificate<'a>(
    path: &Path<'_>,
    own: &'a PodCertificateProjection,
    errors: &mut Errors,
    mut file: impl FnMut(&'a str, &mut Errors),
) {
    signer_name(&path.child("signerName"), &own.signer_name, errors);
    user_annotations(&path.child("userAnnotations"), &own.user_annotations, errors);
    if !KEY_TYPES.contains(&own.key_type.as_str()) {
        errors.push(FieldError::not_supported(path.child("keyType"), &own.key_type, KEY_TYPES));
    }
    let (at, max) = (path.child("maxExpirationSeconds"), max_seconds(&own.signer_name));
    let bound = |text: String| format!("if provided, maxExpirationSeconds must be {text}");
    match own.max_expiration_seconds {
        Some(seconds) if seconds < MIN_SECONDS => {
            errors.push(FieldError::invalid(at, seconds, bound(format!(">= {MIN_SECONDS}"))));
        }
        Some(seconds) if seconds > max => {
            errors.push(FieldError::invalid(at, seconds, bound(format!("<= {max}"))));
        }
        Some(_) | None => {}
    }
    let files = [
        ("credentialBundlePath", &own.credential_bundle_path),
        ("keyPath", &own.key_path),
        ("certificateChainPath", &own.certificate_chain_path),
    ];
    for (field, name) in files.iter().filter(|(_, name)| !name.is_empty()) {
        local_path(&path.child(field), name, errors);
        file(name, errors);
    }
    if files.iter().all(|(_, name)| name.is_empty()) {
        let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, why));
    }
}
