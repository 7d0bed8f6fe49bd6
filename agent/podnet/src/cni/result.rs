//! What the container runtime is told, in the CNI specification's words.

use std::error::Error as _;
use std::io;

use serde_json::{Value, json};

use crate::cni::attach::Links;
use crate::lease::{Lease, LeaseError};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const NEWEST: &str = "1.1.0";

/// Why the plugin refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// An environment variable is missing or makes no sense.
    #[error("environment variable {name} is missing or invalid")]
    Environment {
        /// Its name.
        name: &'static str,
    },
    /// Standard input is not the JSON that it should be.
    #[error("the network configuration on standard input is invalid")]
    Input {
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// The configuration lacks something.
    #[error("the network configuration lacks {key}")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A port mapping makes no sense.
    #[error("invalid port mapping: {text}")]
    PortMapping {
        /// What was asked for.
        text: String,
    },
    /// Something that should be there is not.
    #[error("sandbox {container} is not attached")]
    NotAttached {
        /// The sandbox's id.
        container: String,
    },
    /// A setting of the kernel could not be written.
    #[error("cannot write {path}")]
    Sysctl {
        /// The file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// No async runtime could be made.
    #[error("cannot start the plugin's runtime")]
    Runtime {
        /// Why it failed.
        source: io::Error,
    },
    /// Addresses could not be handed out or taken back.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A link, address or route could not be changed.
    #[error(transparent)]
    Network(#[from] netlink::Error),
    /// Port mappings could not be applied.
    #[error(transparent)]
    Ports(#[from] nft::Error),
}

impl CniError {
    /// The specification's numbers; from 100 on they are our own.
    fn code(&self) -> u32 {
        match self {
            Self::Environment { .. } => 4,
            Self::Input { .. } => 6,
            Self::Missing { .. } | Self::PortMapping { .. } => 7,
            Self::NotAttached { .. } => 3,
            Self::Lease(LeaseError::Exhausted { .. }) => 11,
            Self::Sysctl { .. } | Self::Runtime { .. } | Self::Lease(_) => 5,
            Self::Network(_) => 100,
            Self::Ports(_) => 101,
        }
    }

    pub(super) fn to_json(&self) -> String {
        let mut details = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            details.push(error.to_string());
            cause = error.source();
        }
        json!({"cniVersion": NEWEST, "code": self.code(), "msg": self.to_string(), "details": details.join(": ")})
            .to_string()
    }
}

pub(super) fn versions(version: &str) -> String {
    json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string()
}

pub(super) fn success(version: &str, lease: &Lease, links: &Links) -> String {
    let is_old = version.starts_with("0.");
    let ips: Vec<Value> = lease
        .addresses
        .iter()
        .map(|address| {
            let (length, gateway) = if address.is_ipv4() { (32, GATEWAY_4) } else { (128, GATEWAY_6) };
            let mut ip = json!({"address": format!("{address}/{length}"), "gateway": gateway, "interface": 1});
            if is_old {
                ip["version"] = json!(if address.is_ipv4() { "4" } else { "6" });
            }
            ip
        })
        .collect();
    let routes: Vec<Value> = lease
        .addresses
        .iter()
        .map(|address| match address.is_ipv4() {
            true => json!({"dst": "0.0.0.0/0", "gw": GATEWAY_4}),
            false => json!({"dst": "::/0", "gw": GATEWAY_6}),
        })
        .collect();
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": links.node, "mac": mac(links.node_mac)},
            {"name": lease.interface, "mac": mac(links.pod_mac), "sandbox": lease.namespace},
        ],
        "ips": ips,
        "routes": routes,
        "dns": {},
    })
    .to_string()
}

/// The pods' gateways: addresses that nobody has, answered for by fixed neighbour entries.
pub(super) const GATEWAY_4: &str = "169.254.1.1";
/// The same for IPv6.
pub(super) const GATEWAY_6: &str = "fe80::1";

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
