//! DefaultStorageClass, DefaultIngressClass, StorageObjectInUseProtection.

use serde_json::Value;

use crate::app::Call;
use crate::codec;
use crate::tree;

/// Keeps a claim while pods use it.
pub(super) const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while a claim uses it.
pub(super) const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Finalizer of volume attributes classes in use.
pub(super) const CLASS_PROTECTION: &str = "kubernetes.io/vac-protection";

/// Adds a finalizer.
pub(super) fn protect(value: &mut Value, finalizer: &str) {
    let finalizers = tree::list_at(&mut value["metadata"], "finalizers");
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.into());
    }
}

/// Gives a claim without class the default one.
pub(super) fn set_class(call: &Call, claim: &mut Value) {
    let annotated = tree::has(&claim["metadata"]["annotations"], "/volume.beta.kubernetes.io~1storage-class");
    if tree::has(claim, "/spec/storageClassName") || annotated {
        return;
    }
    if let Some(name) =
        default_class(call, ("storage.k8s.io", "storageclasses"), "storageclass.kubernetes.io/is-default-class")
    {
        claim["spec"]["storageClassName"] = name.into();
    }
}

/// Gives an ingress without class the default one.
pub(super) fn set_ingress_class(call: &Call, ingress: &mut Value) {
    let annotated = tree::has(&ingress["metadata"]["annotations"], "/kubernetes.io~1ingress.class");
    if tree::has(ingress, "/spec/ingressClassName") || annotated {
        return;
    }
    if let Some(name) =
        default_class(call, ("networking.k8s.io", "ingressclasses"), "ingressclass.kubernetes.io/is-default-class")
    {
        ingress["spec"]["ingressClassName"] = name.into();
    }
}

/// The newest class with the annotation; of equally new ones the first by name.
fn default_class(call: &Call, (group, plural): (&str, &str), annotation: &str) -> Option<String> {
    let storage = call.app.cache.known(group, plural);
    let all = storage.snapshot();
    let classes = all.values().filter_map(|o| codec::to_value(storage, storage.kind, o).ok());
    let mut defaults: Vec<(String, String)> = classes
        .filter(|c| c["metadata"]["annotations"][annotation] == "true")
        .map(|c| {
            let text = |key: &str| c["metadata"][key].as_str().unwrap_or_default().to_owned();
            (text("creationTimestamp"), text("name"))
        })
        .collect();
    defaults.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    defaults.into_iter().next().map(|(_, name)| name)
}
