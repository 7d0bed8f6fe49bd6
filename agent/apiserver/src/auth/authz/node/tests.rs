use api::certificates::v1beta1::PodCertificateRequest;
use api::core::v1::{
    Container, EnvVar, EnvVarSource, EphemeralVolumeSource, LocalObjectReference, ObjectReference, PersistentVolume,
    PersistentVolumeClaimVolumeSource, Pod, SecretKeySelector, SecretReference, Volume,
};
use api::features::Features;
use api::labels::{Operator, Requirement};

use super::NodeAuthorizer;
use crate::auth::authz::{Attributes, Authorizer, Selected};
use crate::auth::bootstrap;
use crate::auth::identity::UserInfo;

fn node(name: &str) -> UserInfo {
    UserInfo {
        name: format!("system:node:{name}"),
        groups: vec!["system:nodes".to_owned(), "system:authenticated".to_owned()],
        ..UserInfo::default()
    }
}

fn pod(name: &str, on: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = "ns".to_owned();
    pod.metadata.name = name.to_owned();
    pod.spec.node_name = on.to_owned();
    pod.spec.service_account_name = "sa".to_owned();
    pod.spec.image_pull_secrets = vec![LocalObjectReference { name: "pull".to_owned() }];
    let reference = LocalObjectReference { name: "env".to_owned() };
    let from = SecretKeySelector { local_object_reference: reference, ..SecretKeySelector::default() };
    let from = EnvVarSource { secret_key_ref: Some(from), ..EnvVarSource::default() };
    let env = vec![EnvVar { value_from: Some(from), ..EnvVar::default() }];
    pod.spec.init_containers = vec![Container { env, ..Container::default() }];
    let mut map = Volume::default();
    map.volume_source.config_map = Some(api::core::v1::ConfigMapVolumeSource {
        local_object_reference: LocalObjectReference { name: "map".to_owned() },
        ..Default::default()
    });
    let mut claim = Volume::default();
    claim.volume_source.persistent_volume_claim =
        Some(PersistentVolumeClaimVolumeSource { claim_name: "data".to_owned(), read_only: false });
    let mut ephemeral = Volume { name: "scratch".to_owned(), ..Volume::default() };
    ephemeral.volume_source.ephemeral = Some(EphemeralVolumeSource::default());
    pod.spec.volumes = vec![map, claim, ephemeral];
    pod
}

fn volume() -> PersistentVolume {
    let mut volume = PersistentVolume::default();
    volume.metadata.name = "pv".to_owned();
    volume.spec.claim_ref =
        Some(ObjectReference { namespace: "ns".to_owned(), name: "data".to_owned(), ..ObjectReference::default() });
    volume.spec.persistent_volume_source.csi = Some(api::core::v1::CsiPersistentVolumeSource {
        node_publish_secret_ref: Some(SecretReference { name: "csi".to_owned(), namespace: "other".to_owned() }),
        controller_publish_secret_ref: Some(SecretReference { name: "ctl".to_owned(), namespace: "other".to_owned() }),
        ..Default::default()
    });
    volume
}

fn authorizer() -> NodeAuthorizer {
    let nodes = NodeAuthorizer::new(bootstrap::node_rules(&Features::default()), Features::default());
    nodes.apply_pod(&pod("web", "a"));
    nodes.apply_volume(&volume());
    nodes.apply_attachment("va", "a");
    nodes
}

/// `verb group/resource[/subresource] namespace/name`, with `-` for what is empty.
fn allows(nodes: &NodeAuthorizer, user: &UserInfo, request: &str) -> (bool, String) {
    let words: Vec<&str> = request.split(' ').collect();
    let empty = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    let mut resource = words[1].split('/').map(empty);
    let (group, plural) = (resource.next().unwrap(), resource.next().unwrap());
    let subresource = resource.next().unwrap_or_default();
    let (namespace, name) = words[2].split_once('/').unwrap();
    let (namespace, name) = (empty(namespace), empty(name));
    let attributes = Attributes {
        namespace: &namespace,
        name: &name,
        subresource: &subresource,
        ..Attributes::resource(user, words[0], &group, &plural)
    };
    let decision = nodes.authorize(&attributes);
    (decision.is_allow(), decision.reason().to_owned())
}

#[test]
fn nodes_reach_what_their_pods_refer_to_and_no_more() {
    let nodes = authorizer();
    for (request, allowed) in [
        ("get -/secrets ns/pull", true),
        ("get -/secrets ns/env", true),
        ("watch -/secrets ns/env", true),
        ("list -/secrets ns/-", false),
        ("get -/secrets ns/else", false),
        ("get -/secrets x/env", false),
        ("update -/secrets ns/env", false),
        ("get -/secrets other/csi", true),
        ("get -/secrets other/ctl", false),
        ("get -/configmaps ns/map", true),
        ("get -/configmaps ns/env", false),
        ("get -/persistentvolumeclaims ns/data", true),
        ("get -/persistentvolumeclaims ns/web-scratch", true),
        ("patch -/persistentvolumeclaims/status ns/data", true),
        ("get -/persistentvolumeclaims/status ns/data", false),
        ("get -/persistentvolumes -/pv", true),
        ("get -/persistentvolumes -/pv2", false),
        ("get storage.k8s.io/volumeattachments -/va", true),
        ("get -/serviceaccounts ns/sa", true),
        ("create -/serviceaccounts/token ns/sa", true),
        ("create -/serviceaccounts/token ns/default", false),
        ("get -/pods ns/web", true),
        ("get -/pods ns/other", false),
        ("list -/pods -/-", false),
        ("create -/pods ns/x", true),
        ("patch -/pods/status ns/web", true),
        ("create -/pods/eviction ns/web", true),
        ("create -/pods/exec ns/web", false),
        ("get -/nodes -/a", true),
        ("get -/nodes -/b", false),
        ("list -/nodes -/-", false),
        ("patch -/nodes/status -/a", true),
        ("delete -/nodes -/a", false),
        ("get coordination.k8s.io/leases kube-node-lease/a", true),
        ("get coordination.k8s.io/leases kube-node-lease/b", false),
        ("create coordination.k8s.io/leases kube-node-lease/-", true),
        ("create coordination.k8s.io/leases kube-system/a", false),
        ("list coordination.k8s.io/leases kube-node-lease/-", false),
        ("update storage.k8s.io/csinodes -/a", true),
        ("update storage.k8s.io/csinodes -/b", false),
        ("list -/services -/-", true),
        ("watch node.k8s.io/runtimeclasses -/-", true),
        ("create certificates.k8s.io/certificatesigningrequests -/-", true),
        ("list apps/deployments -/-", false),
    ] {
        assert_eq!(allows(&nodes, &node("a"), request).0, allowed, "{request}");
    }
    for request in ["get -/secrets ns/env", "get -/pods ns/web", "get -/persistentvolumes -/pv"] {
        let (allowed, reason) = allows(&nodes, &node("b"), request);
        assert!(!allowed, "{request}");
        assert_eq!(reason, "no relationship found between node 'b' and this object");
    }
}

#[test]
fn lists_of_pods_need_the_nodes_own_selector() {
    let nodes = authorizer();
    let user = node("a");
    for (value, allowed) in [("a", true), ("b", false)] {
        let values = vec![value.to_owned()];
        let fields = &[Requirement { key: "spec.nodeName".to_owned(), operator: Operator::In, values }][..];
        let selected = Selected { fields, labels: &[] };
        let attributes = Attributes { selected, ..Attributes::resource(&user, "watch", "", "pods") };
        assert_eq!(nodes.authorize(&attributes).is_allow(), allowed);
    }
}

#[test]
fn references_end_with_the_last_pod_that_has_them() {
    let nodes = authorizer();
    let reaches = || allows(&nodes, &node("a"), "get -/secrets ns/env").0;
    nodes.apply_pod(&pod("web2", "a"));
    nodes.delete_pod("ns", "web");
    assert!(reaches());
    let mut changed = pod("web2", "a");
    changed.spec.init_containers.clear();
    nodes.apply_pod(&changed);
    assert!(!reaches());
    nodes.delete_pod("ns", "web2");
    assert!(!allows(&nodes, &node("a"), "get -/persistentvolumes -/pv").0);
    nodes.delete_attachment("va");
    assert!(!allows(&nodes, &node("a"), "get storage.k8s.io/volumeattachments -/va").0);
}

#[test]
fn mirror_pods_give_a_node_nothing() {
    let nodes = NodeAuthorizer::new(Vec::new(), Features::default());
    let mut mirror = pod("web", "a");
    mirror.metadata.annotations.insert("kubernetes.io/config.mirror".to_owned(), "hash".to_owned());
    nodes.apply_pod(&mirror);
    assert!(allows(&nodes, &node("a"), "get -/pods ns/web").0);
    assert!(!allows(&nodes, &node("a"), "get -/secrets ns/env").0);
}

#[test]
fn users_outside_the_nodes_group_are_not_judged() {
    let nodes = authorizer();
    let mut outsider = node("a");
    outsider.groups.clear();
    assert_eq!(allows(&nodes, &outsider, "get -/secrets ns/env"), (false, String::new()));
    let nameless = node("");
    let reason = "unknown node for user \"system:node:\"";
    assert_eq!(allows(&nodes, &nameless, "get -/secrets ns/env"), (false, reason.to_owned()));
}

#[test]
fn nodes_see_the_requests_of_certificates_that_they_made() {
    let features = Features::parse(["PodCertificateRequest=true"]).unwrap();
    let requests = |features: &Features| {
        let nodes = NodeAuthorizer::new(bootstrap::node_rules(features), features.clone());
        let mut request = PodCertificateRequest::default();
        request.metadata.namespace = "ns".to_owned();
        request.metadata.name = "r".to_owned();
        request.spec.node_name = "a".to_owned();
        nodes.apply_certificate_request(&request);
        nodes
    };
    let nodes = requests(&features);
    let certificates = "certificates.k8s.io/podcertificaterequests";
    for (request, reason) in [
        (format!("get {certificates} ns/r"), ""),
        (format!("create {certificates} ns/-"), ""),
        (format!("get {certificates} ns/s"), "no relationship found between node 'a' and this object"),
        (
            format!("list {certificates} ns/-"),
            "can only list/watch podcertificaterequests with nodeName field selector",
        ),
        (format!("delete {certificates} ns/r"), "nodes may not delete podcertificaterequests"),
        (
            format!("update {certificates}/status ns/r"),
            "nodes may not access the status subresource of PodCertificateRequests",
        ),
    ] {
        assert_eq!(allows(&nodes, &node("a"), &request), (reason.is_empty(), reason.to_owned()), "{request}");
    }
    assert!(!allows(&nodes, &node("b"), &format!("get {certificates} ns/r")).0);
    nodes.delete_certificate_request("ns", "r");
    assert!(!allows(&nodes, &node("a"), &format!("get {certificates} ns/r")).0);
    assert!(!allows(&requests(&Features::default()), &node("a"), &format!("get {certificates} ns/r")).0);
}
