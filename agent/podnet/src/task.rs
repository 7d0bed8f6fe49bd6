//! The node's side: watches Nodes, keeps the kernel and the CNI configuration as planned.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::Node;
use client::Client;
use lifecycle::{Shutdown, Tasks};
use netlink::{Change, Changes, Netlink};
use reconcile::{Cache, Event, Reflector, ReflectorConfig};
use tokio::sync::Notify;

use crate::apply::Applier;
use crate::config::Config;
use crate::hostport;
use crate::lease::LeaseError;
use crate::plan::Peer;

const RETRY: stdx::Backoff =
    stdx::Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(30), jitter: 0.0 };
/// For the watch to end.
const DRAIN: Duration = Duration::from_secs(5);
const FORWARDING: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];

/// Why the pod network is not as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Node object's name is missing.
    #[error("the pod network needs the name of its node")]
    NoNodeName,
    /// Links, addresses or routes.
    #[error(transparent)]
    Network(#[from] netlink::Error),
    /// Masquerading or node ports.
    #[error(transparent)]
    Rules(#[from] nft::Error),
    /// Leases or the CNI configuration.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The configuration's folder could not be made.
    #[error("cannot make folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Runs the node's side until `shutdown`. Everything stays in place afterwards, so that pods go on.
pub async fn run(config: Config, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    if config.node_name.is_empty() {
        return Err(Error::NoNodeName);
    }
    let tasks = Tasks::new();
    let stop = shutdown.child();
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    let nodes = Reflector::new(client, ReflectorConfig { project: slim, ..Default::default() }).on_event(
        move |event: &Event<Node>| {
            if is_relevant(event) {
                notify.notify_one();
            }
        },
    );
    let cache = nodes.cache();
    tasks.spawn("watch nodes", nodes.run(stop.clone()));
    allow_forwarding();
    let applier = Applier::new(config)?;
    let events = Netlink::changes()?;
    if let Err(error) = applier.sweep().await {
        tracing::warn!(error = %stdx::chain(&error), "cannot take back the addresses of vanished pods");
    }
    tokio::select! {
        () = shutdown.wait() => {}
        () = serve(applier, cache, events, &changed) => {}
    }
    stop.trigger();
    tasks.drain(DRAIN).await;
    Ok(())
}

/// The few fields that matter here.
fn slim(node: &mut Node) {
    let metadata = std::mem::take(&mut node.metadata);
    node.metadata.name = metadata.name;
    node.metadata.uid = metadata.uid;
    node.metadata.resource_version = metadata.resource_version;
    let addresses = std::mem::take(&mut node.status.addresses);
    node.status = Default::default();
    node.status.addresses = addresses;
}

/// Nodes report their health all the time; only addresses and ranges count.
fn is_relevant(event: &Event<Node>) -> bool {
    match event {
        Event::Applied { old: Some(old), new } => Peer::parse(old) != Peer::parse(new),
        Event::Applied { old: None, .. } | Event::Deleted(_) | Event::Synced | Event::Resync => true,
    }
}

/// Where it may not be set, somebody else decides over it and has to have set it.
fn allow_forwarding() {
    for path in FORWARDING {
        let is_on = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
        if !is_on && let Err(error) = std::fs::write(path, "1") {
            tracing::warn!(path, %error, "cannot allow forwarding; pods may reach nobody");
        }
    }
}

/// Never returns.
async fn serve(mut applier: Applier, cache: Cache<Node>, mut events: Changes, changed: &Notify) {
    cache.wait_synced().await;
    let mut failures = 0;
    loop {
        let peers: Vec<Peer> = cache.list().iter().map(|node| Peer::parse(node)).collect();
        let pause = match applier.reconcile(&peers).await {
            Ok(()) => {
                failures = 0;
                None
            }
            Err(error) => {
                tracing::error!(error = %stdx::chain(&error), "cannot set the pod network up, will try again");
                failures += 1;
                Some(RETRY.base(failures - 1))
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = relevant(&mut events) => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// Waits for a change of links or addresses other than pods'; routes vanish with them.
async fn relevant(events: &mut Changes) {
    loop {
        match events.next().await {
            Some(Change::Link(link) | Change::LinkGone(link)) if link.name.starts_with(hostport::LINK_PREFIX) => {}
            Some(Change::Link(_) | Change::LinkGone(_) | Change::Address(_)) => return,
            Some(Change::Route) => {}
            None => std::future::pending().await,
        }
    }
}
