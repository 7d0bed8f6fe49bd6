//! Fields that a write through a path of the API does not set, whoever names them.

use api::Kind;

use super::set::{Set, of_paths};
use crate::strategy::Part;

/// Fields that belong to nobody: they say what the object is, or are the server's.
const STRIPPED: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// Fields that belong to nobody.
pub fn stripped() -> Set {
    of_paths(STRIPPED)
}

/// What a write to a part of an object leaves as it is.
pub fn ignored(kind: &Kind, part: Part) -> Set {
    let has_status = kind.subresource("status").is_some();
    match part {
        Part::Main if !has_status => Set::default(),
        Part::Main if kind.plural == "certificatesigningrequests" => of_paths(&["spec", "status"]),
        Part::Main => of_paths(&["status"]),
        Part::Status => of_paths(match (kind.group, kind.plural) {
            ("", "pods") => &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"],
            ("apps", "deployments") => &["spec", "metadata.labels"],
            ("apiextensions.k8s.io" | "flowcontrol.apiserver.k8s.io" | "storage.k8s.io", _) => &["metadata", "spec"],
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => &["metadata", "spec"],
            ("resource.k8s.io", _) => &["metadata", "spec"],
            _ => &["spec"],
        }),
        Part::Finalize => of_paths(&["status"]),
        Part::Approval => of_paths(&["spec"]),
        Part::EphemeralContainers | Part::Resize | Part::Internal => Set::default(),
    }
}

/// What alone a write to a part of an object sets; `None` for anything.
pub fn only(kind: &Kind, part: Part) -> Option<Set> {
    match part {
        Part::EphemeralContainers => Some(of_paths(&["spec.ephemeralContainers"])),
        Part::Resize if kind.plural == "pods" => {
            Some(of_paths(&["spec.containers", "spec.initContainers", "spec.resources"]))
        }
        _ => None,
    }
}
