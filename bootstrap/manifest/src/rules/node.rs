//! Rules of `[machine]`, `[kubelet]` and `[registries]`.

use super::Rules;
use super::cluster::in_cluster_range;
use crate::words::{LabelKey, MirrorScheme};

/// A shorter one would end machines that are merely busy, a longer one not every watchdog can wait for.
const WATCHDOG_SECS: std::ops::RangeInclusive<u64> = 10..=600;

/// Whoever wants a machine to go down is still there then.
const SHUTDOWN_GRACE_MOST: std::time::Duration = std::time::Duration::from_secs(600);

/// The labels of Kubernetes' own domains that a kubelet may give its Node.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "node.kubernetes.io/exclude-from-external-load-balancers",
];

pub(super) fn check(rules: &mut Rules<'_>) {
    machine(rules);
    kubelet(rules);
    mirrors(rules);
}

fn is_reserved(key: &LabelKey) -> bool {
    let Some((domain, _)) = key.as_str().split_once('/') else {
        return false;
    };
    let inside = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let kubernetes = inside("kubernetes.io") || inside("k8s.io");
    kubernetes
        && !inside("kubelet.kubernetes.io")
        && !inside("node.kubernetes.io")
        && !OWN_LABELS.contains(&key.as_str())
}

fn machine(rules: &mut Rules<'_>) {
    let Some(machine) = &rules.parts.machine else {
        return;
    };
    if machine.hostname.as_str() == "localhost" {
        rules.error("machine.hostname", "`localhost` is every machine's name for itself").expected("a name of its own");
    }
    if !WATCHDOG_SECS.contains(&machine.watchdog.duration().as_secs()) {
        rules
            .error("machine.watchdog", format!("no watchdog waits for `{}`", machine.watchdog))
            .expected("at least `10s`, at most `10m`");
    }
    if machine.shutdown_grace.duration() > SHUTDOWN_GRACE_MOST {
        rules
            .error(
                "machine.shutdown-grace",
                format!("`{}` keeps a machine that goes down too long", machine.shutdown_grace),
            )
            .expected("at most `10m`");
    }
    let (critical, all) = (&machine.shutdown_grace_critical, &machine.shutdown_grace);
    // The default is a part of a short one all the same.
    if critical >= all && rules.has("machine.shutdown-grace-critical") {
        let reason = format!("`{critical}` for critical pods leaves nothing of `{all}` for the others");
        rules.error("machine.shutdown-grace-critical", reason).expected("less than `machine.shutdown-grace`");
    }
    for key in machine.labels.keys().filter(|key| is_reserved(key)) {
        rules
            .error("machine.labels", format!("a node may not give itself the label `{key}`"))
            .expected("a label outside of kubernetes.io and k8s.io")
            .help("set it with `kubectl label node` once the node has joined");
    }
    if rules.has(&format!("machine.taints[{}]", machine.taints.len())) {
        return;
    }
    for (index, taint) in machine.taints.iter().enumerate() {
        if machine.taints[..index].iter().any(|other| other.key == taint.key && other.effect == taint.effect) {
            let reason = format!("a taint with key `{}` and effect `{}` is there already", taint.key, taint.effect);
            rules.error(&format!("machine.taints[{index}]"), reason);
        }
    }
}

fn kubelet(rules: &mut Rules<'_>) {
    let Some(kubelet) = &rules.parts.kubelet else {
        return;
    };
    let (low, high) = (kubelet.image_gc_low_percent, kubelet.image_gc_high_percent);
    if low >= high {
        let written = rules.has("kubelet.image-gc-low-percent");
        let key = if written { "kubelet.image-gc-low-percent" } else { "kubelet.image-gc-high-percent" };
        rules.error(key, format!("images are removed from {high} % down to {low} %")).expected("low below high");
    }
    for (index, address) in kubelet.node_addresses.iter().enumerate() {
        let key = format!("kubelet.node-addresses[{index}]");
        if kubelet.node_addresses[..index].iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            rules.error(&key, format!("`{address}` is the second of its address family")).expected("one per family");
        }
        in_cluster_range(rules, &key, *address);
    }
}

fn mirrors(rules: &mut Rules<'_>) {
    let Some(registries) = &rules.parts.registries else {
        return;
    };
    for (registry, mirror) in &registries.mirrors {
        let at = crate::structure::join("registries.mirrors", registry.as_str());
        if mirror.endpoints.is_empty() {
            // Endpoints that could not be read were reported already.
            if !rules.findings.has_errors() {
                rules.error(&at, format!("`{registry}` has no mirror")).expected("at least one URL in `endpoints`");
            }
            continue;
        }
        let plain = mirror.endpoints.iter().all(|url| url.scheme == MirrorScheme::Http);
        if plain && (mirror.ca.is_some() || mirror.skip_verify) {
            rules.warning(&at, format!("`{registry}` has only http mirrors, which have no certificates to verify"));
        } else if mirror.ca.is_some() && mirror.skip_verify {
            rules.warning(&at, "`ca` has no effect with `skip-verify`");
        }
    }
}
