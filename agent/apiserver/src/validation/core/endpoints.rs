//! Endpoints.

use api::core::v1::{EndpointAddress, EndpointPort, Endpoints};

use crate::status::FieldError;
use crate::validation::addresses::{legacy_ip, parse_sloppy};
use crate::validation::{Change, Errors, Path, checks, names};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub fn endpoints(change: &Change<'_, Endpoints>, errors: &mut Errors) {
    // What lies there already may break rules that are younger.
    if change.old.is_some_and(|old| old.subsets == change.new.subsets) {
        return;
    }
    for (i, subset) in change.new.subsets.iter().enumerate() {
        let list = Path::root("subsets");
        let path = list.index(i);
        if subset.addresses.is_empty() && subset.not_ready_addresses.is_empty() {
            errors.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for (name, addresses) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
        {
            for (i, each) in addresses.iter().enumerate() {
                address(&path.child(name).index(i), each, errors);
            }
        }
        for (i, each) in subset.ports.iter().enumerate() {
            port(&path.child("ports").index(i), each, subset.ports.len() > 1, errors);
        }
    }
}

fn address(path: &Path<'_>, address: &EndpointAddress, errors: &mut Errors) {
    legacy_ip(&path.child("ip"), &address.ip, &[], errors);
    if !address.hostname.is_empty() {
        checks::text(&path.child("hostname"), &address.hostname, names::dns1123_label(&address.hostname), errors);
    }
    if let Some(node) = &address.node_name {
        checks::text(&path.child("nodeName"), node, names::dns1123_subdomain(node), errors);
    }
    usable_ip(&path.child("ip"), &address.ip, errors);
}

/// An address that traffic can be sent to.
pub fn usable_ip(path: &Path<'_>, text: &str, errors: &mut Errors) {
    let Some(ip) = parse_sloppy(text) else {
        return errors.push(FieldError::invalid(path, text, "must be a valid IP address"));
    };
    let (link_local, link_local_multicast) = match ip {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.push(FieldError::invalid(path, text, format!("may not be unspecified ({text})")));
    }
    let rules = [
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    let broken = rules.iter().filter(|(broken, _)| *broken);
    errors.extend(broken.map(|(_, why)| FieldError::invalid(path, text, *why)));
}

fn port(path: &Path<'_>, port: &EndpointPort, needs_name: bool, errors: &mut Errors) {
    let name = path.child("name");
    if !port.name.is_empty() {
        checks::text(&name, &port.name, names::dns1123_label(&port.name), errors);
    } else if needs_name {
        errors.push(FieldError::required(name, ""));
    }
    checks::port_number(&path.child("port"), port.port, errors);
    checks::one_of(&path.child("protocol"), &port.protocol, PROTOCOLS, errors);
    if let Some(protocol) = &port.app_protocol {
        checks::text(&path.child("appProtocol"), protocol, names::qualified(protocol), errors);
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    #[test]
    fn endpoints_lead_somewhere() {
        let cases = [
            (r#"[{"addresses":[{"ip":"10.0.0.1"}]}]"#, ""),
            (r#"[{}]"#, "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
            (
                r#"[{"notReadyAddresses":[{"ip":"127.0.0.1"}],"ports":[{"port":0,"protocol":"TCP"}]}]"#,
                "subsets[0].notReadyAddresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)\n\
                 subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
        ];
        for (subsets, expected) in cases {
            let object = format!(r#"{{"subsets":{subsets}}}"#);
            assert_eq!(told("v1", "Endpoints", Part::Main, &object, None), expected);
        }
    }
}
