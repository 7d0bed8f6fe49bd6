//! Nodes.

use std::net::IpAddr;

use api::core::v1::{ConfigMapNodeConfigSource, Node, NodeConfigSource, Taint};

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::pod::tolerations;
use crate::validation::{Change, Errors, Path, addresses, checks, names, resources, shown};

const MAX_FEATURE_LEN: usize = 253;
const ONE_REFERENCE: &str = "exactly one reference subfield must be non-nil";

pub fn node(change: &Change<'_, Node>, errors: &mut Errors) {
    let new = change.new;
    if change.part != Part::Status {
        taints(&new.spec.taints, errors);
        amounts(new, errors);
        if let Some(capacity) = new.status.node_info.swap.as_ref().and_then(|s| s.capacity) {
            let at = Path::root("metadata");
            let at = at.child("nodeSwapStatus");
            checks::positive(&at.child("capacity"), capacity, errors);
        }
        features(&new.status.declared_features, errors);
        ranges(&new.spec.pod_cidrs, errors);
    }
    if let Some(old) = change.old {
        update(new, old, errors);
    }
}

pub fn node_warnings(change: &Change<'_, Node>, out: &mut Vec<String>) {
    if change.part == Part::Status {
        return;
    }
    let spec = &change.new.spec;
    if spec.config_source.is_some() {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.external_id.is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    let path = Path::root("spec");
    let path = path.child("podCIDRs");
    for (i, range) in spec.pod_cidrs.iter().enumerate() {
        out.extend(addresses::cidr_warnings(&path.index(i), range));
    }
}

fn taints(taints: &[Taint], errors: &mut Errors) {
    let path = Path::root("metadata");
    let path = path.child("taints");
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        checks::text(&path.child("key"), &taint.key, names::qualified(&taint.key), errors);
        let complaints = names::label_value(&taint.value);
        if !complaints.is_empty() {
            errors.push(FieldError::invalid(path.child("value"), &taint.value, complaints.join(";")));
        }
        tolerations::effect(&path.child("effect"), &taint.effect, errors);
        if taints.iter().take(i).any(|earlier| earlier.key == taint.key && earlier.effect == taint.effect) {
            let shown = shown::structure("k8s.io.api.core.v1.Taint", taint);
            let why = "taints must be unique by key and effect pair";
            errors.push(FieldError::duplicate_because(path, shown, why));
        }
    }
}

fn amounts(node: &Node, errors: &mut Errors) {
    let path = Path::root("status");
    for (name, list) in [("capacity", &node.status.capacity), ("allocatable", &node.status.allocatable)] {
        let path = path.child(name);
        for (resource, quantity) in list {
            resources::quantity_value(&path.child(resource), resource, quantity, errors);
        }
    }
}

/// Features that the node declares: names, sorted.
fn features(features: &[String], errors: &mut Errors) {
    let path = Path::root("status");
    let path = path.child("declaredFeatures");
    for (i, feature) in features.iter().enumerate() {
        let shown = stdx::quoted(feature);
        if feature.len() > MAX_FEATURE_LEN {
            let why = format!("invalid feature name {shown}: must be no more than {MAX_FEATURE_LEN} characters");
            errors.push(FieldError::invalid(path.index(i), feature, why));
        } else if !is_feature(feature) {
            let why = format!(
                "invalid feature name {shown}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
            );
            errors.push(FieldError::invalid(path.index(i), feature, why));
        }
        if let Some(next) = features.get(i + 1) {
            if feature == next {
                errors.push(FieldError::duplicate(path.index(i + 1), next));
            } else if feature > next {
                let why = "list must be sorted alphabetically";
                errors.push(FieldError::invalid(path.index(i + 1), next, why));
            }
        }
    }
}

fn is_feature(name: &str) -> bool {
    let letters = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(u8::is_ascii_alphanumeric)
    };
    name.as_bytes().first().is_some_and(u8::is_ascii_uppercase) && name.split('/').all(letters)
}

/// Ranges of Pod addresses, at most one of each family.
fn ranges(ranges: &[String], errors: &mut Errors) {
    let path = Path::root("spec");
    let path = path.child("podCIDRs");
    for (i, range) in ranges.iter().enumerate() {
        addresses::legacy_cidr(&path.index(i), range, &[], errors);
    }
    if ranges.len() < 2 {
        return;
    }
    let parsed: Vec<_> = ranges.iter().map(|r| addresses::parse_cidr_sloppy(r).map(|(ip, _)| ip)).collect();
    if let Some(bad) = parsed.iter().position(Option::is_none) {
        let why = format!(
            "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{bad}]: {} (invalid CIDR address: {})",
            "<nil>", ranges[bad]
        );
        errors.push(FieldError::internal(path, why));
    }
    let has = |v4: bool| parsed.iter().flatten().any(|ip: &IpAddr| ip.is_ipv4() == v4);
    let dual = parsed.iter().all(Option::is_some) && has(true) && has(false);
    if !dual || ranges.len() > 2 {
        let why = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, shown::texts(ranges), why));
    }
}

fn update(new: &Node, old: &Node, errors: &mut Errors) {
    amounts(new, errors);
    features(&new.status.declared_features, errors);
    let path = Path::root("status");
    for (i, address) in new.status.addresses.iter().enumerate() {
        if new.status.addresses.iter().take(i).any(|earlier| earlier == address) {
            let shown = shown::structure("k8s.io.api.core.v1.NodeAddress", address);
            errors.push(FieldError::duplicate(path.child("addresses").index(i), shown));
        }
    }
    let path = Path::root("spec");
    let (before, after) = (&old.spec.pod_cidrs, &new.spec.pod_cidrs);
    if !before.is_empty() {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        let changes =
            if before.len() == after.len() { before.iter().zip(after).filter(|(b, a)| b != a).count() } else { 1 };
        errors.extend((0..changes).map(|_| FieldError::forbidden(path.child("podCIDRs"), why)));
    }
    if !old.spec.provider_id.is_empty() && old.spec.provider_id != new.spec.provider_id {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden(path.child("providerID"), why));
    }
    configs(new, errors);
    taints(&new.spec.taints, errors);
    if new.spec.external_id != old.spec.external_id {
        errors.push(FieldError::forbidden(path.child("externalID"), "may not be updated"));
    }
}

/// Where the configuration comes from, which nothing reads any more.
fn configs(node: &Node, errors: &mut Errors) {
    if let Some(source) = &node.spec.config_source {
        let path = Path::root("spec");
        config(&path.child("configSource"), source, false, errors);
    }
    if let Some(own) = &node.status.config {
        let path = Path::root("status");
        let path = path.child("config");
        let sources = [("assigned", &own.assigned), ("active", &own.active), ("lastKnownGood", &own.last_known_good)];
        for (name, source) in sources {
            if let Some(source) = source {
                config(&path.child(name), source, true, errors);
            }
        }
    }
}

fn config(path: &Path<'_>, source: &NodeConfigSource, is_status: bool, errors: &mut Errors) {
    let Some(map) = &source.config_map else {
        let shown = shown::structure("k8s.io.api.core.v1.NodeConfigSource", source);
        errors.push(FieldError::invalid(path, shown, ONE_REFERENCE));
        return;
    };
    let path = path.child("configMap");
    let ConfigMapNodeConfigSource { namespace, name, uid, resource_version, kubelet_config_key } = map;
    for (child, text) in [("uid", uid), ("resourceVersion", resource_version)] {
        if is_status {
            checks::required(&path.child(child), text, errors);
        } else if !text.is_empty() {
            errors.push(FieldError::forbidden(path.child(child), format!("{child} must not be set in spec")));
        }
    }
    type Form = fn(&str) -> names::Complaints;
    let fields: [(&str, &String, Form); 3] = [
        ("namespace", namespace, names::dns1123_label),
        ("name", name, names::dns1123_subdomain),
        ("kubeletConfigKey", kubelet_config_key, names::config_key),
    ];
    for (child, text, form) in fields {
        if text.is_empty() {
            errors.push(FieldError::required(path.child(child), ""));
        } else {
            checks::text(&path.child(child), text, form(text), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    #[test]
    fn nodes_keep_what_identifies_them() {
        let node = |spec: &str| format!(r#"{{"metadata":{{"name":"n"}},"spec":{{{spec}}}}}"#);
        let cases = [
            (r#""podCIDRs":["10.0.0.0/24"]"#, r#""podCIDRs":["10.0.0.0/24"]"#, ""),
            (
                r#""podCIDRs":["10.0.1.0/24"]"#,
                r#""podCIDRs":["10.0.0.0/24"]"#,
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            ),
            (
                r#""podCIDRs":["10.0.1.0/24","10.0.2.0/24"]"#,
                "",
                "spec.podCIDRs: Invalid value: [\"10.0.1.0/24\",\"10.0.2.0/24\"]: may specify no more than one CIDR for each IP family",
            ),
            (
                r#""providerID":"b""#,
                r#""providerID":"a""#,
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            ),
        ];
        for (new, old, expected) in cases {
            assert_eq!(told("v1", "Node", Part::Main, &node(new), Some(&node(old))), expected, "{new}");
        }
    }
}
