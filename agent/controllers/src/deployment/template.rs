//! Templates, their hashes, and the annotations that tell revisions.

use std::sync::Arc;

use api::apps::v1::{Deployment, ReplicaSet};
use api::core::v1::PodTemplateSpec;

/// Label that tells pods of different templates apart.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Annotation with the number of a template, on deployments and their ReplicaSets.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with former numbers of a template that was returned to.
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the deployment's size when the ReplicaSet was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the largest number of pods allowed then.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether two templates make the same pods; the hash label does not count.
pub(super) fn is_same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let strip = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        template.metadata.labels.remove(HASH_LABEL);
        template
    };
    strip(a) == strip(b)
}

/// The oldest ReplicaSet with the deployment's template; `sets` are ordered by age.
pub(super) fn find_current<'a>(deployment: &Deployment, sets: &'a [Arc<ReplicaSet>]) -> Option<&'a Arc<ReplicaSet>> {
    sets.iter().find(|set| is_same(&deployment.spec.template, &set.spec.template))
}

/// The revision a ReplicaSet carries.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Gives the current ReplicaSet the deployment's annotations and its revision; whether that changed anything.
pub(super) fn annotate(deployment: &Deployment, set: &mut ReplicaSet, wanted: i64) -> bool {
    let mut changed = false;
    for (key, value) in &deployment.metadata.annotations {
        let own = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"];
        if !own.contains(&key.as_str()) && set.metadata.annotations.get(key) != Some(value) {
            set.metadata.annotations.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    let before = set.metadata.annotations.get(REVISION).cloned();
    if before.as_ref().is_none_or(|text| text.parse().unwrap_or(0) < wanted) {
        set.metadata.annotations.insert(REVISION.to_owned(), wanted.to_string());
        if let Some(before) = before {
            let history = set.metadata.annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&before);
        }
        changed = true;
    }
    changed
}

/// Notes the sizes that scaling was planned with; whether that changed anything.
pub(super) fn annotate_sizes(set: &mut ReplicaSet, desired: i32, max: i32) -> bool {
    let mut changed = false;
    for (key, value) in [(DESIRED, desired.to_string()), (MAX, max.to_string())] {
        changed |= set.metadata.annotations.insert(key.to_owned(), value.clone()) != Some(value);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_label_does_not_make_a_template_another_one() {
        let a = PodTemplateSpec::default();
        let mut b = a.clone();
        b.metadata.labels.insert(HASH_LABEL.to_owned(), "x".to_owned());
        assert!(is_same(&a, &b));
        b.spec.host_network = true;
        assert!(!is_same(&a, &b));
    }
}
