//! Whether a node can take a pod, and if not, why.

use std::borrow::Cow;

use api::core::v1::Taint;

use crate::interpod::{AffinityMiss, PodAffinity};
use crate::labels::{any_term_matches, is_hard, tolerates};
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};
use crate::spread::{HardSpread, SpreadMiss};
use crate::volumes::VolumeTerms;

/// What kinds of change can make a refused pod fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hopes(u8);

impl Hopes {
    /// A new or changed node.
    pub(crate) const NODE: Self = Self(1);
    /// A pod that leaves a node.
    pub(crate) const POD_GONE: Self = Self(2);
    /// A pod that comes to a node or changes its labels.
    pub(crate) const POD_PLACED: Self = Self(4);
    /// A changed claim or volume.
    pub(crate) const VOLUME: Self = Self(8);

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Why one node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// In upstream's words.
    pub(crate) reasons: Vec<Cow<'static, str>>,
    /// Whether pushing pods out could help.
    pub(crate) resolvable: bool,
    /// What could help.
    pub(crate) hopes: Hopes,
}

impl Rejection {
    fn final_for(reason: &'static str, hopes: Hopes) -> Self {
        Self { reasons: vec![Cow::Borrowed(reason)], resolvable: false, hopes }
    }

    fn while_pods_stay(reason: &'static str) -> Self {
        let hopes = Hopes::NODE.with(Hopes::POD_GONE);
        Self { reasons: vec![Cow::Borrowed(reason)], resolvable: true, hopes }
    }
}

/// One pod's questions to every node, prepared once.
pub(crate) struct Check<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    volumes: VolumeTerms<'a>,
    spread: HardSpread<'a>,
    affinity: PodAffinity<'a>,
}

impl<'a> Check<'a> {
    /// Prepares the questions, or says why no node can help.
    pub(crate) fn prepare(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Result<Self, String> {
        Ok(Self {
            pod,
            snapshot,
            volumes: snapshot.volumes.requirements(pod)?,
            spread: HardSpread::prepare(pod, snapshot),
            affinity: PodAffinity::prepare(pod, snapshot),
        })
    }

    /// Whether the node can take the pod.
    pub(crate) fn node(&self, node: &Node) -> Result<(), Rejection> {
        self.node_itself(node)?;
        self.ports(node)?;
        self.room(node)?;
        if self.volumes.iter().any(|terms| !any_term_matches(terms, &node.name, &node.labels)) {
            let reason = "node(s) didn't match PersistentVolume's node affinity";
            return Err(Rejection::final_for(reason, Hopes::NODE.with(Hopes::VOLUME)));
        }
        self.spread.check(self.pod, node).map_err(spread_rejection)?;
        self.affinity.check(self.pod, node).map_err(affinity_rejection)
    }

    /// What depends on the node alone.
    fn node_itself(&self, node: &Node) -> Result<(), Rejection> {
        let pod = self.pod;
        if node.unschedulable && !tolerates(&pod.tolerations, &unschedulable_taint()) {
            return Err(Rejection::final_for("node(s) were unschedulable", Hopes::NODE));
        }
        if !pod.node_name.is_empty() && pod.node_name != node.name {
            return Err(Rejection::final_for("node(s) didn't match the requested node name", Hopes::NODE));
        }
        if node.taints.iter().any(|taint| is_hard(taint) && !tolerates(&pod.tolerations, taint)) {
            return Err(Rejection::final_for("node(s) had untolerated taint(s)", Hopes::NODE));
        }
        if !pod.node_choice.accepts(&node.name, &node.labels) {
            return Err(Rejection::final_for("node(s) didn't match Pod's node affinity/selector", Hopes::NODE));
        }
        Ok(())
    }

    fn ports(&self, node: &Node) -> Result<(), Rejection> {
        let taken = |pod: &PodInfo| {
            pod.host_ports.iter().any(|theirs| self.pod.host_ports.iter().any(|ours| ours.conflicts(theirs)))
        };
        let nominated = || self.nominated(node).any(taken);
        if !self.pod.host_ports.is_empty() && (node.pods.iter().any(|pod| taken(pod)) || nominated()) {
            let reason = "node(s) didn't have free ports for the requested pod ports";
            return Err(Rejection::while_pods_stay(reason));
        }
        Ok(())
    }

    fn room(&self, node: &Node) -> Result<(), Rejection> {
        let request = &self.pod.requests.exact;
        let mut used = Cow::Borrowed(&node.requested);
        let mut pods = node.pods.len();
        for nominated in self.nominated(node) {
            used.to_mut().add(&nominated.requests.exact);
            pods += 1;
        }
        let mut short = Shortage::default();
        if i64::try_from(pods).unwrap_or(i64::MAX) >= node.allowed_pods {
            short.add(Cow::Borrowed("Too many pods"), false);
        }
        let have = &node.allocatable;
        let amounts = [
            ("Insufficient cpu", request.cpu, used.cpu, have.cpu),
            ("Insufficient memory", request.memory, used.memory, have.memory),
            (
                "Insufficient ephemeral-storage",
                request.ephemeral_storage,
                used.ephemeral_storage,
                have.ephemeral_storage,
            ),
        ];
        for (reason, wanted, used, have) in amounts {
            if wanted > 0 && wanted > have - used {
                short.add(Cow::Borrowed(reason), wanted > have);
            }
        }
        for (name, wanted) in &request.scalars {
            let of = |list: &std::collections::BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
            let (used, have) = (of(&used.scalars), of(&have.scalars));
            if *wanted > 0 && *wanted > have - used {
                short.add(Cow::Owned(format!("Insufficient {name}")), *wanted > have);
            }
        }
        short.into_result()
    }

    /// Pods that will come to the node before this one could.
    fn nominated(&self, node: &'a Node) -> impl Iterator<Item = &'a PodInfo> {
        let (key, priority) = (&self.pod.key, self.pod.priority);
        let all = self.snapshot.has_nominated().then(|| self.snapshot.nominated_to(&node.name));
        all.into_iter().flatten().map(|pod| &**pod).filter(move |pod| pod.key != *key && pod.priority >= priority)
    }
}

#[derive(Default)]
struct Shortage {
    reasons: Vec<Cow<'static, str>>,
    hopeless: bool,
}

impl Shortage {
    fn add(&mut self, reason: Cow<'static, str>, hopeless: bool) {
        self.reasons.push(reason);
        self.hopeless |= hopeless;
    }

    fn into_result(self) -> Result<(), Rejection> {
        if self.reasons.is_empty() {
            return Ok(());
        }
        let hopes = if self.hopeless { Hopes::NODE } else { Hopes::NODE.with(Hopes::POD_GONE) };
        Err(Rejection { reasons: self.reasons, resolvable: !self.hopeless, hopes })
    }
}

fn spread_rejection(miss: SpreadMiss) -> Rejection {
    let hopes = Hopes::NODE.with(Hopes::POD_GONE).with(Hopes::POD_PLACED);
    match miss {
        SpreadMiss::NoLabel => {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            Rejection::final_for(reason, Hopes::NODE)
        }
        SpreadMiss::Skew => {
            Rejection { hopes, ..Rejection::while_pods_stay("node(s) didn't match pod topology spread constraints") }
        }
    }
}

fn affinity_rejection(miss: AffinityMiss) -> Rejection {
    let hopes = Hopes::NODE.with(Hopes::POD_GONE).with(Hopes::POD_PLACED);
    match miss {
        AffinityMiss::Affinity => Rejection::final_for("node(s) didn't match pod affinity rules", hopes),
        AffinityMiss::AntiAffinity => Rejection::while_pods_stay("node(s) didn't match pod anti-affinity rules"),
        AffinityMiss::ExistingAntiAffinity => {
            Rejection::while_pods_stay("node(s) didn't satisfy existing pods anti-affinity rules")
        }
    }
}

fn unschedulable_taint() -> Taint {
    Taint { key: "node.kubernetes.io/unschedulable".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}
