//! What a pod has by its ordinal: name, labels, host name and volumes.

use api::apps::v1::StatefulSet;
use api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use super::claims::claim_name;
use crate::pods::pod_from_template;

/// Label with the name of the revision that a pod was made from.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The pod's ordinal, where its name is one of the set's.
pub(super) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let digits = pod.metadata.name.strip_prefix(&set.metadata.name)?.strip_prefix('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Whether the pod's name makes it one of the set's.
pub(super) fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    ordinal_of(set, pod).is_some()
}

/// The ordinals that the set wants pods for.
pub(super) fn wanted(set: &StatefulSet) -> std::ops::Range<i32> {
    let start = set.spec.ordinals.as_ref().map_or(0, |ordinals| ordinals.start);
    start..start + set.spec.replicas.unwrap_or(1).max(0)
}

/// A new pod from a revision's template.
pub(super) fn make(set: &StatefulSet, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let mut pod = pod_from_template(set, template);
    pod.metadata.name = format!("{}-{ordinal}", set.metadata.name);
    set_labels(&mut pod, ordinal);
    pod.metadata.labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    pod.spec.hostname.clone_from(&pod.metadata.name);
    pod.spec.subdomain.clone_from(&set.spec.service_name);
    set_volumes(set, &mut pod, ordinal);
    pod
}

/// The pod with its identity and volumes as they should be, where they are not.
pub(super) fn mended(set: &StatefulSet, pod: &Pod) -> Option<Pod> {
    let ordinal = ordinal_of(set, pod)?;
    let named = pod.metadata.labels.get(NAME_LABEL) == Some(&pod.metadata.name);
    let has_volume = |template: &api::core::v1::PersistentVolumeClaim| {
        let name = claim_name(set, template, ordinal);
        pod.spec.volumes.iter().any(|volume| {
            let source = volume.volume_source.persistent_volume_claim.as_ref();
            volume.name == template.metadata.name && source.is_some_and(|s| s.claim_name == name)
        })
    };
    if named && set.spec.volume_claim_templates.iter().all(has_volume) {
        return None;
    }
    let mut mended = pod.clone();
    set_labels(&mut mended, ordinal);
    set_volumes(set, &mut mended, ordinal);
    Some(mended)
}

fn set_labels(pod: &mut Pod, ordinal: i32) {
    let name = pod.metadata.name.clone();
    pod.metadata.labels.insert(NAME_LABEL.to_owned(), name);
    pod.metadata.labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
}

/// Volumes of the claim templates take the place of others with their names.
fn set_volumes(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let templates = &set.spec.volume_claim_templates;
    let mut volumes: Vec<Volume> = templates
        .iter()
        .map(|template| {
            let mut volume = Volume { name: template.metadata.name.clone(), ..Volume::default() };
            volume.volume_source.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                ..PersistentVolumeClaimVolumeSource::default()
            });
            volume
        })
        .collect();
    let others = std::mem::take(&mut pod.spec.volumes);
    volumes.extend(others.into_iter().filter(|v| templates.iter().all(|t| t.metadata.name != v.name)));
    pod.spec.volumes = volumes;
}

/// The revision the pod was made from.
pub(super) fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.get(REVISION_LABEL).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> StatefulSet {
        let mut set = StatefulSet::default();
        set.metadata.name = "web".to_owned();
        let mut claim = api::core::v1::PersistentVolumeClaim::default();
        claim.metadata.name = "data".to_owned();
        set.spec.volume_claim_templates = vec![claim];
        set
    }

    #[test]
    fn a_pod_is_known_by_its_name() {
        let named = |name: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = name.to_owned();
            ordinal_of(&set(), &pod)
        };
        assert_eq!(named("web-12"), Some(12));
        assert_eq!([named("web-"), named("web-1x"), named("web-a-1"), named("other-1"), named("web-+1")], [None; 5]);
    }

    #[test]
    fn a_new_pod_has_all_of_its_identity() {
        let pod = make(&set(), 2, &PodTemplateSpec::default(), "web-r");
        assert_eq!((pod.metadata.name.as_str(), pod.spec.hostname.as_str()), ("web-2", "web-2"));
        let source = pod.spec.volumes[0].volume_source.persistent_volume_claim.as_ref().unwrap();
        assert_eq!(source.claim_name, "data-web-2");
        assert_eq!(mended(&set(), &pod), None);
        let mut robbed = pod.clone();
        robbed.metadata.labels.clear();
        assert_eq!(mended(&set(), &robbed).unwrap().metadata.labels[NAME_LABEL], "web-2");
    }
}
