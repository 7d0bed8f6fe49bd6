//! Other resources for a pod that runs: whether the node grants them, and bringing them into effect.

use std::collections::BTreeMap;

use api::core::v1::{Pod, ResourceRequirements};
use reconcile::EventType;
use serde_json::{Map, Value, json};

use super::PodWorker;
use super::notes::RESIZE;
use super::ops::PodOps;
use crate::allocation::{Allocation, Amounts, Share, Shortage};
use crate::plan::is_resizing;
use crate::pod::{PodView, is_static};
use crate::pod_cgroup::set_pod_limits;
use crate::resources::{changed_resources, loosest, pod_limits};
use crate::runtime_config::pod_labels;
use crate::status::{PendingResize, Waiting};

impl PodWorker {
    /// Grants what the pod's newest state asks for, if the node has it.
    pub(super) fn grant(&mut self) {
        let wanted = Allocation::of(&self.desired);
        if is_static(&self.desired) || self.verdict.is_some() {
            self.allocation = wanted;
        } else if self.allocation.equals(&wanted) {
            // As much, though perhaps in other words.
            self.allocation = wanted;
            self.pending_resize = None;
        } else {
            self.decide(wanted);
        }
        let pod = self.allocation.granted(&self.desired);
        if *pod != *self.view.pod {
            self.volumes_are_due |= pod.spec != self.view.pod.spec;
            self.view = std::sync::Arc::new(PodView::new(pod));
            self.events = self.events.for_view(&self.view);
        }
    }

    fn decide(&mut self, wanted: Allocation) {
        let generation = self.desired.metadata.generation;
        let share = Share::of(&PodView::new(self.desired.clone()));
        let result = self.node.grants.change(self.view.uid(), share, &self.node.allocatable());
        let (reason, event, message) = match result {
            Ok(()) => {
                self.allocation = wanted;
                self.pending_resize = None;
                self.resize_generation = Some(generation);
                self.notes.lock().forget_resize_failure();
                let text = format!("Pod resize started: {}", summary(&self.desired, generation, None));
                self.events.pod(EventType::Normal, "ResizeStarted", text);
                return;
            }
            Err(Shortage::Impossible(why)) => ("Infeasible", "ResizeInfeasible", why),
            Err(Shortage::Taken(why)) => ("Deferred", "ResizeDeferred", why),
        };
        let is_told = self.pending_resize.as_ref().is_some_and(|p| p.reason == reason && p.generation == generation);
        if !is_told {
            let text = format!("Pod resize {reason}: {}", summary(&self.desired, generation, Some(&message)));
            self.events.pod(EventType::Warning, event, text);
        }
        self.pending_resize = Some(PendingResize { reason, message, generation });
    }

    /// Tells once that a resize is in effect.
    pub(super) fn tell_resized(&mut self) {
        let Some(generation) = self.resize_generation else { return };
        let is_resizing = is_resizing(&self.view, &self.seen, &self.notes.lock().actuated);
        if !is_resizing {
            self.resize_generation = None;
            let text = format!("Pod resize completed: {}", summary(&self.view.pod, generation, None));
            self.events.pod(EventType::Normal, "ResizeCompleted", text);
        }
    }
}

impl PodOps {
    /// Gives these running containers, and the pod's group, what was granted.
    pub(super) async fn resize(&self, names: &[String]) {
        match self.try_resize(names).await {
            Ok(()) => {
                let mut notes = self.notes.lock();
                notes.forget_resize_failure();
            }
            Err(why) => {
                let is_new = {
                    let mut notes = self.notes.lock();
                    notes.fail(RESIZE, Waiting::default(), None);
                    notes.resize_failure.replace(why.clone()).as_ref() != Some(&why)
                };
                if is_new {
                    let generation = self.view.pod.metadata.generation;
                    let text = format!("Pod resize error: {}", summary(&self.view.pod, generation, Some(&why)));
                    self.events.pod(EventType::Warning, "ResizeError", text);
                }
            }
        }
    }

    async fn try_resize(&self, names: &[String]) -> Result<(), String> {
        let actuated = self.notes.lock().actuated.clone();
        let (before, after) = (pod_limits(&PodView::new(actuated.granted(&self.view.pod))), pod_limits(&self.view));
        let pod_memory = (before.memory, after.memory);
        self.check_memory(names, &actuated, pod_memory).await?;
        let set = |limits| set_pod_limits(&self.node, &self.view, &limits).map_err(|e| stdx::chain(&e).to_string());
        // No container may ever have more than its pod.
        set(loosest(before, after))?;
        for name in names {
            let (Some(container), Some(seen)) = (self.view.container(name), self.seen.current(name)) else { continue };
            let had = actuated.containers.get(name).map(Amounts::of).unwrap_or_default();
            let resources = changed_resources(&self.view, &container.spec, self.node.machine_memory, had);
            let updated = self.node.runtime.update_resources(&seen.id, resources).await;
            updated.map_err(|error| format!("failed to resize container \"{name}\": {}", error.message()))?;
            self.notes.lock().actuated.containers.insert(name.clone(), container.spec.resources.clone());
        }
        set(after)?;
        self.notes.lock().actuated.pod.clone_from(&self.view.spec().resources);
        Ok(())
    }

    /// A limit below what is in use would have the kernel kill the container.
    async fn check_memory(&self, names: &[String], actuated: &Allocation, pod: (i64, i64)) -> Result<(), String> {
        let shrinks = |(had, gets): (i64, i64)| gets > 0 && (had == 0 || gets < had);
        let limits: BTreeMap<&str, i64> = names
            .iter()
            .filter_map(|name| {
                let gets = Amounts::of(&self.view.container(name)?.spec.resources).memory.1;
                let had = actuated.containers.get(name).map(Amounts::of).unwrap_or_default().memory.1;
                shrinks((had, gets)).then_some((name.as_str(), gets))
            })
            .collect();
        if limits.is_empty() && !shrinks(pod) {
            return Ok(());
        }
        let stats = self.node.runtime.container_stats(pod_labels(self.view.uid())).await;
        let stats = stats.map_err(|error| format!("unable to read memory usage: {}", error.message()))?;
        let usage: BTreeMap<&str, i64> = stats
            .iter()
            .filter_map(|s| {
                let name = &s.attributes.as_ref()?.metadata.as_ref()?.name;
                let bytes = s.memory.as_ref()?.usage_bytes.as_ref()?.value;
                Some((name.as_str(), i64::try_from(bytes).unwrap_or(i64::MAX)))
            })
            .collect();
        let mut wrong = Vec::new();
        let total: i64 = usage.values().sum();
        if shrinks(pod) && total >= pod.1 {
            wrong.push(format!("attempting to set pod memory limit ({}) below current usage ({total})", pod.1));
        }
        for (name, limit) in limits {
            match usage.get(name) {
                None => wrong.push(format!("missing container \"{name}\" memory usage")),
                Some(used) if *used >= limit => wrong.push(format!(
                    "attempting to set container \"{name}\" memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("cannot decrease memory limits: {}", wrong.join(", "))) }
    }
}

/// What a pod gets, for its events.
fn summary(pod: &Pod, generation: i64, error: Option<&str>) -> Value {
    let list = |containers: &[api::core::v1::Container]| {
        let row = |c: &api::core::v1::Container| json!({"name": c.name, "resources": amounts(&c.resources)});
        containers.iter().map(row).collect::<Vec<_>>()
    };
    let mut fields = Map::new();
    if !pod.spec.init_containers.is_empty() {
        fields.insert("initContainers".to_owned(), list(&pod.spec.init_containers).into());
    }
    fields.insert("containers".to_owned(), list(&pod.spec.containers).into());
    fields.insert("generation".to_owned(), generation.into());
    if let Some(error) = error {
        fields.insert("error".to_owned(), error.into());
    }
    Value::Object(fields)
}

fn amounts(resources: &ResourceRequirements) -> Value {
    let mut fields = Map::new();
    for (name, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        if !list.is_empty() {
            let values = list.iter().map(|(name, quantity)| (name.clone(), Value::from(quantity.string.as_str())));
            fields.insert(name.to_owned(), values.collect::<Map<_, _>>().into());
        }
    }
    Value::Object(fields)
}
