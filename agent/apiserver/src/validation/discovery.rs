//! EndpointSlices.

use std::collections::HashSet;

use api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};

use super::addresses::{canonical_ip, legacy_ip, parse_sloppy};
use super::core::endpoints::usable_ip;
use super::{Change, Errors, Path, checks, labels, names, shown};
use crate::status::FieldError;

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MAX_PORTS: usize = 20_000;
const MAX_ENDPOINTS: usize = 1_000;
const MAX_ADDRESSES: usize = 100;
const MAX_TOPOLOGY_LABELS: usize = 16;
const MAX_HINTS: usize = 8;
const ZONE: &str = "topology.kubernetes.io/zone";

pub fn endpoint_slice(change: &Change<'_, EndpointSlice>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old);
    let kind = Path::root("addressType");
    checks::one_of(&kind, &new.address_type, ADDRESS_TYPES, errors);
    ports(&Path::root("ports"), &new.ports, errors);
    // What lies there already may break rules that are younger.
    if old.is_none_or(|old| old.endpoints != new.endpoints) {
        endpoints(&Path::root("endpoints"), new, errors);
    }
    if old.is_some_and(|old| old.address_type != new.address_type) {
        errors.push(FieldError::invalid(kind, shown::word(&new.address_type), checks::IMMUTABLE));
    }
}

/// Whether there are more than `max`, which is told.
fn too_many(path: &Path<'_>, count: usize, max: usize, errors: &mut Errors) -> bool {
    if count > max {
        errors.push(FieldError::too_many(path, count, max as u64));
    }
    count > max
}

fn ports(path: &Path<'_>, ports: &[EndpointPort], errors: &mut Errors) {
    if too_many(path, ports.len(), MAX_PORTS, errors) {
        return;
    }
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            checks::text(&path.child("name"), name, names::dns1123_label(name), errors);
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), shown::word(name)));
        }
        match &port.protocol {
            Some(protocol) => checks::supported(&path.child("protocol"), protocol, PROTOCOLS, errors),
            None => errors.push(FieldError::required(path.child("protocol"), "")),
        }
        if let Some(protocol) = &port.app_protocol {
            checks::text(&path.child("appProtocol"), protocol, names::qualified(protocol), errors);
        }
    }
}

fn endpoints(path: &Path<'_>, slice: &EndpointSlice, errors: &mut Errors) {
    if too_many(path, slice.endpoints.len(), MAX_ENDPOINTS, errors) {
        return;
    }
    for (i, each) in slice.endpoints.iter().enumerate() {
        endpoint(&path.index(i), each, &slice.address_type, errors);
    }
}

fn endpoint(path: &Path<'_>, endpoint: &Endpoint, kind: &str, errors: &mut Errors) {
    let list = path.child("addresses");
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(list, "must contain at least 1 address"));
    }
    too_many(&list, endpoint.addresses.len(), MAX_ADDRESSES, errors);
    for (i, text) in endpoint.addresses.iter().enumerate() {
        address(&list, i, (text, kind), errors);
    }
    if let Some(node) = &endpoint.node_name {
        checks::text(&path.child("nodeName"), node, names::dns1123_subdomain(node), errors);
    }
    let (at, topology) = (path.child("deprecatedTopology"), &endpoint.deprecated_topology);
    too_many(&at, topology.len(), MAX_TOPOLOGY_LABELS, errors);
    labels::labels(&at, topology, errors);
    if topology.contains_key(ZONE) {
        errors.push(FieldError::internal(at.key(ZONE), "reserved key was not removed in conversion"));
    }
    if let Some(hostname) = &endpoint.hostname {
        checks::text(&path.child("hostname"), hostname, names::dns1123_label(hostname), errors);
    }
    if let Some(each) = &endpoint.hints {
        hints(&path.child("hints"), each, errors);
    }
}

fn address(list: &Path<'_>, i: usize, (text, kind): (&str, &str), errors: &mut Errors) {
    let (path, told) = (list.index(i), errors.len());
    let is_v4 = match kind {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => return domain_name(&path, text, errors),
        _ => return,
    };
    if is_v4 {
        legacy_ip(&path, text, &[], errors);
    } else {
        canonical_ip(&path, text, errors);
    }
    if errors.len() > told {
        return;
    }
    if parse_sloppy(text).is_some_and(|ip| ip.is_ipv4() != is_v4) {
        errors.push(FieldError::invalid(list, text, format!("must be an {kind} address")));
    }
    usable_ip(&path, text, errors);
}

/// A name of at least two labels, which may end with a dot.
fn domain_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let complaints = names::dns1123_subdomain(name);
    if !complaints.is_empty() {
        errors.push(FieldError::invalid(path, name, complaints.join(",")));
    } else if !name.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, name, why));
    } else if let Some((label, complaints)) =
        name.split('.').map(|label| (label, names::dns1123_label(label))).find(|(_, c)| !c.is_empty())
    {
        errors.push(FieldError::invalid(path, label, complaints.join(",")));
    }
}

fn hints(path: &Path<'_>, hints: &EndpointHints, errors: &mut Errors) {
    type Form = fn(&str) -> names::Complaints;
    let zones = hints.for_zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>();
    let nodes = hints.for_nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>();
    let lists: [(&str, &[&str], Form); 2] =
        [("forZones", &zones, names::label_value), ("forNodes", &nodes, names::dns1123_subdomain)];
    for (field, found, form) in lists {
        let list = path.child(field);
        if too_many(&list, found.len(), MAX_HINTS, errors) {
            return;
        }
        for (i, name) in found.iter().enumerate() {
            let item = list.index(i);
            let path = item.child("name");
            if found[..i].contains(name) {
                errors.push(FieldError::duplicate(path, *name));
            }
            checks::text(&path, name, form(name), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    #[test]
    fn slices_hold_addresses_of_their_type() {
        let cases = [
            (r#""addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}]"#, ""),
            (
                r#""addressType":"IPv4","endpoints":[{"addresses":["fd00::1"]}]"#,
                "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
            ),
            (
                r#""addressType":"FQDN","endpoints":[{"addresses":["a"]},{}]"#,
                "endpoints[0].addresses[0]: Invalid value: \"a\": should be a domain with at least two segments separated by dots\n\
                 endpoints[1].addresses: Required value: must contain at least 1 address",
            ),
        ];
        for (fields, expected) in cases {
            let told = told("discovery.k8s.io/v1", "EndpointSlice", Part::Main, &format!("{{{fields}}}"), None);
            assert_eq!(told, expected);
        }
    }
}
