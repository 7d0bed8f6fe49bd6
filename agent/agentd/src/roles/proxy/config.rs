//! From upstream's configuration to ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde::Deserialize;

use crate::host;

const HEALTHZ_PORT: u16 = 10256;
/// The word for "the node's primary addresses only", which is the default in this mode.
const PRIMARY: &str = "primary";

/// The fields that are read, with upstream's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct KubeProxyConfiguration {
    client_connection: ClientConnection,
    hostname_override: String,
    bind_address: IpAddr,
    healthz_bind_address: String,
    nftables: Nftables,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    node_port_addresses: Vec<String>,
    pub(super) oom_score_adj: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ClientConnection {
    kubeconfig: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Nftables {
    masquerade_all: bool,
}

impl Default for KubeProxyConfiguration {
    fn default() -> Self {
        Self {
            client_connection: ClientConnection::default(),
            hostname_override: String::new(),
            bind_address: Ipv4Addr::UNSPECIFIED.into(),
            healthz_bind_address: format!("0.0.0.0:{HEALTHZ_PORT}"),
            nftables: Nftables::default(),
            cluster_cidr: String::new(),
            node_port_addresses: Vec::new(),
            oom_score_adj: -999,
        }
    }
}

impl KubeProxyConfiguration {
    pub(super) fn node_name(&self) -> Result<String> {
        let name = if self.hostname_override.is_empty() { host::name()? } else { self.hostname_override.clone() };
        Ok(name.trim().to_lowercase())
    }

    pub(super) fn proxy(&self, node_name: &str, healthz_port: Option<&str>) -> Result<proxy::Config> {
        Ok(proxy::Config {
            node_name: node_name.to_owned(),
            // Unspecified: the addresses are those of the Node object.
            node_addresses: if self.bind_address.is_unspecified() { Vec::new() } else { vec![self.bind_address] },
            node_port_addresses: self.node_ports()?,
            cluster_cidrs: ranges("clusterCIDR", self.cluster_cidr.split(',').map(str::trim))?,
            masquerade_all: self.nftables.masquerade_all,
            health_address: self.health(healthz_port)?,
            ..proxy::Config::default()
        })
    }

    pub(super) fn connection(&self, master: Option<&str>) -> Result<client::Config> {
        let path = &self.client_connection.kubeconfig;
        ensure!(
            !path.as_os_str().is_empty(),
            "clientConnection.kubeconfig is needed: it tells how the API server is reached (--kubeconfig)"
        );
        let mut connection = client::Config::from_kubeconfig(path)
            .with_context(|| format!("reading {}", path.display()))?
            .with_component("proxy");
        if let Some(master) = master.filter(|master| !master.is_empty()) {
            connection.server = master.parse().with_context(|| format!("--master: {master:?} is no URL"))?;
        }
        Ok(connection)
    }

    fn node_ports(&self) -> Result<Vec<IpNet>> {
        if self.node_port_addresses == [PRIMARY] {
            return Ok(Vec::new());
        }
        ranges("nodePortAddresses", self.node_port_addresses.iter().map(String::as_str))
    }

    fn health(&self, port: Option<&str>) -> Result<Option<SocketAddr>> {
        let text = &self.healthz_bind_address;
        let bad = || format!("healthzBindAddress: {text:?} is no address such as 0.0.0.0:10256");
        let mut address = match text.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, HEALTHZ_PORT),
            Err(_) if text.is_empty() => return Ok(None),
            Err(_) => text.parse().with_context(bad)?,
        };
        if let Some(port) = port {
            address.set_port(port.parse().with_context(|| format!("--healthz-port: {port:?} is no port"))?);
        }
        Ok((address.port() != 0).then_some(address))
    }
}

fn ranges<'a>(field: &str, texts: impl Iterator<Item = &'a str>) -> Result<Vec<IpNet>> {
    let texts = texts.filter(|text| !text.is_empty());
    texts
        .map(|text| text.parse().with_context(|| format!("{field}: {text:?} is no range such as 10.0.0.0/16")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fields::SCHEMA;
    use super::*;
    use crate::settings::Settings;

    fn proxy(text: &str) -> Result<proxy::Config> {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let settings = Settings::parse(&SCHEMA, &format!("{head}{text}"))?;
        let (typed, _) = settings.typed::<KubeProxyConfiguration>(&SCHEMA)?;
        typed.proxy("n1", None)
    }

    #[test]
    fn fields_become_settings() {
        let found = proxy(
            "bindAddress: 10.0.0.7\nmode: nftables\nclusterCIDR: 10.244.0.0/16,fd00::/48\nconntrack: {maxPerCore: 0}\n\
             nodePortAddresses: [10.0.0.0/8]\nnftables: {masqueradeAll: true}\nhealthzBindAddress: 127.0.0.1\n",
        )
        .unwrap();
        assert_eq!(found.node_addresses, [IpAddr::from([10, 0, 0, 7])]);
        assert_eq!((found.cluster_cidrs.len(), found.node_port_addresses.len()), (2, 1));
        assert!(found.masquerade_all);
        assert_eq!(found.health_address, Some(([127, 0, 0, 1], HEALTHZ_PORT).into()));
        let defaults = proxy("nodePortAddresses: [primary]").unwrap();
        assert!(defaults.node_addresses.is_empty() && defaults.node_port_addresses.is_empty());
        assert_eq!(defaults.health_address, Some(([0, 0, 0, 0], HEALTHZ_PORT).into()));
    }
}
