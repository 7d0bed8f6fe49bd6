//! The decision: one pod, one snapshot, one answer. No clock, no input or output.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::filter::{Check, Hopes, Rejection};
use crate::pod::PodInfo;
use crate::score;
use crate::snapshot::{NodeId, Snapshot};

/// Below this, every node is looked at.
const FEW_NODES: usize = 100;

/// Where a search begins, how far it goes, and how ties end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search {
    /// Place to begin at.
    pub(crate) start: usize,
    /// Percent of the nodes to find; 0 for a share that shrinks with the cluster.
    pub(crate) percentage: u32,
    /// Decides between equally good nodes.
    pub(crate) seed: u64,
}

/// What to do with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Put it there.
    Assign {
        /// The node.
        node: String,
        /// Places looked at, for the next search to go on from.
        examined: usize,
    },
    /// It fits nowhere.
    Refuse(Refusal),
}

/// Why a pod fits nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Number of nodes.
    pub(crate) nodes: usize,
    /// What is wrong with the pod itself; then no node was looked at.
    pub(crate) own: Option<String>,
    /// What is wrong with each node.
    pub(crate) rejections: BTreeMap<NodeId, Rejection>,
    /// What came of the attempt to push pods out.
    pub(crate) preemption: Option<String>,
}

impl Refusal {
    /// Upstream's message.
    pub(crate) fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available:", self.nodes);
        if let Some(own) = &self.own {
            text.push_str(&format!(" {own}."));
        } else if !self.rejections.is_empty() {
            let reasons = self.rejections.values().flat_map(|rejection| &rejection.reasons);
            text.push_str(&format!(" {}.", histogram(reasons.map(AsRef::as_ref))));
        }
        if let Some(preemption) = &self.preemption {
            // Upstream's words for the attempt to free device claims come first; nothing is claimed here.
            text.push_str(&format!(" no new claims to deallocate, preemption: {preemption}"));
        }
        text
    }

    /// What could make the pod fit.
    pub(crate) fn hopes(&self) -> Hopes {
        if self.own.is_some() {
            return Hopes::VOLUME;
        }
        self.rejections.values().fold(Hopes::NODE, |hopes, rejection| hopes.with(rejection.hopes))
    }
}

/// `2 Insufficient cpu, 1 Too many pods`, sorted as text.
pub(crate) fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut parts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    parts.join(", ")
}

/// Finds the best node for `pod`.
pub(crate) fn decide(pod: &PodInfo, snapshot: &Snapshot, search: Search) -> Decision {
    let nodes = snapshot.node_count();
    let refuse = |own, rejections| Decision::Refuse(Refusal { nodes, own, rejections, preemption: None });
    let check = match Check::prepare(pod, snapshot) {
        Ok(check) => check,
        Err(own) => return refuse(Some(own), BTreeMap::new()),
    };
    // A pod whose victims have left gets its node, if it still fits.
    if let Some(id) = snapshot.find(&pod.nominated_node)
        && check.node(snapshot.node(id)).is_ok()
    {
        return Decision::Assign { node: pod.nominated_node.clone(), examined: 0 };
    }
    let (feasible, rejections, examined) = find(&check, snapshot, search);
    let best = match feasible.as_slice() {
        [] => return refuse(None, rejections),
        [only] => *only,
        _ => best_of(&feasible, &score::totals(pod, snapshot, &feasible), search.seed),
    };
    Decision::Assign { node: snapshot.node(best).name.clone(), examined }
}

/// Whether one node can take the pod as things are.
pub(crate) fn fits(pod: &PodInfo, snapshot: &Snapshot, node: NodeId) -> bool {
    Check::prepare(pod, snapshot).is_ok_and(|check| check.node(snapshot.node(node)).is_ok())
}

fn find(check: &Check<'_>, snapshot: &Snapshot, search: Search) -> (Vec<NodeId>, BTreeMap<NodeId, Rejection>, usize) {
    let enough = enough_nodes(snapshot.node_count(), search.percentage);
    let (mut feasible, mut rejections, mut examined) = (Vec::new(), BTreeMap::new(), 0);
    let places = snapshot.places();
    for step in 0..places {
        let id = (search.start + step) % places;
        let node = snapshot.node(id);
        if !node.present {
            continue;
        }
        examined = step + 1;
        match check.node(node) {
            Ok(()) => feasible.push(id),
            Err(rejection) => {
                rejections.insert(id, rejection);
            }
        }
        if feasible.len() >= enough {
            break;
        }
    }
    (feasible, rejections, examined)
}

fn enough_nodes(nodes: usize, percentage: u32) -> usize {
    if nodes < FEW_NODES || percentage >= 100 {
        return nodes.max(1);
    }
    let percentage = match percentage {
        0 => (50_usize.saturating_sub(nodes / 125)).max(5),
        given => usize::try_from(given).unwrap_or(100),
    };
    (nodes * percentage / 100).max(FEW_NODES)
}

fn best_of(feasible: &[NodeId], totals: &[i64], seed: u64) -> NodeId {
    let most = totals.iter().max().copied().unwrap_or(0);
    let best: Vec<NodeId> =
        feasible.iter().zip(totals).filter(|(_, total)| **total == most).map(|(id, _)| *id).collect();
    let at = seed % u64::try_from(best.len()).unwrap_or(1).max(1);
    best[usize::try_from(at).unwrap_or(0)]
}

/// The reason upstream gives for a node where pushing pods out cannot help.
pub(crate) const NOT_HELPFUL: Cow<'static, str> = Cow::Borrowed("Preemption is not helpful for scheduling");
/// The reason upstream gives for a node without suitable victims.
pub(crate) const NO_VICTIMS: Cow<'static, str> = Cow::Borrowed("No preemption victims found for incoming pod");

#[cfg(test)]
mod tests;
