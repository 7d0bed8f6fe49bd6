//! What nodes may do: their own objects, and what the pods bound to them refer to.
//!
//! ```text
//!   node ◀── pod ──▶ service account, secrets, config maps, claims ◀── volume ──▶ secrets
//!   node ◀── volume attachment, request of a pod's certificate
//! ```
//! The graph is kept per node, as counted references, so that a question is one look-up. Nodes can create mirror
//! pods, so these refer to nothing.

mod graph;

use api::certificates::v1beta1::PodCertificateRequest;
use api::core::v1::{PersistentVolume, Pod};
use api::features::Features;
use api::labels::{Operator, Requirement};
use api::rbac::v1::PolicyRule;
use parking_lot::RwLock;

use self::graph::{Graph, Target};
use super::rbac::rules_allow;
use super::{Attributes, Authorizer, Decision};
use crate::auth::identity;

/// Where nodes keep their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Pods get certificates by requests of their nodes.
const CERTIFICATES: &str = "PodCertificateRequest";

/// Decides about requests of nodes.
pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
    /// What all nodes may do with resources that are not divided up here.
    rules: Vec<PolicyRule>,
    features: Features,
}

impl NodeAuthorizer {
    /// An authorizer without pods; `rules` are those of the cluster role `system:node`.
    #[must_use]
    pub fn new(rules: Vec<PolicyRule>, features: Features) -> Self {
        Self { graph: RwLock::default(), rules, features }
    }

    /// Takes over a pod.
    pub fn apply_pod(&self, pod: &Pod) {
        self.graph.write().apply_pod(pod);
    }

    /// Forgets a pod.
    pub fn delete_pod(&self, namespace: &str, name: &str) {
        self.graph.write().delete_pod(namespace, name);
    }

    /// Takes over a volume.
    pub fn apply_volume(&self, volume: &PersistentVolume) {
        self.graph.write().apply_volume(volume);
    }

    /// Forgets a volume.
    pub fn delete_volume(&self, name: &str) {
        self.graph.write().delete_volume(name);
    }

    /// Takes over a volume attachment.
    pub fn apply_attachment(&self, name: &str, node: &str) {
        self.graph.write().apply_of_node(Target::Attachment, ("", name), node);
    }

    /// Forgets a volume attachment.
    pub fn delete_attachment(&self, name: &str) {
        self.graph.write().delete_of_node(Target::Attachment, ("", name));
    }

    /// Takes over a request of a certificate.
    pub fn apply_certificate_request(&self, request: &PodCertificateRequest) {
        let key = (request.metadata.namespace.as_str(), request.metadata.name.as_str());
        self.graph.write().apply_of_node(Target::CertificateRequest, key, &request.spec.node_name);
    }

    /// Forgets a request of a certificate.
    pub fn delete_certificate_request(&self, namespace: &str, name: &str) {
        self.graph.write().delete_of_node(Target::CertificateRequest, (namespace, name));
    }

    fn related(&self, node: &str, target: Target, attributes: &Attributes<'_>) -> Decision {
        if attributes.name.is_empty() {
            return no("No Object name found");
        }
        if self.graph.read().is_related(node, target, attributes.namespace, attributes.name) {
            return yes();
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    fn get(&self, node: &str, target: Target, attributes: &Attributes<'_>) -> Decision {
        match (attributes.verb, attributes.subresource) {
            ("get", "") => self.related(node, target, attributes),
            ("get", _) => no("cannot get subresource"),
            _ => no("can only get individual resources of this type"),
        }
    }

    fn read(&self, node: &str, target: Target, attributes: &Attributes<'_>) -> Decision {
        match attributes.verb {
            "get" | "list" | "watch" if !attributes.subresource.is_empty() => no("cannot read subresource"),
            "get" | "list" | "watch" if attributes.namespace.is_empty() => {
                no("can only read namespaced object of this type")
            }
            "get" | "list" | "watch" => self.related(node, target, attributes),
            _ => no("can only read resources of this type"),
        }
    }

    fn claim(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        match (attributes.subresource, attributes.verb) {
            ("status", "update" | "patch") => self.related(node, Target::Claim, attributes),
            ("status", _) => no("can only get/update/patch this type"),
            _ => self.get(node, Target::Claim, attributes),
        }
    }

    fn service_account(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        const READERS: [&str; 2] = ["KubeletServiceAccountTokenForCredentialProviders", CERTIFICATES];
        match (attributes.verb, attributes.subresource) {
            ("get", "") if !READERS.iter().any(|gate| self.features.is_on(gate)) => {
                no("not allowed to get service accounts")
            }
            ("get", "") => self.read(node, Target::ServiceAccount, attributes),
            ("create", _) if attributes.name.is_empty() => no("can only create tokens for individual service accounts"),
            ("create", "token") => self.related(node, Target::ServiceAccount, attributes),
            ("create", _) => no("can only create token subresource of serviceaccount"),
            _ => no("can only create tokens for individual service accounts"),
        }
    }

    fn certificate_request(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        match (attributes.subresource, attributes.verb) {
            // Admission limits these to pods that run on the node.
            ("", "create") => yes(),
            ("", "get") => self.related(node, Target::CertificateRequest, attributes),
            ("", "list" | "watch") if selects(attributes, "spec.nodeName", node) => yes(),
            ("", "list" | "watch") => no("can only list/watch podcertificaterequests with nodeName field selector"),
            ("", verb) => no(format!("nodes may not {verb} podcertificaterequests")),
            _ => no("nodes may not access the status subresource of PodCertificateRequests"),
        }
    }

    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        match (attributes.subresource, attributes.verb) {
            ("", "get") => self.related(node, Target::Pod, attributes),
            ("", "list" | "watch") if selects(attributes, "spec.nodeName", node) => yes(),
            ("", "list" | "watch") if !attributes.name.is_empty() => self.related(node, Target::Pod, attributes),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            // Admission limits these to mirror pods and to the node's own pods.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
            _ => no(""),
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = identity::node_name(attributes.user) else { return no("") };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", attributes.user.name));
        }
        match (attributes.group, attributes.resource) {
            ("", "secrets") => self.read(node, Target::Secret, attributes),
            ("", "configmaps") => self.read(node, Target::ConfigMap, attributes),
            ("", "persistentvolumeclaims") => self.claim(node, attributes),
            ("", "persistentvolumes") => self.get(node, Target::Volume, attributes),
            ("resource.k8s.io", "resourceclaims") => self.get(node, Target::ResourceClaim, attributes),
            ("storage.k8s.io", "volumeattachments") => self.get(node, Target::Attachment, attributes),
            ("", "serviceaccounts") => self.service_account(node, attributes),
            ("coordination.k8s.io", "leases") => lease(node, attributes),
            ("storage.k8s.io", "csinodes") => csi_node(node, attributes),
            ("resource.k8s.io", "resourceslices") => resource_slice(node, attributes),
            ("certificates.k8s.io", "podcertificaterequests") if self.features.is_on(CERTIFICATES) => {
                self.certificate_request(node, attributes)
            }
            ("", "nodes") => own_node(node, attributes),
            ("", "pods") => self.pod(node, attributes),
            _ if rules_allow(&self.rules, attributes) => yes(),
            _ => no(""),
        }
    }
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Decision {
    match (attributes.subresource, attributes.verb) {
        // Admission limits a node to its own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match attributes.name {
            name if name == node => yes(),
            "" => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => no(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => no(""),
    }
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Decision {
    match attributes.verb {
        "get" | "create" | "update" | "patch" | "delete" if attributes.namespace != LEASE_NAMESPACE => {
            no(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"))
        }
        // The name is not known yet; admission checks it.
        "create" => yes(),
        "get" | "update" | "patch" | "delete" if attributes.name == node => yes(),
        "get" | "update" | "patch" | "delete" => {
            no("can only access node lease with the same name as the requesting node")
        }
        _ => no("can only get, create, update, patch, or delete a node lease"),
    }
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Decision {
    match attributes.verb {
        "get" | "create" | "update" | "patch" | "delete" if !attributes.subresource.is_empty() => {
            no("cannot authorize CSINode subresources")
        }
        "create" => yes(),
        "get" | "update" | "patch" | "delete" if attributes.name == node => yes(),
        "get" | "update" | "patch" | "delete" => {
            no("can only access CSINode with the same name as the requesting node")
        }
        _ => no("can only get, create, update, patch, or delete a CSINode"),
    }
}

/// Slices of the node are listed by its name; which one belongs to whom is not followed, so single ones are left to
/// the other authorizers.
fn resource_slice(node: &str, attributes: &Attributes<'_>) -> Decision {
    match (attributes.subresource, attributes.verb) {
        ("", "create") => yes(),
        ("", "list" | "watch" | "deletecollection") if selects(attributes, "spec.nodeName", node) => yes(),
        ("", "list" | "watch" | "deletecollection") => {
            no("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        ("", _) => no(format!("no relationship found between node '{node}' and this object")),
        _ => no("cannot authorize ResourceSlice subresources"),
    }
}

fn selects(attributes: &Attributes<'_>, path: &str, value: &str) -> bool {
    let is_wanted = |r: &Requirement| {
        r.key == path && r.operator == Operator::In && matches!(&r.values[..], [only] if only == value)
    };
    attributes.selected.fields.iter().any(is_wanted)
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

#[cfg(test)]
mod tests;
