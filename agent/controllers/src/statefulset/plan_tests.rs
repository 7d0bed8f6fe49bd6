use super::super::identity::REVISION_LABEL;
use super::*;

use api::apps::v1::{ControllerRevision, RollingUpdateStatefulSetStrategy};
use api::core::v1::PodCondition;
use api::meta::v1::Time;

fn set(replicas: i32, policy: &str) -> StatefulSet {
    let mut set = StatefulSet::default();
    set.metadata.name = "web".to_owned();
    set.spec.replicas = Some(replicas);
    set.spec.pod_management_policy = policy.to_owned();
    set.spec.update_strategy.r#type = "RollingUpdate".to_owned();
    set.spec.update_strategy.rolling_update =
        Some(RollingUpdateStatefulSetStrategy { partition: Some(0), ..Default::default() });
    set
}

fn pod(ordinal: i32, revision: &str, ready: bool) -> Arc<Pod> {
    let mut pod = make(&set(9, ""), ordinal, &PodTemplateSpec::default(), revision);
    pod.metadata.uid = format!("u{ordinal}");
    pod.status.phase = "Running".to_owned();
    let status = if ready { "True" } else { "False" }.to_owned();
    pod.status.conditions = vec![PodCondition { r#type: "Ready".to_owned(), status, ..Default::default() }];
    Arc::new(pod)
}

fn going(pod: &Arc<Pod>) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    pod.metadata.deletion_timestamp = Some(Time::from_unix(1));
    Arc::new(pod)
}

fn steps(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
    let revision = |name: &str| {
        let mut revision = ControllerRevision::default();
        revision.metadata.name = name.to_owned();
        Arc::new(revision)
    };
    let revisions = Revisions { current: revision("old"), update: revision("new"), all: Vec::new() };
    let plan = plan(set, pods, (&revisions, &PodTemplateSpec::default()), &|_: &str| None, 0);
    let told = |step: &Step| match step {
        Step::Create(pod) => format!("+{} {}", pod.metadata.name, pod.metadata.labels[REVISION_LABEL]),
        Step::Delete(pod) => format!("-{}", pod.metadata.name),
        Step::MakeClaims(pod) => format!("claims {}", pod.metadata.name),
        Step::Mend(pod) => format!("mend {}", pod.metadata.name),
        Step::Own(claim) => format!("own {}", claim.metadata.name),
    };
    plan.steps.iter().map(told).collect()
}

#[test]
fn pods_start_one_after_the_other() {
    let ordered = set(3, "OrderedReady");
    assert_eq!(steps(&ordered, &[]), ["+web-0 new"]);
    assert_eq!(steps(&ordered, &[pod(0, "new", false)]), Vec::<String>::new());
    assert_eq!(steps(&ordered, &[pod(0, "new", true)]), ["+web-1 new"]);
    assert_eq!(steps(&set(2, "Parallel"), &[]), ["+web-0 new", "+web-1 new"]);
}

#[test]
fn pods_end_in_reverse_and_only_while_all_work() {
    let ordered = set(1, "OrderedReady");
    let all = [pod(0, "new", true), pod(1, "new", true), pod(2, "new", true)];
    assert_eq!(steps(&ordered, &all), ["-web-2"]);
    assert!(steps(&ordered, &[all[0].clone(), all[1].clone(), going(&all[2])]).is_empty());
    assert!(steps(&ordered, &[pod(0, "new", false), all[1].clone()]).is_empty());
    assert!(steps(&ordered, &[all[0].clone(), pod(1, "new", false), all[2].clone()]).contains(&"-web-2".to_owned()));
    assert_eq!(steps(&set(1, "Parallel"), &all), ["-web-2", "-web-1"]);
}

#[test]
fn an_update_goes_from_the_last_to_the_partition() {
    let mut rolling = set(3, "OrderedReady");
    let old = [pod(0, "old", true), pod(1, "old", true), pod(2, "old", true)];
    assert_eq!(steps(&rolling, &old), ["-web-2"]);
    let waiting = [old[0].clone(), old[1].clone(), pod(2, "new", false)];
    assert!(steps(&rolling, &waiting).is_empty());
    let done = [old[0].clone(), old[1].clone(), pod(2, "new", true)];
    assert_eq!(steps(&rolling, &done), ["-web-1"]);
    rolling.spec.update_strategy.rolling_update.as_mut().unwrap().partition = Some(2);
    assert!(steps(&rolling, &done).is_empty());
    assert_eq!(steps(&rolling, &done[1..]), ["+web-0 old"]);
    rolling.spec.update_strategy.r#type = "OnDelete".to_owned();
    assert!(steps(&rolling, &old).is_empty());
}

#[test]
fn a_pod_that_ended_is_replaced() {
    let mut failed = (*pod(0, "new", false)).clone();
    failed.status.phase = "Failed".to_owned();
    assert_eq!(steps(&set(1, "OrderedReady"), &[Arc::new(failed)]), ["-web-0"]);
}
