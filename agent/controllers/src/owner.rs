//! Owner references.

use api::Resource;
use api::meta::v1::{ObjectMeta, OwnerReference};

/// The reference to the object's controller.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().find(|owner| owner.controller == Some(true))
}

/// A reference that makes `owner` the controller.
pub(crate) fn controller_reference<K: Resource>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::KIND.api_version(),
        kind: K::KIND.kind.to_owned(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A merge that makes `owner` the controller of an orphan; the uid guards against another object of the same name.
pub(crate) fn adoption<K: Resource>(owner: &K, orphan: &ObjectMeta) -> serde_json::Value {
    let reference = controller_reference(owner);
    serde_json::json!({"metadata": {"uid": orphan.uid, "ownerReferences": [{
        "apiVersion": reference.api_version, "kind": reference.kind, "name": reference.name, "uid": reference.uid,
        "controller": true, "blockOwnerDeletion": true}]}})
}

/// A strategic merge that takes `owner` off the references of a former dependent.
pub(crate) fn release(owner_uid: &str, dependent: &ObjectMeta) -> serde_json::Value {
    serde_json::json!({"metadata": {"uid": dependent.uid, "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}})
}
