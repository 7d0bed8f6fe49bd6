//! Fields that a write through a path of the API does not set, whoever names them.

use std::sync::LazyLock;

use api::Kind;

use super::compare::Comparison;
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
pub fn stripped() -> &'static Set {
    static SET: LazyLock<Set> = LazyLock::new(|| of_paths(STRIPPED));
    &SET
}

/// What of a change counts: all but these fields and what is below them.
pub struct Filter(&'static [&'static str]);

impl Filter {
    /// What of a set counts.
    pub fn of_set(&self, set: Set) -> Set {
        if self.0.is_empty() { set } else { set.without(&of_paths(self.0)) }
    }

    /// What of a comparison counts.
    pub fn of(&self, compared: Comparison) -> Comparison {
        Comparison {
            added: self.of_set(compared.added),
            modified: self.of_set(compared.modified),
            removed: self.of_set(compared.removed),
        }
    }
}

/// Where the status of an object is written, what else of it is left as it is; `spec` for all that are not named.
const WITH_STATUS: &[(&str, &str, &[&str])] = &[
    ("", "pods", &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"]),
    ("apps", "deployments", &["spec", "metadata.labels"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["spec", "status.conditions"]),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", &["metadata", "spec"]),
    ("apiregistration.k8s.io", "apiservices", &["metadata", "spec"]),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", &["metadata", "spec"]),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", &["metadata", "spec"]),
    ("networking.k8s.io", "servicecidrs", &["metadata", "spec"]),
    ("resource.k8s.io", "devicetaintrules", &["metadata", "spec"]),
    ("resource.k8s.io", "resourceclaims", &["metadata", "spec"]),
    ("storage.k8s.io", "volumeattachments", &["metadata", "spec"]),
    ("internal.apiserver.k8s.io", "storageversions", &["metadata", "spec"]),
    ("resource.k8s.io", "resourcepoolstatusrequests", &["metadata", "spec"]),
    ("scheduling.k8s.io", "podgroups", &["metadata", "spec"]),
    ("storagemigration.k8s.io", "storageversionmigrations", &["metadata", "spec"]),
];

/// What of a write to a part of an object counts.
pub fn filter(kind: &Kind, part: Part) -> Filter {
    Filter(match part {
        Part::Main if kind.subresource("status").is_none() || kind.plural == "podcertificaterequests" => &[],
        Part::Main if kind.plural == "certificatesigningrequests" => &["spec", "status"],
        Part::Main | Part::Finalize => &["status"],
        Part::Status => {
            if crate::custom::is_custom(kind) {
                return Filter(&["metadata", "spec"]);
            }
            let row = WITH_STATUS.iter().find(|(group, plural, _)| (*group, *plural) == (kind.group, kind.plural));
            row.map_or(&["spec"], |(_, _, paths)| paths)
        }
        Part::Approval => &["spec", "status.certificate"],
        // What comes with ephemeral containers or a resize and is left as it is counts all the same.
        Part::EphemeralContainers | Part::Resize | Part::Internal => &[],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::compare::field_set;
    use crate::managed::schema::Type;

    fn left(group: &str, plural: &str, part: Part, object: serde_json::Value) -> Vec<String> {
        let kind = api::kind_by_resource(group, "v1", plural).unwrap();
        let set = field_set(Type::of_message(kind.schema()), &object);
        filter(kind, part).of_set(set).paths().iter().map(|p| crate::managed::set::path_text(p)).collect()
    }

    #[test]
    fn each_part_sets_its_own() {
        let pod = serde_json::json!({
            "metadata": {"labels": {"a": "b"}, "ownerReferences": [{"uid": "u"}]},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]},
            "status": {"phase": "Running"},
        });
        assert_eq!(left("", "pods", Part::Status, pod.clone()), [".metadata.labels.a", ".status.phase"]);
        for part in [Part::Resize, Part::EphemeralContainers] {
            let counted = left("", "pods", part, pod.clone());
            for path in [".metadata.labels.a", ".spec.containers[name=\"c\"].image"] {
                assert!(counted.iter().any(|own| own == path), "{path} of {counted:?}");
            }
        }
        assert!(left("", "pods", Part::Main, pod).iter().all(|path| !path.starts_with(".status")));
        let request = serde_json::json!({"spec": {"signerName": "s"}, "status": {"certificate": "eA=="}});
        let group = "certificates.k8s.io";
        assert!(left(group, "certificatesigningrequests", Part::Main, request.clone()).is_empty());
        assert!(left(group, "certificatesigningrequests", Part::Approval, request.clone()).is_empty());
        assert_eq!(left(group, "certificatesigningrequests", Part::Status, request), [".status.certificate"]);
    }

    #[test]
    fn the_rows_are_of_kinds() {
        for (group, plural, _) in WITH_STATUS {
            let known = api::all_kinds().iter().any(|kind| (kind.group, kind.plural) == (*group, *plural));
            assert!(known, "{group} {plural}");
        }
    }
}
