use super::*;

use api::core::v1::{PodCondition, Taint};

fn set(strategy: (i32, i32)) -> DaemonSet {
    let number = |n: i32| Some(IntOrString { r#type: 0, int_val: n, str_val: String::new() });
    let mut set = DaemonSet::default();
    set.spec.update_strategy.r#type = "RollingUpdate".to_owned();
    set.spec.update_strategy.rolling_update = Some(api::apps::v1::RollingUpdateDaemonSet {
        max_unavailable: number(strategy.0),
        max_surge: number(strategy.1),
    });
    set
}

fn node(name: &str) -> Arc<Node> {
    let mut node = Node::default();
    node.metadata.name = name.to_owned();
    Arc::new(node)
}

fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
    let mut pod = Pod::default();
    pod.metadata.name = name.to_owned();
    pod.metadata.labels.insert(super::super::HASH_LABEL.to_owned(), hash.to_owned());
    pod.spec.node_name = node.to_owned();
    let status = if ready { "True" } else { "False" }.to_owned();
    pod.status.conditions = vec![PodCondition { r#type: "Ready".to_owned(), status, ..PodCondition::default() }];
    Arc::new(pod)
}

fn new_template() -> Template {
    Template { hash: "new".to_owned(), generation: None }
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_str()).collect()
}

#[test]
fn every_fitting_node_gets_one_pod() {
    let mut tainted = (*node("c")).clone();
    tainted.spec.taints = vec![Taint { key: "k".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }];
    let nodes = [node("a"), node("b"), Arc::new(tainted)];
    let pods = by_node(vec![pod("a1", "a", "new", true), pod("a2", "a", "new", true), pod("c1", "c", "new", true)]);
    let placed = place(&set((1, 0)), &nodes, &pods, &new_template(), 0);
    assert_eq!(placed.create, ["b"]);
    assert_eq!(names(&placed.delete), ["a2"]);
}

#[test]
fn a_pod_that_is_going_keeps_its_place() {
    let mut going = (*pod("a1", "a", "new", true)).clone();
    going.metadata.deletion_timestamp = Some(api::meta::v1::Time::from_unix(1));
    let placed = place(&set((1, 0)), &[node("a")], &by_node(vec![Arc::new(going)]), &new_template(), 0);
    assert!(placed.create.is_empty() && placed.delete.is_empty());
}

#[test]
fn old_pods_go_one_by_one_and_broken_ones_at_once() {
    let nodes = [node("a"), node("b"), node("c")];
    let pods = by_node(vec![pod("a1", "a", "old", true), pod("b1", "b", "old", true), pod("c1", "c", "old", true)]);
    assert_eq!(names(&roll(&set((1, 0)), &nodes, &pods, &new_template(), 0).delete), ["a1"]);
    let waiting = by_node(vec![pod("a2", "a", "new", false), pod("b1", "b", "old", true)]);
    assert!(roll(&set((1, 0)), &nodes, &waiting, &new_template(), 0).delete.is_empty());
    let broken = by_node(vec![pod("a2", "a", "new", false), pod("b1", "b", "old", false)]);
    assert_eq!(names(&roll(&set((1, 0)), &nodes, &broken, &new_template(), 0).delete), ["b1"]);
}

#[test]
fn with_surge_the_old_pod_stays_until_the_new_one_is_available() {
    let nodes = [node("a"), node("b")];
    let start = by_node(vec![pod("a1", "a", "old", true), pod("b1", "b", "old", true)]);
    let first = roll(&set((0, 1)), &nodes, &start, &new_template(), 0);
    assert_eq!((first.create.as_slice(), first.delete.len()), (["a".to_owned()].as_slice(), 0));
    let both = by_node(vec![pod("a1", "a", "old", true), pod("a2", "a", "new", false), pod("b1", "b", "old", true)]);
    let wait = roll(&set((0, 1)), &nodes, &both, &new_template(), 0);
    assert!(wait.create.is_empty() && wait.delete.is_empty());
    let done = by_node(vec![pod("a1", "a", "old", true), pod("a2", "a", "new", true), pod("b1", "b", "old", true)]);
    assert_eq!(names(&place(&set((0, 1)), &nodes, &done, &new_template(), 0).delete), ["a1"]);
}
