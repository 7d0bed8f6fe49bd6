//! Sandboxes and containers in the runtime's words. Pure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri::v1;

use crate::expand::expand;
use crate::observed::keys;
use crate::pod::{PodContainer, PodView};
use crate::resources::container_resources;
use crate::security::{container_security, sandbox_security};

/// Where the message of an ended container is read from, unless the pod says otherwise.
pub(crate) const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";

/// What the sandbox needs besides the pod.
pub(crate) struct SandboxInput<'a> {
    pub(crate) view: &'a PodView,
    pub(crate) attempt: u32,
    pub(crate) hostname: String,
    pub(crate) dns: v1::DnsConfig,
    pub(crate) log_directory: &'a Path,
    pub(crate) cgroup_parent: String,
}

/// The labels that find everything of one pod.
pub(crate) fn pod_labels(uid: &str) -> HashMap<String, String> {
    HashMap::from([(keys::POD_UID.to_owned(), uid.to_owned())])
}

fn own_labels(view: &PodView) -> HashMap<String, String> {
    HashMap::from([
        (keys::POD_NAME.to_owned(), view.name().to_owned()),
        (keys::POD_NAMESPACE.to_owned(), view.namespace().to_owned()),
        (keys::POD_UID.to_owned(), view.uid().to_owned()),
    ])
}

/// The sandbox of a pod.
pub(crate) fn sandbox_config(input: SandboxInput<'_>) -> v1::PodSandboxConfig {
    let view = input.view;
    let meta = &view.pod.metadata;
    let mut labels: HashMap<String, String> = meta.labels.clone().into_iter().collect();
    labels.extend(own_labels(view));
    let sysctls = view.security().map(|s| s.sysctls.as_slice()).unwrap_or_default();
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: view.name().to_owned(),
            uid: view.uid().to_owned(),
            namespace: view.namespace().to_owned(),
            attempt: input.attempt,
        }),
        hostname: if view.spec().host_network { String::new() } else { input.hostname },
        log_directory: input.log_directory.to_string_lossy().into_owned(),
        dns_config: Some(input.dns),
        port_mappings: port_mappings(view),
        labels,
        annotations: meta.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: input.cgroup_parent,
            security_context: Some(sandbox_security(view)),
            sysctls: sysctls.iter().map(|s| (s.name.replace('/', "."), s.value.clone())).collect(),
            ..v1::LinuxPodSandboxConfig::default()
        }),
        windows: None,
    }
}

fn port_mappings(view: &PodView) -> Vec<v1::PortMapping> {
    if view.spec().host_network {
        return Vec::new();
    }
    let ports = view.containers.iter().flat_map(|c| &c.spec.ports);
    ports
        .map(|port| v1::PortMapping {
            protocol: match port.protocol.as_str() {
                "UDP" => v1::Protocol::Udp,
                "SCTP" => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port,
            host_ip: port.host_ip.clone(),
        })
        .collect()
}

/// What a container needs besides the pod.
pub(crate) struct ContainerInput<'a> {
    pub(crate) view: &'a PodView,
    pub(crate) container: &'a PodContainer,
    pub(crate) restarts: u32,
    /// The image's id, so that exactly what was fetched is run.
    pub(crate) image_id: String,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) mounts: Vec<v1::Mount>,
    /// Id of the container whose processes an ephemeral one shares.
    pub(crate) target_id: String,
    pub(crate) seccomp_root: String,
    pub(crate) machine_memory: i64,
}

/// One container.
pub(crate) fn container_config(input: ContainerInput<'_>) -> v1::ContainerConfig {
    let (view, spec) = (input.view, &input.container.spec);
    let lookup = |name: &str| input.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expand_all = |list: &[String]| list.iter().map(|text| expand(text, &lookup)).collect::<Vec<_>>();
    let mut labels = own_labels(view);
    labels.insert(keys::CONTAINER_NAME.to_owned(), spec.name.clone());
    let resources = container_resources(view, spec, input.machine_memory);
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: spec.name.clone(), attempt: input.restarts }),
        image: Some(v1::ImageSpec {
            image: input.image_id.clone(),
            user_specified_image: spec.image.clone(),
            ..v1::ImageSpec::default()
        }),
        command: expand_all(&spec.command),
        args: expand_all(&spec.args),
        working_dir: spec.working_dir.clone(),
        mounts: input.mounts,
        labels,
        annotations: annotations(view, spec, input.restarts),
        log_path: format!("{}/{}.log", spec.name, input.restarts),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(container_security(view, input.container, &input.target_id, &input.seccomp_root)),
        }),
        envs: input.environment.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        ..v1::ContainerConfig::default()
    }
}

fn annotations(view: &PodView, spec: &api::core::v1::Container, restarts: u32) -> HashMap<String, String> {
    let mut notes = HashMap::from([
        (keys::RESTART_COUNT.to_owned(), restarts.to_string()),
        (keys::CONTAINER_HASH.to_owned(), fingerprint(&[&spec.name, &spec.image])),
        (keys::MESSAGE_PATH.to_owned(), spec.termination_message_path.clone()),
        (keys::MESSAGE_POLICY.to_owned(), spec.termination_message_policy.clone()),
        (keys::SPEC_IMAGE.to_owned(), spec.image.clone()),
    ]);
    if let Some(grace) = view.spec().termination_grace_period_seconds {
        notes.insert(keys::POD_GRACE.to_owned(), grace.to_string());
    }
    notes
}

/// FNV-1a of the parts, in hexadecimal.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in parts.iter().flat_map(|part| part.bytes().chain(std::iter::once(0))) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:x}")
}

/// Folder of a pod's logs.
pub(crate) fn pod_log_dir(root: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    root.join(format!("{namespace}_{name}_{uid}"))
}
