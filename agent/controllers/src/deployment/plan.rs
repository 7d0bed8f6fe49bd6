//! What to do about a deployment's ReplicaSets.

use std::sync::Arc;

use api::IntOrString;
use api::apps::v1::{Deployment, ReplicaSet};

use super::template::{self, HASH_LABEL};
use crate::owner::controller_reference;

/// One change.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Makes the ReplicaSet of the current template.
    Create(Box<ReplicaSet>),
    /// Writes a ReplicaSet back; with the former size where that changed.
    Update { set: Box<ReplicaSet>, scaled_from: Option<i32> },
    /// Removes an old, empty ReplicaSet.
    Delete(Arc<ReplicaSet>),
    /// Writes the revision on the deployment.
    Annotate(i64),
}

/// The limits of a rolling update, in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

/// The next changes. `old_pods_run` tells whether pods of former templates still run.
pub(super) fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    old_pods_run: &dyn Fn() -> bool,
    _now: i64,
) -> Vec<Step> {
    let mut view = View::new(deployment, sets);
    if deployment.spec.paused || view.was_resized() {
        if !deployment.spec.paused || view.current.is_some() {
            view.ensure_current(false);
        }
        view.scale_proportionally();
        return view.steps();
    }
    if deployment.spec.strategy.r#type == "Recreate" {
        if view.old_total() > 0 {
            view.ensure_current(false);
            view.scale_down_all_old();
        } else if view.current.is_some() || !old_pods_run() {
            view.ensure_current(true);
            view.scale_current(view.desired);
        }
    } else {
        view.ensure_current(true);
        view.grow_current();
        view.shrink_old();
    }
    view.clean_up();
    view.steps()
}

/// The deployment's ReplicaSets while a plan is made.
struct View<'a> {
    deployment: &'a Deployment,
    desired: i32,
    limits: Limits,
    /// Index into `sets`.
    current: Option<usize>,
    sets: Vec<Planned>,
    create: Option<ReplicaSet>,
    revision: Option<i64>,
}

struct Planned {
    original: Arc<ReplicaSet>,
    size: i32,
    annotated: Option<ReplicaSet>,
    delete: bool,
}

impl Planned {
    fn is_live(&self) -> bool {
        !self.delete
    }
}

impl<'a> View<'a> {
    fn new(deployment: &'a Deployment, sets: &[Arc<ReplicaSet>]) -> Self {
        let desired = deployment.spec.replicas.unwrap_or(1);
        let current = template::find_current(deployment, sets)
            .and_then(|found| sets.iter().position(|s| s.metadata.uid == found.metadata.uid));
        let planned = |set: &Arc<ReplicaSet>| Planned {
            size: set.spec.replicas.unwrap_or(1),
            original: set.clone(),
            annotated: None,
            delete: false,
        };
        let limits = limits(deployment, desired);
        let sets = sets.iter().map(planned).collect();
        Self { deployment, desired, limits, current, sets, create: None, revision: None }
    }

    fn old(&self) -> impl Iterator<Item = (usize, &Planned)> {
        let current = self.current;
        self.sets.iter().enumerate().filter(move |(i, _)| Some(*i) != current)
    }

    fn old_total(&self) -> i32 {
        self.old().map(|(_, s)| s.size).sum()
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|s| s.size).sum()
    }

    fn max_pods(&self) -> i32 {
        self.desired + self.limits.surge
    }

    /// Whether the deployment's size changed since its ReplicaSets were scaled.
    fn was_resized(&self) -> bool {
        self.sets.iter().filter(|s| s.size > 0).any(|s| {
            let noted = s.original.metadata.annotations.get(template::DESIRED);
            noted.and_then(|text| text.parse::<i32>().ok()).is_some_and(|noted| noted != self.desired)
        })
    }

    /// Brings the revision and annotations of the current ReplicaSet up to date, or plans to make one.
    fn ensure_current(&mut self, create: bool) {
        let newest_old = self.old().map(|(_, s)| template::revision(&s.original)).max().unwrap_or(0);
        match self.current {
            Some(index) => {
                let mut set = (*self.sets[index].original).clone();
                let changed = template::annotate(self.deployment, &mut set, newest_old + 1);
                let ready = self.deployment.spec.min_ready_seconds;
                let retimed = std::mem::replace(&mut set.spec.min_ready_seconds, ready) != ready;
                self.revision = Some(template::revision(&set));
                if changed || retimed {
                    self.sets[index].annotated = Some(set);
                }
            }
            None if create => {
                let size = if self.deployment.spec.strategy.r#type == "Recreate" {
                    self.desired
                } else {
                    self.desired.min((self.max_pods() - self.total()).max(0))
                };
                self.create = Some(self.new_set(size, newest_old + 1));
                self.revision = Some(newest_old + 1);
            }
            None => {}
        }
    }

    fn new_set(&self, size: i32, revision: i64) -> ReplicaSet {
        let (deployment, meta) = (self.deployment, &self.deployment.metadata);
        let hash = crate::history::template_hash(&deployment.spec.template, deployment.status.collision_count);
        let mut set = ReplicaSet::default();
        set.metadata.name = format!("{}-{hash}", meta.name);
        set.metadata.namespace.clone_from(&meta.namespace);
        set.metadata.owner_references = vec![controller_reference(deployment)];
        set.spec.template = deployment.spec.template.clone();
        set.spec.template.metadata.labels.insert(HASH_LABEL.to_owned(), hash.clone());
        set.metadata.labels.clone_from(&set.spec.template.metadata.labels);
        set.spec.selector.clone_from(&deployment.spec.selector);
        if let Some(selector) = &mut set.spec.selector {
            selector.match_labels.insert(HASH_LABEL.to_owned(), hash);
        }
        set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
        set.spec.replicas = Some(size);
        template::annotate(deployment, &mut set, revision);
        template::annotate_sizes(&mut set, self.desired, self.max_pods());
        set
    }

    fn scale_current(&mut self, size: i32) {
        if let Some(index) = self.current {
            self.sets[index].size = size;
        }
    }

    fn scale_down_all_old(&mut self) {
        let current = self.current;
        self.sets.iter_mut().enumerate().filter(|(i, _)| Some(*i) != current).for_each(|(_, s)| s.size = 0);
    }

    /// Lets the current ReplicaSet grow as far as the surge allows.
    fn grow_current(&mut self) {
        let Some(index) = self.current else { return };
        let have = self.sets[index].size;
        let room = (self.max_pods() - self.total()).max(0);
        self.sets[index].size = if have > self.desired { self.desired } else { have + room.min(self.desired - have) };
    }

    /// Takes pods from old ReplicaSets: those that are not available first, then as many as may be missing.
    fn shrink_old(&mut self) {
        let minimum = self.desired - self.limits.unavailable;
        let (new_size, new_available) = self.current.map_or((0, 0), |i| {
            (self.sets[i].original.spec.replicas.unwrap_or(1), self.sets[i].original.status.available_replicas)
        });
        let new_unavailable = new_size - new_available;
        let all: i32 = self.sets.iter().map(|s| s.original.spec.replicas.unwrap_or(1)).sum();
        let mut spare = all - minimum - new_unavailable;
        // What the old ones say is available may already be going.
        if spare <= 0 {
            return;
        }
        let order: Vec<usize> = self.old().filter(|(_, s)| s.size > 0).map(|(i, _)| i).collect();
        for index in &order {
            let set = &mut self.sets[*index];
            let unhealthy = (set.size - set.original.status.available_replicas).max(0);
            let take = unhealthy.min(spare);
            set.size -= take;
            spare -= take;
        }
        let available: i32 = self.sets.iter().map(|s| s.original.status.available_replicas).sum();
        let mut extra = (available - minimum).max(0);
        for index in order {
            let set = &mut self.sets[index];
            let take = set.size.min(extra);
            set.size -= take;
            extra -= take;
        }
    }

    /// Spreads a new size over all ReplicaSets by their shares; alone, the active one gets it all.
    fn scale_proportionally(&mut self) {
        let active: Vec<usize> = (0..self.sets.len()).filter(|i| self.sets[*i].size > 0).collect();
        if active.len() <= 1 {
            let target = active.first().copied().or(self.current);
            if let Some(index) = target {
                self.sets[index].size = self.desired;
            }
            return;
        }
        let current_saturated = self.current.is_some_and(|i| {
            let set = &self.sets[i].original;
            set.status.available_replicas == self.desired && set.spec.replicas == Some(self.desired)
        });
        if current_saturated {
            return self.scale_down_all_old();
        }
        if self.deployment.spec.strategy.r#type == "Recreate" {
            return;
        }
        let allowed = if self.desired > 0 { self.max_pods() } else { 0 };
        let mut change = allowed - self.total();
        let mut order = active;
        order.sort_by_key(|i| std::cmp::Reverse(self.sets[*i].size));
        for index in order.clone() {
            let share = self.share(index, allowed).clamp(change.min(0), change.max(0));
            self.sets[index].size = (self.sets[index].size + share).max(0);
            change -= share;
        }
        if let Some(first) = order.first().filter(|_| change != 0) {
            self.sets[*first].size = (self.sets[*first].size + change).max(0);
        }
    }

    /// A ReplicaSet's part of a new total, in relation to the total when it was last scaled.
    fn share(&self, index: usize, allowed: i32) -> i32 {
        let set = &self.sets[index];
        let noted = set.original.metadata.annotations.get(template::MAX).and_then(|t| t.parse::<i32>().ok());
        let former = noted.filter(|n| *n > 0).unwrap_or_else(|| self.total().max(1));
        let exact = f64::from(set.size) * f64::from(allowed) / f64::from(former);
        #[allow(clippy::cast_possible_truncation, reason = "a share of pods, far below the limit")]
        let target = exact.round() as i32;
        target - set.size
    }

    /// Removes the oldest empty ReplicaSets beyond the history limit, once the deployment is complete.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.revision_history_limit.unwrap_or(10);
        let status = &self.deployment.status;
        let complete = status.updated_replicas == self.desired
            && status.replicas == self.desired
            && status.available_replicas == self.desired
            && status.observed_generation >= self.deployment.metadata.generation;
        if !complete {
            return;
        }
        let mut old: Vec<usize> = self.old().map(|(i, _)| i).collect();
        old.sort_by_key(|i| template::revision(&self.sets[*i].original));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for index in old.into_iter().take(surplus) {
            let set = &mut self.sets[index];
            let empty = set.size == 0 && set.original.status.replicas == 0 && set.original.spec.replicas == Some(0);
            let seen = set.original.metadata.generation <= set.original.status.observed_generation;
            set.delete = empty && seen && set.original.metadata.deletion_timestamp.is_none();
        }
    }

    fn steps(self) -> Vec<Step> {
        let (desired, max) = (self.desired, self.max_pods());
        let mut steps: Vec<Step> = self.create.map(|set| Step::Create(Box::new(set))).into_iter().collect();
        for planned in self.sets {
            if !planned.is_live() {
                steps.push(Step::Delete(planned.original));
                continue;
            }
            let former = planned.original.spec.replicas.unwrap_or(1);
            let resized = planned.size != former;
            let mut annotated = planned.annotated.is_some();
            let mut set = planned.annotated.unwrap_or_else(|| (*planned.original).clone());
            if resized || planned.size > 0 {
                annotated |= template::annotate_sizes(&mut set, desired, max);
            }
            if resized || annotated {
                set.spec.replicas = Some(planned.size);
                steps.push(Step::Update { set: Box::new(set), scaled_from: resized.then_some(former) });
            }
        }
        let noted = self.deployment.metadata.annotations.get(template::REVISION).and_then(|t| t.parse::<i64>().ok());
        if let Some(revision) = self.revision.filter(|r| noted != Some(*r)) {
            steps.push(Step::Annotate(revision));
        }
        steps
    }
}

/// The rolling update's limits for this size; both zero would never move, so then one pod may be missing.
pub(super) fn limits(deployment: &Deployment, desired: i32) -> Limits {
    let rolling = deployment.spec.strategy.rolling_update.as_ref();
    if deployment.spec.strategy.r#type == "Recreate" {
        return Limits { surge: 0, unavailable: 0 };
    }
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), desired, true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), desired, false);
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    Limits { surge, unavailable: unavailable.min(desired) }
}

/// A number or a percentage of `total`.
fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => scaled_percent(25, total, round_up),
        Some(value) if value.r#type == 0 => value.int_val,
        Some(value) => scaled_percent(value.str_val.trim_end_matches('%').parse().unwrap_or(0), total, round_up),
    }
}

fn scaled_percent(percent: i32, total: i32, round_up: bool) -> i32 {
    let product = i64::from(percent) * i64::from(total);
    let value = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
