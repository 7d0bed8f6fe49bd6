//! What rules come of which Services, as golden texts.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod support;

use proxy::{Config, Frame, Node, ServiceName, plan_service};
use support::{balanced, service, slice, sticky};

fn config() -> Config {
    Config {
        node_name: "here".into(),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        local_addresses: vec!["10.96.0.10".parse().unwrap()],
        ..Config::default()
    }
}

fn node() -> Node {
    Node { name: "here".into(), zone: None, local_addresses: config().local_addresses }
}

fn frame() -> Frame {
    Frame::new(&config(), &["172.30.0.1".parse().unwrap()])
}

fn name(name: &str) -> ServiceName {
    ServiceName::new("default", name)
}

/// The script's lines that are not the same for every rule set.
fn changed(frame: &mut Frame, name_of: &str, plan: proxy::ServicePlan) -> String {
    frame.update([(name(name_of), plan)]).as_str().to_owned()
}

#[test]
fn an_empty_rule_set() {
    insta::assert_snapshot!(frame().replace_script().as_str());
}

#[test]
fn a_cluster_address_in_both_families() {
    let service = service("web", "ClusterIP", &["10.96.1.1", "fd00:96::1"]);
    let slices = [slice("IPv4", &["10.244.1.5@here", "10.244.2.5"]), slice("IPv6", &["fd00:244::5"])];
    insta::assert_snapshot!(changed(&mut frame(), "web", plan_service(&service, &slices, &node())));
}

#[test]
fn one_more_endpoint_touches_one_element_and_the_choice() {
    let mut frame = frame();
    let service = service("web", "ClusterIP", &["10.96.1.1"]);
    let before = [slice("IPv4", &["10.244.1.5", "10.244.2.5"])];
    let after = [slice("IPv4", &["10.244.1.5", "10.244.1.1", "10.244.2.5"])];
    changed(&mut frame, "web", plan_service(&service, &before, &node()));
    insta::assert_snapshot!(changed(&mut frame, "web", plan_service(&service, &after, &node())));
    assert_eq!(changed(&mut frame, "web", plan_service(&service, &after, &node())), "");
    insta::assert_snapshot!("removed", changed(&mut frame, "web", proxy::ServicePlan::default()));
}

#[test]
fn endpoints_that_are_not_ready_do_not_count_unless_only_terminating_ones_are_left() {
    let service = service("web", "ClusterIP", &["10.96.1.1"]);
    let mixed = [slice("IPv4", &["10.244.1.5", "10.244.2.5!ready", "10.244.2.6!terminating"])];
    insta::assert_snapshot!("ready", changed(&mut frame(), "web", plan_service(&service, &mixed, &node())));
    let leaving = [slice("IPv4", &["10.244.2.5!ready", "10.244.2.6!terminating"])];
    insta::assert_snapshot!("terminating", changed(&mut frame(), "web", plan_service(&service, &leaving, &node())));
    let none = [slice("IPv4", &["10.244.2.5!ready"])];
    insta::assert_snapshot!("none", changed(&mut frame(), "web", plan_service(&service, &none, &node())));
}

#[test]
fn session_affinity_has_chains_of_its_own() {
    let service = sticky(service("web", "ClusterIP", &["10.96.1.1"]), 10);
    let slices = [slice("IPv4", &["10.244.1.5@here", "10.244.2.5"])];
    insta::assert_snapshot!(changed(&mut frame(), "web", plan_service(&service, &slices, &node())));
}

#[test]
fn a_load_balancer_with_source_ranges_a_node_port_and_an_external_address() {
    let mut service = balanced(service("web", "LoadBalancer", &["10.96.1.1"]), "192.0.2.7");
    service.spec.ports[0].node_port = 30080;
    service.spec.external_ips = vec!["198.51.100.1".into()];
    service.spec.load_balancer_source_ranges = vec!["203.0.113.0/24".into(), "2001:db8::/32".into()];
    let slices = [slice("IPv4", &["10.244.2.5"])];
    insta::assert_snapshot!(changed(&mut frame(), "web", plan_service(&service, &slices, &node())));
}

#[test]
fn local_policies_keep_to_this_nodes_endpoints() {
    let mut service = service("web", "NodePort", &["10.96.1.1"]);
    service.spec.ports[0].node_port = 30080;
    service.spec.external_traffic_policy = "Local".into();
    service.spec.internal_traffic_policy = Some("Local".into());
    let both = [slice("IPv4", &["10.244.1.5@here", "10.244.2.5"])];
    insta::assert_snapshot!("here", changed(&mut frame(), "web", plan_service(&service, &both, &node())));
    let elsewhere = [slice("IPv4", &["10.244.2.5"])];
    insta::assert_snapshot!("elsewhere", changed(&mut frame(), "web", plan_service(&service, &elsewhere, &node())));
}

#[test]
fn what_is_not_the_proxys_has_no_rules() {
    let slices = [slice("IPv4", &["10.244.2.5"])];
    let mut other = service("web", "ClusterIP", &["10.96.1.1"]);
    other.metadata.labels.insert("service.kubernetes.io/service-proxy-name".into(), "x".into());
    let unserved = [
        service("web", "ClusterIP", &["None"]),
        service("web", "ExternalName", &[]),
        service("dns", "ClusterIP", &["10.96.0.10"]),
        other,
    ];
    for service in unserved {
        assert_eq!(changed(&mut frame(), "web", plan_service(&service, &slices, &node())), "");
    }
}

#[test]
fn of_two_services_with_one_external_address_the_first_has_it_until_it_goes() {
    let mut frame = frame();
    let slices = [slice("IPv4", &["10.244.2.5"])];
    let plan = |name, address| {
        let mut service = service(name, "ClusterIP", &[address]);
        service.spec.external_ips = vec!["198.51.100.1".into()];
        plan_service(&service, &slices, &node())
    };
    assert!(changed(&mut frame, "a", plan("a", "10.96.1.1")).contains("198.51.100.1"));
    assert!(!changed(&mut frame, "b", plan("b", "10.96.1.2")).contains("198.51.100.1"));
    let handed_over = changed(&mut frame, "a", proxy::ServicePlan::default());
    assert!(
        handed_over.contains("add element ip kube-proxy service-ids { 198.51.100.1 . tcp . 80 : 0x40000002 }"),
        "{handed_over}"
    );
}
