//! Roles and who has them.

use api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::labels::{self, SelectorOptions};
use super::{Change, Errors, Path, checks, names, shown};
use crate::status::FieldError;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn role(change: &Change<'_, Role>, errors: &mut Errors) {
    rules(&change.new.rules, true, errors);
}

pub fn cluster_role(change: &Change<'_, ClusterRole>, errors: &mut Errors) {
    rules(&change.new.rules, false, errors);
    let Some(aggregation) = &change.new.aggregation_rule else { return };
    let before = change.old.and_then(|old| old.aggregation_rule.as_ref());
    let options = SelectorOptions::after(before.iter().flat_map(|rule| &rule.cluster_role_selectors));
    let path = Path::root("aggregationRule");
    let path = path.child("clusterRoleSelectors");
    if aggregation.cluster_role_selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(path, why));
    }
    for (i, selector) in aggregation.cluster_role_selectors.iter().enumerate() {
        let told = errors.len();
        labels::selector(&path.index(i), selector, options, errors);
        if errors.len() > told || api::labels::Selector::from_object(Some(selector)).is_err() {
            errors.push(FieldError::invalid(path.index(i), serde_json::Value::Null, "invalid label selector."));
        }
    }
}

fn rules(rules: &[PolicyRule], namespaced: bool, errors: &mut Errors) {
    for (i, each) in rules.iter().enumerate() {
        rule(&Path::root("rules").index(i), each, namespaced, errors);
    }
}

fn rule(path: &Path<'_>, rule: &PolicyRule, namespaced: bool, errors: &mut Errors) {
    if rule.verbs.is_empty() {
        errors.push(FieldError::required(path.child("verbs"), "verbs must contain at least one value"));
    }
    if !rule.non_resource_urls.is_empty() {
        let mut told = |why: &str| {
            errors.push(FieldError::invalid(path.child("nonResourceURLs"), shown::texts(&rule.non_resource_urls), why));
        };
        if namespaced {
            told("namespaced rules cannot apply to non-resource URLs");
        }
        if !rule.api_groups.is_empty() || !rule.resources.is_empty() || !rule.resource_names.is_empty() {
            told("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if rule.api_groups.is_empty() {
        let why = "resource rules must supply at least one api group";
        errors.push(FieldError::required(path.child("apiGroups"), why));
    }
    if rule.resources.is_empty() {
        let why = "resource rules must supply at least one resource";
        errors.push(FieldError::required(path.child("resources"), why));
    }
}

pub fn role_binding(change: &Change<'_, RoleBinding>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old.map(|old| &old.role_ref));
    binding(&new.role_ref, &new.subjects, (&["Role", "ClusterRole"], true), errors);
    role_stays(&new.role_ref, old, errors);
}

pub fn cluster_role_binding(change: &Change<'_, ClusterRoleBinding>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old.map(|old| &old.role_ref));
    binding(&new.role_ref, &new.subjects, (&["ClusterRole"], false), errors);
    role_stays(&new.role_ref, old, errors);
}

fn role_stays(new: &RoleRef, old: Option<&RoleRef>, errors: &mut Errors) {
    if old.is_some_and(|old| old != new) {
        let value = shown::structure("k8s.io.api.rbac.v1.RoleRef", new);
        errors.push(FieldError::invalid("roleRef", value, "cannot change roleRef"));
    }
}

fn binding(role: &RoleRef, subjects: &[Subject], (kinds, namespaced): (&[&str], bool), errors: &mut Errors) {
    let path = Path::root("roleRef");
    plain_supported(&path.child("apiGroup"), &role.api_group, &[GROUP], errors);
    plain_supported(&path.child("kind"), &role.kind, kinds, errors);
    let name = path.child("name");
    checks::required(&name, &role.name, errors);
    if !role.name.is_empty() {
        checks::text(&name, &role.name, names::path_segment(&role.name), errors);
    }
    for (i, each) in subjects.iter().enumerate() {
        subject(&Path::root("subjects").index(i), each, namespaced, errors);
    }
}

fn plain_supported(path: &Path<'_>, value: &str, allowed: &[&str], errors: &mut Errors) {
    if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
}

fn subject(path: &Path<'_>, subject: &Subject, namespaced: bool, errors: &mut Errors) {
    let (name, group) = (path.child("name"), path.child("apiGroup"));
    checks::required(&name, &subject.name, errors);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                checks::text(&name, &subject.name, names::dns1123_subdomain(&subject.name), errors);
            }
            plain_supported(&group, &subject.api_group, &[""], errors);
            if !namespaced {
                checks::required(&path.child("namespace"), &subject.namespace, errors);
            }
        }
        "User" | "Group" => plain_supported(&group, &subject.api_group, &[GROUP], errors),
        other => plain_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"], errors),
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    #[test]
    fn rules_say_what_is_allowed() {
        let cases = [
            ("ClusterRole", r#"{"verbs":["get"],"nonResourceURLs":["/a"]}"#, ""),
            (
                "Role",
                r#"{"verbs":["get"],"nonResourceURLs":["/a"]}"#,
                "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
            ),
            (
                "Role",
                r#"{"resources":["pods"]}"#,
                "rules[0].verbs: Required value: verbs must contain at least one value\n\
                 rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            ),
        ];
        for (kind, rule, expected) in cases {
            let object = format!(r#"{{"rules":[{rule}]}}"#);
            assert_eq!(told("rbac.authorization.k8s.io/v1", kind, Part::Main, &object, None), expected);
        }
    }

    #[test]
    fn bindings_keep_their_role() {
        let binding = |name: &str| {
            format!(r#"{{"roleRef":{{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"{name}"}}}}"#)
        };
        assert_eq!(
            told("rbac.authorization.k8s.io/v1", "RoleBinding", Part::Main, &binding("a"), Some(&binding("b"))),
            r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"a"}: cannot change roleRef"#
        );
    }
}
