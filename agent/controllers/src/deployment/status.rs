//! The status of a deployment.

use std::sync::Arc;

use api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use api::meta::v1::Time;

use super::{plan, template};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The status as the ReplicaSets have it now.
pub(super) fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], now: i64) -> DeploymentStatus {
    let current = template::find_current(deployment, sets);
    let sum = |count: fn(&ReplicaSet) -> i32| sets.iter().map(|set| count(set)).sum::<i32>();
    let wanted = sum(|set| set.spec.replicas.unwrap_or(1));
    let available = sum(|set| set.status.available_replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: sum(|set| set.status.replicas),
        updated_replicas: current.map_or(0, |set| set.status.replicas),
        ready_replicas: sum(|set| set.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (wanted - available).max(0),
        terminating_replicas: Some(sum(|set| set.status.terminating_replicas.unwrap_or(0))),
        conditions: deployment.status.conditions.clone(),
        collision_count: deployment.status.collision_count,
    };
    let desired = deployment.spec.replicas.unwrap_or(1);
    let enough = available >= desired - plan::limits(deployment, desired).unavailable;
    let minimum = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned())
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".to_owned())
    };
    set_condition(&mut status, AVAILABLE, minimum, now);
    if let Some(progress) = progress(deployment, &status, current, now) {
        let moved = has_moved(&deployment.status, &status);
        set_condition(&mut status, PROGRESSING, progress, now);
        if moved && let Some(condition) = status.conditions.iter_mut().find(|c| c.r#type == PROGRESSING) {
            condition.last_update_time = Time::from_unix(now);
        }
    }
    status
}

/// Seconds until progress would be too slow; `None` where nothing is under way.
pub(super) fn next_check(deployment: &Deployment, status: &DeploymentStatus, now: i64) -> Option<u64> {
    let deadline = i64::from(deployment.spec.progress_deadline_seconds?);
    let progress = condition(status, PROGRESSING)?;
    let due = !is_complete(deployment, status) && progress.reason != TIMED_OUT && progress.status == "True";
    let since = progress.last_update_time.unix().unwrap_or(now);
    due.then(|| (since + deadline - now).max(0).unsigned_abs() + 1)
}

fn progress(
    deployment: &Deployment,
    status: &DeploymentStatus,
    current: Option<&Arc<ReplicaSet>>,
    now: i64,
) -> Option<(&'static str, &'static str, String)> {
    let deadline = i64::from(deployment.spec.progress_deadline_seconds?);
    if deadline == i64::from(i32::MAX) {
        return None;
    }
    let name = current.map(|set| format!("ReplicaSet {:?}", set.metadata.name));
    let name = name.unwrap_or_else(|| format!("Deployment {:?}", deployment.metadata.name));
    let before = condition(&deployment.status, PROGRESSING);
    if deployment.spec.paused {
        return Some(("Unknown", "DeploymentPaused", "Deployment is paused".to_owned()));
    }
    if before.is_some_and(|c| c.reason == "DeploymentPaused") {
        return Some(("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned()));
    }
    if is_complete(deployment, status) {
        return Some(("True", "NewReplicaSetAvailable", format!("{name} has successfully progressed.")));
    }
    if has_moved(&deployment.status, status) || before.is_none_or(|c| c.reason == "NewReplicaSetAvailable") {
        let known = deployment.status.updated_replicas > 0 || current.is_none();
        let (reason, verb) = match before {
            None if !known => ("NewReplicaSetCreated", "Created new replica set"),
            _ => ("ReplicaSetUpdated", ""),
        };
        let message = match (verb, current) {
            ("", _) | (_, None) => format!("{name} is progressing."),
            (verb, Some(set)) => format!("{verb} {:?}", set.metadata.name),
        };
        return Some(("True", reason, message));
    }
    let since = before.and_then(|c| c.last_update_time.unix()).unwrap_or(now);
    if now - since > deadline {
        return Some(("False", TIMED_OUT, format!("{name} has timed out progressing.")));
    }
    None
}

fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = deployment.spec.replicas.unwrap_or(1);
    status.updated_replicas == desired && status.replicas == desired && status.available_replicas == desired
}

fn has_moved(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas - status.updated_replicas;
    after.updated_replicas > before.updated_replicas
        || old(after) < old(before)
        || after.ready_replicas > before.ready_replicas
        || after.available_replicas > before.available_replicas
}

fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().find(|c| c.r#type == kind)
}

/// Sets a condition; the time of transition moves only with its status.
fn set_condition(status: &mut DeploymentStatus, kind: &str, (value, reason, message): (&str, &str, String), now: i64) {
    let old = condition(status, kind).cloned();
    if old.as_ref().is_some_and(|o| o.status == value && o.reason == reason && o.message == message) {
        return;
    }
    let transition = old.filter(|o| o.status == value).map_or_else(|| Time::from_unix(now), |o| o.last_transition_time);
    let made = DeploymentCondition {
        r#type: kind.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        last_update_time: Time::from_unix(now),
        last_transition_time: transition,
    };
    match status.conditions.iter_mut().find(|c| c.r#type == kind) {
        Some(place) => *place = made,
        None => status.conditions.push(made),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Deployment {
        let mut deployment = Deployment::default();
        deployment.spec.replicas = Some(1);
        deployment.spec.progress_deadline_seconds = Some(60);
        deployment
    }

    #[test]
    fn a_deployment_that_does_not_move_times_out() {
        let mut stuck = deployment();
        stuck.status = plan(&stuck, &[], 0);
        assert_eq!(condition(&stuck.status, PROGRESSING).unwrap().status, "True");
        assert_eq!(next_check(&stuck, &stuck.status, 10), Some(51));
        let later = plan(&stuck, &[], 61);
        assert_eq!(condition(&later, PROGRESSING).unwrap().reason, TIMED_OUT);
    }

    #[test]
    fn a_complete_deployment_says_so_and_is_not_looked_at_again() {
        let mut done = deployment();
        let mut set = ReplicaSet { spec: Default::default(), ..Default::default() };
        set.spec.replicas = Some(1);
        set.status.replicas = 1;
        set.status.available_replicas = 1;
        done.status = plan(&done, &[Arc::new(set)], 0);
        assert_eq!(condition(&done.status, PROGRESSING).unwrap().reason, "NewReplicaSetAvailable");
        assert_eq!(condition(&done.status, AVAILABLE).unwrap().status, "True");
        assert_eq!(next_check(&done, &done.status, 10), None);
    }
}
