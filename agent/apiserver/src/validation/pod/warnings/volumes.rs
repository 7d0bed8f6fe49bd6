//! Volumes that nothing mounts any more, and files that lie upon each other.

use api::core::v1::{
    DownwardApiVolumeFile, KeyToPath, PersistentVolumeClaimSpec, Volume, VolumeProjection, VolumeSource,
};

use super::Warnings;
use crate::validation::Path;
use stdx::quoted;

type IsSet = fn(&VolumeSource) -> bool;

/// Sources that were given up, before claims are looked at, and after that.
const OLD: &[(&str, IsSet, &str)] = &[
    ("photonPersistentDisk", |s| s.photon_persistent_disk.is_some(), "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", |s| s.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", |s| s.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", |s| s.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
    ("storageOS", |s| s.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", |s| s.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", |s| s.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", |s| s.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", |s| s.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
];

/// Warnings about volumes.
pub(super) fn volumes(path: &Path<'_>, list: &[Volume], out: &mut Warnings) {
    for (i, volume) in list.iter().enumerate() {
        let (path, source) = (path.index(i), &volume.volume_source);
        for (name, _, text) in OLD.iter().filter(|(_, is_set, _)| is_set(source)) {
            out.push(format!("{}: {text}", path.child(name)));
        }
        if let Some(template) = source.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) {
            let at = path.child("ephemeral");
            claim(&at.child("volumeClaimTemplate").child("spec"), &template.spec, out);
        }
    }
    for volume in list {
        overlaps(volume, out);
    }
}

/// Warnings about what a claim asks for.
pub(in crate::validation) fn claim(path: &Path<'_>, spec: &PersistentVolumeClaimSpec, out: &mut Warnings) {
    let path = path.child("resources");
    super::fraction(&path.child("requests"), spec.resources.requests.get("storage"), "storage", out);
    super::fraction(&path.child("limits"), spec.resources.limits.get("storage"), "storage", out);
}

/// A file and what it comes from.
struct File<'a> {
    path: &'a str,
    source: &'a str,
}

impl File<'_> {
    fn shown(&self) -> String {
        let path = quoted(self.path);
        if self.source.is_empty() { path.to_string() } else { format!("{path} ({})", self.source) }
    }

    fn overlaps(&self, other: &File<'_>) -> bool {
        let within = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        let (a, b) = (self.path, other.path);
        !a.is_empty() && !b.is_empty() && (within(a, b) || within(b, a))
    }
}

fn overlaps(volume: &Volume, out: &mut Warnings) {
    let source = &volume.volume_source;
    let keys = |items: &[KeyToPath]| -> Vec<String> { items.iter().map(|i| i.path.clone()).collect() };
    let files = |items: &[DownwardApiVolumeFile]| -> Vec<String> { items.iter().map(|i| i.path.clone()).collect() };
    let name = |kind: &str, name: &str| format!("{kind} {}", quoted(name));
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let alone = |paths: Vec<String>| paths.into_iter().map(|p| (p, String::new())).collect::<Vec<_>>();
    if let Some(own) = &source.config_map {
        found.push((name("ConfigMap", &own.local_object_reference.name), alone(keys(&own.items))));
    }
    if let Some(own) = &source.secret {
        found.push((name("Secret", &own.secret_name), alone(keys(&own.items))));
    }
    if let Some(own) = &source.downward_api {
        found.push(("DownwardAPI".to_owned(), alone(files(&own.items))));
    }
    if let Some(own) = &source.projected {
        let mut all = Vec::new();
        for source in &own.sources {
            if *source == VolumeProjection::default() {
                out.push(format!("volume {} (Projected) has no sources provided", quoted(&volume.name)));
            } else if let Some(map) = source.config_map.as_ref().filter(|m| !m.items.is_empty()) {
                let of = name("ConfigMap", &map.local_object_reference.name);
                all.extend(keys(&map.items).into_iter().map(|p| (p, of.clone())));
            } else if let Some(secret) = source.secret.as_ref().filter(|s| !s.items.is_empty()) {
                let of = name("Secret", &secret.local_object_reference.name);
                all.extend(keys(&secret.items).into_iter().map(|p| (p, of.clone())));
            } else if let Some(down) = source.downward_api.as_ref().filter(|d| !d.items.is_empty()) {
                all.extend(files(&down.items).into_iter().map(|p| (p, "DownwardAPI".to_owned())));
            } else if let Some(token) = &source.service_account_token {
                all.push((token.path.clone(), "ServiceAccountToken".to_owned()));
            }
        }
        found.push(("Projected".to_owned(), all));
    }
    for (what, paths) in &found {
        tell(volume, what, paths, out);
    }
}

fn tell(volume: &Volume, what: &str, paths: &[(String, String)], out: &mut Warnings) {
    let mut seen: Vec<File<'_>> = Vec::new();
    for (full, source) in paths {
        let file = File { path: full.trim_end_matches('/'), source };
        for other in seen.iter().filter(|other| file.overlaps(other)) {
            let (a, b) = (file.shown(), other.shown());
            let name = quoted(&volume.name);
            out.push(format!("volume {name} ({what}): overlapping paths: {a} with {b}"));
        }
        seen.push(file);
    }
}
