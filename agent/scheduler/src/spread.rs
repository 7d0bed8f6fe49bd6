//! Topology spread: how evenly pods lie over the domains of a node label.

use std::collections::HashMap;

use crate::labels::{is_hard, tolerates};
use crate::pod::{PodInfo, Spread};
use crate::snapshot::{Node, NodeId, Snapshot};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// What pods of one owner get that say nothing themselves.
const OWNER_SKEWS: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

/// Matching pods per domain for each hard constraint of a pod.
pub(crate) struct HardSpread<'a> {
    constraints: Vec<(&'a Spread, HashMap<&'a str, i64>, i64)>,
}

/// Why a node does not fulfil a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpreadMiss {
    /// The node is in no domain.
    NoLabel,
    /// The node's domain has too many already.
    Skew,
}

impl<'a> HardSpread<'a> {
    pub(crate) fn prepare(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let hard: Vec<&Spread> = pod.spread.iter().filter(|spread| spread.hard).collect();
        let constraints = hard.iter().map(|spread| {
            let counts = count(pod, spread, &hard, snapshot, |_| true);
            let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
            let least = if domains < spread.min_domains { 0 } else { counts.values().copied().min().unwrap_or(0) };
            (*spread, counts, least)
        });
        Self { constraints: constraints.collect() }
    }

    pub(crate) fn check(&self, pod: &PodInfo, node: &Node) -> Result<(), SpreadMiss> {
        for (spread, counts, least) in &self.constraints {
            let domain = node.labels.get(&spread.topology_key).ok_or(SpreadMiss::NoLabel)?;
            let own = i64::from(spread.selector.matches(&pod.labels));
            let there = counts.get(domain.as_str()).copied().unwrap_or(0);
            if there + own - least > spread.max_skew {
                return Err(SpreadMiss::Skew);
            }
        }
        Ok(())
    }
}

/// Matching pods per domain, over the nodes that count for `spread` and have all labels that `all` name.
fn count<'a>(
    pod: &PodInfo,
    spread: &Spread,
    all: &[&Spread],
    snapshot: &'a Snapshot,
    wanted: impl Fn(NodeId) -> bool,
) -> HashMap<&'a str, i64> {
    let mut domains: HashMap<&str, i64> = HashMap::new();
    let mut domain_of: Vec<Option<&str>> = vec![None; snapshot.places()];
    for (id, node) in snapshot.present_nodes() {
        let labelled = all.iter().all(|one| node.labels.contains_key(&one.topology_key));
        if wanted(id) && labelled && includes(pod, spread, node) {
            let domain = node.labels.get(&spread.topology_key).map(String::as_str);
            domain_of[id] = domain;
            domains.entry(domain.unwrap_or_default()).or_default();
        }
    }
    for placed in snapshot.placed_in(&pod.namespace) {
        if let Some(domain) = domain_of[placed.node]
            && !placed.pod.deleting
            && spread.selector.matches(&placed.pod.labels)
        {
            *domains.entry(domain).or_default() += 1;
        }
    }
    domains
}

fn includes(pod: &PodInfo, spread: &Spread, node: &Node) -> bool {
    let tolerated = || !node.taints.iter().any(|taint| is_hard(taint) && !tolerates(&pod.tolerations, taint));
    (!spread.honors_node_choice || pod.node_choice.accepts(&node.name, &node.labels))
        && (!spread.honors_taints || tolerated())
}

/// Scores 0 to 100 of the feasible nodes: high where few matching pods are. `None` if nothing is to be spread.
pub(crate) fn score(pod: &PodInfo, snapshot: &Snapshot, feasible: &[NodeId]) -> Option<Vec<i64>> {
    let raw = if pod.spread.is_empty() {
        owner_crowding(pod, snapshot, feasible)?
    } else {
        wished_crowding(pod, snapshot, feasible)?
    };
    let known = raw.iter().flatten().copied();
    let (least, most) = (known.clone().min().unwrap_or(0), known.max().unwrap_or(0));
    let normal = raw.iter().map(|score| match score {
        None => 0,
        Some(_) if most == 0 => 100,
        Some(score) => 100 * (most + least - score) / most,
    });
    Some(normal.collect())
}

/// Per node, how crowded its domains are; `None` for nodes that lack a label.
fn wished_crowding(pod: &PodInfo, snapshot: &Snapshot, feasible: &[NodeId]) -> Option<Vec<Option<i64>>> {
    let soft: Vec<&Spread> = pod.spread.iter().filter(|spread| !spread.hard).collect();
    if soft.is_empty() {
        return None;
    }
    let labelled = |id: NodeId| soft.iter().all(|one| snapshot.node(id).labels.contains_key(&one.topology_key));
    let mut sums: Vec<Option<f64>> = feasible.iter().map(|id| labelled(*id).then_some(0.0)).collect();
    for spread in &soft {
        let counts = count(pod, spread, &soft, snapshot, |_| true);
        let domains: std::collections::HashSet<&str> = feasible
            .iter()
            .filter(|id| labelled(**id))
            .filter_map(|id| snapshot.node(*id).labels.get(&spread.topology_key).map(String::as_str))
            .collect();
        let weight = domain_weight(domains.len());
        for (sum, id) in sums.iter_mut().zip(feasible) {
            if let (Some(sum), Some(domain)) = (sum, snapshot.node(*id).labels.get(&spread.topology_key)) {
                *sum += crowding(counts.get(domain.as_str()).copied().unwrap_or(0), weight, spread.max_skew);
            }
        }
    }
    Some(sums.into_iter().map(|sum| sum.map(rounded)).collect())
}

fn owner_crowding(pod: &PodInfo, snapshot: &Snapshot, feasible: &[NodeId]) -> Option<Vec<Option<i64>>> {
    let owned = snapshot.owned(pod.owner.as_deref()?);
    let on = |id: NodeId| owned.and_then(|counts| counts.get(&id)).copied().unwrap_or(0);
    let zone_of = |id: NodeId| snapshot.node(id).labels.get(ZONE).map(String::as_str);
    let mut zones: HashMap<&str, i64> = HashMap::new();
    for id in feasible {
        if let Some(zone) = zone_of(*id) {
            zones.entry(zone).or_default();
        }
    }
    for (id, count) in owned.into_iter().flatten() {
        if let Some(total) = zone_of(*id).and_then(|zone| zones.get_mut(zone)) {
            *total += count;
        }
    }
    let [(_, host_skew), (_, zone_skew)] = OWNER_SKEWS;
    let (host_weight, zone_weight) = (domain_weight(feasible.len()), domain_weight(zones.len()));
    let scores = feasible.iter().map(|id| {
        let zone = zone_of(*id).and_then(|zone| zones.get(zone));
        let zone = zone.map_or(0.0, |count| crowding(*count, zone_weight, zone_skew));
        Some(rounded(crowding(on(*id), host_weight, host_skew) + zone))
    });
    Some(scores.collect())
}

/// The more domains, the more one pod in one of them says.
fn domain_weight(domains: usize) -> f64 {
    f64::from(u32::try_from(domains).unwrap_or(u32::MAX).saturating_add(2)).ln()
}

fn crowding(count: i64, weight: f64, max_skew: i64) -> f64 {
    let small = |number: i64| f64::from(i32::try_from(number).unwrap_or(i32::MAX));
    small(count) * weight + small(max_skew - 1)
}

#[allow(clippy::cast_possible_truncation, reason = "counts of pods times a small logarithm")]
fn rounded(score: f64) -> i64 {
    score.round() as i64
}
