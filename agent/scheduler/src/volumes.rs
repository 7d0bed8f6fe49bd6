//! What claims and volumes say about where a pod can go.

use std::collections::HashMap;

use api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim};

use crate::pod::PodInfo;

/// Claims by `NAMESPACE/NAME` and volumes by name.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    claims: HashMap<String, ClaimState>,
    volumes: HashMap<String, Option<Vec<NodeSelectorTerm>>>,
}

#[derive(Debug)]
struct ClaimState {
    /// The volume; empty while unbound.
    volume: String,
    bound: bool,
    deleting: bool,
    /// The uid of the owning pod, for ephemeral volumes.
    owner: Option<String>,
}

/// Node requirements of a pod's volumes, one list of terms per volume.
pub(crate) type VolumeTerms<'a> = Vec<&'a [NodeSelectorTerm]>;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

impl Volumes {
    pub(crate) fn apply_claim(&mut self, claim: &PersistentVolumeClaim) {
        let metadata = &claim.metadata;
        let state = ClaimState {
            volume: claim.spec.volume_name.clone(),
            bound: !claim.spec.volume_name.is_empty() && metadata.annotations.contains_key(BIND_COMPLETED),
            deleting: metadata.deletion_timestamp.is_some(),
            owner: metadata
                .owner_references
                .iter()
                .find(|owner| owner.controller == Some(true))
                .map(|owner| owner.uid.clone()),
        };
        self.claims.insert(format!("{}/{}", metadata.namespace, metadata.name), state);
    }

    pub(crate) fn remove_claim(&mut self, namespace: &str, name: &str) {
        self.claims.remove(&format!("{namespace}/{name}"));
    }

    pub(crate) fn apply_volume(&mut self, volume: &PersistentVolume) {
        let affinity = volume.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        let terms = affinity.map(|selector| selector.node_selector_terms.clone());
        self.volumes.insert(volume.metadata.name.clone(), terms);
    }

    pub(crate) fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    pub(crate) fn forget_claims(&mut self) {
        self.claims.clear();
    }

    pub(crate) fn forget_volumes(&mut self) {
        self.volumes.clear();
    }

    /// What the pod's volumes ask of a node, or why the pod cannot go anywhere yet.
    pub(crate) fn requirements(&self, pod: &PodInfo) -> Result<VolumeTerms<'_>, String> {
        let mut terms = Vec::new();
        for claim in &pod.claims {
            let name = &claim.name;
            let Some(state) = self.claims.get(&format!("{}/{name}", pod.namespace)) else {
                return Err(match claim.ephemeral {
                    true => format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                    ),
                    false => format!("persistentvolumeclaim \"{name}\" not found"),
                });
            };
            if state.deleting {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            if claim.ephemeral && state.owner.as_ref() != Some(&pod.uid) {
                return Err(format!(
                    "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                    pod.namespace, pod.namespace, pod.name
                ));
            }
            if !state.bound {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
            match self.volumes.get(&state.volume) {
                None => {
                    return Err(format!(
                        "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                        state.volume
                    ));
                }
                Some(Some(required)) => terms.push(required.as_slice()),
                Some(None) => {}
            }
        }
        Ok(terms)
    }
}
