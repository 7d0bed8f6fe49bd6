//! Ports that get in each other's way.

use api::core::v1::{ContainerPort, PodSpec};

use super::super::each_container;
use super::Warnings;
use crate::validation::Path;
use stdx::quoted;

/// Warnings about the ports of all containers.
pub(super) fn ports(path: &Path<'_>, spec: &PodSpec, out: &mut Warnings) {
    let mut seen: Vec<(String, ContainerPort)> = Vec::new();
    let mut named: Vec<String> = Vec::new();
    each_container(path, spec, |path, container| {
        for (i, port) in container.ports.iter().enumerate() {
            let at = path.child("ports").index(i).to_string();
            one(&at, port, &seen, out);
            if let Some((other, _)) = seen.iter().find(|(_, p)| !port.name.is_empty() && p.name == port.name) {
                let name = quoted(&port.name);
                named.push(format!("{at}: duplicate port name {name} with {other}, services and probes that select ports by name will use {other}"));
            }
            seen.push((at, port.clone()));
        }
    });
    out.append(&mut named);
}

fn one(at: &str, port: &ContainerPort, seen: &[(String, ContainerPort)], out: &mut Warnings) {
    let ContainerPort { name, host_port, container_port, protocol, host_ip } = port;
    if !host_ip.is_empty() && *host_port == 0 {
        let shown = format!(
            "{{Name:{name} HostPort:{host_port} ContainerPort:{container_port} Protocol:{protocol} HostIP:{host_ip}}}"
        );
        out.push(format!("{at}: hostIP set without hostPort: {shown}"));
    }
    let same =
        |other: &&(String, ContainerPort)| other.1.container_port == *container_port && other.1.protocol == *protocol;
    for (field, other) in seen.iter().filter(same) {
        let what = if *host_ip == other.host_ip && *host_port == other.host_port {
            "duplicate"
        } else if *host_port == 0 || other.host_port == 0 {
            "overlapping"
        } else if *host_port == other.host_port && host_ip.is_empty() != other.host_ip.is_empty() {
            "dangerously ambiguous"
        } else {
            continue;
        };
        out.push(format!("{at}: {what} port definition with {field}"));
    }
}
