//! `keelson node`: kubelet, service proxy, pod network and cluster DNS of a machine, in one process.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::core::v1::Taint;
use client::Client;
use join::{Certificates, Join, NodeIdentity, Pair};
use kubelet::{ServerConfig, ServingCertificate};
use lifecycle::{Shutdown, Tasks};
use manifest::Manifest;
use tokio::sync::watch;

use super::control_plane::again;
use crate::logs::Logs;
use crate::process::{self, Running};
use crate::{node, paths};

mod ending;
mod images;
mod readiness;

const KUBELET_PORT: u16 = 10250;
const KUBELET_HEALTH: ([u8; 4], u16) = ([127, 0, 0, 1], 10248);
const PROXY_HEALTH: ([u8; 4], u16) = ([0, 0, 0, 0], 10256);
const DNS_PORT: u16 = 53;
/// How often the machine's DNS servers are looked at.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);
/// What the parts get to end.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(15);

pub(crate) fn run() -> Result<()> {
    // Pods may get longer to end than anything else.
    let pods = || ending::time().unwrap_or_default();
    let end_within = || process::END_WITHIN + pods();
    let running = Running { threads: process::FOR_A_MACHINE, logs: Logs::default(), end_within };
    process::run_as(running, |shutdown| async move {
        let manifest = node::manifest_in_force()?;
        let addresses = node::addresses(&manifest)?;
        let tasks = Tasks::new();
        let images = Arc::new(images::Images::new());
        if !manifest.machine.role.has_control_plane() {
            // A worker has nothing else to do while it waits for the master; a master has.
            let images = images.clone();
            tasks.spawn("images", async move { kubelet::Prepare::prepare(&*images).await });
        }
        let Some(access) = Access::get(&manifest, &addresses, &tasks, &shutdown).await? else { return Ok(()) };
        let machine = Machine { manifest, addresses, images, tasks: tasks.clone(), shutdown: shutdown.clone() };
        machine.start_kubelet(&access);
        machine.start_network(&access.client);
        let (name, role, client) = (machine.name(), machine.manifest.machine.role, access.client.clone());
        tasks.spawn("readiness", readiness::follow((name, role), client, shutdown.clone()));
        process::notify("READY=1\nSTATUS=running");
        shutdown.wait().await;
        let stuck = tasks.drain(DRAIN + pods()).await;
        if !stuck.is_empty() {
            tracing::warn!(?stuck, "parts did not end in time");
        }
        Ok(())
    })
}

/// How the node reaches the API, and what its own server shows.
struct Access {
    client: Client,
    server: OfNode,
}

impl Access {
    /// The master's own files, or what joining gives. `None` where a shutdown came first.
    async fn get(
        manifest: &Manifest,
        addresses: &[IpAddr],
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) -> Result<Option<Self>> {
        if manifest.machine.role.has_control_plane() {
            return Self::of_master().map(Some);
        }
        let config = join::Config::new(manifest, addresses, Path::new(paths::PKI));
        let config = config.context("the manifest of a worker needs cluster.endpoint, cluster.token and its CA")?;
        let server = config.server.clone();
        let (join, mut certificates) = Join::new(config);
        tasks.spawn("join", join.run(shutdown.clone()));
        process::notify("STATUS=joining the cluster");
        let identity = tokio::select! {
            () = shutdown.wait() => return Ok(None),
            identity = certificates.joined() => identity.context("joining was given up")?,
        };
        let client = client(&server, &identity.ca_pem, &identity.client, "node")?;
        let (shown, server) = Shown::new(&identity);
        tasks.spawn("certificates", follow(certificates, client.clone(), shown, shutdown.clone()));
        Ok(Some(Self { client, server }))
    }

    fn of_master() -> Result<Self> {
        let read = |name: &str| {
            let path = Path::new(paths::PKI).join(name);
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let pair = |name: &str| -> Result<Pair> {
            Ok(Pair { cert_pem: read(&format!("{name}.crt"))?, key_pem: read(&format!("{name}.key"))? })
        };
        let identity =
            NodeIdentity { ca_pem: read("ca.crt")?, client: pair("kubelet")?, serving: Some(pair("kubelet-server")?) };
        let server = format!("https://127.0.0.1:{}", manifest::API_PORT);
        let client = client(&server, &identity.ca_pem, &identity.client, "node")?;
        // The files are renewed before this starts; a receiver without a sender keeps its value.
        let (_senders, server) = Shown::new(&identity);
        Ok(Self { client, server })
    }
}

/// A client with a node's certificate.
pub(super) fn client(server: &str, ca_pem: &str, pair: &Pair, component: &str) -> Result<Client> {
    let mut config = client::Config::new(server.parse().context("the API server's address")?);
    config.ca_pem = Some(ca_pem.as_bytes().to_vec());
    config.identity = identity(pair);
    Client::new(config.with_component(component)).context("making a client")
}

fn identity(pair: &Pair) -> client::Identity {
    client::Identity::Certificate {
        cert_pem: pair.cert_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    }
}

/// What a node's server shows, and by whom its callers are vouched for.
pub(super) struct OfNode {
    /// Nothing yet where the certificate is still being asked for.
    pub(super) serving: watch::Receiver<ServingCertificate>,
    callers: watch::Receiver<Vec<u8>>,
}

/// Where the same is put when it is renewed.
pub(super) struct Shown {
    serving: watch::Sender<ServingCertificate>,
    callers: watch::Sender<Vec<u8>>,
}

impl Shown {
    pub(super) fn new(identity: &NodeIdentity) -> (Self, OfNode) {
        let (serving, shown) = watch::channel(serving(identity));
        let (sender, callers) = watch::channel(identity.ca_pem.clone().into_bytes());
        (Self { serving, callers: sender }, OfNode { serving: shown, callers })
    }
}

/// Hands renewed certificates, and CAs that are trusted now, on to the client and to the server, until shutdown.
pub(super) async fn follow(mut certificates: Certificates, client: Client, shown: Shown, shutdown: Shutdown) {
    loop {
        let next = tokio::select! {
            () = shutdown.wait() => return,
            next = certificates.changed() => next,
        };
        let Some(new) = next else { return };
        if let Err(error) = client.renew(new.ca_pem.clone().into_bytes(), identity(&new.client)) {
            tracing::warn!(error = %stdx::chain(&error), "taking up a renewed certificate");
        }
        shown.serving.send_replace(serving(&new));
        shown.callers.send_replace(new.ca_pem.clone().into_bytes());
    }
}

fn serving(identity: &NodeIdentity) -> ServingCertificate {
    identity.serving.as_ref().map_or_else(ServingCertificate::default, |pair| ServingCertificate {
        cert_pem: pair.cert_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    })
}

struct Machine {
    manifest: Manifest,
    addresses: Vec<IpAddr>,
    images: Arc<images::Images>,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Machine {
    fn name(&self) -> String {
        self.manifest.machine.hostname.to_string()
    }

    fn start_kubelet(&self, access: &Access) {
        let config = self.kubelet(access);
        let (client, shutdown) = (access.client.clone(), self.shutdown.clone());
        self.tasks.spawn("kubelet", async move {
            again("kubelet", &shutdown, || kubelet::run(config.clone(), client.clone(), shutdown.clone())).await;
        });
    }

    fn kubelet(&self, access: &Access) -> kubelet::Config {
        let (manifest, options) = (&self.manifest, &self.manifest.kubelet);
        let mut config = kubelet::Config::new(&self.name(), self.addresses.clone(), paths::CONTAINERD_SOCKET.into());
        config.server = Some(ServerConfig {
            listen: SocketAddr::from(([0, 0, 0, 0], KUBELET_PORT)),
            certificate: access.server.serving.clone(),
            client_ca_pem: Some(access.server.callers.clone()),
            healthz: Some(KUBELET_HEALTH.into()),
        });
        config.cluster_dns = vec![manifest.cluster.dns_address.to_string()];
        config.resolv_conf = paths::RESOLVERS.into();
        config.cluster_domain = manifest.cluster.dns_domain.to_string();
        config.logins = machine::logins(manifest);
        config.before_pods = Some(self.images.clone());
        config.ending = Some(Arc::new(ending::FirstProcess));
        config.max_pods = options.max_pods;
        config.labels = manifest.machine.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        config.taints = manifest.node_taints().iter().map(taint).collect();
        config.reserved.amounts = [
            ("cpu", options.reserved.cpu.to_string()),
            ("memory", options.reserved.memory.to_string()),
            ("ephemeral-storage", options.reserved.ephemeral_storage.to_string()),
        ]
        .map(|(name, amount)| (name.to_owned(), amount))
        .into();
        config.log_max_bytes = options.log_max_size.bytes();
        config.log_max_files = options.log_max_files;
        if init::Environment::observe(&sys::Linux) == init::Environment::Container {
            // The disk is not this node's alone, so its fill is no sign of the node's own use.
            config.pressure.disk_percent = 0;
            config.image_collection.high_percent = 100;
        }
        config
    }

    fn start_network(&self, client: &Client) {
        let pods: Vec<_> = self.manifest.cluster.pod_cidrs.iter().map(|range| range.net()).collect();
        let services: Vec<_> = self.manifest.cluster.service_cidrs.iter().map(|range| range.net()).collect();
        let podnet = podnet::Config {
            node_name: self.name(),
            node_addresses: self.addresses.clone(),
            conf_folder: paths::CNI_CONFIG.into(),
            state_folder: paths::CNI_LEASES.into(),
            mtu: self.manifest.pod_network.mtu,
            cluster_cidrs: pods.clone(),
            service_cidrs: services.clone(),
            nft: Some(paths::NFT.into()),
        };
        let dns_address = self.manifest.cluster.dns_address;
        let proxy = proxy::Config {
            node_name: self.name(),
            node_addresses: self.addresses.clone(),
            cluster_cidrs: pods,
            service_cidrs: services,
            local_addresses: vec![dns_address],
            health_address: Some(PROXY_HEALTH.into()),
            nft: Some(paths::NFT.into()),
            ..proxy::Config::default()
        };
        let dns = dns::Config {
            listen: vec![SocketAddr::new(dns_address, DNS_PORT)],
            hold_addresses: vec![dns_address],
            domain: self.manifest.cluster.dns_domain.to_string(),
            upstreams: self.follow_resolvers(SocketAddr::new(dns_address, DNS_PORT)),
            metrics: Some(paths::CLUSTER_DNS_METRICS.into()),
            ..dns::Config::default()
        };
        self.part("podnet", client, move |client, shutdown| podnet::run(podnet.clone(), client, shutdown));
        self.part("proxy", client, move |client, shutdown| proxy::run(proxy.clone(), client, shutdown));
        self.part("dns", client, move |client, shutdown| dns::run(dns.clone(), client, shutdown));
    }

    /// The machine's DNS servers, as they change, without the cluster's own.
    fn follow_resolvers(&self, own: SocketAddr) -> dns::Upstreams {
        let look = move || {
            let mut groups = node::network().map(|network| network.name_servers).unwrap_or_default();
            groups.iter_mut().for_each(|group| group.servers.retain(|server| server.address != own));
            groups
        };
        let (sender, followed) = tokio::sync::watch::channel(look());
        let shutdown = self.shutdown.clone();
        self.tasks.spawn("resolvers", async move {
            while tokio::time::timeout(LOOK_AGAIN, shutdown.wait()).await.is_err() {
                let now = look();
                sender.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
            }
        });
        followed.into()
    }

    fn part<F, Fut, E>(&self, name: &'static str, client: &Client, part: F)
    where
        F: Fn(Client, Shutdown) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let (client, shutdown) = (client.clone(), self.shutdown.clone());
        self.tasks.spawn(name, async move {
            again(name, &shutdown, || part(client.clone(), shutdown.clone())).await;
        });
    }
}

fn taint(taint: &manifest::Taint) -> Taint {
    Taint {
        key: taint.key.to_string(),
        value: taint.value.to_string(),
        effect: taint.effect.to_string(),
        ..Taint::default()
    }
}
