use std::sync::Arc;

use api::core::v1::{Container, ContainerResizePolicy, Pod};
use cri::v1;

use super::*;
use crate::observed::SeenSandbox;

const SECOND: Nanos = 1_000_000_000;

fn pod(policy: &str, init: &[(&str, bool)], regular: &[&str]) -> PodView {
    let mut pod = Pod::default();
    policy.clone_into(&mut pod.spec.restart_policy);
    pod.spec.init_containers = init
        .iter()
        .map(|(name, is_sidecar)| Container {
            name: (*name).to_owned(),
            restart_policy: is_sidecar.then(|| "Always".to_owned()),
            ..Container::default()
        })
        .collect();
    pod.spec.containers =
        regular.iter().map(|name| Container { name: (*name).to_owned(), ..Container::default() }).collect();
    PodView::new(Arc::new(pod))
}

fn ready_sandbox() -> Observed {
    let sandbox =
        SeenSandbox { id: "s".to_owned(), attempt: 0, is_ready: true, created_at: 1, ips: vec!["10.0.0.1".to_owned()] };
    Observed { sandboxes: vec![sandbox], containers: Vec::new() }
}

fn with(mut seen: Observed, name: &str, life: Life, exit_code: i32) -> Observed {
    let status = v1::ContainerStatus { exit_code, finished_at: SECOND, ..v1::ContainerStatus::default() };
    let container = SeenContainer {
        id: format!("id-{name}"),
        name: name.to_owned(),
        sandbox: "s".to_owned(),
        restarts: 0,
        life,
        status,
        is_revived: false,
    };
    seen.containers.push(container);
    seen
}

fn plan(view: &PodView, seen: &Observed, started: &[&str]) -> PodPlan {
    let healthy = Health { is_started: true, is_ready: true, ..Health::default() };
    let health = started.iter().map(|name| ((*name).to_owned(), healthy)).collect();
    let backoff = CrashBackoff::new(Duration::from_secs(300));
    let actuated = Allocation::of(&view.pod);
    plan_pod(&PlanInput { view, seen, health: &health, backoff: &backoff, actuated: &actuated, now: 2 * SECOND })
}

fn start(name: &str, restarts: u32) -> PodAction {
    PodAction::StartContainer { name: name.to_owned(), restarts, after: (restarts > 0).then_some(SECOND) }
}

#[test]
fn a_new_pod_gets_a_sandbox_first() {
    let plan = plan(&pod("Always", &[], &["a"]), &Observed::default(), &[]);
    assert_eq!(plan.actions, [PodAction::CreateSandbox(0)]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let view = pod("Always", &[("i", false), ("j", false)], &["a", "b"]);
    let seen = ready_sandbox();
    assert_eq!(plan(&view, &seen, &[]).actions, [start("i", 0)]);
    let seen = with(seen, "i", Life::Exited, 0);
    assert_eq!(plan(&view, &seen, &[]).actions, [start("j", 0)]);
    let running = with(seen.clone(), "j", Life::Running, 0);
    assert_eq!(plan(&view, &running, &[]).actions, []);
    let seen = with(seen, "j", Life::Exited, 0);
    assert_eq!(plan(&view, &seen, &[]).actions, [start("a", 0), start("b", 0)]);
}

#[test]
fn a_sidecar_is_waited_for_until_it_has_started_and_is_kept_alive() {
    let view = pod("Never", &[("s", true)], &["a"]);
    let running = with(ready_sandbox(), "s", Life::Running, 0);
    assert_eq!(plan(&view, &running, &[]).actions, []);
    assert_eq!(plan(&view, &running, &["s"]).actions, [start("a", 0)]);
    let crashed = with(with(ready_sandbox(), "s", Life::Exited, 1), "a", Life::Running, 0);
    assert_eq!(plan(&view, &crashed, &["a"]).actions, [start("s", 1)]);
}

#[test]
fn restart_policies_decide_about_the_end() {
    for (policy, exit_code, restarts) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let view = pod(policy, &[], &["a"]);
        let plan = plan(&view, &with(ready_sandbox(), "a", Life::Exited, exit_code), &[]);
        let expected = if restarts { vec![start("a", 1)] } else { Vec::new() };
        assert_eq!((plan.actions, plan.is_finished), (expected, !restarts), "{policy} {exit_code}");
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let view = pod("Never", &[("i", false)], &["a"]);
    assert!(plan(&view, &with(ready_sandbox(), "i", Life::Exited, 1), &[]).is_finished);
}

#[test]
fn a_lost_sandbox_is_replaced_and_init_containers_run_again() {
    let view = pod("Always", &[("i", false)], &["a"]);
    let mut seen = with(with(ready_sandbox(), "i", Life::Exited, 0), "a", Life::Exited, 137);
    seen.sandboxes[0].is_ready = false;
    let replaced = plan(&view, &seen, &[]);
    assert_eq!(replaced.actions, [PodAction::StopSandbox("s".to_owned()), PodAction::CreateSandbox(1)]);
    let fresh = SeenSandbox { id: "t".to_owned(), attempt: 1, is_ready: true, ..seen.sandboxes[0].clone() };
    seen.sandboxes.insert(0, fresh);
    assert_eq!(plan(&view, &seen, &[]).actions, [start("i", 1)]);
}

#[test]
fn a_dead_container_is_killed() {
    let view = pod("Always", &[], &["a"]);
    let seen = with(ready_sandbox(), "a", Life::Running, 0);
    let health = BTreeMap::from([("a".to_owned(), Health { is_dead: true, ..Health::default() })]);
    let backoff = CrashBackoff::new(Duration::from_secs(300));
    let actuated = &Allocation::of(&view.pod);
    let plan =
        plan_pod(&PlanInput { view: &view, seen: &seen, health: &health, backoff: &backoff, actuated, now: SECOND });
    let (id, name) = ("id-a".to_owned(), "a".to_owned());
    assert_eq!(plan.actions, [PodAction::KillContainer { id, name, reason: KillReason::Liveness, restarts: true }]);
}

#[test]
fn crashes_are_backed_off_and_forgotten_after_a_long_run() {
    let mut backoff = CrashBackoff::new(Duration::from_secs(300));
    assert_eq!(backoff.remaining("a", 0, 0), None);
    backoff.advance("a", 0, 0);
    assert_eq!(backoff.remaining("a", SECOND, 3 * SECOND), Some((Duration::from_secs(8), Duration::from_secs(10))));
    backoff.advance("a", SECOND, 11 * SECOND);
    let delay = |backoff: &CrashBackoff, at: Nanos| backoff.remaining("a", at, at).map(|(_, delay)| delay.as_secs());
    assert_eq!(delay(&backoff, 12 * SECOND), Some(20));
    for _ in 0..9 {
        backoff.advance("a", 12 * SECOND, 12 * SECOND);
    }
    assert_eq!(delay(&backoff, 13 * SECOND), Some(300));
    assert_eq!(delay(&backoff, 700 * SECOND), None);
}

fn asking(mut view: PodView, cpu: &str, policy: &str) -> PodView {
    let mut pod = Pod::clone(&view.pod);
    for container in &mut pod.spec.containers {
        container.resources.requests.insert("cpu".to_owned(), api::Quantity::new(cpu));
        container.resize_policy =
            vec![ContainerResizePolicy { resource_name: "cpu".to_owned(), restart_policy: policy.to_owned() }];
    }
    view = PodView::new(Arc::new(pod));
    view
}

#[test]
fn running_containers_get_other_resources_as_their_policy_says() {
    let before = asking(pod("OnFailure", &[], &["a"]), "1", "NotRequired");
    let backoff = CrashBackoff::new(Duration::from_secs(300));
    let healthy = Health { is_started: true, is_ready: true, ..Health::default() };
    let health = BTreeMap::from([("a".to_owned(), healthy)]);
    let actuated = Allocation::of(&before.pod);
    let plan = |view: &PodView, seen: &Observed| {
        let (health, backoff, actuated) = (&health, &backoff, &actuated);
        plan_pod(&PlanInput { view, seen, health, backoff, actuated, now: SECOND })
    };
    let up = with(ready_sandbox(), "a", Life::Running, 0);
    let same = asking(before.clone(), "1000m", "RestartContainer");
    assert_eq!(plan(&same, &up).actions, []);
    let in_place = asking(before.clone(), "2", "NotRequired");
    assert_eq!(plan(&in_place, &up).actions, [PodAction::Resize(vec!["a".to_owned()])]);
    let anew = asking(before, "2", "RestartContainer");
    let kill = PodAction::KillContainer {
        id: "id-a".to_owned(),
        name: "a".to_owned(),
        reason: KillReason::Resized,
        restarts: true,
    };
    assert_eq!(plan(&anew, &up).actions, [kill]);
    // It begins anew even if it ended well.
    let mut ended = with(ready_sandbox(), "a", Life::Exited, 0);
    assert!(plan(&anew, &ended).is_finished);
    ended.containers[0].is_revived = true;
    let start = PodAction::StartContainer { name: "a".to_owned(), restarts: 1, after: None };
    assert_eq!(plan(&anew, &ended).actions, [start]);
}
