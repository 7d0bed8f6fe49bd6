//! The status of both kinds.

use std::sync::Arc;

use api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use api::labels::Selector;
use api::meta::v1::Time;
use reconcile::{Cache, Reflector};

use super::Replicated;
use crate::caches::{Caches, Need, Reflectors, need};
use crate::error::Error;
use crate::pods::{Availability, availability, is_active, is_finished, is_ready};

/// What was counted, and when to count again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    replicas: i32,
    labelled: i32,
    ready: i32,
    available: i32,
    terminating: i32,
    failure: Option<(&'static str, String)>,
    now: i64,
    /// Seconds until the next pod becomes available.
    pub(super) next_available: Option<u64>,
}

impl Counts {
    pub(super) fn of<K: Replicated>(owner: &K, pods: &[Arc<Pod>], failure: Option<&Error>, now: i64) -> Self {
        let mut counts = Self { now, ..Self::default() };
        let labels = owner.template().map(|t| &t.metadata.labels);
        for pod in pods {
            if pod.metadata.deletion_timestamp.is_some() && !is_finished(pod) {
                counts.terminating += 1;
            }
            if !is_active(pod) {
                continue;
            }
            counts.replicas += 1;
            let labelled = labels.is_some_and(|l| l.iter().all(|(k, v)| pod.metadata.labels.get(k) == Some(v)));
            counts.labelled += i32::from(labelled);
            counts.ready += i32::from(is_ready(pod));
            match availability(pod, owner.min_ready_seconds(), now) {
                Availability::Available => counts.available += 1,
                Availability::In(rest) => {
                    counts.next_available = Some(counts.next_available.map_or(rest, |n| n.min(rest)));
                }
                Availability::NotReady => {}
            }
        }
        let wanted = owner.replicas();
        counts.failure = failure.map(|error| {
            let reason = if counts.replicas < wanted { "FailedCreate" } else { "FailedDelete" };
            let source = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
            (reason, source)
        });
        counts
    }
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    const NEED: Need = need::replica_sets;

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.replica_sets
    }

    fn reflector(reflectors: &mut Reflectors) -> &mut Reflector<Self> {
        &mut reflectors.replica_sets
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }

    fn selector(&self) -> Result<Selector, Error> {
        Ok(Selector::from_object(self.spec.selector.as_ref())?)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.template)
    }

    fn with_counts(&self, counts: &Counts) -> Option<Self> {
        let mut conditions: Vec<ReplicaSetCondition> =
            self.status.conditions.iter().filter(|c| c.r#type != FAILURE).cloned().collect();
        if let Some((reason, message)) = &counts.failure {
            let old = self.status.conditions.iter().find(|c| c.r#type == FAILURE && c.reason == *reason);
            conditions.push(old.cloned().unwrap_or_else(|| ReplicaSetCondition {
                r#type: FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: (*reason).to_owned(),
                message: message.clone(),
                last_transition_time: Time::from_unix(counts.now),
            }));
        }
        let status = ReplicaSetStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: counts.labelled,
            ready_replicas: counts.ready,
            available_replicas: counts.available,
            terminating_replicas: Some(counts.terminating),
            observed_generation: self.metadata.generation,
            conditions,
        };
        (status != self.status).then(|| Self { status, ..self.clone() })
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller-controller";
    const NEED: Need = need::replication_controllers;

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.replication_controllers
    }

    fn reflector(reflectors: &mut Reflectors) -> &mut Reflector<Self> {
        &mut reflectors.replication_controllers
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }

    fn selector(&self) -> Result<Selector, Error> {
        Ok(if self.spec.selector.is_empty() { Selector::nothing() } else { Selector::from_map(&self.spec.selector) })
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }

    fn with_counts(&self, counts: &Counts) -> Option<Self> {
        let mut conditions: Vec<ReplicationControllerCondition> =
            self.status.conditions.iter().filter(|c| c.r#type != FAILURE).cloned().collect();
        if let Some((reason, message)) = &counts.failure {
            let old = self.status.conditions.iter().find(|c| c.r#type == FAILURE && c.reason == *reason);
            conditions.push(old.cloned().unwrap_or_else(|| ReplicationControllerCondition {
                r#type: FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: (*reason).to_owned(),
                message: message.clone(),
                last_transition_time: Time::from_unix(counts.now),
            }));
        }
        let status = ReplicationControllerStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: counts.labelled,
            ready_replicas: counts.ready,
            available_replicas: counts.available,
            observed_generation: self.metadata.generation,
            conditions,
        };
        (status != self.status).then(|| Self { status, ..self.clone() })
    }
}

/// The condition that tells why pods could not be made or removed.
const FAILURE: &str = "ReplicaFailure";
