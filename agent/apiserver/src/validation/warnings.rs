//! What is taken, but is not what the client may think: of all kinds but those of pods.

use api::core::v1::{
    Endpoints, PersistentVolume, PersistentVolumeClaim, Secret, Service, ServiceAccount,
    TopologySelectorLabelRequirement,
};
use api::discovery::v1::EndpointSlice;
use api::networking::v1::{Ingress, IpBlock, NetworkPolicy};
use api::node::v1::RuntimeClass;
use api::storage::v1::{CsiDriver, CsiStorageCapacity, StorageClass};

use super::addresses::{cidr_warnings, ip_warning};
use super::pod::warnings::{Warnings, claim, node_term, old_label};
use super::{Change, Path, key_pair};
use crate::strategy::Part;
use stdx::quoted;

const SPEC: Path<'static> = Path::root("spec");
const OLD_CLASS: (&str, &str) =
    ("volume.beta.kubernetes.io/storage-class", "deprecated since v1.8; use \"storageClassName\" attribute instead");
const OLD_OPTIONS: (&str, &str) =
    ("volume.beta.kubernetes.io/mount-options", "deprecated since v1.31; use \"mountOptions\" attribute instead");

pub fn service(change: &Change<'_, Service>, out: &mut Warnings) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let spec = &change.new.spec;
    if change.part == Part::Status {
        return balancer(change.new.status.load_balancer.ingress.iter().map(|ingress| ingress.ip.as_str()), out);
    }
    if change.new.metadata.annotations.contains_key(HINTS) {
        let new = "service.kubernetes.io/topology-mode";
        out.push(format!("annotation {HINTS} is deprecated, please use {new} instead"));
    }
    if !matches!(spec.cluster_ip.as_str(), "" | "None") {
        addresses(&SPEC.child("clusterIPs"), &spec.cluster_ips, out);
    }
    let is_headless = spec.r#type == "ClusterIP" && spec.cluster_ip == "None";
    let is_external = spec.r#type == "ExternalName";
    let has_ips = !spec.external_ips.is_empty();
    let mut told = |broken: bool, text: &str| out.extend(broken.then(|| text.to_owned()));
    told(is_headless && !spec.load_balancer_ip.is_empty(), "spec.loadBalancerIP is ignored for headless services");
    told(is_headless && has_ips, "spec.externalIPs is ignored for headless services");
    let text = "spec.SessionAffinity is ignored for headless services";
    told(is_headless && spec.session_affinity != "None", text);
    addresses(&SPEC.child("externalIPs"), &spec.external_ips, out);
    let mut told = |broken: bool, text: &str| out.extend(broken.then(|| text.to_owned()));
    let text = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    told(has_ips && !is_headless && !is_external, text);
    if !spec.load_balancer_ip.is_empty() {
        out.extend(ip_warning(&SPEC.child("loadBalancerIP"), &spec.load_balancer_ip));
    }
    for (i, range) in spec.load_balancer_source_ranges.iter().enumerate() {
        out.extend(cidr_warnings(&SPEC.child("loadBalancerSourceRanges").index(i), range));
    }
    let mut told = |broken: bool, text: &str| out.extend(broken.then(|| text.to_owned()));
    told(is_external && has_ips, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    let text = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
    told(!is_external && !spec.external_name.is_empty(), text);
    let text = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
    told(spec.traffic_distribution.as_deref() == Some("PreferClose"), text);
}

fn addresses(path: &Path<'_>, ips: &[String], out: &mut Warnings) {
    out.extend(ips.iter().enumerate().filter_map(|(i, ip)| ip_warning(&path.index(i), ip)));
}

fn balancer<'a>(ips: impl Iterator<Item = &'a str>, out: &mut Warnings) {
    let status = Path::root("status.loadBalancer.ingress");
    let given = ips.enumerate().filter(|(_, ip)| !ip.is_empty());
    out.extend(given.filter_map(|(i, ip)| ip_warning(&status.index(i), ip)));
}

pub fn endpoints(change: &Change<'_, Endpoints>, out: &mut Warnings) {
    let managed = change.new.metadata.labels.get("endpoints.kubernetes.io/managed-by");
    if managed.is_some_and(|by| by == "endpoint-controller") {
        return;
    }
    for (i, subset) in change.new.subsets.iter().enumerate() {
        let list = Path::root("subsets");
        let path = list.index(i);
        for (field, found) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)] {
            for (i, address) in found.iter().enumerate() {
                out.extend(ip_warning(&path.child(field).index(i).child("ip"), &address.ip));
            }
        }
    }
}

pub fn endpoint_slice(change: &Change<'_, EndpointSlice>, out: &mut Warnings) {
    let new = change.new;
    if change.old.is_none() && new.address_type == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let managed = new.metadata.labels.get("endpointslice.kubernetes.io/managed-by").map(String::as_str);
    if matches!(managed, Some("endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io")) {
        return;
    }
    for (i, endpoint) in new.endpoints.iter().enumerate() {
        let list = Path::root("endpoints");
        addresses(&list.index(i).child("addresses"), &endpoint.addresses, out);
    }
}

/// A certificate and a key that do not belong together are taken all the same.
pub fn secret(change: &Change<'_, Secret>, out: &mut Warnings) {
    let secret = change.new;
    if secret.r#type == "kubernetes.io/tls" {
        let of = |key: &str| secret.data.get(key).map(Vec::as_slice).unwrap_or_default();
        out.extend(key_pair::complaint(of("tls.crt"), of("tls.key")));
    }
}

pub fn service_account(change: &Change<'_, ServiceAccount>, out: &mut Warnings) {
    const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
    let has = |account: &ServiceAccount| account.metadata.annotations.contains_key(ENFORCE);
    if has(change.new) && !change.old.is_some_and(has) {
        out.push(format!(
            "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        ));
    }
}

pub fn persistent_volume(change: &Change<'_, PersistentVolume>, out: &mut Warnings) {
    if change.part == Part::Status {
        return;
    }
    let (spec, sources) = (&change.new.spec, &change.new.spec.persistent_volume_source);
    for (key, text) in [OLD_CLASS, OLD_OPTIONS] {
        if change.new.metadata.annotations.contains_key(key) {
            out.push(format!("metadata.annotations[{key}]: {text}"));
        }
    }
    if spec.persistent_volume_reclaim_policy == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    let terms = Path::root("spec.nodeAffinity.required.nodeSelectorTerms");
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    for (i, term) in required.iter().flat_map(|selector| &selector.node_selector_terms).enumerate() {
        node_term(&terms.index(i), term, false, out);
    }
    let old = [
        (sources.cephfs.is_some(), "cephfs: deprecated in v1.28, non-functional in v1.31+"),
        (
            sources.photon_persistent_disk.is_some(),
            "photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+",
        ),
        (sources.scale_io.is_some(), "scaleIO: deprecated in v1.16, non-functional in v1.22+"),
        (sources.storageos.is_some(), "storageOS: deprecated in v1.22, non-functional in v1.25+"),
        (sources.glusterfs.is_some(), "glusterfs: deprecated in v1.25, non-functional in v1.26+"),
        (sources.rbd.is_some(), "rbd: deprecated in v1.28, non-functional in v1.31+"),
    ];
    out.extend(old.iter().filter(|(there, _)| *there).map(|(_, text)| format!("spec.{text}")));
}

pub fn persistent_volume_claim(change: &Change<'_, PersistentVolumeClaim>, out: &mut Warnings) {
    if change.part == Part::Status {
        return;
    }
    let (key, text) = OLD_CLASS;
    if change.new.metadata.annotations.contains_key(key) {
        out.push(format!("metadata.annotations[{key}]: {text}"));
    }
    claim(&SPEC, &change.new.spec, out);
}

pub fn ingress(change: &Change<'_, Ingress>, out: &mut Warnings) {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let new = change.new;
    if change.part == Part::Status {
        return balancer(new.status.load_balancer.ingress.iter().map(|ingress| ingress.ip.as_str()), out);
    }
    if change.old.is_none() && new.metadata.annotations.contains_key(CLASS) && new.spec.ingress_class_name.is_none() {
        out.push(format!("annotation {} is deprecated, please use 'spec.ingressClassName' instead", quoted(CLASS)));
    }
}

pub fn network_policy(change: &Change<'_, NetworkPolicy>, out: &mut Warnings) {
    let spec = &change.new.spec;
    let ingress = spec.ingress.iter().enumerate().map(|(i, rule)| ("ingress", i, "from", &rule.from));
    let egress = spec.egress.iter().enumerate().map(|(i, rule)| ("egress", i, "to", &rule.to));
    for (rules, i, peers, list) in ingress.chain(egress) {
        for (j, block) in list.iter().enumerate().filter_map(|(j, peer)| Some((j, peer.ip_block.as_ref()?))) {
            let (all, IpBlock { cidr, except }) = (SPEC.child(rules), block);
            let (rule, item) = (all.index(i), j);
            let peers = rule.child(peers);
            let peer = peers.index(item);
            let path = peer.child("ipBlock");
            out.extend(cidr_warnings(&path.child("cidr"), cidr));
            for (k, range) in except.iter().enumerate() {
                out.extend(cidr_warnings(&path.child("except").index(k), range));
            }
        }
    }
}

pub fn csi_driver(change: &Change<'_, CsiDriver>, out: &mut Warnings) {
    let new = &change.new.spec;
    let same = change.old.is_some_and(|old| old.spec.token_requests == new.token_requests);
    if !same && !new.token_requests.is_empty() && new.service_account_token_in_secrets.is_none() {
        out.push("spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned());
    }
}

pub fn storage_class(change: &Change<'_, StorageClass>, out: &mut Warnings) {
    let list = Path::root("allowedTopologies");
    for (i, term) in change.new.allowed_topologies.iter().enumerate() {
        let path = list.index(i);
        let path = path.child("matchLabelExpressions");
        for (j, TopologySelectorLabelRequirement { key, .. }) in term.match_label_expressions.iter().enumerate() {
            out.extend(old_label(key).map(|text| format!("{}: {text}", path.index(j).child("key"))));
        }
    }
}

pub fn csi_storage_capacity(change: &Change<'_, CsiStorageCapacity>, out: &mut Warnings) {
    let Some(topology) = &change.new.node_topology else { return };
    let path = Path::root("nodeTopology");
    for (i, expression) in topology.match_expressions.iter().enumerate() {
        let (at, key) = (path.child("matchExpressions"), &expression.key);
        out.extend(old_label(key).map(|text| format!("{}: {key} is {text}", at.index(i).child("key"))));
    }
    for key in topology.match_labels.keys() {
        out.extend(old_label(key).map(|text| format!("{}: {text}", path.child("matchLabels").child(key))));
    }
}

pub fn runtime_class(change: &Change<'_, RuntimeClass>, out: &mut Warnings) {
    let selector = change.new.scheduling.iter().flat_map(|scheduling| scheduling.node_selector.keys());
    out.extend(selector.filter_map(|key| Some(format!("scheduling.nodeSelector: {}", old_label(key)?))));
}
