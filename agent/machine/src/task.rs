//! The role process: starts everything and says when the machine may go on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{Shutdown, Tasks};
use machine_api::{NetworkStatus, TimeStatus};
use sys::Linux;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Server;
use crate::config::Config;
use crate::error::Error;
use crate::etcd::Etcd;
use crate::network::{Network, NetworkConfig};
use crate::retire::Former;
use crate::{api, clock, debug, lack, look_ups, manifest_url, network_keys, retire};

/// After so long the machine goes on without what it has not got of the network.
const NETWORK_WAIT: Duration = Duration::from_secs(30);
/// After so long callers are served, however far the network is.
const FIRST_SETTLED: Duration = Duration::from_secs(5);
/// What tasks get to end.
const DRAIN: Duration = Duration::from_secs(3);

/// Runs until shutdown.
///
/// # Errors
/// When the kernel's network interface or a listener is not to be had. What fails on one link is no error of this.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let kept = config.owns_clock.then(|| config.clock.clone());
    let was_early = kept.as_ref().is_some_and(|kept| clock::apply_floor(&Linux, clock::floor(config.built, kept)));
    let manifest = config.networking().cloned();
    let (run, pods, names) = (config.run.clone(), config.pod_links.clone(), config.names.clone());
    let network = NetworkConfig { manifest, run, pods, names };
    let (network, status) = Network::connect(network).map_err(Error::Netlink)?;
    let tasks = Tasks::new();
    tasks.spawn("network", network.run(shutdown.clone()));
    let follows_time = config.owns_clock && config.manifest.as_ref().is_none_or(|manifest| manifest.time.sync);
    let (clock, time) = watch::channel(TimeStatus { follows: follows_time, ..TimeStatus::default() });
    if follows_time {
        tasks.spawn("clock", clock::run(config.built, status.clone(), clock, shutdown.clone()));
    }
    let clock = lack::Clock { built: config.built, was_early, kept };
    tasks.spawn("lack", lack::run(config.run.clone(), clock, time.clone(), shutdown.clone()));
    if let Some(asked) = config.look_ups.clone() {
        tasks.spawn("look-ups", look_ups::run(config.run.clone(), asked, time.clone(), shutdown.clone()));
    }
    let etcd = config.etcd.clone().map(|master| Etcd::new(master, (&config.pki, &config.run), status.clone()));
    if let Some(etcd) = &etcd {
        tasks.spawn("etcd", etcd.clone().run(shutdown.clone()));
    }
    tasks.spawn("manifest", manifest_url::run(config.run.clone(), status.clone(), shutdown.clone()));
    tasks.spawn("network keys", network_keys::run(config.run.clone(), status.clone(), shutdown.clone()));
    if let Some(manifest) = config.manifest.clone().filter(|manifest| !manifest.machine.role.has_control_plane()) {
        let (state, pki, run) = (config.state.clone(), config.pki.clone(), config.run.clone());
        tasks.spawn("former master", retire::run(Former { manifest, state, pki, run }, shutdown.clone()));
    }
    if config.manifest.is_some() {
        tasks.spawn("debug containers", debug::sweep(config.containerd.clone(), shutdown.clone()));
    }
    let server = Server::new(&config, etcd, (status.clone(), time.clone()), &shutdown);
    let local = api::run_local(server.clone(), shutdown.clone());
    let network = serve_network(&config, server.clone(), status.clone(), &shutdown);
    let ready = say_ready(&config, status, time);
    let serve = async { tokio::try_join!(local, network).map(drop) };
    let result = tokio::select! {
        result = serve => result,
        () = async { ready.await; std::future::pending().await } => Ok(()),
        () = shutdown.wait() => Ok(()),
    };
    shutdown.trigger();
    server.drain(DRAIN).await;
    for name in tasks.drain(DRAIN).await {
        tracing::warn!(name, "task did not end in time");
    }
    result
}

/// A manifest is taken in, from anybody, only while there is none; afterwards callers are served by their roles.
///
/// Nobody is served before the network was set up once: whoever is then served was not by an address that is taken back.
async fn serve_network(
    config: &Config,
    server: Arc<Server>,
    mut network: watch::Receiver<NetworkStatus>,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    drop(tokio::time::timeout(FIRST_SETTLED, network.changed()).await);
    if config.manifest.is_none() {
        api::run_maintenance(config.maintenance, server, shutdown.clone()).await
    } else {
        api::run_known(config.maintenance, server, shutdown.clone()).await
    }
}

/// Waits, not for ever, for the network and then for the time, and tells the supervisor.
async fn say_ready(config: &Config, mut status: watch::Receiver<NetworkStatus>, mut time: watch::Receiver<TimeStatus>) {
    let tell = |message: &str| tell(config.notify_socket.as_deref(), message);
    let deadline = Instant::now() + NETWORK_WAIT;
    loop {
        let seen = status.borrow_and_update().clone();
        if seen.ready {
            break;
        }
        tell(&format!("STATUS={}", Network::describe(&seen)));
        if !matches!(tokio::time::timeout_at(deadline, status.changed()).await, Ok(Ok(()))) {
            tracing::warn!("going on without the network: {}", Network::describe(&seen));
            break;
        }
    }
    let patience = config.manifest.as_ref().map(|manifest| manifest.time.boot_timeout.duration()).unwrap_or_default();
    let follows_time = time.borrow().follows;
    if follows_time && !status.borrow().ntp_servers.is_empty() && !patience.is_zero() {
        tell("STATUS=waiting for a time server");
        let is_synchronized = |time: &TimeStatus| time.synchronized_seconds.is_some();
        let waited = tokio::time::timeout(patience, time.wait_for(is_synchronized)).await;
        if waited.is_err() {
            tracing::warn!(seconds = patience.as_secs(), "going on without a time server's answer");
        }
    }
    let seen = status.borrow().clone();
    let address = seen.primary.map_or_else(|| "none".to_owned(), |address| address.to_string());
    let what = if seen.ready { "network is up" } else { "network is not up" };
    tell(&format!("READY=1\nSTATUS={what}, address {address}"));
}

fn tell(socket: Option<&Path>, message: &str) {
    if let Some(socket) = socket
        && let Err(error) = sys::notify(socket, message)
    {
        tracing::warn!(error = %stdx::chain(&error), "the supervisor was not told");
    }
}
