//! `keelson control-plane`: API server, scheduler and controllers of a master, in one process.

pub(super) mod documents;
mod objects;
#[cfg(test)]
mod rotation_tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::{Authorization, FrontProxy, KubeletClient, ProxyClient, Tls};
use client::Client;
use lifecycle::{Shutdown, Tasks};
use manifest::{ControlPlanePart, Manifest};

use crate::{node, paths, process};

/// Time between compactions of etcd, as upstream.
const COMPACT_EVERY: Duration = Duration::from_secs(300);
/// What the parts get to end.
const DRAIN: Duration = Duration::from_secs(15);
/// Pause before a part that ended by itself starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn run() -> Result<()> {
    process::run(process::FOR_A_CLUSTER, |shutdown| async move {
        let manifest = node::manifest_in_force()?;
        documents::check(&manifest)?;
        let addresses = node::addresses(&manifest)?;
        let first = *addresses.first().context("the machine has no address")?;
        // What the API server needs to its end ends after it.
        let background = Shutdown::new();
        let store = store(&manifest, first, &background).await?;
        let tasks = Tasks::new();
        let (compacted, stop) = (store.clone(), background.clone());
        tasks.spawn("compactor", async move {
            store::run_compactor(&*compacted, COMPACT_EVERY, async move { stop.wait().await }).await;
        });
        let is_ours = |part| !manifest.control_plane.external.contains(&part);
        if is_ours(ControlPlanePart::Scheduler) {
            start_scheduler(&tasks, &shutdown)?;
        }
        if is_ours(ControlPlanePart::ControllerManager) {
            start_controllers(&tasks, &shutdown, &manifest)?;
        }
        objects::start(&tasks, &shutdown, admin("bootstrap")?, &manifest)?;
        let served = apiserver::run(api_server(&manifest, first)?, store, shutdown.clone()).await;
        shutdown.trigger();
        background.trigger();
        let stuck = tasks.drain(DRAIN).await;
        if !stuck.is_empty() {
            tracing::warn!(?stuck, "parts did not end in time");
        }
        served.context("serving the API")
    })
}

/// What is told of a control plane that serves.
fn serving(external: &[ControlPlanePart]) -> String {
    match external.iter().map(|part| part.as_str()).collect::<Vec<_>>().as_slice() {
        [] => "serving".to_owned(),
        parts => format!("serving; run by others: {}", parts.join(", ")),
    }
}

fn pki(name: &str) -> PathBuf {
    Path::new(paths::PKI).join(name)
}

fn read(name: &str) -> Result<Vec<u8>> {
    let path = pki(name);
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

async fn store(manifest: &Manifest, address: IpAddr, shutdown: &Shutdown) -> Result<Arc<dyn store::Store>> {
    let etcd = etcd::Config::new(manifest, address, Path::new(paths::STATE));
    let tls = store::etcd::Tls {
        ca_pem: read("etcd/ca.crt")?,
        client_pem: Some((read("apiserver-etcd-client.crt")?, read("apiserver-etcd-client.key")?)),
    };
    let config = store::etcd::Config::new(etcd.client_urls(), Some(tls));
    let store = Arc::new(store::Etcd::new(config).await.context("preparing the connection to etcd")?);
    let Some(path) = documents::encryption(Path::new(paths::API_SERVER), manifest) else { return Ok(store) };
    let settings = encryption::Settings { path, reloads: true };
    super::apiserver::encryption::encrypted((store, super::apiserver::ROOT), settings, shutdown)
        .await
        .context("control-plane.encryption")
}

fn api_server(manifest: &Manifest, address: IpAddr) -> Result<apiserver::Config> {
    let ranges = manifest.cluster.service_cidrs.iter().map(|range| range.to_string().parse());
    let mut config = apiserver::Config {
        log_detail: Some(crate::logs::set_detail),
        bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, manifest::API_PORT)),
        advertise: address,
        hostname: manifest.machine.hostname.to_string(),
        tls: Some(Tls {
            certificate: pki("apiserver.crt"),
            key: pki("apiserver.key"),
            client_ca: Some(pki("ca.crt")),
            ..Tls::default()
        }),
        service_ranges: ranges.collect::<Result<_, _>>().context("the Service ranges")?,
        token_issuer: format!("https://kubernetes.default.svc.{}", manifest.cluster.dns_domain),
        token_signing_key: Some(pki("sa.key")),
        token_verify_keys: vec![pki("sa.pub")],
        authorization: Authorization::NodeRbac,
        front_proxy: Some(FrontProxy::new(pki("front-proxy-ca.crt"), vec!["front-proxy-client".to_owned()])),
        proxy_client: Some(ProxyClient {
            certificate: pki("front-proxy-client.crt"),
            key: pki("front-proxy-client.key"),
        }),
        kubelet: Some(KubeletClient::new(
            pki("apiserver-kubelet-client.crt"),
            pki("apiserver-kubelet-client.key"),
            Some(pki("ca.crt")),
        )),
        ..apiserver::Config::default()
    };
    documents::apply(Path::new(paths::API_SERVER), manifest, &mut config);
    Ok(config)
}

/// A client with the rights of an administrator.
pub(super) fn admin(component: &str) -> Result<Client> {
    client_of("admin", component)
}

/// A client with the certificate of this name, at this machine's own API server.
fn client_of(name: &str, component: &str) -> Result<Client> {
    let server = format!("https://127.0.0.1:{}", manifest::API_PORT);
    let mut config = client::Config::new(server.parse().context("the API server's address")?);
    config.ca_pem = Some(read("ca.crt")?);
    config.identity = client::Identity::Certificate {
        cert_pem: read(&format!("{name}.crt"))?,
        key_pem: read(&format!("{name}.key"))?,
    };
    Client::new(config.with_component(component)).context("making a client")
}

fn start_scheduler(tasks: &Tasks, shutdown: &Shutdown) -> Result<()> {
    let client = client_of("scheduler", "scheduler")?;
    let config = scheduler::Config::with_leader_election(&process::identity());
    let shutdown = shutdown.clone();
    tasks.spawn("scheduler", async move {
        again("scheduler", &shutdown, || scheduler::run(config.clone(), client.clone(), shutdown.clone())).await;
    });
    Ok(())
}

fn start_controllers(tasks: &Tasks, shutdown: &Shutdown, manifest: &Manifest) -> Result<()> {
    // Upstream's controllers act as service accounts of their own; ours act as one, which needs all their rights.
    let client = admin("controller-manager")?;
    let text = |name: &str| read(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let config = controllers::Config {
        cluster_cidrs: manifest.cluster.pod_cidrs.iter().map(|range| range.net()).collect(),
        root_ca_pem: text("ca.crt")?,
        signer: Some(controllers::Signer { cert_pem: text("ca.crt")?, key_pem: text("ca.key")? }),
        service_account_key_pem: Some(text("sa.key")?),
        leader_identity: Some(process::identity()),
        ..controllers::Config::default()
    };
    let shutdown = shutdown.clone();
    tasks.spawn("controllers", async move {
        again("controllers", &shutdown, || controllers::run(config.clone(), client.clone(), shutdown.clone())).await;
    });
    Ok(())
}

/// Starts a part again when it ends by itself, as a lost lease makes it.
pub(crate) async fn again<F, Fut, E>(name: &str, shutdown: &Shutdown, part: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: std::error::Error,
{
    loop {
        let ended = part().await;
        if shutdown.is_triggered() {
            return;
        }
        let reason = ended.err().map(|error| stdx::chain(&error).to_string());
        tracing::warn!(name, reason, "ended by itself and starts again");
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(RESTART_PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_others_run_are_told() {
        assert_eq!(serving(&[]), "serving");
        let both = [ControlPlanePart::Scheduler, ControlPlanePart::ControllerManager];
        assert_eq!(serving(&both), "serving; run by others: scheduler, controller-manager");
    }
}
