//! Role based access: rules in roles, bound to users and groups.
//!
//! The index is fed with every role and binding by `apply_*` and `delete_*` and answers without looking at any other
//! object. Bindings are found by subject, so that a decision costs as much as the user's groups have bindings, however
//! many there are in the cluster.

mod escalation;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::labels::Selector;
use api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use parking_lot::RwLock;

pub use escalation::missing_rights;
pub use rules::rules_allow;

use self::rules::rule_allows;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::auth::identity::{self, UserInfo};

/// The API group of roles and of subjects that are users or groups.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Namespace and name; cluster-wide objects have an empty namespace.
type Key = (String, String);

/// Decides by roles and bindings.
#[derive(Default)]
pub struct RbacAuthorizer(RwLock<Index>);

#[derive(Default)]
struct Index {
    /// Rules of roles and, under an empty namespace, of cluster roles; aggregated ones are filled in.
    rules: HashMap<Key, Arc<[PolicyRule]>>,
    cluster_roles: BTreeMap<String, Source>,
    bindings: HashMap<Key, Binding>,
    /// Which bindings name a subject.
    by_subject: HashMap<SubjectKey, BTreeSet<Key>>,
}

/// A cluster role as it was written.
struct Source {
    labels: BTreeMap<String, String>,
    rules: Arc<[PolicyRule]>,
    /// Whose rules it takes over; empty for a role with rules of its own.
    aggregates: Vec<Selector>,
}

struct Binding {
    role: Key,
    subjects: Vec<SubjectKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

/// The rules that apply to somebody.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The rules that were found.
    pub rules: Vec<PolicyRule>,
    /// Roles that are bound to them and are not there.
    unresolved: Vec<Key>,
}

impl Held {
    /// What could not be resolved; `resource` is what missing roles are called, if not what each of them is. Empty if
    /// everything was found.
    #[must_use]
    pub fn errors(&self, resource: Option<&str>) -> String {
        unresolved_text(&self.unresolved, resource)
    }
}

impl RbacAuthorizer {
    /// An index without roles, which allows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over a role.
    pub fn apply_role(&self, role: &Role) {
        let key = (role.metadata.namespace.clone(), role.metadata.name.clone());
        self.0.write().rules.insert(key, role.rules.clone().into());
    }

    /// Forgets a role.
    pub fn delete_role(&self, namespace: &str, name: &str) {
        self.0.write().rules.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes over a cluster role.
    pub fn apply_cluster_role(&self, role: &ClusterRole) {
        let selectors = role.aggregation_rule.iter().flat_map(|rule| &rule.cluster_role_selectors);
        let source = Source {
            labels: role.metadata.labels.clone(),
            rules: role.rules.clone().into(),
            // A selector that cannot be read selects nothing.
            aggregates: selectors
                .map(|selector| Selector::from_object(Some(selector)).unwrap_or_else(|_| Selector::nothing()))
                .collect(),
        };
        let mut index = self.0.write();
        index.cluster_roles.insert(role.metadata.name.clone(), source);
        index.aggregate();
    }

    /// Forgets a cluster role.
    pub fn delete_cluster_role(&self, name: &str) {
        let mut index = self.0.write();
        index.cluster_roles.remove(name);
        index.aggregate();
    }

    /// Takes over a binding of a namespace.
    pub fn apply_role_binding(&self, binding: &RoleBinding) {
        let metadata = &binding.metadata;
        let key = (metadata.namespace.clone(), metadata.name.clone());
        self.0.write().bind(key, &binding.role_ref, &binding.subjects);
    }

    /// Forgets a binding of a namespace.
    pub fn delete_role_binding(&self, namespace: &str, name: &str) {
        self.0.write().unbind(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes over a cluster-wide binding.
    pub fn apply_cluster_role_binding(&self, binding: &ClusterRoleBinding) {
        let key = (String::new(), binding.metadata.name.clone());
        self.0.write().bind(key, &binding.role_ref, &binding.subjects);
    }

    /// Forgets a cluster-wide binding.
    pub fn delete_cluster_role_binding(&self, name: &str) {
        self.0.write().unbind(&(String::new(), name.to_owned()));
    }

    /// All rules that apply to a user in a namespace; cluster-wide ones are among them, and alone if it is empty.
    #[must_use]
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Held {
        let index = self.0.read();
        let mut rules = Vec::new();
        let unresolved = index.visit(user, namespace, &mut |_, _, found| {
            rules.extend_from_slice(found);
            false
        });
        Held { rules, unresolved }
    }

    /// The rules of the role that a reference leads to, from a binding in `namespace` (empty for a cluster-wide one).
    #[must_use]
    pub fn role_rules(&self, reference: &RoleRef, namespace: &str) -> Option<Arc<[PolicyRule]>> {
        self.0.read().rules.get(&role_key(reference, namespace)).cloned()
    }
}

/// Paths that everybody may read by the roles that every cluster has: load balancers and supervisors ask there without
/// credentials, and from the first moment, when those roles are not written yet.
const HEALTH_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

fn is_health(attributes: &Attributes<'_>) -> bool {
    !attributes.is_resource() && attributes.verb == "get" && HEALTH_PATHS.contains(&attributes.path)
}

impl Authorizer for RbacAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.0.read();
        let mut reason = String::new();
        let namespace = if attributes.is_resource() { attributes.namespace } else { "" };
        let unresolved = index.visit(attributes.user, namespace, &mut |binding, subject, rules| {
            let allows = rules.iter().any(|rule| rule_allows(rule, attributes));
            if allows {
                reason = allowed_by(binding, &index.bindings[binding].role, subject);
            }
            allows
        });
        if !reason.is_empty() {
            return Decision::Allow(reason);
        }
        if is_health(attributes) {
            return Decision::Allow(String::new());
        }
        let errors = unresolved_text(&unresolved, None);
        Decision::NoOpinion(if errors.is_empty() { errors } else { format!("RBAC: {errors}") })
    }

    fn rules_of(&self, user: &UserInfo, namespace: &str) -> Rules {
        let held = self.rules_for(user, namespace);
        let errors = Some(held.errors(None)).filter(|text| !text.is_empty());
        Rules { rules: held.rules, is_incomplete: false, errors: errors.into_iter().collect() }
    }
}

impl Index {
    fn bind(&mut self, key: Key, role: &RoleRef, subjects: &[Subject]) {
        self.unbind(&key);
        let role = role_key(role, &key.0);
        let subjects: Vec<_> = subjects.iter().filter_map(|subject| subject_key(subject, &key.0)).collect();
        for subject in &subjects {
            self.by_subject.entry(subject.clone()).or_default().insert(key.clone());
        }
        self.bindings.insert(key, Binding { role, subjects });
    }

    fn unbind(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for subject in binding.subjects {
            if let Some(keys) = self.by_subject.get_mut(&subject) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_subject.remove(&subject);
                }
            }
        }
    }

    /// Fills in the rules of all cluster roles. There are few, and they change rarely.
    fn aggregate(&mut self) {
        self.rules.retain(|(namespace, _), _| !namespace.is_empty());
        for name in self.cluster_roles.keys() {
            let mut rules = Vec::new();
            self.collect_rules(name, &mut BTreeSet::new(), &mut rules);
            self.rules.insert((String::new(), name.clone()), rules.into());
        }
    }

    fn collect_rules<'i>(&'i self, name: &'i str, seen: &mut BTreeSet<&'i str>, rules: &mut Vec<PolicyRule>) {
        let Some(source) = self.cluster_roles.get(name) else { return };
        if !seen.insert(name) {
            return;
        }
        if source.aggregates.is_empty() {
            let new = source.rules.iter().filter(|rule| !rules.contains(rule)).cloned().collect::<Vec<_>>();
            rules.extend(new);
            return;
        }
        for (other, candidate) in &self.cluster_roles {
            if source.aggregates.iter().any(|selector| selector.matches(&candidate.labels)) {
                self.collect_rules(other, seen, rules);
            }
        }
    }

    /// Shows the rules of every binding that applies, until `visit` says that it has seen enough. Returns what could
    /// not be resolved on the way.
    fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        visit: &mut dyn FnMut(&Key, &SubjectKey, &[PolicyRule]) -> bool,
    ) -> Vec<Key> {
        let mut unresolved = Vec::new();
        let groups = user.groups.iter().map(|group| SubjectKey::Group(group.clone()));
        for subject in std::iter::once(SubjectKey::User(user.name.clone())).chain(groups) {
            for key in self.by_subject.get(&subject).into_iter().flatten() {
                if !key.0.is_empty() && (namespace.is_empty() || key.0 != namespace) {
                    continue;
                }
                let role = &self.bindings[key].role;
                match self.rules.get(role) {
                    Some(rules) if visit(key, &subject, rules) => return unresolved,
                    Some(_) => {}
                    None => unresolved.push(role.clone()),
                }
            }
        }
        unresolved
    }
}

fn role_key(reference: &RoleRef, namespace: &str) -> Key {
    let namespace = if reference.kind == "Role" { namespace } else { "" };
    (namespace.to_owned(), reference.name.clone())
}

/// What is told of roles that are not there, each text once; several stand in brackets.
fn unresolved_text(roles: &[Key], resource: Option<&str>) -> String {
    let mut texts: Vec<String> = Vec::new();
    for (namespace, name) in roles {
        let own = if namespace.is_empty() { "clusterrole" } else { "role" };
        let text = format!("{}.{GROUP} {name:?} not found", resource.unwrap_or(own));
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match &texts[..] {
        [one] => one.clone(),
        [] => String::new(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn subject_key(subject: &Subject, binding_namespace: &str) -> Option<SubjectKey> {
    match subject.kind.as_str() {
        "User" => Some(SubjectKey::User(subject.name.clone())),
        "Group" => Some(SubjectKey::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() { binding_namespace } else { &subject.namespace };
            let user = identity::service_account_name(namespace, &subject.name);
            (!namespace.is_empty()).then_some(SubjectKey::User(user))
        }
        _ => None,
    }
}

fn allowed_by((namespace, name): &Key, (role_namespace, role): &Key, subject: &SubjectKey) -> String {
    let binding = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}")
    } else {
        format!("RoleBinding \"{name}/{namespace}\"")
    };
    let role_kind = if role_namespace.is_empty() { "ClusterRole" } else { "Role" };
    let subject = match subject {
        SubjectKey::User(user) => match identity::split_service_account(user) {
            Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
            None => format!("User {user:?}"),
        },
        SubjectKey::Group(group) => format!("Group {group:?}"),
    };
    format!("RBAC: allowed by {binding} of {role_kind} {role:?} to {subject}")
}

#[cfg(test)]
mod tests;
