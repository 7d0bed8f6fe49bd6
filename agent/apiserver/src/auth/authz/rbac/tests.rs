use std::collections::BTreeMap;

use api::meta::v1::{LabelSelector, ObjectMeta};
use api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{RbacAuthorizer, missing_rights};
use crate::auth::authz::{Attributes, Authorizer, Decision};
use crate::auth::identity::UserInfo;

fn strings(list: &str) -> Vec<String> {
    list.split_whitespace().map(|word| if word == "-" { String::new() } else { word.to_owned() }).collect()
}

/// `-` is the core group.
fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule {
        verbs: strings(verbs),
        api_groups: strings(groups),
        resources: strings(resources),
        resource_names: strings(names),
        non_resource_urls: Vec::new(),
    }
}

fn path_rule(verbs: &str, paths: &str) -> PolicyRule {
    PolicyRule { verbs: strings(verbs), non_resource_urls: strings(paths), ..PolicyRule::default() }
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: namespace.to_owned(), name: name.to_owned(), ..ObjectMeta::default() }
}

fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: meta("", name), rules, ..ClusterRole::default() }
}

fn reference(kind: &str, name: &str) -> RoleRef {
    RoleRef { kind: kind.to_owned(), name: name.to_owned(), api_group: super::GROUP.to_owned() }
}

fn subject(kind: &str, name: &str, namespace: &str) -> Subject {
    let own = |text: &str| text.to_owned();
    Subject { kind: own(kind), name: own(name), namespace: own(namespace), api_group: String::new() }
}

fn user(name: &str, groups: &str) -> UserInfo {
    UserInfo { name: name.to_owned(), groups: strings(groups), ..UserInfo::default() }
}

fn authorizer() -> RbacAuthorizer {
    let rbac = RbacAuthorizer::new();
    let reader = vec![rule("get list", "-", "pods pods/log", ""), rule("get", "apps", "*", "web")];
    rbac.apply_cluster_role(&cluster_role("reader", reader));
    rbac.apply_cluster_role(&cluster_role("scaler", vec![rule("*", "*", "*/scale", "")]));
    rbac.apply_cluster_role(&cluster_role("probe", vec![path_rule("get", "/version /metrics/*")]));
    rbac.apply_role(&Role { metadata: meta("a", "own"), rules: vec![rule("delete", "-", "pods", "")] });
    let bind = |namespace: &str, name: &str, role: RoleRef, subject: Subject| {
        let (subjects, role_ref) = (vec![subject], role);
        if namespace.is_empty() {
            let binding = ClusterRoleBinding { metadata: meta("", name), subjects, role_ref };
            rbac.apply_cluster_role_binding(&binding);
        } else {
            rbac.apply_role_binding(&RoleBinding { metadata: meta(namespace, name), subjects, role_ref });
        }
    };
    bind("", "readers", reference("ClusterRole", "reader"), subject("Group", "devs", ""));
    bind("a", "scalers", reference("ClusterRole", "scaler"), subject("User", "jane", ""));
    bind("a", "owners", reference("Role", "own"), subject("ServiceAccount", "bot", ""));
    bind("", "probes", reference("ClusterRole", "probe"), subject("User", "jane", ""));
    bind("a", "broken", reference("Role", "gone"), subject("User", "lost", ""));
    rbac
}

#[test]
fn requests_are_judged_by_rules_and_scope() {
    let rbac = authorizer();
    // user, groups, verb, group, resource, subresource, namespace, name, allowed
    for (who, groups, verb, group, resource, namespace, name, allowed) in [
        ("joe", "devs", "list", "", "pods", "", "", true),
        ("joe", "devs", "list", "", "pods", "b", "", true),
        ("joe", "", "list", "", "pods", "b", "", false),
        ("joe", "devs", "watch", "", "pods", "b", "", false),
        ("joe", "devs", "get", "", "pods/log", "b", "x", true),
        ("joe", "devs", "get", "", "pods/exec", "b", "x", false),
        ("joe", "devs", "get", "apps", "deployments", "b", "web", true),
        ("joe", "devs", "get", "apps", "deployments", "b", "api", false),
        ("joe", "devs", "get", "apps", "deployments/status", "b", "web", true),
        ("joe", "devs", "get", "batch", "jobs", "b", "web", false),
        ("jane", "", "patch", "apps", "deployments/scale", "a", "x", true),
        ("jane", "", "patch", "apps", "deployments/scale", "b", "x", false),
        ("jane", "", "patch", "apps", "deployments/scale", "", "x", false),
        ("jane", "", "patch", "apps", "deployments", "a", "x", false),
        ("system:serviceaccount:a:bot", "", "delete", "", "pods", "a", "x", true),
        ("system:serviceaccount:b:bot", "", "delete", "", "pods", "a", "x", false),
    ] {
        let user = user(who, groups);
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes =
            Attributes { subresource, namespace, name, ..Attributes::resource(&user, verb, group, resource) };
        assert_eq!(rbac.authorize(&attributes).is_allow(), allowed, "{attributes:?}");
    }
}

#[test]
fn paths_match_exactly_or_by_their_beginning() {
    let rbac = authorizer();
    let user = user("jane", "");
    for (verb, path, allowed) in [
        ("get", "/version", true),
        ("get", "/version/x", false),
        ("get", "/metrics", false),
        ("get", "/metrics/slis", true),
        ("post", "/version", false),
        // By no role, but from the first moment.
        ("get", "/readyz", true),
        ("post", "/readyz", false),
        ("get", "/readyz/etcd", false),
    ] {
        assert_eq!(rbac.authorize(&Attributes::path(&user, verb, path)).is_allow(), allowed, "{verb} {path}");
    }
}

#[test]
fn reasons_name_the_binding_or_what_is_missing() {
    let rbac = authorizer();
    let jane = user("jane", "");
    let scale = Attributes { subresource: "scale", namespace: "a", ..Attributes::resource(&jane, "get", "apps", "x") };
    let allowed = r#"RBAC: allowed by RoleBinding "scalers/a" of ClusterRole "scaler" to User "jane""#;
    assert_eq!(rbac.authorize(&scale), Decision::Allow(allowed.to_owned()));
    let lost = user("lost", "");
    let pods = Attributes { namespace: "a", ..Attributes::resource(&lost, "get", "", "pods") };
    let missing = r#"RBAC: role.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(rbac.authorize(&pods), Decision::NoOpinion(missing.to_owned()));
}

#[test]
fn changes_and_deletions_take_effect() {
    let rbac = authorizer();
    let joe = user("joe", "devs");
    let allowed = || rbac.authorize(&Attributes::resource(&joe, "list", "", "pods")).is_allow();
    rbac.apply_cluster_role(&cluster_role("reader", Vec::new()));
    assert!(!allowed());
    rbac.apply_cluster_role(&cluster_role("reader", vec![rule("list", "-", "pods", "")]));
    assert!(allowed());
    rbac.delete_cluster_role("reader");
    assert!(!allowed());
    rbac.apply_cluster_role(&cluster_role("reader", vec![rule("list", "-", "pods", "")]));
    let moved = ClusterRoleBinding {
        metadata: meta("", "readers"),
        subjects: vec![subject("User", "kim", "")],
        role_ref: reference("ClusterRole", "reader"),
    };
    rbac.apply_cluster_role_binding(&moved);
    assert!(!allowed());
    rbac.delete_cluster_role_binding("readers");
    let kim = user("kim", "");
    assert!(!rbac.authorize(&Attributes::resource(&kim, "list", "", "pods")).is_allow());
}

#[test]
fn aggregated_roles_take_over_rules_through_several_steps() {
    let rbac = RbacAuthorizer::new();
    let aggregate = |name: &str, label: &str, own: &str| {
        let labels = |key: &str| BTreeMap::from([(key.to_owned(), "true".to_owned())]);
        let mut role = cluster_role(name, Vec::new());
        role.metadata.labels = labels(own);
        let selector = LabelSelector { match_labels: labels(label), ..LabelSelector::default() };
        role.aggregation_rule = Some(AggregationRule { cluster_role_selectors: vec![selector] });
        role
    };
    rbac.apply_cluster_role(&aggregate("admin", "to-admin", "none"));
    rbac.apply_cluster_role(&aggregate("edit", "to-edit", "to-admin"));
    let mut base = cluster_role("base", vec![rule("get", "-", "pods", "")]);
    base.metadata.labels.insert("to-edit".to_owned(), "true".to_owned());
    rbac.apply_cluster_role(&base);
    let rules = |name| rbac.role_rules(&reference("ClusterRole", name), "").unwrap().to_vec();
    assert_eq!(rules("admin"), base.rules);
    rbac.delete_cluster_role("base");
    assert_eq!(rules("admin"), []);
}

#[test]
fn rules_of_a_user_are_those_of_all_that_apply() {
    let rbac = authorizer();
    let jane = user("jane", "devs");
    assert_eq!(rbac.rules_for(&jane, "a").rules.len(), 4);
    assert_eq!(rbac.rules_for(&jane, "b").rules.len(), 3);
    assert_eq!(rbac.rules_for(&jane, "").rules.len(), 3);
}

#[test]
fn roles_that_are_not_there_are_told_once() {
    let rbac = RbacAuthorizer::new();
    for name in ["a", "b"] {
        let binding = ClusterRoleBinding {
            metadata: meta("", name),
            subjects: vec![subject("User", "jane", "")],
            role_ref: reference("ClusterRole", "gone"),
        };
        rbac.apply_cluster_role_binding(&binding);
    }
    let held = rbac.rules_for(&user("jane", ""), "");
    assert_eq!(held.errors(None), r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#);
    assert_eq!(held.errors(Some("roles")), r#"roles.rbac.authorization.k8s.io "gone" not found"#);
    assert_eq!(rbac.rules_for(&user("kim", ""), "").errors(None), "");
}

#[test]
fn rights_that_are_not_held_are_listed() {
    let pods = || rule("get list", "-", "pods", "");
    for (held, wanted, missing) in [
        (vec![pods()], vec![rule("get", "-", "pods", "")], &[][..]),
        (vec![pods()], vec![rule("get", "-", "pods", "x")], &[]),
        (vec![rule("*", "*", "*", "")], vec![rule("*", "apps", "deployments/scale", "x")], &[]),
        (vec![rule("get", "*", "*/scale", "")], vec![rule("get", "apps", "deployments/scale", "")], &[]),
        (
            vec![rule("get", "-", "pods", "x")],
            vec![pods()],
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#],
        ),
        (
            vec![pods()],
            vec![rule("get watch delete", "-", "pods", "")],
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}"#],
        ),
        (
            vec![rule("*", "*", "*", ""), path_rule("get", "/a/*")],
            vec![path_rule("get", "/a/b /b")],
            &[r#"{NonResourceURLs:["/b"], Verbs:["get"]}"#],
        ),
        (
            vec![],
            vec![path_rule("get post", "/a")],
            &[r#"{NonResourceURLs:["/a"], Verbs:["get"]}"#, r#"{NonResourceURLs:["/a"], Verbs:["post"]}"#],
        ),
        (
            vec![rule("*", "-", "*", "")],
            vec![rule("*", "*", "pods", "")],
            &[r#"{APIGroups:["*"], Resources:["pods"], Verbs:["*"]}"#],
        ),
    ] {
        assert_eq!(missing_rights(&held, &wanted), missing, "{held:?} {wanted:?}");
    }
}
