//! What a failed pod means for its job, and when a job has succeeded early.

use api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy};
use api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;

/// What the rules say about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts as any failure.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The job has failed, for this reason.
    FailJob(String),
}

/// The verdict of the first rule that matches; without one the failure counts.
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let rules = job.spec.pod_failure_policy.as_ref().map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let Some(what) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "Count" => Verdict::Count,
            "FailJob" => Verdict::FailJob(format!("{what} matching FailJob rule at index {index}")),
            _ => continue,
        };
    }
    Verdict::Count
}

/// Whether the rule speaks about this pod: what it found.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
    if let Some(codes) = &rule.on_exit_codes {
        let status = &pod.status;
        let mut containers = status.container_statuses.iter().chain(&status.init_container_statuses);
        let (container, code) = containers.find_map(|c| Some((&c.name, failing_code(c, codes)?)))?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let wanted =
        |kind: &str, status: &str| rule.on_pod_conditions.iter().any(|p| p.r#type == kind && p.status == status);
    let condition = pod.status.conditions.iter().find(|c| wanted(&c.r#type, &c.status))?;
    Some(format!("Pod {name} has condition {}", condition.r#type))
}

fn failing_code(container: &ContainerStatus, codes: &PodFailurePolicyOnExitCodesRequirement) -> Option<i32> {
    let code = container.state.terminated.as_ref()?.exit_code;
    let named = codes.container_name.as_ref().is_none_or(|name| *name == container.name);
    let listed = codes.values.contains(&code);
    let matching = match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (named && code != 0 && matching).then_some(code)
}

/// Whether enough indexes have succeeded by a rule: which one.
pub(super) fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    let rules = policy.map(|policy| policy.rules.as_slice()).filter(|_| succeeded.total() > 0)?;
    let met = rules.iter().position(|rule| match &rule.succeeded_indexes {
        Some(text) => {
            let required = Indexes::parse(text, completions);
            let have = required.common(succeeded);
            required.total() > 0 && (have == required.total() || rule.succeeded_count.is_some_and(|n| have >= n))
        }
        None => rule.succeeded_count.is_some_and(|n| succeeded.total() >= n),
    });
    met.map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, SuccessPolicyRule};
    use api::core::v1::{ContainerStateTerminated, PodCondition};

    use super::*;

    fn failed(code: i32) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = "n".to_owned();
        pod.metadata.name = "p".to_owned();
        let mut status = ContainerStatus { name: "c".to_owned(), ..Default::default() };
        status.state.terminated = Some(ContainerStateTerminated { exit_code: code, ..Default::default() });
        pod.status.container_statuses = vec![status];
        pod
    }

    fn job(rules: Vec<PodFailurePolicyRule>) -> Job {
        let mut job = Job::default();
        job.spec.pod_failure_policy = Some(PodFailurePolicy { rules });
        job
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let codes = |operator: &str, values: &[i32], action: &str| PodFailurePolicyRule {
            action: action.to_owned(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                operator: operator.to_owned(),
                values: values.to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let job =
            job(vec![codes("In", &[2], "Ignore"), codes("In", &[3], "FailJob"), codes("NotIn", &[5], "FailIndex")]);
        assert_eq!(judge(&job, &failed(2)), Verdict::Ignore);
        let why = "Container c for pod n/p failed with exit code 3 matching FailJob rule at index 1";
        assert_eq!(judge(&job, &failed(3)), Verdict::FailJob(why.to_owned()));
        assert_eq!(judge(&job, &failed(4)), Verdict::FailIndex);
        assert_eq!(judge(&job, &failed(5)), Verdict::Count);
        assert_eq!(judge(&job, &failed(0)), Verdict::Count);
    }

    #[test]
    fn conditions_are_compared_with_their_status() {
        let pattern =
            PodFailurePolicyOnPodConditionsPattern { r#type: "DisruptionTarget".to_owned(), status: "True".to_owned() };
        let rule = PodFailurePolicyRule {
            action: "Ignore".to_owned(),
            on_pod_conditions: vec![pattern],
            ..Default::default()
        };
        let job = job(vec![rule]);
        let mut pod = failed(1);
        assert_eq!(judge(&job, &pod), Verdict::Count);
        pod.status.conditions = vec![PodCondition {
            r#type: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            ..Default::default()
        }];
        assert_eq!(judge(&job, &pod), Verdict::Ignore);
    }

    #[test]
    fn a_job_succeeds_early_by_a_rule() {
        let rule = |indexes: Option<&str>, count| SuccessPolicyRule {
            succeeded_indexes: indexes.map(str::to_owned),
            succeeded_count: count,
        };
        let policy = SuccessPolicy { rules: vec![rule(Some("0-2"), Some(2)), rule(None, Some(4))] };
        let of = |text: &str| success(Some(&policy), 10, &Indexes::parse(text, 10));
        assert_eq!(of("0"), None);
        assert_eq!(of("0,2").as_deref(), Some("Matched rules at index 0"));
        assert_eq!(of("3-6").as_deref(), Some("Matched rules at index 1"));
    }
}
