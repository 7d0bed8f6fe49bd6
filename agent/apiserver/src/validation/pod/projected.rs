//! Volumes that several sources lie in.

mod certificates;

use api::core::v1::{
    KeyToPath, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::volumes::{downward_file, key_to_path, mode};
use super::{Options, mounts};
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks};

const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

/// A projected volume.
pub(super) fn volume(path: &Path<'_>, own: &ProjectedVolumeSource, options: Options, errors: &mut Errors) {
    mode(&path.child("defaultMode"), own.default_mode, errors);
    let mut paths = Vec::new();
    for (i, source) in own.sources.iter().enumerate() {
        let at = path.child("sources");
        self::source(path, &at.index(i), (source, options), &mut paths, errors);
    }
}

fn source<'a>(
    volume: &Path<'_>,
    path: &Path<'_>,
    (source, options): (&'a VolumeProjection, Options),
    paths: &mut Vec<&'a str>,
    errors: &mut Errors,
) {
    let secret = source.secret.as_ref().map(|s| (&s.local_object_reference.name, &s.items));
    let config = source.config_map.as_ref().map(|s| (&s.local_object_reference.name, &s.items));
    for (child, own) in [("secret", secret), ("configMap", config)] {
        if let Some((name, items)) = own {
            let path = path.child(child);
            checks::required(&path.child("name"), name, errors);
            keys(volume, &path.child("items"), (name, items), paths, errors);
        }
    }
    if let Some(own) = &source.downward_api {
        for file in &own.items {
            downward_file(&path.child("downwardAPI"), file, errors);
            once(volume, &file.path, &file.path, paths, errors);
        }
    }
    if let Some(token) = &source.service_account_token {
        self::token(volume, &path.child("serviceAccountToken"), (token, options), errors);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        certificates::bundle(&path.child("clusterTrustBundle"), bundle, errors);
        once(volume, &bundle.path, &bundle.path, paths, errors);
    }
    if let Some(certificate) = &source.pod_certificate {
        certificates::certificate(&path.child("podCertificate"), certificate, errors, |path, errors| {
            once(volume, path, path, paths, errors);
        });
    }
    let set = [
        secret.is_some(),
        config.is_some(),
        source.downward_api.is_some(),
        source.service_account_token.is_some(),
        source.cluster_trust_bundle.is_some(),
        source.pod_certificate.is_some(),
    ];
    if set.iter().filter(|set| **set).count() > 1 {
        errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type per source"));
    }
}

fn keys<'a>(
    volume: &Path<'_>,
    path: &Path<'_>,
    (name, items): (&str, &'a [KeyToPath]),
    paths: &mut Vec<&'a str>,
    errors: &mut Errors,
) {
    for (i, item) in items.iter().enumerate() {
        key_to_path(&path.index(i), item, errors);
        once(volume, &item.path, name, paths, errors);
    }
}

/// A file is there once; `shown` is what the error shows.
fn once<'a>(volume: &Path<'_>, path: &'a str, shown: &str, paths: &mut Vec<&'a str>, errors: &mut Errors) {
    if path.is_empty() {
        return;
    }
    if paths.contains(&path) {
        errors.push(FieldError::invalid(volume, shown, "conflicting duplicate paths"));
    } else {
        paths.push(path);
    }
}

fn token(
    volume: &Path<'_>,
    path: &Path<'_>,
    (token, options): (&ServiceAccountTokenProjection, Options),
    errors: &mut Errors,
) {
    let seconds = token.expiration_seconds.unwrap_or(0);
    let why = match seconds {
        ..MIN_TOKEN_SECONDS => Some("may not specify a duration less than 10 minutes"),
        MIN_TOKEN_SECONDS..=MAX_TOKEN_SECONDS => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    errors.extend(why.map(|why| FieldError::invalid(path.child("expirationSeconds"), seconds, why)));
    // The source is not told.
    let at = volume.child("path");
    if token.path.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else if !options.outside_tokens {
        mounts::local_path(&at, &token.path, errors);
    }
}

fn tokens(spec: &PodSpec) -> impl Iterator<Item = &ServiceAccountTokenProjection> {
    let projected = spec.volumes.iter().filter_map(|v| v.volume_source.projected.as_ref());
    projected.flat_map(|p| &p.sources).filter_map(|s| s.service_account_token.as_ref())
}

/// Whether a token lies outside of its volume.
pub(super) fn has_outside_token(spec: &PodSpec) -> bool {
    let mut errors = Errors::new();
    for token in tokens(spec) {
        mounts::local_path(&Path::root(""), &token.path, &mut errors);
    }
    !errors.is_empty()
}

/// Without a service account there are no tokens of one.
pub(super) fn no_tokens(path: &Path<'_>, volumes: &[Volume], errors: &mut Errors) {
    for (i, volume) in volumes.iter().enumerate() {
        let sources = volume.volume_source.projected.iter().flat_map(|p| &p.sources).enumerate();
        for (j, _) in sources.filter(|(_, s)| s.service_account_token.is_some()) {
            let at = path.index(i);
            let at = at.child("projected");
            let at = at.child("sources");
            let why = "must not be specified when serviceAccountName is not set";
            errors.push(FieldError::forbidden(at.index(j).child("serviceAccountToken"), why));
        }
    }
}
