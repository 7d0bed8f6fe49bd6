//! Rules of `[cluster]`, `[control-plane]` and of what each role needs.

use std::net::IpAddr;

use super::Rules;
use crate::model::{CaTrust, Cluster};
use crate::words::{Cidr, Host, Role};

/// Address 10 must exist in the first Service range.
const SERVICE_HOST_BITS: u8 = 4;
/// Nodes get a /24 or a /64 of the pod range.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

pub(super) fn check(rules: &mut Rules<'_>) {
    let parts = rules.parts;
    if let Some(machine) = &parts.machine {
        match machine.role {
            Role::Worker => worker(rules),
            Role::Master | Role::Single => master(rules),
        }
    }
    if rules.has("cluster.ca") && rules.has("cluster.ca-hash") {
        rules.error("cluster.ca-hash", "both `ca` and `ca-hash` are given").expected("one of them");
    }
    accepted(rules);
    for key in ["cluster.pod-cidrs", "cluster.service-cidrs"] {
        if rules.has(key) && !rules.has(&format!("{key}[0]")) {
            rules.error(key, "there is no range").expected("one range per address family");
        }
    }
    if let Some(cluster) = &parts.cluster {
        ranges(rules, cluster);
        dns_address(rules, cluster);
        endpoint(rules, cluster);
    }
}

/// What is trusted beside what issues: never alone, and never the same.
fn accepted(rules: &mut Rules<'_>) {
    let parts = rules.parts;
    let secrets = parts.control_plane.as_ref().and_then(|it| it.secret.as_ref().zip(it.accepted_secret.as_ref()));
    let same_secret = secrets.and_then(|(one, other)| one.known().zip(other.known())).is_some_and(|(a, b)| a == b);
    let same_hash = match parts.cluster.as_ref().and_then(|cluster| cluster.trust.as_ref()) {
        Some(CaTrust::Hashes(hashes)) => hashes.iter().skip(1).any(|hash| *hash == hashes[0]),
        Some(CaTrust::Certificates(_)) | None => false,
    };
    let pairs = [
        ("control-plane.accepted-secret", "control-plane.secret", same_secret),
        ("cluster.accepted-ca-hash", "cluster.ca-hash", same_hash),
    ];
    for (accepted, issuing, is_same) in pairs {
        if !rules.has(accepted) {
            continue;
        }
        if !rules.has(issuing) {
            let reason = format!("there is no `{issuing}` that it could be trusted beside");
            let takes_several = accepted.starts_with("cluster.") && rules.has("cluster.ca");
            let finding = rules.error(accepted, reason);
            if takes_several {
                finding.help("`cluster.ca` takes the certificates of several CAs, first that of the one that issues");
            }
        } else if is_same {
            rules.error(accepted, format!("it is the same as `{issuing}`")).expected("another one, or none");
        }
    }
}

fn worker(rules: &mut Rules<'_>) {
    let needed = [
        ("cluster.endpoint", "the URL of the API to join", "endpoint = \"https://192.168.1.10:6443\""),
        ("cluster.token", "the token to join with", "`keelson token create` on a master prints one"),
    ];
    for (key, what, help) in needed {
        if !rules.has(key) {
            rules.missing(key, format!("a worker needs `{key}`")).expected(what).help(help);
        }
    }
    if !rules.has("cluster.ca") && !rules.has("cluster.ca-hash") {
        rules
            .missing("cluster.ca-hash", "a worker needs `cluster.ca` or `cluster.ca-hash`")
            .expected("a way to recognize the cluster before the token is shown to it")
            .help("`keelson token create` on a master prints the hash");
    }
    for key in ["control-plane.secret", "control-plane.accepted-secret"] {
        if rules.has(key) {
            rules.error(key, "a worker must not have the masters' secret").help("remove the key");
        }
    }
    for section in ["control-plane", "etcd"] {
        if rules.has(section) {
            rules.warning(section, format!("`{section}` has no effect on a worker"));
        }
    }
}

fn master(rules: &mut Rules<'_>) {
    for key in ["cluster.ca", "cluster.ca-hash", "cluster.accepted-ca-hash"] {
        if rules.has(key) {
            rules.warning(key, format!("`{key}` has no effect on a master, which makes the CA itself"));
        }
    }
    let Some(control_plane) = &rules.parts.control_plane else { return };
    if rules.has("control-plane.audit")
        && !["log-path", "webhook"].iter().any(|key| rules.has(&format!("control-plane.audit.{key}")))
    {
        rules
            .error("control-plane.audit", "what is written down goes nowhere")
            .expected("`log-path`, `webhook` or both")
            .help("for example: log-path = \"/var/log/keelson/audit.log\"");
    }
    let names: Vec<&str> = control_plane.files.iter().map(|file| file.name.as_str()).collect();
    if !rules.has(&format!("control-plane.files[{}]", names.len())) {
        for (index, name) in names.iter().enumerate().filter(|(index, name)| names[..*index].contains(name)) {
            rules.error(&format!("control-plane.files[{index}].name"), format!("`{name}` is there twice"));
        }
    }
    let external = &control_plane.external;
    // Places in the text are only those in the list if every element was good.
    if rules.has(&format!("control-plane.external[{}]", external.len())) {
        return;
    }
    for (index, part) in external.iter().enumerate().filter(|(index, part)| external[..*index].contains(part)) {
        rules.error(&format!("control-plane.external[{index}]"), format!("`{part}` is there twice"));
    }
}

fn ranges(rules: &mut Rules<'_>, cluster: &Cluster) {
    let lists = [("cluster.pod-cidrs", &cluster.pod_cidrs), ("cluster.service-cidrs", &cluster.service_cidrs)];
    for (key, list) in lists {
        for (index, range) in list.iter().enumerate() {
            if list[..index].iter().any(|earlier| earlier.is_ipv4() == range.is_ipv4()) {
                let family = if range.is_ipv4() { "IPv4" } else { "IPv6" };
                rules
                    .error(&format!("{key}[{index}]"), format!("`{range}` is the second {family} range"))
                    .expected("one range per address family");
            }
        }
    }
    for (at, pods) in cluster.pod_cidrs.iter().enumerate() {
        let most = if pods.is_ipv4() { NODE_PREFIX_V4 } else { NODE_PREFIX_V6 };
        if pods.net().prefix_len() > most {
            rules
                .error(&format!("cluster.pod-cidrs[{at}]"), format!("`{pods}` is too small for one node"))
                .expected(format!("a prefix length of at most {most}, as every node gets a /{most}"));
        }
        for services in cluster.service_cidrs.iter().filter(|services| services.overlaps(*pods)) {
            let reason = format!("the pod range `{pods}` and the Service range `{services}` overlap");
            rules.error(&format!("cluster.pod-cidrs[{at}]"), reason).expected("ranges without common addresses");
        }
    }
    for (at, services) in cluster.service_cidrs.iter().enumerate() {
        let most = services.net().max_prefix_len() - SERVICE_HOST_BITS;
        if services.net().prefix_len() > most {
            rules
                .error(&format!("cluster.service-cidrs[{at}]"), format!("`{services}` is too small for Services"))
                .expected(format!("a prefix length of at most {most}"));
        }
    }
}

fn dns_address(rules: &mut Rules<'_>, cluster: &Cluster) {
    const KEY: &str = "cluster.dns-address";
    if !rules.has(KEY) {
        return;
    }
    let address = cluster.dns_address;
    let inside = |range: &&Cidr| range.net().contains(&address);
    match cluster.service_cidrs.iter().find(inside) {
        None => {
            let ranges: Vec<String> = cluster.service_cidrs.iter().map(|range| format!("`{range}`")).collect();
            let finding = rules.error(KEY, format!("`{address}` is not a Service address"));
            finding.expected(format!("an address in {}", ranges.join(" or ")));
            if let Some(address) = Cluster::default_dns_address(&cluster.service_cidrs) {
                finding.help(format!("did you mean `{address}`?"));
            }
        }
        Some(range) if range.address(1) == Some(address) || range.net().network() == address => {
            rules.error(KEY, format!("`{address}` is taken by the Service `kubernetes` or by the network itself"));
        }
        Some(_) => {}
    }
}

fn endpoint(rules: &mut Rules<'_>, cluster: &Cluster) {
    const KEY: &str = "cluster.endpoint";
    let Some(endpoint) = &cluster.endpoint else {
        return;
    };
    let is_worker = rules.parts.machine.as_ref().is_some_and(|machine| machine.role == Role::Worker);
    match &endpoint.host {
        Host::Ip(address) => {
            in_cluster_range(rules, KEY, *address);
            if is_worker && (address.is_loopback() || address.is_unspecified()) {
                rules.error(KEY, format!("`{address}` is this machine itself")).expected("the address of a master");
            }
        }
        Host::Name(name) if name.starts_with("*.") => {
            rules.error(KEY, format!("`{name}` is a pattern")).expected("one host");
        }
        Host::Name(name) if is_worker && name == "localhost" => {
            rules.error(KEY, "`localhost` is this machine itself").expected("the address of a master");
        }
        Host::Name(_) => {}
    }
}

/// Refuses an address of a machine that lies in a range of pods or Services.
pub(super) fn in_cluster_range(rules: &mut Rules<'_>, key: &str, address: IpAddr) {
    let Some(cluster) = &rules.parts.cluster else {
        return;
    };
    for (what, ranges) in [("pod", &cluster.pod_cidrs), ("Service", &cluster.service_cidrs)] {
        for range in ranges.iter().filter(|range| range.net().contains(&address)) {
            rules
                .error(key, format!("`{address}` lies in the {what} range `{range}`"))
                .expected("an address outside of the cluster's own ranges");
        }
    }
}
