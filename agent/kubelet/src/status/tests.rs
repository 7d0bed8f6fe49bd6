use std::sync::Arc;

use api::core::v1::{Container, Pod};
use cri::v1;

use super::*;
use crate::observed::SeenSandbox;

fn status_of(policy: &str, containers: &[(&str, Option<(Life, i32)>)], is_over: bool) -> PodStatus {
    let mut pod = Pod::default();
    policy.clone_into(&mut pod.spec.restart_policy);
    pod.spec.containers =
        containers.iter().map(|(name, _)| Container { name: (*name).to_owned(), ..Container::default() }).collect();
    let view = PodView::new(Arc::new(pod));
    let sandbox =
        SeenSandbox { id: "s".to_owned(), attempt: 0, is_ready: true, created_at: 1, ips: vec!["10.0.0.1".to_owned()] };
    let seen = containers.iter().filter_map(|(name, life)| {
        let (life, exit_code) = (*life)?;
        let status = v1::ContainerStatus { exit_code, started_at: 1, finished_at: 2, ..Default::default() };
        let (id, name, sandbox) = (format!("id-{name}"), (*name).to_owned(), "s".to_owned());
        Some(SeenContainer { id, name, sandbox, restarts: 0, life, status, is_revived: false })
    });
    let seen = Observed { sandboxes: vec![sandbox], containers: seen.collect() };
    let healthy = Health { is_started: true, is_ready: true, ..Health::default() };
    pod_status(&StatusInput {
        view: &view,
        seen: &seen,
        health: &containers.iter().map(|(name, _)| ((*name).to_owned(), healthy)).collect(),
        waiting: &BTreeMap::new(),
        starting: &BTreeSet::new(),
        messages: &BTreeMap::new(),
        verdict: None,
        resize: ResizeState { actuated: &Allocation::of(&view.pod), pending: None, failure: None, generation: 1 },
        is_over,
        host_ips: &["192.0.2.1".to_owned()],
        previous: &PodStatus::default(),
        now: 5_000_000_000,
    })
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> (&'a str, &'a str) {
    let found = status.conditions.iter().find(|c| c.r#type == kind).unwrap();
    (&found.status, &found.reason)
}

#[test]
fn phases_follow_the_containers() {
    let (up, done, failed) = (Some((Life::Running, 0)), Some((Life::Exited, 0)), Some((Life::Exited, 1)));
    for (policy, containers, is_over, phase) in [
        ("Always", vec![("a", None)], false, "Pending"),
        ("Always", vec![("a", up), ("b", None)], false, "Pending"),
        ("Always", vec![("a", up), ("b", failed)], false, "Running"),
        ("Always", vec![("a", failed)], false, "Running"),
        ("OnFailure", vec![("a", failed)], false, "Running"),
        ("OnFailure", vec![("a", done)], false, "Succeeded"),
        ("Never", vec![("a", done), ("b", failed)], false, "Failed"),
        ("Always", vec![("a", done)], true, "Succeeded"),
        ("Always", vec![("a", failed)], true, "Failed"),
    ] {
        assert_eq!(status_of(policy, &containers, is_over).phase, phase, "{policy} {containers:?} {is_over}");
    }
}

#[test]
fn a_running_pod_is_ready() {
    let status = status_of("Always", &[("a", Some((Life::Running, 0)))], false);
    assert_eq!(condition(&status, "Ready"), ("True", ""));
    assert_eq!(condition(&status, "PodReadyToStartContainers"), ("True", ""));
    assert_eq!((status.pod_ip.as_str(), status.host_ip.as_str()), ("10.0.0.1", "192.0.2.1"));
    assert!(status.container_statuses[0].ready);
}

#[test]
fn an_ended_pod_is_not_ready_and_says_why() {
    let status = status_of("Never", &[("a", Some((Life::Exited, 0)))], true);
    assert_eq!(condition(&status, "Ready"), ("False", "PodCompleted"));
    let end = status.container_statuses[0].state.terminated.clone().unwrap();
    assert_eq!((end.reason.as_str(), end.exit_code), ("Completed", 0));
}

#[test]
fn init_containers_wait_for_initialisation_and_resizes_are_told() {
    let mut pod = Pod::default();
    pod.spec.init_containers = vec![Container { name: "i".to_owned(), ..Container::default() }];
    let mut main = Container { name: "a".to_owned(), ..Container::default() };
    main.resources.requests.insert("cpu".to_owned(), api::Quantity::new("2"));
    pod.spec.containers = vec![main.clone()];
    let view = PodView::new(Arc::new(pod));
    main.resources.requests.insert("cpu".to_owned(), api::Quantity::new("1"));
    let had = BTreeMap::from([("a".to_owned(), main.resources.clone())]);
    let actuated = Allocation { pod: None, containers: had };
    let pending = PendingResize { reason: "Deferred", message: "later".to_owned(), generation: 7 };
    let status_when = |containers: Vec<SeenContainer>, is_over: bool| {
        let sandbox = SeenSandbox { id: "s".to_owned(), attempt: 0, is_ready: true, created_at: 1, ips: Vec::new() };
        pod_status(&StatusInput {
            view: &view,
            seen: &Observed { sandboxes: vec![sandbox], containers },
            health: &BTreeMap::new(),
            waiting: &BTreeMap::new(),
            starting: &BTreeSet::new(),
            messages: &BTreeMap::new(),
            verdict: None,
            resize: ResizeState { actuated: &actuated, pending: Some(&pending), failure: Some("busy"), generation: 6 },
            is_over,
            host_ips: &[],
            previous: &PodStatus::default(),
            now: 5_000_000_000,
        })
    };
    let reason = |status: &ContainerStatus| status.state.waiting.clone().map(|w| w.reason);
    let status_with = |containers| status_when(containers, false);
    let begin = status_with(Vec::new());
    assert_eq!(reason(&begin.init_container_statuses[0]).as_deref(), Some("PodInitializing"));
    assert_eq!(reason(&begin.container_statuses[0]).as_deref(), Some("PodInitializing"));
    assert_eq!(condition(&begin, "PodResizePending"), ("True", "Deferred"));
    assert!(!begin.conditions.iter().any(|c| c.r#type == "PodResizeInProgress"));

    let (id, name, sandbox) = ("id".to_owned(), "a".to_owned(), "s".to_owned());
    let status = v1::ContainerStatus { started_at: 1, ..Default::default() };
    let up = SeenContainer { id, name, sandbox, restarts: 0, life: Life::Running, status, is_revived: false };
    let running = status_with(vec![up]);
    assert_eq!(condition(&running, "PodResizeInProgress"), ("True", "Error"));
    let told = running.conditions.iter().find(|c| c.r#type == "PodResizeInProgress").unwrap();
    assert_eq!((told.message.as_str(), told.observed_generation), ("busy", 6));
    let container = &running.container_statuses[0];
    assert_eq!(container.allocated_resources["cpu"].string, "2");
    assert_eq!(container.resources.as_ref().unwrap().requests["cpu"].string, "1");

    let (id, name, sandbox) = ("id".to_owned(), "i".to_owned(), "s".to_owned());
    for (exit_code, waits) in [(1, true), (0, false)] {
        let status = v1::ContainerStatus { exit_code, started_at: 1, finished_at: 2, ..Default::default() };
        let (id, name, sandbox) = (id.clone(), name.clone(), sandbox.clone());
        let init = SeenContainer { id, name, sandbox, restarts: 0, life: Life::Exited, status, is_revived: false };
        let over = status_when(vec![init], true);
        assert_eq!(over.phase, "Failed");
        assert_eq!(over.container_statuses[0].state.waiting.is_some(), waits, "after {exit_code}");
    }
}
