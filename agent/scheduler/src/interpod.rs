//! Affinity and anti-affinity between pods.

use std::collections::{HashMap, HashSet};

use crate::labels::PodTerm;
use crate::pod::PodInfo;
use crate::snapshot::{Node, NodeId, Placed, Snapshot};

/// What an existing pod's requirement to be near counts for a pod it wants near.
const REQUIRED_WEIGHT: i64 = 1;

/// A domain: label key and value.
type Domain<'a> = (&'a str, &'a str);

/// Domains a pod has to be in, or has to keep out of.
pub(crate) struct PodAffinity<'a> {
    /// Domains with a pod that refuses this one.
    refusing: HashSet<Domain<'a>>,
    /// Pods matching all of this pod's affinity terms, per domain.
    wanted: HashMap<Domain<'a>, i64>,
    /// Domains with a pod this one refuses.
    refused: HashSet<Domain<'a>>,
    /// The pod fulfils its own affinity terms, so it may be the first of its group.
    matches_itself: bool,
}

/// Why a node is no place for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AffinityMiss {
    /// Pods this one wants near are not there.
    Affinity,
    /// Pods this one refuses are there.
    AntiAffinity,
    /// Pods there refuse this one.
    ExistingAntiAffinity,
}

impl<'a> PodAffinity<'a> {
    pub(crate) fn prepare(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let mut state = Self {
            refusing: HashSet::new(),
            wanted: HashMap::new(),
            refused: HashSet::new(),
            matches_itself: pod
                .affinity
                .iter()
                .all(|term| term.matches(&pod.namespace, &pod.labels, &snapshot.namespaces)),
        };
        for placed in snapshot.placed_with_terms() {
            for term in &placed.pod.anti_affinity {
                if term.matches(&pod.namespace, &pod.labels, &snapshot.namespaces) {
                    state.refusing.extend(domain(term, placed, snapshot));
                }
            }
        }
        if !pod.affinity.is_empty() || !pod.anti_affinity.is_empty() {
            for placed in snapshot.placed() {
                state.look_at(pod, placed, snapshot);
            }
        }
        state
    }

    fn look_at(&mut self, pod: &'a PodInfo, placed: &'a Placed, snapshot: &'a Snapshot) {
        let other = &placed.pod;
        let meant = |term: &PodTerm| term.matches(&other.namespace, &other.labels, &snapshot.namespaces);
        if !pod.affinity.is_empty() && pod.affinity.iter().all(meant) {
            for found in pod.affinity.iter().filter_map(|term| domain(term, placed, snapshot)) {
                *self.wanted.entry(found).or_default() += 1;
            }
        }
        for term in pod.anti_affinity.iter().filter(|term| meant(term)) {
            self.refused.extend(domain(term, placed, snapshot));
        }
    }

    pub(crate) fn check(&self, pod: &PodInfo, node: &Node) -> Result<(), AffinityMiss> {
        let domain_in = |term: &PodTerm| node.labels.get_key_value(&term.topology_key);
        let mut near = true;
        for term in &pod.affinity {
            let Some((key, value)) = domain_in(term) else { return Err(AffinityMiss::Affinity) };
            near &= self.wanted.contains_key(&(key.as_str(), value.as_str()));
        }
        let first_of_group = self.wanted.is_empty() && self.matches_itself;
        if !near && !first_of_group {
            return Err(AffinityMiss::Affinity);
        }
        let refused = |term: &PodTerm| {
            domain_in(term).is_some_and(|(key, value)| self.refused.contains(&(key.as_str(), value.as_str())))
        };
        if pod.anti_affinity.iter().any(refused) {
            return Err(AffinityMiss::AntiAffinity);
        }
        if !self.refusing.is_empty()
            && node.labels.iter().any(|(k, v)| self.refusing.contains(&(k.as_str(), v.as_str())))
        {
            return Err(AffinityMiss::ExistingAntiAffinity);
        }
        Ok(())
    }
}

fn domain<'a>(term: &'a PodTerm, placed: &Placed, snapshot: &'a Snapshot) -> Option<Domain<'a>> {
    let value = snapshot.node(placed.node).labels.get(&term.topology_key)?;
    Some((term.topology_key.as_str(), value.as_str()))
}

/// Scores 0 to 100 of the feasible nodes by wishes of this pod and of pods there. `None` if nobody has any.
pub(crate) fn score(pod: &PodInfo, snapshot: &Snapshot, feasible: &[NodeId]) -> Option<Vec<i64>> {
    let mut points: HashMap<Domain<'_>, i64> = HashMap::new();
    for placed in snapshot.placed_with_terms() {
        let required = placed.pod.affinity.iter().map(|term| (REQUIRED_WEIGHT, term));
        let wishes = placed.pod.preferred.iter().map(|(weight, term)| (*weight, term));
        for (weight, term) in required.chain(wishes) {
            if term.matches(&pod.namespace, &pod.labels, &snapshot.namespaces)
                && let Some(found) = domain(term, placed, snapshot)
            {
                *points.entry(found).or_default() += weight;
            }
        }
    }
    if !pod.preferred.is_empty() {
        for placed in snapshot.placed() {
            for (weight, term) in &pod.preferred {
                if term.matches(&placed.pod.namespace, &placed.pod.labels, &snapshot.namespaces)
                    && let Some(found) = domain(term, placed, snapshot)
                {
                    *points.entry(found).or_default() += *weight;
                }
            }
        }
    }
    if points.is_empty() {
        return None;
    }
    let sum = |id: &NodeId| -> i64 {
        let labels = snapshot.node(*id).labels.iter();
        labels.filter_map(|(key, value)| points.get(&(key.as_str(), value.as_str()))).sum()
    };
    let raw: Vec<i64> = feasible.iter().map(sum).collect();
    let (least, most) = (raw.iter().copied().min()?, raw.iter().copied().max()?);
    let span = most - least;
    Some(raw.iter().map(|points| if span > 0 { 100 * (points - least) / span } else { 0 }).collect())
}
