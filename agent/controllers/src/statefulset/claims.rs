//! Claims of a set's pods, and whom they go with.

use api::Resource;
use api::apps::v1::StatefulSet;
use api::core::v1::{PersistentVolumeClaim, Pod};
use api::meta::v1::{ObjectMeta, OwnerReference};

use super::identity::{ordinal_of, wanted};
use crate::owner::controller_reference;

/// The name of the claim that an ordinal has by a template.
pub(super) fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.metadata.name, set.metadata.name)
}

/// The names of all claims of a pod.
pub(super) fn names(set: &StatefulSet, pod: &Pod) -> Vec<String> {
    let Some(ordinal) = ordinal_of(set, pod) else { return Vec::new() };
    set.spec.volume_claim_templates.iter().map(|template| claim_name(set, template, ordinal)).collect()
}

/// The claims of a pod, as they are made.
pub(super) fn of_pod(set: &StatefulSet, pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let names = names(set, pod);
    let labels = set.spec.selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default();
    let made = |(template, name): (&PersistentVolumeClaim, String)| {
        let mut claim = template.clone();
        claim.metadata.name = name;
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        claim.metadata.labels.extend(labels.clone());
        claim
    };
    set.spec.volume_claim_templates.iter().zip(names).map(made).collect()
}

/// What the set asks for: claims go with (pods scaled away, the set).
fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    policy.map_or((false, false), |p| (p.when_scaled == "Delete", p.when_deleted == "Delete"))
}

fn names_owner<K: Resource>(reference: &OwnerReference, owner: &ObjectMeta) -> bool {
    reference.kind == K::KIND.kind && reference.api_version == K::KIND.api_version() && reference.name == owner.name
}

/// Whether the claim still belongs to a former pod of this name and will go with it.
pub(super) fn is_stale(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    policy(set).0 && has_former::<Pod>(claim, &pod.metadata)
}

fn has_former<K: Resource>(claim: &PersistentVolumeClaim, owner: &ObjectMeta) -> bool {
    claim.metadata.owner_references.iter().any(|r| names_owner::<K>(r, owner) && r.uid != owner.uid)
}

/// Whether somebody else controls the claim, so that the policy cannot hold.
fn is_foreign(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    policy(set) != (false, false)
        && claim.metadata.owner_references.iter().any(|r| {
            let ours = r.uid == set.metadata.uid || r.uid == pod.metadata.uid;
            r.controller == Some(true) && !ours
        })
}

/// The owners that the claim should have, where it has others.
pub(super) fn owners(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> Option<Vec<OwnerReference>> {
    if has_former::<StatefulSet>(claim, &set.metadata) || has_former::<Pod>(claim, &pod.metadata) {
        // Their collection is under way; the claim goes, and a new one comes.
        return None;
    }
    let present = &claim.metadata.owner_references;
    let ours =
        |r: &OwnerReference| names_owner::<StatefulSet>(r, &set.metadata) || names_owner::<Pod>(r, &pod.metadata);
    let mut owners: Vec<OwnerReference> = present.iter().filter(|r| !ours(r)).cloned().collect();
    if !is_foreign(set, pod, claim) {
        let (scaled, deleted) = policy(set);
        let away = ordinal_of(set, pod).is_some_and(|ordinal| !wanted(set).contains(&ordinal));
        if scaled && away {
            owners.push(controller_reference(pod));
        } else if deleted {
            owners.push(controller_reference(set));
        }
    }
    let same = owners.len() == present.len() && owners.iter().all(|owner| present.contains(owner));
    (!same).then_some(owners)
}

#[cfg(test)]
mod tests {
    use api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy;

    use super::*;

    fn set(scaled: &str, deleted: &str) -> StatefulSet {
        let mut set = StatefulSet::default();
        set.metadata.name = "web".to_owned();
        set.metadata.uid = "set".to_owned();
        set.spec.replicas = Some(1);
        set.spec.persistent_volume_claim_retention_policy = Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
            when_scaled: scaled.to_owned(),
            when_deleted: deleted.to_owned(),
        });
        set
    }

    fn pod(ordinal: i32) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = format!("web-{ordinal}");
        pod.metadata.uid = "pod".to_owned();
        pod
    }

    #[test]
    fn claims_go_with_whom_the_policy_says() {
        let kinds = |scaled: &str, deleted: &str, ordinal: i32| {
            let owners = owners(&set(scaled, deleted), &pod(ordinal), &PersistentVolumeClaim::default());
            owners.map(|owners| owners.into_iter().map(|o| o.kind).collect::<Vec<_>>())
        };
        assert_eq!(kinds("Retain", "Retain", 0), None);
        assert_eq!(kinds("Retain", "Delete", 5), Some(vec!["StatefulSet".to_owned()]));
        assert_eq!(kinds("Delete", "Retain", 0), None);
        assert_eq!(kinds("Delete", "Retain", 5), Some(vec!["Pod".to_owned()]));
        assert_eq!(kinds("Delete", "Delete", 0), Some(vec!["StatefulSet".to_owned()]));
        assert_eq!(kinds("Delete", "Delete", 5), Some(vec!["Pod".to_owned()]));
    }

    #[test]
    fn what_is_right_stays_and_what_is_wrong_goes() {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.owner_references = owners(&set("Retain", "Delete"), &pod(0), &claim).unwrap();
        assert_eq!(owners(&set("Retain", "Delete"), &pod(0), &claim), None);
        assert_eq!(owners(&set("Retain", "Retain"), &pod(0), &claim), Some(Vec::new()));
        claim.metadata.owner_references[0].uid = "former".to_owned();
        assert_eq!(owners(&set("Retain", "Retain"), &pod(0), &claim), None);
    }
}
