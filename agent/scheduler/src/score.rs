//! Which of the nodes that can take a pod is the best place.

use crate::labels::{term_matches, tolerates};
use crate::pod::PodInfo;
use crate::snapshot::{Node, NodeId, Snapshot};
use crate::{interpod, spread};

/// Weights of upstream's default profile.
const TAINTS: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const POD_AFFINITY: i64 = 2;

const MIB: i64 = 1 << 20;
/// Images below are not worth a detour, images above are all the same.
const IMAGE_LEAST: i64 = 23 * MIB;
const IMAGE_MOST: i64 = 1000 * MIB;

/// The weighted sum of all scores per feasible node.
pub(crate) fn totals(pod: &PodInfo, snapshot: &Snapshot, feasible: &[NodeId]) -> Vec<i64> {
    let mut totals: Vec<i64> = feasible
        .iter()
        .map(|id| {
            let node = snapshot.node(*id);
            least_allocated(pod, node) + balanced(pod, node) + image_locality(pod, node, snapshot)
        })
        .collect();
    let disliked = |node: &Node| {
        let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        i64::try_from(soft.filter(|taint| !tolerates(&pod.tolerations, taint)).count()).unwrap_or(i64::MAX)
    };
    let counts: Vec<i64> = feasible.iter().map(|id| disliked(snapshot.node(*id))).collect();
    let taints = normalized(&counts).iter().map(|score| 100 - score).collect();
    add(&mut totals, &taints, TAINTS);
    if !pod.node_choice.preferred.is_empty() {
        let liked = |node: &Node| -> i64 {
            let terms = pod.node_choice.preferred.iter();
            terms.filter(|(_, term)| term_matches(term, &node.name, &node.labels)).map(|(weight, _)| weight).sum()
        };
        let sums: Vec<i64> = feasible.iter().map(|id| liked(snapshot.node(*id))).collect();
        add(&mut totals, &normalized(&sums), NODE_AFFINITY);
    }
    if let Some(scores) = spread::score(pod, snapshot, feasible) {
        add(&mut totals, &scores, SPREAD);
    }
    if let Some(scores) = interpod::score(pod, snapshot, feasible) {
        add(&mut totals, &scores, POD_AFFINITY);
    }
    totals
}

fn add(totals: &mut [i64], scores: &Vec<i64>, weight: i64) {
    for (total, score) in totals.iter_mut().zip(scores) {
        *total += weight * score;
    }
}

/// Scaled so that the highest is 100.
fn normalized(raw: &[i64]) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or(0);
    raw.iter().map(|score| if most > 0 { 100 * score / most } else { 0 }).collect()
}

/// High where much is left.
fn least_allocated(pod: &PodInfo, node: &Node) -> i64 {
    let left = |used: i64, have: i64| -> Option<i64> {
        if have == 0 {
            return None;
        }
        Some(if used > have { 0 } else { (have - used) * 100 / have })
    };
    let cpu = left(node.assumed_cpu + pod.requests.assumed_cpu, node.allocatable.cpu);
    let memory = left(node.assumed_memory + pod.requests.assumed_memory, node.allocatable.memory);
    match (cpu, memory) {
        (Some(cpu), Some(memory)) => i64::midpoint(cpu, memory),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => 0,
    }
}

/// High where the pod brings the shares of CPU and memory in use closer together.
fn balanced(pod: &PodInfo, node: &Node) -> i64 {
    let request = &pod.requests.exact;
    if request.cpu == 0 && request.memory == 0 {
        return 0;
    }
    let have = &node.allocatable;
    let with =
        evenness(node.requested.cpu + request.cpu, node.requested.memory + request.memory, have.cpu, have.memory);
    let without = evenness(node.requested.cpu, node.requested.memory, have.cpu, have.memory);
    50 + (50 + with - without) / 2
}

/// 100 less the standard deviation of both shares, in percent.
fn evenness(cpu: i64, memory: i64, cpu_capacity: i64, memory_capacity: i64) -> i64 {
    /// Fine enough for a percentage, coarse enough to stay in integers.
    const SCALE: i128 = 1_000_000;
    let share = |used: i64, have: i64| (i128::from(used) * SCALE / i128::from(have)).clamp(0, SCALE);
    if cpu_capacity <= 0 || memory_capacity <= 0 {
        return 100;
    }
    let deviation = (share(cpu, cpu_capacity) - share(memory, memory_capacity)).abs() / 2;
    i64::try_from((SCALE - deviation) * 100 / SCALE).unwrap_or(0)
}

/// High where the pod's images are already, unless they are on few nodes only.
fn image_locality(pod: &PodInfo, node: &Node, snapshot: &Snapshot) -> i64 {
    if node.images.is_empty() || pod.images.is_empty() {
        return 0;
    }
    let nodes = i64::try_from(snapshot.node_count()).unwrap_or(i64::MAX).max(1);
    let there = |image: &String| {
        let size = i128::from(node.images.get(image).copied().unwrap_or(0));
        i64::try_from(size * i128::from(snapshot.nodes_with_image(image)) / i128::from(nodes)).unwrap_or(0)
    };
    let most = IMAGE_MOST * i64::try_from(pod.images.len()).unwrap_or(1);
    let sum = pod.images.iter().map(there).sum::<i64>().clamp(IMAGE_LEAST, most);
    100 * (sum - IMAGE_LEAST) / (most - IMAGE_LEAST)
}
