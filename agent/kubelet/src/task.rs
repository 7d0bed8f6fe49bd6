//! Wires everything together.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use api::core::v1::{Pod, Service};
use api::quantity::Amount;
use cgroups::Hierarchy;
use client::Client;
use cri::{Runtime, v1};
use lifecycle::{Shutdown, Tasks};
use reconcile::{Recorder, Reflector, ReflectorConfig};
use sys::System;
use tokio::sync::mpsc;

use crate::allocation::Grants;
use crate::config::{CgroupDriver, Config, Reserved};
use crate::context::NodeContext;
use crate::error::Error;
use crate::host_ports::HostPorts;
use crate::images::Images;
use crate::manager::{Manager, PodSources, PodTable, STATIC_LEN};
use crate::node::facts;
use crate::pod_cgroup::apply_classes;
use crate::probe_counts::ProbeCounts;
use crate::resources::cpu_shares;
use crate::sources::Sources;

/// How long workers get to end when the kubelet does.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a node's pods until `shutdown`. Pods outlive the kubelet, unless the machine ends ([`Config::ending`]): they are
/// found again at the next start.
///
/// # Errors
/// When folders or the server's address cannot be had; everything later is tried again and reported in the node's
/// status.
pub async fn run(config: Config, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    let runtime = Arc::new(cri::Client::new(&config.cri_socket).map_err(Error::Runtime)?);
    run_with(config, client, runtime, Arc::new(sys::Linux), shutdown).await
}

/// The same with another runtime or another kernel.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    mut config: Config,
    client: Client,
    runtime: Arc<dyn Runtime>,
    system: Arc<dyn System>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    for dir in [&config.root_dir, &config.pod_logs_dir, &config.container_logs_dir] {
        make_dir(dir)?;
    }
    config.cgroup_driver = cgroup_driver(&config, runtime.as_ref()).await;
    // Its own: nothing goes on when this ends by itself, and everything does until the pods have ended.
    let own = Shutdown::new();
    let tasks = Tasks::new();
    let ended = run_tasks(config, client, (runtime, system), &tasks, (&shutdown, &own)).await;
    own.trigger();
    for name in tasks.drain(DRAIN).await {
        tracing::debug!(name, "still running at the end");
    }
    ended
}

async fn run_tasks(
    config: Config,
    client: Client,
    (runtime, system): (Arc<dyn Runtime>, Arc<dyn System>),
    tasks: &Tasks,
    (asked, shutdown): (&Shutdown, &Shutdown),
) -> Result<(), Error> {
    let (recorder, record) = Recorder::new(client.clone(), "kubelet", &config.node_name, shutdown.clone());
    tasks.spawn("events", record);
    let services = Reflector::<Service>::new(client.clone(), ReflectorConfig::default());
    let selector = format!("spec.nodeName={}", config.node_name);
    let mut pods =
        Reflector::<Pod>::new(client.clone(), ReflectorConfig { field_selector: selector, ..Default::default() });
    let (api, cache) = (pods.subscribe(), pods.cache());
    let node = Arc::new(NodeContext {
        sources: Sources::new(&client, tasks, shutdown),
        images: Images::new(runtime.clone(), config.logins.clone()),
        hierarchy: Hierarchy::detect(system.as_ref()).ok(),
        machine_memory: i64::try_from(facts::memory().total).unwrap_or(i64::MAX),
        services: services.cache(),
        grants: Grants::default(),
        probe_counts: ProbeCounts::default(),
        host_ports: HostPorts::default(),
        allocatable: RwLock::default(),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        config,
        client,
        runtime,
        system,
        recorder,
    });
    if let Err(error) = make_classes(&node) {
        tracing::warn!(error = %stdx::chain(&error), "pods' control groups not made");
    }
    let table = PodTable::default();
    let (changes, statics) = mpsc::channel(STATIC_LEN);
    tasks.spawn("services", services.run(shutdown.clone()));
    tasks.spawn("pods", pods.run(shutdown.clone()));
    tasks.spawn("node", crate::node::run(node.clone(), table.clone()));
    tasks.spawn("static pods", crate::static_pods::run(node.clone(), table.clone(), changes));
    tasks.spawn("log rotation", crate::rotation::run(node.clone()));
    tasks.spawn("garbage", crate::garbage::run(node.clone(), table.clone()));
    crate::server::start(&node, &table).await?;
    Manager::new(node, table).run(PodSources { api, cache, statics }, asked.clone()).await;
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::Folder { path: path.to_owned(), source })
}

/// The runtime's own cgroup driver, for the two must agree.
async fn cgroup_driver(config: &Config, runtime: &dyn Runtime) -> CgroupDriver {
    match runtime.cgroup_driver().await {
        Ok(Some(v1::CgroupDriver::Systemd)) => CgroupDriver::Systemd,
        Ok(Some(v1::CgroupDriver::Cgroupfs)) => CgroupDriver::Cgroupfs,
        Ok(None) => config.cgroup_driver,
        Err(error) => {
            tracing::warn!(%error, "the runtime does not say which cgroup driver it uses");
            config.cgroup_driver
        }
    }
}

fn make_classes(node: &NodeContext) -> Result<(), cgroups::Error> {
    let processors = i64::try_from(facts::processors()).unwrap_or(1);
    apply_classes(node, for_pods(node.machine_memory, &node.config.reserved), cpu_shares(processors * 1000))
}

/// Bytes that all pods together may have: what is not kept back. 0, for no limit, where that would be nothing.
fn for_pods(machine: i64, reserved: &Reserved) -> i64 {
    let kept = reserved.amounts.get("memory").and_then(|text| Amount::parse(text).ok()).map_or(0, |kept| kept.value());
    if kept > 0 { machine.saturating_sub(kept).max(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_what_is_not_kept_back() {
        let reserved = |text: &str| Reserved { amounts: [("memory".to_owned(), text.to_owned())].into() };
        assert_eq!(for_pods(1 << 30, &reserved("256Mi")), 768 << 20);
        assert_eq!(for_pods(1 << 30, &reserved("2Gi")), 0);
        assert_eq!(for_pods(1 << 30, &Reserved::default()), 0);
    }
}
