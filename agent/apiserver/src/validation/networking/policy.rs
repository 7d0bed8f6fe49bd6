//! NetworkPolicies.

use api::networking::v1::{IpBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};

use crate::status::FieldError;
use crate::validation::addresses::{legacy_cidr, masked, parse_cidr_sloppy};
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const TYPES: &[&str] = &["Ingress", "Egress"];

/// What a policy may have in spite of the rules, since the one before had it.
#[derive(Default)]
struct Kept {
    selector: SelectorOptions,
    ranges: Vec<String>,
}

pub fn network_policy(change: &Change<'_, NetworkPolicy>, errors: &mut Errors) {
    let kept = change.old.map_or_else(Kept::default, |old| Kept {
        selector: SelectorOptions::after([&old.spec.pod_selector]),
        ranges: blocks(&old.spec)
            .flat_map(|block| std::iter::once(&block.cidr).chain(&block.except))
            .cloned()
            .collect(),
    });
    let spec = &change.new.spec;
    labels::selector(&SPEC.child("podSelector"), &spec.pod_selector, kept.selector, errors);
    let ingress = spec.ingress.iter().map(|rule| (&rule.ports, &rule.from));
    let egress = spec.egress.iter().map(|rule| (&rule.ports, &rule.to));
    for (i, (ports, peers)) in ingress.enumerate() {
        rule(&SPEC.child("ingress").index(i), ports, ("from", peers), &kept, errors);
    }
    for (i, (ports, peers)) in egress.enumerate() {
        rule(&SPEC.child("egress").index(i), ports, ("to", peers), &kept, errors);
    }
    let path = SPEC.child("policyTypes");
    if spec.policy_types.len() > TYPES.len() {
        let value = shown::texts(&spec.policy_types);
        return errors.push(FieldError::invalid(path, value, "may not specify more than two policyTypes"));
    }
    for (i, kind) in spec.policy_types.iter().enumerate() {
        checks::supported(&path.index(i), kind, TYPES, errors);
    }
}

fn blocks(spec: &NetworkPolicySpec) -> impl Iterator<Item = &IpBlock> {
    let from = spec.ingress.iter().flat_map(|rule| &rule.from);
    let to = spec.egress.iter().flat_map(|rule| &rule.to);
    from.chain(to).filter_map(|peer| peer.ip_block.as_ref())
}

fn rule(
    path: &Path<'_>,
    ports: &[NetworkPolicyPort],
    (field, peers): (&str, &[NetworkPolicyPeer]),
    kept: &Kept,
    errors: &mut Errors,
) {
    for (i, each) in ports.iter().enumerate() {
        port(&path.child("ports").index(i), each, errors);
    }
    for (i, each) in peers.iter().enumerate() {
        peer(&path.child(field).index(i), each, kept, errors);
    }
}

fn port(path: &Path<'_>, port: &NetworkPolicyPort, errors: &mut Errors) {
    if let Some(protocol) = &port.protocol {
        checks::supported(&path.child("protocol"), protocol, PROTOCOLS, errors);
    }
    let (at, end) = (path.child("port"), path.child("endPort"));
    match (&port.port, port.end_port) {
        (None, None) => {}
        (None, Some(number)) => {
            errors.push(FieldError::invalid(end, number, "may not be specified when `port` is not specified"));
        }
        (Some(start), number) if start.r#type == 0 => {
            checks::port_number(&at, start.int_val, errors);
            let Some(number) = number else { return };
            if number < start.int_val {
                let why = "must be greater than or equal to `port`";
                errors.push(FieldError::invalid(end, start.int_val, why));
            }
            checks::port_number(&end, number, errors);
        }
        (Some(name), number) => {
            if let Some(number) = number {
                errors.push(FieldError::invalid(end, number, "may not be specified when `port` is non-numeric"));
            }
            checks::text(&at, &name.str_val, names::port_name(&name.str_val), errors);
        }
    }
}

fn peer(path: &Path<'_>, peer: &NetworkPolicyPeer, kept: &Kept, errors: &mut Errors) {
    let selectors = [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
    for (field, selector) in &selectors {
        if let Some(selector) = selector {
            labels::selector(&path.child(field), selector, kept.selector, errors);
        }
    }
    let selects = selectors.iter().any(|(_, selector)| selector.is_some());
    match &peer.ip_block {
        Some(each) => {
            block(&path.child("ipBlock"), each, &kept.ranges, errors);
            if selects {
                errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
        None if !selects => errors.push(FieldError::required(path, "must specify a peer")),
        None => {}
    }
}

fn block(path: &Path<'_>, block: &IpBlock, kept: &[String], errors: &mut Errors) {
    if block.cidr.is_empty() {
        return errors.push(FieldError::required(path.child("cidr"), ""));
    }
    legacy_cidr(&path.child("cidr"), &block.cidr, kept, errors);
    let Some((ip, length)) = parse_cidr_sloppy(&block.cidr) else { return };
    for (i, text) in block.except.iter().enumerate() {
        let list = path.child("except");
        legacy_cidr(&list.index(i), text, kept, errors);
        let Some((inner, longer)) = parse_cidr_sloppy(text) else { continue };
        let inside = ip.is_ipv4() == inner.is_ipv4() && masked(inner, length) == masked(ip, length);
        if !inside || length >= longer {
            errors.push(FieldError::invalid(list.index(i), text, "must be a strict subset of `cidr`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    #[test]
    fn policies_let_in_whom_they_name() {
        let cases = [
            (r#"{"ports":[{"port":80,"endPort":90}],"from":[{"podSelector":{}}]}"#, ""),
            (
                r#"{"ports":[{"port":80,"endPort":79}]}"#,
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
            ),
            (r#"{"from":[{}]}"#, "spec.ingress[0].from[0]: Required value: must specify a peer"),
            (
                r#"{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["11.0.0.0/16"]}}]}"#,
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ),
        ];
        for (rule, expected) in cases {
            let object = format!(r#"{{"spec":{{"podSelector":{{}},"ingress":[{rule}]}}}}"#);
            assert_eq!(told("networking.k8s.io/v1", "NetworkPolicy", Part::Main, &object, None), expected);
        }
    }
}
