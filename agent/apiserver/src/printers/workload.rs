//! What makes pods, and what limits taking them away.

use api::IntOrString;
use api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use api::batch::v1::{CronJob, Job};
use api::core::v1::{PodTemplate, ReplicationController};
use api::meta::v1::OwnerReference;
use api::policy::v1::PodDisruptionBudget;
use api::scheduling::v1alpha2::{PodGroup, Workload};

use super::cell::{Cell, age};
use super::cells;
use super::text::{Stamp as _, containers, duration, flag, labels, selector, selector_or_none};

pub(super) fn workload(object: &Workload) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), age(&object.metadata.creation_timestamp)]
}

pub(super) fn pod_group(object: &PodGroup) -> Vec<Cell> {
    let (spec, conditions) = (&object.spec, &object.status.conditions);
    // Of conditions of one type the last counts.
    let condition = |kind: &str| conditions.iter().rev().find(|condition| condition.r#type == kind);
    let state = match (condition("DisruptionTarget"), condition("PodGroupScheduled")) {
        (Some(disrupted), _) => &disrupted.reason,
        (None, Some(scheduled)) if scheduled.status == "True" => "Scheduled",
        (None, Some(_)) => "Unschedulable",
        (None, None) => "Pending",
    };
    let workload = spec.pod_group_template_ref.as_ref().and_then(|reference| reference.workload.as_ref());
    cells![
        object.metadata.name.as_str(),
        if spec.scheduling_policy.gang.is_some() { "Gang" } else { "Basic" },
        workload.map_or("<none>", |workload| &workload.workload_name),
        state,
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn pod_template(object: &PodTemplate) -> Vec<Cell> {
    let (names, images) = containers(&object.template.spec.containers);
    cells![object.metadata.name.as_str(), names, images, labels(&object.template.metadata.labels)]
}

pub(super) fn replication_controller(object: &ReplicationController) -> Vec<Cell> {
    let template = object.spec.template.as_ref();
    let (names, images) = containers(template.map_or(&[], |t| &t.spec.containers));
    cells![
        object.metadata.name.as_str(),
        object.spec.replicas.unwrap_or(0),
        object.status.replicas,
        object.status.ready_replicas,
        age(&object.metadata.creation_timestamp),
        names,
        images,
        labels(&object.spec.selector),
    ]
}

pub(super) fn replica_set(object: &ReplicaSet) -> Vec<Cell> {
    let (names, images) = containers(&object.spec.template.spec.containers);
    cells![
        object.metadata.name.as_str(),
        object.spec.replicas.unwrap_or(0),
        object.status.replicas,
        object.status.ready_replicas,
        age(&object.metadata.creation_timestamp),
        names,
        images,
        selector_or_none(object.spec.selector.as_ref()),
    ]
}

pub(super) fn deployment(object: &Deployment) -> Vec<Cell> {
    let (names, images) = containers(&object.spec.template.spec.containers);
    cells![
        object.metadata.name.as_str(),
        format!("{}/{}", object.status.ready_replicas, object.spec.replicas.unwrap_or(0)),
        object.status.updated_replicas,
        object.status.available_replicas,
        age(&object.metadata.creation_timestamp),
        names,
        images,
        selector(object.spec.selector.as_ref()).unwrap_or_else(|| "<invalid>".to_owned()),
    ]
}

pub(super) fn stateful_set(object: &StatefulSet) -> Vec<Cell> {
    let (names, images) = containers(&object.spec.template.spec.containers);
    cells![
        object.metadata.name.as_str(),
        format!("{}/{}", object.status.ready_replicas, object.spec.replicas.unwrap_or(0)),
        age(&object.metadata.creation_timestamp),
        names,
        images,
    ]
}

pub(super) fn daemon_set(object: &DaemonSet) -> Vec<Cell> {
    let (names, images) = containers(&object.spec.template.spec.containers);
    let status = &object.status;
    cells![
        object.metadata.name.as_str(),
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled,
        status.number_available,
        labels(&object.spec.template.spec.node_selector),
        age(&object.metadata.creation_timestamp),
        names,
        images,
        selector_or_none(object.spec.selector.as_ref()),
    ]
}

pub(super) fn controller_revision(object: &ControllerRevision) -> Vec<Cell> {
    let controller = object.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
    cells![
        object.metadata.name.as_str(),
        controller.map_or_else(|| "<none>".to_owned(), owner_name),
        object.revision,
        age(&object.metadata.creation_timestamp),
    ]
}

/// `kind.group/name`.
fn owner_name(owner: &OwnerReference) -> String {
    let kind = match owner.api_version.split_once('/') {
        Some((group, _)) if !group.is_empty() => format!("{}.{group}", owner.kind),
        _ => owner.kind.clone(),
    };
    match kind.to_lowercase() {
        none if none.is_empty() => owner.name.clone(),
        kind => format!("{kind}/{}", owner.name),
    }
}

/// A job's states, the most telling first: name shown, condition type.
const JOB_ENDED: [(&str, &str); 2] = [("Complete", "Complete"), ("Failed", "Failed")];
const JOB_STATES: [(&str, &str); 3] =
    [("Suspended", "Suspended"), ("FailureTarget", "FailureTarget"), ("SuccessCriteriaMet", "SuccessCriteriaMet")];

pub(super) fn job(object: &Job) -> Vec<Cell> {
    let (names, images) = containers(&object.spec.template.spec.containers);
    let succeeded = object.status.succeeded;
    let completions = match (object.spec.completions, object.spec.parallelism.unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let took = match (&object.status.start_time, &object.status.completion_time) {
        (None, _) => "".into(),
        (Some(start), None) => age(start),
        (Some(start), Some(end)) => {
            duration(end.in_nanos().unwrap_or(0).saturating_sub(start.in_nanos().unwrap_or(0))).into()
        }
    };
    cells![
        object.metadata.name.as_str(),
        job_status(object),
        completions,
        took,
        age(&object.metadata.creation_timestamp),
        names,
        images,
        selector_or_none(object.spec.selector.as_ref()),
    ]
}

fn job_status(object: &Job) -> &'static str {
    let holds = |name: &str| {
        let condition = object.status.conditions.iter().find(|c| c.r#type == name);
        condition.is_some_and(|c| c.status == "True")
    };
    let first = |states: &[(&'static str, &str)]| states.iter().find(|(_, name)| holds(name)).map(|(shown, _)| *shown);
    let terminating = object.metadata.deletion_timestamp.as_ref().map(|_| "Terminating");
    first(&JOB_ENDED).or(terminating).or_else(|| first(&JOB_STATES)).unwrap_or("Running")
}

pub(super) fn cron_job(object: &CronJob) -> Vec<Cell> {
    let template = &object.spec.job_template.spec;
    let (names, images) = containers(&template.template.spec.containers);
    cells![
        object.metadata.name.as_str(),
        object.spec.schedule.as_str(),
        object.spec.time_zone.as_deref().unwrap_or("<none>"),
        flag(object.spec.suspend),
        object.status.active.len(),
        object.status.last_schedule_time.as_ref().map_or_else(|| "<none>".into(), age),
        age(&object.metadata.creation_timestamp),
        names,
        images,
        selector_or_none(template.selector.as_ref()),
    ]
}

pub(super) fn pod_disruption_budget(object: &PodDisruptionBudget) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        number_or_percent(object.spec.min_available.as_ref()),
        number_or_percent(object.spec.max_unavailable.as_ref()),
        object.status.disruptions_allowed,
        age(&object.metadata.creation_timestamp),
    ]
}

fn number_or_percent(value: Option<&IntOrString>) -> String {
    match value {
        None => "N/A".to_owned(),
        Some(value) if value.r#type == 1 => value.str_val.clone(),
        Some(value) => value.int_val.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use api::batch::v1::JobCondition;
    use api::meta::v1::Time;

    use super::*;

    fn condition(name: &str) -> JobCondition {
        JobCondition { r#type: name.into(), status: "True".into(), ..JobCondition::default() }
    }

    #[test]
    fn a_jobs_end_outweighs_its_deletion() {
        let mut object = Job::default();
        assert_eq!(job_status(&object), "Running");
        object.status.conditions.push(condition("Suspended"));
        assert_eq!(job_status(&object), "Suspended");
        object.metadata.deletion_timestamp = Some(Time::from_unix(1));
        assert_eq!(job_status(&object), "Terminating");
        object.status.conditions.push(condition("Complete"));
        assert_eq!(job_status(&object), "Complete");
    }

    #[test]
    fn a_revision_names_its_controller() {
        let owner = |api_version: &str, kind: &str| OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            name: "a".into(),
            ..OwnerReference::default()
        };
        assert_eq!(owner_name(&owner("apps/v1", "DaemonSet")), "daemonset.apps/a");
        assert_eq!(owner_name(&owner("v1", "Node")), "node/a");
    }
}
