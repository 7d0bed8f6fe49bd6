//! `node-ipam-controller`: every node gets ranges of pod addresses that no other node has.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use api::core::v1::Node;
use client::Patch;
use ipnet::IpNet;
use reconcile::{Action, EventType, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::config::Config;
use crate::controller::{Context, Controller, Key, enqueue};
use crate::error::{During, Error};

pub(crate) struct PodRanges {
    context: Context,
    /// Given out but perhaps not in the cache yet.
    given: Mutex<BTreeSet<(IpNet, String)>>,
}

impl Controller for PodRanges {
    const NAME: &'static str = "node-ipam-controller";
    const NEEDS: &'static [Need] = &[need::nodes];
    // One at a time: what one node takes the next must not get.
    const WORKERS: usize = 1;

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.nodes.handle(enqueue(queue));
    }

    fn new(context: Context) -> Self {
        Self { context, given: Mutex::default() }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let Some(node) = caches.nodes.get("", &key.name) else {
            self.given().retain(|(_, node)| *node != key.name);
            return Ok(Action::Done);
        };
        if !node.spec.pod_cidrs.is_empty() || self.context.config.cluster_cidrs.is_empty() {
            return Ok(Action::Done);
        }
        let ranges = self.allocate(&node, &caches.nodes.list());
        let Some(ranges) = ranges else {
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context.recorder.event(&*node, EventType::Normal, "CIDRNotAvailable", message);
            return Ok(Action::Done);
        };
        let patch = Patch::Merge(serde_json::json!({"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}}));
        self.context.client.patch::<Node>(None, &key.name, None, &patch).await.during("giving a node its pod range")?;
        Ok(Action::Done)
    }
}

impl PodRanges {
    fn given(&self) -> std::sync::MutexGuard<'_, BTreeSet<(IpNet, String)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocate(&self, node: &Node, nodes: &[Arc<Node>]) -> Option<Vec<String>> {
        let mut given = self.given();
        let own = &node.metadata.name;
        let mut taken: Vec<IpNet> =
            nodes.iter().flat_map(|n| &n.spec.pod_cidrs).filter_map(|range| range.parse().ok()).collect();
        taken.extend(given.iter().filter(|(_, holder)| holder != own).map(|(range, _)| *range));
        given.retain(|(_, holder)| holder != own);
        let ranges = plan(&self.context.config, &taken)?;
        given.extend(ranges.iter().map(|range| (*range, own.clone())));
        Some(ranges.iter().map(ToString::to_string).collect())
    }
}

/// One free range of every cluster range; `None` where one of them is full.
fn plan(config: &Config, taken: &[IpNet]) -> Option<Vec<IpNet>> {
    let free = |cluster: &IpNet| {
        let mask = match cluster.addr() {
            IpAddr::V4(_) => {
                if config.node_mask_v4 == 0 {
                    24
                } else {
                    config.node_mask_v4
                }
            }
            IpAddr::V6(_) => {
                if config.node_mask_v6 == 0 {
                    64
                } else {
                    config.node_mask_v6
                }
            }
        };
        let mut subnets = cluster.subnets(mask.max(cluster.prefix_len())).ok()?;
        let overlaps = |range: &IpNet| taken.iter().any(|t| t.contains(range) || range.contains(t));
        subnets.find(|range| !overlaps(range))
    };
    config.cluster_cidrs.iter().map(free).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_gets_the_first_free_range_of_each_family() {
        let config = Config { cluster_cidrs: nets(&["10.244.0.0/16", "fd00::/48"]), ..Config::default() };
        let taken = nets(&["10.244.0.0/24", "fd00::/64", "10.244.1.128/25"]);
        assert_eq!(plan(&config, &taken).unwrap(), nets(&["10.244.2.0/24", "fd00:0:0:1::/64"]));
    }

    #[test]
    fn a_full_range_gives_nothing() {
        let config = Config { cluster_cidrs: nets(&["10.0.0.0/24"]), ..Config::default() };
        assert_eq!(plan(&config, &nets(&["10.0.0.0/24"])), None);
    }
}
