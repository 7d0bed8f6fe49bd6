//! Paths of resources.

use api::Kind;

/// The path of a collection, an object or a subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// All objects of a kind: of one namespace, or of the whole cluster.
    #[must_use]
    pub fn collection(kind: &Kind, namespace: Option<&str>) -> Self {
        let mut path = if kind.group.is_empty() {
            format!("/api/{}", kind.version)
        } else {
            format!("/apis/{}/{}", kind.group, kind.version)
        };
        if let (true, Some(namespace)) = (kind.namespaced, namespace.filter(|name| !name.is_empty())) {
            path.push_str("/namespaces/");
            escape_into(&mut path, namespace);
        }
        path.push('/');
        path.push_str(kind.plural);
        Self(path)
    }

    /// One object.
    #[must_use]
    pub fn object(kind: &Kind, namespace: Option<&str>, name: &str) -> Self {
        Self::collection(kind, namespace).child(name)
    }

    /// What lies below: an object of a collection, a subresource of an object.
    #[must_use]
    pub fn child(mut self, name: &str) -> Self {
        self.0.push('/');
        escape_into(&mut self.0, name);
        self
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends `text` with everything escaped that has a meaning in paths or queries.
pub(crate) fn escape_into(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Resource;

    use super::*;

    #[test]
    fn paths_follow_group_namespace_and_subresource() {
        let pod = api::core::v1::Pod::KIND;
        assert_eq!(ObjectPath::collection(pod, None).as_str(), "/api/v1/pods");
        assert_eq!(ObjectPath::object(pod, Some("a"), "b").child("log").as_str(), "/api/v1/namespaces/a/pods/b/log");
        let lease = api::coordination::v1::Lease::KIND;
        let path = ObjectPath::object(lease, Some("kube-system"), "x");
        assert_eq!(path.as_str(), "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x");
        let node = api::core::v1::Node::KIND;
        assert_eq!(ObjectPath::object(node, Some("ignored"), "n").as_str(), "/api/v1/nodes/n");
        let role = api::rbac::v1::ClusterRole::KIND;
        let path = ObjectPath::object(role, None, "system:a/b");
        assert_eq!(path.as_str(), "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:a%2Fb");
    }
}
