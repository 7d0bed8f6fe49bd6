use std::collections::HashSet;

use api::batch::v1::Job;

use super::super::track;
use super::*;

fn job(parallelism: i32, completions: Option<i32>) -> Job {
    let mut job = Job::default();
    job.metadata.name = "j".to_owned();
    job.metadata.uid = "ju".to_owned();
    job.spec.parallelism = Some(parallelism);
    job.spec.completions = completions;
    job.spec.backoff_limit = Some(2);
    job.spec.template.spec.restart_policy = "Never".to_owned();
    job
}

fn indexed(parallelism: i32, completions: i32) -> Job {
    let mut job = job(parallelism, Some(completions));
    job.spec.completion_mode = Some("Indexed".to_owned());
    job
}

fn pod(name: &str, phase: &str, index: Option<i32>) -> Arc<Pod> {
    let mut pod = Pod::default();
    pod.metadata.name = name.to_owned();
    pod.metadata.uid = name.to_owned();
    pod.metadata.finalizers = vec![FINALIZER.to_owned()];
    pod.status.phase = phase.to_owned();
    if let Some(index) = index {
        pod.metadata.annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    }
    Arc::new(pod)
}

fn view(job: &Job, pods: &[Arc<Pod>]) -> View {
    View::observe(job, pods.to_vec(), HashSet::new(), backoff::Record::default(), 10_000)
}

fn created(view: &View) -> usize {
    match manage(view) {
        Manage::Create(pods) => pods.len(),
        Manage::Keep | Manage::Delete(_) | Manage::Wait(_) => 0,
    }
}

#[test]
fn no_more_pods_run_than_are_needed() {
    assert_eq!(created(&view(&job(3, Some(5)), &[])), 3);
    assert_eq!(created(&view(&job(3, Some(5)), &[pod("a", "Running", None)])), 2);
    let mostly: Vec<_> = ["a", "b", "c", "d"].iter().map(|n| pod(n, "Succeeded", None)).collect();
    assert_eq!(created(&view(&job(3, Some(5)), &mostly)), 1);
    assert_eq!(created(&view(&job(3, None), &[pod("a", "Succeeded", None)])), 0);
    let many = [pod("a", "Running", None), pod("b", "Running", None)];
    assert!(matches!(manage(&view(&job(1, Some(5)), &many)), Manage::Delete(pods) if pods.len() == 1));
}

#[test]
fn a_suspended_job_has_no_active_pods() {
    let mut job = job(1, Some(1));
    job.spec.suspend = Some(true);
    assert!(matches!(manage(&view(&job, &[pod("a", "Running", None)])), Manage::Delete(_)));
    assert_eq!(manage(&view(&job, &[])), Manage::Keep);
}

#[test]
fn every_index_gets_its_pod_and_only_one() {
    let mut job = indexed(3, 4);
    job.status.completed_indexes = "1".to_owned();
    let Manage::Create(pods) = manage(&view(&job, &[pod("a", "Running", Some(0))])) else { panic!("creates") };
    let names: Vec<_> = pods.iter().map(|pod| pod.metadata.generate_name.as_str()).collect();
    assert_eq!(names, ["j-2-", "j-3-"]);
    assert_eq!(pods[0].spec.hostname, "j-2");
    let twice = [pod("a", "Running", Some(0)), pod("b", "Running", Some(0)), pod("c", "Running", Some(9))];
    assert!(matches!(manage(&view(&job, &twice)), Manage::Delete(pods) if pods.len() == 2));
}

#[test]
fn too_many_failures_end_the_job() {
    let failed: Vec<_> = ["a", "b", "c"].iter().map(|n| pod(n, "Failed", None)).collect();
    assert_eq!(judge_end(&view(&job(1, Some(1)), &failed[..2])), None);
    assert_eq!(judge_end(&view(&job(1, Some(1)), &failed)).unwrap().reason, "BackoffLimitExceeded");
}

#[test]
fn failures_of_an_index_are_handed_on_to_the_next_pod() {
    let mut job = indexed(1, 1);
    job.spec.backoff_limit = Some(i32::MAX);
    job.spec.backoff_limit_per_index = Some(1);
    let first = view(&job, &[pod("a", "Failed", Some(0))]);
    assert_eq!(judge_end(&first), None);
    let Manage::Create(pods) = manage(&first) else { panic!("creates") };
    assert_eq!(pods[0].metadata.annotations[FAILURE_COUNT], "1");
    let mut last = (*pod("b", "Failed", Some(0))).clone();
    last.metadata.annotations.insert(FAILURE_COUNT.to_owned(), "1".to_owned());
    assert_eq!(judge_end(&view(&job, &[Arc::new(last)])).unwrap().reason, "FailedIndexes");
}

#[test]
fn a_pod_is_counted_once_and_the_job_ends_after_it() {
    let mut seen = view(&job(1, Some(1)), &[pod("a", "Succeeded", None)]);
    seen.finished = judge_success(&seen, 0);
    let tracked = track::enter(&mut seen);
    assert_eq!((tracked.release.len(), tracked.flush), (1, true));
    assert_eq!(seen.job.status.uncounted_terminated_pods.as_ref().unwrap().succeeded, ["a"]);
    assert!(!track::end(&mut seen), "the pod is not counted yet");
    assert!(track::settle(&mut seen, &HashSet::new()));
    assert_eq!(seen.job.status.succeeded, 1);
    assert!(track::end(&mut seen));
    let kinds: Vec<_> = seen.job.status.conditions.iter().map(|c| c.r#type.as_str()).collect();
    assert_eq!(kinds, [SUCCESS_MET, COMPLETE]);
}

#[test]
fn a_failed_job_says_so_before_its_pods_are_released() {
    let pods =
        [pod("a", "Failed", None), pod("b", "Failed", None), pod("c", "Failed", None), pod("d", "Running", None)];
    let mut seen = view(&job(1, Some(1)), &pods);
    seen.finished = judge_end(&seen);
    let tracked = track::enter(&mut seen);
    assert_eq!(tracked.release.len(), 4);
    assert_eq!(seen.job.status.conditions[0].r#type, FAILURE_TARGET);
    assert_eq!(seen.finished.as_ref().unwrap().r#type, FAILED);
    track::settle(&mut seen, &HashSet::new());
    assert_eq!(seen.job.status.failed, 4);
}
