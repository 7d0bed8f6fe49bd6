//! `keelson machine`: the network and the clock of the machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use lifecycle::Shutdown;
use manifest::Manifest;
use tokio::sync::watch;

use super::etcd_member;
use crate::{paths, process};

/// Seconds since 1970 at which this program was built: no clock is earlier.
const BUILT: Option<&str> = option_env!("KEELSON_BUILT");
/// Where the build did not say: the day of the first release that needs it.
const BUILT_WITHOUT: u64 = 1_795_219_200;

/// Where the machine's own look-ups are answered; no pod and no other machine reaches it.
const NAMES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);

pub(crate) fn run() -> Result<()> {
    process::run(1, |shutdown| async move {
        let seconds = BUILT.and_then(|text| text.parse().ok()).unwrap_or(BUILT_WITHOUT);
        let built = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let manifest = manifest()?;
        let peers = manifest.as_ref().map(peers).transpose()?;
        let mut config = machine::Config::new(manifest, built);
        config.mended = crate::node::mended_network();
        config.peers = peers.unwrap_or_default();
        config.etcd = config.manifest.as_ref().map(etcd_member::master).transpose()?.flatten();
        config.forwards_to = config.etcd.is_some().then(|| config.maintenance.port());
        config.state = paths::STATE.into();
        config.pod_links = podnet::LINK_PREFIX.to_owned();
        config.crash = paths::CRASH.into();
        config.owns_clock = init::Environment::observe(&sys::Linux) == init::Environment::Machine;
        config.updates = updates()?;
        if let Some((names, view)) = names(&config, &shutdown).await {
            config.names = Some(names);
            config.look_ups = Some(Arc::new(LookUps(view)));
        }
        machine::run(config, shutdown).await.context("keeping the network and the clock")
    })
}

/// Begins to keep the answers to the machine's look-ups, where its manifest wants that.
async fn names(config: &machine::Config, shutdown: &Shutdown) -> Option<(machine::Names, dns::View)> {
    config.manifest.as_ref().filter(|manifest| manifest.network.dns_cache)?;
    let (servers, upstreams) = watch::channel(Vec::new());
    match dns::cache(NAMES, upstreams.into()).await {
        Ok(cache) => {
            let view = cache.view();
            drop(tokio::spawn(cache.serve(shutdown.clone())));
            Some((machine::Names { address: NAMES, servers }, view))
        }
        // Each look-up goes to the servers then, as without a cache; where the C library cannot ask them, to nobody.
        Err(error) => {
            tracing::warn!(error = %stdx::chain(&error), "answers to look-ups are not kept");
            None
        }
    }
}

/// The cache, as the machine sees it.
#[derive(Debug)]
struct LookUps(dns::View);

impl machine::LookUps for LookUps {
    fn metrics(&self) -> String {
        self.0.metrics()
    }

    fn troubles(&self) -> Vec<String> {
        self.0.troubles()
    }

    fn tell_clock(&self) {
        self.0.tell_clock();
    }
}

/// The other members of etcd.
fn peers(manifest: &Manifest) -> Result<Vec<machine::Peer>> {
    let others = manifest.etcd.members.iter().filter(|member| member.name != manifest.machine.hostname);
    let peer = |member: &manifest::EtcdMember| {
        let member = etcd::Member { name: member.name.to_string(), address: member.address };
        let address = member.client_url().parse().with_context(|| format!("the address of {}", member.name))?;
        Ok(machine::Peer { name: member.name, address })
    };
    others.map(peer).collect()
}

/// What can be updated, on a machine that was started from a disk of slots.
fn updates() -> Result<Option<machine::Updates>> {
    let Some(booted) = install::Booted::observe(&sys::Linux) else { return Ok(None) };
    let key = match std::fs::read(paths::UPDATE_KEY) {
        Ok(key) => Some(key),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", paths::UPDATE_KEY)),
    };
    let (record, state, extensions) = (paths::UPDATE.into(), paths::STATE.into(), paths::EXTENSIONS.into());
    Ok(Some(machine::Updates { booted, key, record, state, extensions }))
}

/// The manifest in force; `None` in maintenance.
fn manifest() -> Result<Option<Manifest>> {
    if !std::path::Path::new(paths::MANIFEST).exists() {
        return Ok(None);
    }
    crate::node::manifest_in_force().map(Some)
}
