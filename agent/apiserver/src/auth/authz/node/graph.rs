//! What the pods of each node refer to; pure.

use std::collections::{BTreeSet, HashMap};

use api::core::v1::{EnvFromSource, EnvVar, PersistentVolume, Pod, Volume, VolumeSource};

/// Set on pods that a node made to show what it runs from files.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// A kind of object that a node may reach through its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Target {
    Pod,
    ServiceAccount,
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    Volume,
    Attachment,
    CertificateRequest,
}

/// Namespace and name.
type Key = (String, String);

#[derive(Default)]
pub(super) struct Graph {
    pods: HashMap<Key, Bound>,
    /// How many pods of a node refer to an object.
    nodes: HashMap<String, HashMap<(Target, Key), usize>>,
    volumes: HashMap<String, BoundVolume>,
    /// Volumes that have a secret.
    by_secret: HashMap<Key, BTreeSet<String>>,
    /// What says itself which node it is for.
    of_nodes: HashMap<(Target, Key), String>,
}

struct Bound {
    node: String,
    targets: BTreeSet<(Target, Key)>,
}

struct BoundVolume {
    claim: Key,
    secrets: BTreeSet<Key>,
}

impl Graph {
    pub(super) fn apply_pod(&mut self, pod: &Pod) {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        self.delete_pod(namespace, name);
        if pod.spec.node_name.is_empty() {
            return;
        }
        let key = (namespace.clone(), name.clone());
        let mut targets = BTreeSet::from([(Target::Pod, key.clone())]);
        if !pod.metadata.annotations.contains_key(MIRROR_ANNOTATION) {
            let mut visit = |target, name: &str| {
                if !name.is_empty() {
                    targets.insert((target, (namespace.clone(), name.to_owned())));
                }
            };
            visit_references(pod, &mut visit);
        }
        let counts = self.nodes.entry(pod.spec.node_name.clone()).or_default();
        for target in &targets {
            *counts.entry(target.clone()).or_default() += 1;
        }
        self.pods.insert(key, Bound { node: pod.spec.node_name.clone(), targets });
    }

    pub(super) fn delete_pod(&mut self, namespace: &str, name: &str) {
        let Some(bound) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let Some(counts) = self.nodes.get_mut(&bound.node) else { return };
        for target in bound.targets {
            if let Some(count) = counts.get_mut(&target) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&target);
                }
            }
        }
        if counts.is_empty() {
            self.nodes.remove(&bound.node);
        }
    }

    pub(super) fn apply_volume(&mut self, volume: &PersistentVolume) {
        let name = &volume.metadata.name;
        self.delete_volume(name);
        let Some(claim) = &volume.spec.claim_ref else { return };
        let secrets = volume_secrets(volume, &claim.namespace);
        for secret in &secrets {
            self.by_secret.entry(secret.clone()).or_default().insert(name.clone());
        }
        let claim = (claim.namespace.clone(), claim.name.clone());
        self.volumes.insert(name.clone(), BoundVolume { claim, secrets });
    }

    pub(super) fn delete_volume(&mut self, name: &str) {
        let Some(volume) = self.volumes.remove(name) else { return };
        for secret in volume.secrets {
            if let Some(volumes) = self.by_secret.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
    }

    pub(super) fn apply_of_node(&mut self, target: Target, (namespace, name): (&str, &str), node: &str) {
        self.of_nodes.insert((target, (namespace.to_owned(), name.to_owned())), node.to_owned());
    }

    pub(super) fn delete_of_node(&mut self, target: Target, (namespace, name): (&str, &str)) {
        self.of_nodes.remove(&(target, (namespace.to_owned(), name.to_owned())));
    }

    pub(super) fn is_related(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        match target {
            Target::Attachment | Target::CertificateRequest => {
                self.of_nodes.get(&(target, key)).is_some_and(|of| of == node)
            }
            Target::Volume => self.has_volume(node, name),
            Target::Secret => {
                let mut volumes = self.by_secret.get(&key).into_iter().flatten();
                self.refers(node, Target::Secret, &key) || volumes.any(|volume| self.has_volume(node, volume))
            }
            Target::Pod | Target::ServiceAccount | Target::ConfigMap | Target::Claim | Target::ResourceClaim => {
                self.refers(node, target, &key)
            }
        }
    }

    fn has_volume(&self, node: &str, name: &str) -> bool {
        self.volumes.get(name).is_some_and(|volume| self.refers(node, Target::Claim, &volume.claim))
    }

    fn refers(&self, node: &str, target: Target, key: &Key) -> bool {
        self.nodes.get(node).is_some_and(|counts| counts.contains_key(&(target, key.clone())))
    }
}

/// Shows everything in its namespace that a pod refers to.
fn visit_references(pod: &Pod, visit: &mut dyn FnMut(Target, &str)) {
    let spec = &pod.spec;
    visit(Target::ServiceAccount, &spec.service_account_name);
    for secret in &spec.image_pull_secrets {
        visit(Target::Secret, &secret.name);
    }
    for container in spec.init_containers.iter().chain(&spec.containers) {
        visit_environment(&container.env, &container.env_from, visit);
    }
    for container in &spec.ephemeral_containers {
        let common = &container.ephemeral_container_common;
        visit_environment(&common.env, &common.env_from, visit);
    }
    for volume in &spec.volumes {
        visit_volume(&pod.metadata.name, volume, visit);
    }
    for claim in &spec.resource_claims {
        visit(Target::ResourceClaim, claim.resource_claim_name.as_deref().unwrap_or_default());
    }
    for made in &pod.status.resource_claim_statuses {
        visit(Target::ResourceClaim, made.resource_claim_name.as_deref().unwrap_or_default());
    }
    if let Some(made) = &pod.status.extended_resource_claim_status {
        visit(Target::ResourceClaim, &made.resource_claim_name);
    }
}

fn visit_environment(env: &[EnvVar], env_from: &[EnvFromSource], visit: &mut dyn FnMut(Target, &str)) {
    for source in env.iter().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(secret) = &source.secret_key_ref {
            visit(Target::Secret, &secret.local_object_reference.name);
        }
        if let Some(map) = &source.config_map_key_ref {
            visit(Target::ConfigMap, &map.local_object_reference.name);
        }
    }
    for source in env_from {
        if let Some(secret) = &source.secret_ref {
            visit(Target::Secret, &secret.local_object_reference.name);
        }
        if let Some(map) = &source.config_map_ref {
            visit(Target::ConfigMap, &map.local_object_reference.name);
        }
    }
}

fn visit_volume(pod: &str, volume: &Volume, visit: &mut dyn FnMut(Target, &str)) {
    let source = &volume.volume_source;
    if let Some(secret) = &source.secret {
        visit(Target::Secret, &secret.secret_name);
    }
    if let Some(map) = &source.config_map {
        visit(Target::ConfigMap, &map.local_object_reference.name);
    }
    for projection in source.projected.iter().flat_map(|projected| &projected.sources) {
        if let Some(secret) = &projection.secret {
            visit(Target::Secret, &secret.local_object_reference.name);
        }
        if let Some(map) = &projection.config_map {
            visit(Target::ConfigMap, &map.local_object_reference.name);
        }
    }
    if let Some(claim) = &source.persistent_volume_claim {
        visit(Target::Claim, &claim.claim_name);
    }
    if source.ephemeral.is_some() {
        visit(Target::Claim, &format!("{pod}-{}", volume.name));
    }
    visit_driver_secrets(source, visit);
}

/// Volume drivers that log in somewhere.
fn visit_driver_secrets(source: &VolumeSource, visit: &mut dyn FnMut(Target, &str)) {
    if let Some(azure) = &source.azure_file {
        visit(Target::Secret, &azure.secret_name);
    }
    let references = [
        source.cephfs.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        source.cinder.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        source.flex_volume.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        source.rbd.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        source.scale_io.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        source.iscsi.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        source.storageos.as_ref().and_then(|driver| driver.secret_ref.as_ref()),
        source.csi.as_ref().and_then(|driver| driver.node_publish_secret_ref.as_ref()),
    ];
    for reference in references.into_iter().flatten() {
        visit(Target::Secret, &reference.name);
    }
}

/// Secrets of a volume that nodes need; those of controllers are none of their business.
fn volume_secrets(volume: &PersistentVolume, claim_namespace: &str) -> BTreeSet<Key> {
    let source = &volume.spec.persistent_volume_source;
    let mut references = Vec::new();
    if let Some(csi) = &source.csi {
        references.extend([&csi.node_stage_secret_ref, &csi.node_publish_secret_ref, &csi.node_expand_secret_ref]);
    }
    references.extend(source.cephfs.iter().map(|driver| &driver.secret_ref));
    references.extend(source.cinder.iter().map(|driver| &driver.secret_ref));
    references.extend(source.flex_volume.iter().map(|driver| &driver.secret_ref));
    references.extend(source.rbd.iter().map(|driver| &driver.secret_ref));
    references.extend(source.scale_io.iter().map(|driver| &driver.secret_ref));
    references.extend(source.iscsi.iter().map(|driver| &driver.secret_ref));
    let mut secrets: BTreeSet<Key> = references
        .into_iter()
        .flatten()
        .filter(|secret| !secret.name.is_empty())
        .map(|secret| {
            let namespace = if secret.namespace.is_empty() { claim_namespace } else { &secret.namespace };
            (namespace.to_owned(), secret.name.clone())
        })
        .collect();
    if let Some(azure) = &source.azure_file {
        let namespace = azure.secret_namespace.as_deref().filter(|namespace| !namespace.is_empty());
        secrets.insert((namespace.unwrap_or(claim_namespace).to_owned(), azure.secret_name.clone()));
    }
    secrets
}
