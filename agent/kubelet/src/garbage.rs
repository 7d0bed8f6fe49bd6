//! Removes what has no use any more: old dead containers, and unused images when the disk fills up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cri::v1;
use tokio::time::Instant;

use crate::context::NodeContext;
use crate::manager::PodTable;
use crate::node::facts;
use crate::observed::keys;

/// How often dead containers are looked for; images every fifth time.
const PERIOD: Duration = Duration::from_secs(60);
const IMAGE_EVERY: u32 = 5;
/// Dead containers kept for each container of a pod: the last one tells how it ended.
const KEPT: usize = 1;

/// Collects until the shutdown.
pub(crate) async fn run(node: Arc<NodeContext>, table: PodTable) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unused: HashMap<String, Instant> = HashMap::new();
    let mut round: u32 = 0;
    loop {
        tokio::select! {
            () = node.shutdown.wait() => return,
            _tick = ticks.tick() => {}
        }
        let containers = match node.runtime.list_containers(HashMap::new()).await {
            Ok(list) => list,
            Err(error) => {
                tracing::warn!(%error, "garbage not collected");
                continue;
            }
        };
        for id in surplus(&containers, &table) {
            if let Err(error) = node.runtime.remove_container(&id).await {
                tracing::warn!(container = id, %error, "dead container not removed");
            }
        }
        if round.is_multiple_of(IMAGE_EVERY) {
            collect_images(&node, &containers, &mut unused).await;
        }
        round = round.wrapping_add(1);
    }
}

/// Dead containers that a newer one of the same name has replaced, beyond those that are kept.
fn surplus(containers: &[v1::Container], table: &PodTable) -> Vec<String> {
    let mut dead: HashMap<(&str, &str), Vec<&v1::Container>> = HashMap::new();
    for container in containers {
        let label = |key: &str| container.labels.get(key).map(String::as_str).unwrap_or_default();
        let uid = label(keys::POD_UID);
        if table.by_uid(uid).is_some() {
            dead.entry((uid, label(keys::CONTAINER_NAME))).or_default().push(container);
        }
    }
    let mut ids = Vec::new();
    for list in dead.values_mut() {
        // The clock may have gone back between two of them.
        list.sort_by_key(|c| std::cmp::Reverse((c.metadata.as_ref().map(|it| it.attempt), c.created_at)));
        // The newest is the current one, whatever its state.
        let old = list.iter().skip(1).filter(|c| c.state() == v1::ContainerState::ContainerExited);
        ids.extend(old.skip(KEPT).map(|c| c.id.clone()));
    }
    ids
}

async fn collect_images(node: &NodeContext, containers: &[v1::Container], unused: &mut HashMap<String, Instant>) {
    let limits = node.config.image_collection;
    let Ok(images) = node.runtime.list_images().await else { return };
    let used: HashSet<&str> = containers.iter().flat_map(|c| [c.image_id.as_str(), c.image_ref.as_str()]).collect();
    let idle: Vec<&v1::Image> = images.iter().filter(|i| !i.pinned && !used.contains(i.id.as_str())).collect();
    let now = Instant::now();
    unused.retain(|id, _| idle.iter().any(|image| image.id == *id));
    for image in &idle {
        unused.entry(image.id.clone()).or_insert(now);
    }
    let disk = facts::disk(&node.config.root_dir);
    let in_use = |available: u64| 100 - available.saturating_mul(100).checked_div(disk.total).unwrap_or(100).min(100);
    if limits.high_percent >= 100 || in_use(disk.available) < u64::from(limits.high_percent) {
        return;
    }
    let mut free = disk.available;
    let mut oldest = idle;
    oldest.sort_by_key(|image| unused.get(&image.id).copied());
    for image in oldest {
        if in_use(free) <= u64::from(limits.low_percent) {
            return;
        }
        if unused.get(&image.id).is_none_or(|since| now.duration_since(*since) < limits.min_age) {
            continue;
        }
        let spec = v1::ImageSpec { image: image.id.clone(), ..v1::ImageSpec::default() };
        match node.runtime.remove_image(spec).await {
            Ok(()) => free = free.saturating_add(image.size),
            Err(error) => tracing::warn!(image = image.id, %error, "image not removed"),
        }
    }
}
