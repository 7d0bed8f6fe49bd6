//! Making the kernel and the CNI configuration follow the plan.

use netlink::{LinkKind, Netlink};
use nft::{Nft, Table};

use crate::cni;
use crate::config::Config;
use crate::hostport;
use crate::lease::{Lease, Leases, write};
use crate::plan::{Observed, Peer, Plan, plan};
use crate::task::Error;

/// Sorted first, should anybody put another configuration there.
const CONFIGURATION: &str = "10-keelson.conflist";

/// What does the work, with what it knows to be in place.
pub(crate) struct Applier {
    config: Config,
    kernel: Netlink,
    /// The tables that the kernel is known to have.
    applied: Option<[Table; 2]>,
    /// The configuration that the file is known to hold.
    written: Option<String>,
    unreachable: Vec<String>,
}

impl Applier {
    /// Works in the network namespace of the calling thread.
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { config, kernel: Netlink::connect()?, applied: None, written: None, unreachable: Vec::new() })
    }

    /// Makes everything fit these nodes. Safe to repeat.
    pub(crate) async fn reconcile(&mut self, peers: &[Peer]) -> Result<(), Error> {
        let plan = plan(&self.config, peers, &self.observe().await?);
        self.apply(plan).await
    }

    async fn observe(&self) -> Result<Observed, Error> {
        let links = self.kernel.links().await?;
        let loopback = links.iter().find(|link| link.kind == LinkKind::Loopback);
        Ok(Observed {
            addresses: self.kernel.addresses().await?,
            routes: self.kernel.routes().await?,
            loopback: loopback.map(|link| link.index).unwrap_or_default(),
            mtus: links.iter().map(|link| (link.index, link.mtu)).collect(),
        })
    }

    async fn apply(&mut self, plan: Plan) -> Result<(), Error> {
        if plan.unreachable != self.unreachable {
            tracing::warn!(nodes = ?plan.unreachable, "no route to the pods of nodes on other segments");
            self.unreachable = plan.unreachable;
        }
        for route in &plan.remove {
            self.kernel.delete_route(route).await?;
        }
        for route in &plan.add {
            self.kernel.replace_route(route).await?;
        }
        if self.applied.as_ref() != Some(&plan.tables) {
            let mut script = plan.tables[0].replace_script();
            script.append(&plan.tables[1].replace_script());
            self.nft().run(&script).await?;
            self.applied = Some(plan.tables);
        }
        // Last: with it the container runtime starts pods.
        if let Some(text) = plan.configuration.filter(|text| self.written.as_ref() != Some(text)) {
            let folder = &self.config.conf_folder;
            std::fs::create_dir_all(folder).map_err(|source| Error::Folder { path: folder.clone(), source })?;
            write(&folder.join(CONFIGURATION), text.as_bytes())?;
            tracing::info!("pod network is configured");
            self.written = Some(text);
        }
        Ok(())
    }

    /// Takes back what pods that vanished without a word still hold.
    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        // Held throughout, as the plugin does when it changes node ports.
        let leases = Leases::lock(&self.config.state_folder)?;
        let gone = leases.retain(Lease::is_live)?;
        for lease in &gone {
            self.kernel.delete_link_named(&cni::link_name(&lease.container, &lease.interface)).await?;
            tracing::info!(container = lease.container, addresses = ?lease.addresses, "took back a vanished pod's addresses");
        }
        if gone.iter().any(|lease| !lease.ports.is_empty()) {
            let [ip, ip6] = hostport::plan_tables(&leases.list()?);
            let mut script = ip.replace_script();
            script.append(&ip6.replace_script());
            self.nft().run(&script).await?;
        }
        Ok(())
    }

    fn nft(&self) -> Nft {
        self.config.nft.as_ref().map_or_else(Nft::default, Nft::at)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use ipnet::IpNet;
    use netlink::{Veth, netns};

    use super::*;

    /// Does something on a machine of its own.
    fn within<T: Send>(machine: &OwnedFd, work: impl AsyncFnOnce() -> T + Send) -> T {
        netns::within(machine.as_fd(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        })
        .unwrap()
    }

    #[test]
    fn a_node_gets_its_configuration_and_routes_and_loses_those_of_a_removed_node() {
        let (here, there) = match (netns::create(), netns::create()) {
            (Ok(here), Ok(there)) => (here, there),
            _ => return eprintln!("SKIPPED: needs root to make network namespaces"),
        };
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            node_name: "a".into(),
            conf_folder: folder.path().join("net.d"),
            state_folder: folder.path().join("leases"),
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            ..Config::default()
        };
        let peer = |name: &str, address: &str, range: &str| Peer {
            name: name.into(),
            addresses: vec![address.parse().unwrap()],
            ranges: vec![range.parse().unwrap()],
        };
        let peers = [peer("a", "172.30.0.1", "10.244.0.0/24"), peer("b", "172.30.0.2", "10.244.1.0/24")];
        within(&here, async || {
            let kernel = Netlink::connect().unwrap();
            let veth = Veth {
                name: "eth0",
                peer: "eth0",
                peer_namespace: Some(there.as_fd()),
                mtu: Some(1400),
                peer_mac: None,
            };
            let link = kernel.create_veth(&veth).await.unwrap();
            let lo = kernel.require_link("lo").await.unwrap();
            kernel.set_up(lo.index).await.unwrap();
            kernel.add_address(link.index, "172.30.0.1/24".parse().unwrap()).await.unwrap();
            kernel.set_up(link.index).await.unwrap();

            let mut applier = Applier::new(config.clone()).unwrap();
            applier.sweep().await.unwrap();
            applier.reconcile(&peers).await.unwrap();
            applier.reconcile(&peers).await.unwrap();
            let routes = kernel.routes().await.unwrap();
            let to = |range: &str| routes.iter().find(|route| route.destination == range.parse::<IpNet>().unwrap());
            assert_eq!(to("10.244.1.0/24").unwrap().gateway, "172.30.0.2".parse().ok());
            assert_eq!(to("10.96.0.0/16").unwrap().source, "172.30.0.1".parse().ok());
            let text = std::fs::read_to_string(config.conf_folder.join(CONFIGURATION)).unwrap();
            assert!(text.contains("10.244.0.0/24") && text.contains("\"mtu\": 1400"), "{text}");

            applier.reconcile(&peers[..1]).await.unwrap();
            assert!(
                kernel.routes().await.unwrap().iter().all(|route| route.destination.to_string() != "10.244.1.0/24")
            );
        });
    }
}
