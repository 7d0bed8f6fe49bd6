//! Tables of pods, nodes and answers.

use std::sync::Arc;

use api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::*;
use crate::fixtures::{NodeBuilder, PodBuilder, node, pod};

/// A snapshot of these nodes and of these pods on them.
fn snapshot(nodes: Vec<NodeBuilder>, placed: Vec<(PodBuilder, &str)>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.apply_node(&node.build());
    }
    for (pod, node) in placed {
        snapshot.place_pod(pod.info(), node);
    }
    snapshot
}

/// The node, or the message without its beginning.
fn outcome(pod: &PodInfo, snapshot: &Snapshot) -> String {
    match decide(pod, snapshot, Search::default()) {
        Decision::Assign { node, .. } => node,
        Decision::Refuse(refusal) => {
            let message = refusal.message();
            message.split_once("available: ").map_or(message.clone(), |(_, reasons)| reasons.to_owned())
        }
    }
}

fn three() -> Vec<NodeBuilder> {
    ["n1", "n2", "n3"].map(|name| node(name).label("zone", &name.replace('n', "z"))).into()
}

#[test]
fn each_filter_refuses_in_upstreams_words() {
    let plain = || pod("p");
    let cases: Vec<(&str, Snapshot, Arc<PodInfo>, &str)> = vec![
        ("no nodes", snapshot(vec![], vec![]), plain().info(), "no nodes available to schedule pods"),
        (
            "cordoned",
            snapshot(vec![node("n1").with(|n| n.spec.unschedulable = true)], vec![]),
            plain().info(),
            "1 node(s) were unschedulable.",
        ),
        (
            "cordoned but tolerated",
            snapshot(vec![node("n1").with(|n| n.spec.unschedulable = true)], vec![]),
            plain().tolerates("node.kubernetes.io/unschedulable").info(),
            "n1",
        ),
        (
            "tainted",
            snapshot(vec![node("n1").taint("k", "NoSchedule"), node("n2").taint("k", "NoExecute")], vec![]),
            plain().info(),
            "2 node(s) had untolerated taint(s).",
        ),
        ("soft taint", snapshot(vec![node("n1").taint("k", "PreferNoSchedule")], vec![]), plain().info(), "n1"),
        (
            "soft taint avoided",
            snapshot(vec![node("n1").taint("k", "PreferNoSchedule"), node("n2")], vec![]),
            plain().info(),
            "n2",
        ),
        ("tolerated", snapshot(vec![node("n1").taint("k", "NoSchedule")], vec![]), plain().tolerates("k").info(), "n1"),
        (
            "selector",
            snapshot(three(), vec![]),
            plain().selector("zone", "elsewhere").info(),
            "3 node(s) didn't match Pod's node affinity/selector.",
        ),
        ("selector met", snapshot(three(), vec![]), plain().selector("zone", "z2").info(), "n2"),
        ("affinity met", snapshot(three(), vec![]), plain().node_affinity("zone", &["z3", "z9"]).info(), "n3"),
        (
            "affinity and selector both count",
            snapshot(three(), vec![]),
            plain().node_affinity("zone", &["z3"]).selector("zone", "z1").info(),
            "3 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            "ports",
            snapshot(vec![node("n1")], vec![(pod("a").host_port(80), "n1")]),
            plain().host_port(80).info(),
            "1 node(s) didn't have free ports for the requested pod ports.",
        ),
        (
            "other port",
            snapshot(vec![node("n1")], vec![(pod("a").host_port(80), "n1")]),
            plain().host_port(81).info(),
            "n1",
        ),
        (
            "resources",
            snapshot(vec![node("n1").cpu("1"), node("n2").resource("memory", "1Gi")], vec![]),
            plain().cpu("2").memory("2Gi").info(),
            "1 Insufficient cpu, 1 Insufficient memory.",
        ),
        (
            "resources in use",
            snapshot(vec![node("n1").cpu("1")], vec![(pod("a").cpu("600m"), "n1")]),
            plain().cpu("500m").info(),
            "1 Insufficient cpu.",
        ),
        (
            "extended resource",
            snapshot(vec![node("n1"), node("n2").resource("example.com/gpu", "1")], vec![]),
            plain().request("example.com/gpu", "2").info(),
            "2 Insufficient example.com/gpu.",
        ),
        (
            "pods",
            snapshot(vec![node("n1").resource("pods", "1")], vec![(pod("a"), "n1")]),
            plain().info(),
            "1 Too many pods.",
        ),
        (
            "everything at once",
            snapshot(vec![node("n1").cpu("1"), node("n2").taint("k", "NoSchedule"), node("n3").cpu("1")], vec![]),
            plain().cpu("2").info(),
            "1 node(s) had untolerated taint(s), 2 Insufficient cpu.",
        ),
    ];
    for (name, snapshot, pod, expected) in cases {
        assert_eq!(outcome(&pod, &snapshot), expected, "{name}");
    }
}

#[test]
fn claims_decide_before_and_about_nodes() {
    let mut snapshot = snapshot(three(), vec![]);
    let wanted = pod("p").claim("data").info();
    assert_eq!(outcome(&wanted, &snapshot), "persistentvolumeclaim \"data\" not found.");
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.namespace = "default".to_owned();
    claim.metadata.name = "data".to_owned();
    snapshot.volumes.apply_claim(&claim);
    assert_eq!(outcome(&wanted, &snapshot), "pod has unbound immediate PersistentVolumeClaims.");
    claim.spec.volume_name = "pv".to_owned();
    claim.metadata.annotations.insert("pv.kubernetes.io/bind-completed".to_owned(), "yes".to_owned());
    snapshot.volumes.apply_claim(&claim);
    let missing = "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"pv\".";
    assert_eq!(outcome(&wanted, &snapshot), missing);
    let mut volume = PersistentVolume::default();
    volume.metadata.name = "pv".to_owned();
    let required = pod("x").node_affinity("zone", &["z2"]).0.spec.affinity.unwrap().node_affinity.unwrap();
    volume.spec.node_affinity = Some(api::core::v1::VolumeNodeAffinity {
        required: required.required_during_scheduling_ignored_during_execution,
    });
    snapshot.volumes.apply_volume(&volume);
    assert_eq!(outcome(&wanted, &snapshot), "n2");
    let elsewhere = pod("p").claim("data").selector("zone", "z1").info();
    assert_eq!(
        outcome(&elsewhere, &snapshot),
        "1 node(s) didn't match PersistentVolume's node affinity, \
         2 node(s) didn't match Pod's node affinity/selector."
    );
}

fn web(name: &str) -> PodBuilder {
    pod(name).label("app", "web")
}

#[test]
fn hard_spread_keeps_the_skew() {
    let placed = || vec![(web("a"), "n1"), (web("b"), "n2")];
    let wanted = web("p").spread("zone", "DoNotSchedule", "web").info();
    assert_eq!(outcome(&wanted, &snapshot(three(), placed())), "n3");
    // A zone that is full up otherwise still counts as empty.
    let mut nodes = three();
    nodes[2] = node("n3").label("zone", "z3").cpu("0");
    let wanted = web("p").cpu("1").spread("zone", "DoNotSchedule", "web").info();
    assert_eq!(
        outcome(&wanted, &snapshot(nodes, placed())),
        "1 Insufficient cpu, 2 node(s) didn't match pod topology spread constraints."
    );
    // Zones the pod may not go to do not count.
    let wanted = web("p").node_affinity("zone", &["z1", "z2"]).spread("zone", "DoNotSchedule", "web").info();
    assert!(["n1", "n2"].contains(&outcome(&wanted, &snapshot(three(), placed())).as_str()));
    let unlabelled = snapshot(vec![node("n1")], vec![]);
    let wanted = web("p").spread("zone", "DoNotSchedule", "web").info();
    assert_eq!(
        outcome(&wanted, &unlabelled),
        "1 node(s) didn't match pod topology spread constraints (missing required label)."
    );
}

#[test]
fn soft_spread_and_owners_prefer_empty_domains() {
    let placed = || vec![(web("a").owner("rs"), "n1"), (web("b").owner("rs"), "n3")];
    let wanted = web("p").spread("zone", "ScheduleAnyway", "web").info();
    assert_eq!(outcome(&wanted, &snapshot(three(), placed())), "n2");
    assert_eq!(outcome(&web("p").owner("rs").info(), &snapshot(three(), placed())), "n2");
}

#[test]
fn pods_keep_together_and_apart() {
    let state = || snapshot(three(), vec![(web("a"), "n2"), (pod("d").apart_from("loud", "zone"), "n3")]);
    let loud = |name| pod(name).label("app", "loud");
    let cases: Vec<(&str, Arc<PodInfo>, &str)> = vec![
        ("near", pod("p").near("web", "zone").info(), "n2"),
        ("near itself", loud("p").near("loud", "zone").selector("zone", "z1").info(), "n1"),
        ("near nobody", pod("p").near("nobody", "zone").info(), "3 node(s) didn't match pod affinity rules."),
        (
            "apart",
            pod("p").apart_from("web", "zone").selector("zone", "z2").info(),
            "1 node(s) didn't match pod anti-affinity rules, 2 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            "refused by a pod there",
            loud("p").selector("zone", "z3").info(),
            "1 node(s) didn't satisfy existing pods anti-affinity rules, \
             2 node(s) didn't match Pod's node affinity/selector.",
        ),
        ("rather near", pod("p").rather_near("web", "zone").info(), "n2"),
    ];
    for (name, pod, expected) in cases {
        assert_eq!(outcome(&pod, &state()), expected, "{name}");
    }
}

#[test]
fn other_namespaces_do_not_count_unless_named() {
    let elsewhere = web("a").with(|pod| pod.metadata.namespace = "other".to_owned());
    let state = snapshot(three(), vec![(elsewhere, "n2")]);
    let message = "3 node(s) didn't match pod affinity rules.";
    assert_eq!(outcome(&pod("p").near("web", "zone").info(), &state), message);
    let named = pod("p").near("web", "zone").with(|pod| {
        let affinity = pod.spec.affinity.as_mut().unwrap().pod_affinity.as_mut().unwrap();
        affinity.required_during_scheduling_ignored_during_execution[0].namespaces.push("other".to_owned());
    });
    assert_eq!(outcome(&named.info(), &state), "n2");
}

#[test]
fn the_emptier_node_is_better() {
    let state = snapshot(three(), vec![(pod("a").cpu("2"), "n1"), (pod("b").cpu("1"), "n3")]);
    assert_eq!(outcome(&pod("p").cpu("1").memory("2Gi").info(), &state), "n2");
}

#[test]
fn a_node_with_the_images_is_better() {
    let with_image = |n: NodeBuilder| {
        n.with(|node| {
            node.status.images.push(api::core::v1::ContainerImage {
                names: vec!["registry/big:1".to_owned()],
                size_bytes: 2_000_000_000,
            });
        })
    };
    let state = snapshot(vec![node("n1"), with_image(node("n2")), node("n3")], vec![]);
    let wanted = pod("p").with(|pod| pod.spec.containers[0].image = "registry/big:1".to_owned());
    assert_eq!(outcome(&wanted.info(), &state), "n2");
}

#[test]
fn room_made_for_others_is_theirs() {
    let mut state = snapshot(vec![node("n1").cpu("1")], vec![]);
    let nominated = pod("important").cpu("1").priority(10).nominated("n1").info();
    state.nominate(&nominated, "n1");
    assert_eq!(outcome(&pod("p").cpu("1").info(), &state), "1 Insufficient cpu.");
    assert_eq!(outcome(&pod("p").cpu("1").priority(11).info(), &state), "n1");
    assert_eq!(outcome(&nominated, &state), "n1");
}

#[test]
fn large_clusters_are_searched_in_part_and_in_turn() {
    let nodes: Vec<NodeBuilder> = (0..1000).map(|number| node(&format!("n{number:04}"))).collect();
    let state = snapshot(nodes, vec![]);
    let search = Search { start: 990, percentage: 0, seed: 0 };
    let Decision::Assign { examined, .. } = decide(&pod("p").info(), &state, search) else { panic!("refused") };
    assert_eq!(examined, 420);
}

#[test]
fn ties_end_differently() {
    let state = snapshot(three(), vec![]);
    let chosen: std::collections::BTreeSet<String> = (0..3)
        .filter_map(|seed| match decide(&pod("p").info(), &state, Search { seed, ..Search::default() }) {
            Decision::Assign { node, .. } => Some(node),
            Decision::Refuse(_) => None,
        })
        .collect();
    assert_eq!(chosen.len(), 3);
}
