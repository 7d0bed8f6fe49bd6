//! What the container runtime asks, parsed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use crate::cni::result::CniError;
use crate::hostport::{HostPort, Transport};
use crate::lease::Lease;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// Which of the two plugins is called.
#[derive(Debug)]
pub(super) enum Plugin {
    Loopback,
    Pod(Settings),
}

/// This node's settings, out of the configuration that the node's side writes.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) pod_ranges: Vec<IpNet>,
    pub(super) mtu: Option<u32>,
    pub(super) state_folder: PathBuf,
    pub(super) nft: Option<PathBuf>,
    pub(super) ports: Vec<HostPort>,
}

/// One link of one pod.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) container: String,
    pub(super) interface: String,
    pub(super) namespace: PathBuf,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) version: String,
    pub(super) plugin: Plugin,
    container: Option<String>,
    interface: Option<String>,
    namespace: Option<PathBuf>,
    valid: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    r#type: String,
    #[serde(default, rename = "podCIDRs")]
    pod_ranges: Vec<IpNet>,
    mtu: Option<u32>,
    #[serde(default)]
    state_dir: PathBuf,
    nft: Option<PathBuf>,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Vec<ValidAttachment>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Option<Vec<PortMapping>>,
}

/// The convention's names; containerd writes them with a capital.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    #[serde(alias = "HostPort")]
    host_port: i32,
    #[serde(alias = "ContainerPort")]
    container_port: i32,
    #[serde(default, alias = "Protocol")]
    protocol: String,
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    host_address: String,
}

#[derive(Debug, Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container: String,
    #[serde(rename = "ifname")]
    interface: String,
}

/// The version that is spoken with those who name none.
const OLDEST_VERSION: &str = "0.3.0";

impl Request {
    pub(super) fn parse(env: &BTreeMap<String, String>, input: &[u8]) -> Result<Self, CniError> {
        let variable = |name: &'static str| env.get(name).filter(|value| !value.is_empty()).cloned();
        let command = match variable("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("DEL") => Command::Del,
            Some("CHECK") => Command::Check,
            Some("GC") => Command::Gc,
            Some("STATUS") => Command::Status,
            Some("VERSION") => Command::Version,
            Some(_) | None => return Err(CniError::Environment { name: "CNI_COMMAND" }),
        };
        let input: Input = serde_json::from_slice(input).map_err(|source| CniError::Input { source })?;
        let version = if input.cni_version.is_empty() { OLDEST_VERSION.to_owned() } else { input.cni_version };
        let plugin = if input.r#type == "loopback" {
            Plugin::Loopback
        } else {
            let ports = input.runtime_config.port_mappings.unwrap_or_default();
            Plugin::Pod(Settings {
                pod_ranges: input.pod_ranges,
                mtu: input.mtu,
                state_folder: input.state_dir,
                nft: input.nft,
                ports: ports.into_iter().filter_map(|port| host_port(&port).transpose()).collect::<Result<_, _>>()?,
            })
        };
        let valid = input.valid_attachments.into_iter().map(|valid| (valid.container, valid.interface)).collect();
        let namespace = variable("CNI_NETNS").map(PathBuf::from);
        let (container, interface) = (variable("CNI_CONTAINERID"), variable("CNI_IFNAME"));
        Ok(Self { command, version, plugin, container, interface, namespace, valid })
    }

    /// The settings, which have to name at least a pod range and a folder.
    pub(super) fn settings(&self) -> Result<&Settings, CniError> {
        match &self.plugin {
            Plugin::Pod(settings) if settings.pod_ranges.is_empty() => Err(CniError::Missing { key: "podCIDRs" }),
            Plugin::Pod(settings) if settings.state_folder.as_os_str().is_empty() => {
                Err(CniError::Missing { key: "stateDir" })
            }
            Plugin::Pod(settings) => Ok(settings),
            Plugin::Loopback => Err(CniError::Missing { key: "type" }),
        }
    }

    pub(super) fn container(&self) -> Result<&str, CniError> {
        // It becomes part of a file's name.
        let name = "CNI_CONTAINERID";
        let container = self.container.as_deref().ok_or(CniError::Environment { name })?;
        if container.contains('/') { Err(CniError::Environment { name }) } else { Ok(container) }
    }

    pub(super) fn interface(&self) -> Result<&str, CniError> {
        let name = "CNI_IFNAME";
        let interface = self.interface.as_deref().ok_or(CniError::Environment { name })?;
        if interface.contains('/') || interface.len() > 15 {
            Err(CniError::Environment { name })
        } else {
            Ok(interface)
        }
    }

    pub(super) fn attachment(&self) -> Result<Attachment, CniError> {
        Ok(Attachment {
            container: self.container()?.to_owned(),
            interface: self.interface()?.to_owned(),
            namespace: self.namespace.clone().ok_or(CniError::Environment { name: "CNI_NETNS" })?,
        })
    }

    /// What the runtime still knows of, as container and link.
    pub(super) fn valid_attachments(&self) -> &[(String, String)] {
        &self.valid
    }
}

impl Attachment {
    pub(super) fn lease(&self, ports: Vec<HostPort>) -> Lease {
        Lease {
            container: self.container.clone(),
            interface: self.interface.clone(),
            namespace: self.namespace.clone(),
            addresses: Vec::new(),
            ports,
        }
    }
}

/// A mapping without a port of the node is no mapping.
fn host_port(mapping: &PortMapping) -> Result<Option<HostPort>, CniError> {
    if mapping.host_port <= 0 {
        return Ok(None);
    }
    let invalid = || CniError::PortMapping { text: format!("{mapping:?}") };
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "sctp" => Transport::Sctp,
        _ => return Err(invalid()),
    };
    let host_address = match mapping.host_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_error| invalid())?),
    };
    Ok(Some(HostPort {
        protocol,
        host_port: u16::try_from(mapping.host_port).map_err(|_error| invalid())?,
        container_port: u16::try_from(mapping.container_port).map_err(|_error| invalid())?,
        host_address,
    }))
}
