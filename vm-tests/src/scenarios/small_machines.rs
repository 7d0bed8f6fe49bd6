//! A cluster of the smallest machines that are promised to do.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Outcome;
use super::network::{ask, look};
use super::scene::{SAMPLE_IMAGE, SOON, Scene};
use crate::hardware::Hardware;
use crate::observe::{Api, Pod};
use crate::plan::Machine;
use crate::wait::until;

/// MiB of memory of a master and of a worker.
const MEMORY: [u32; 2] = [1024, 512];
const PODS: usize = 10;
/// How long nothing may happen to them.
const STAYS: Duration = Duration::from_secs(60);
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let worker = scene.workers()[0].clone();
    for (machine, memory) in [&master, &worker].into_iter().zip(MEMORY) {
        let small = Hardware { memory: Some(memory), ..Hardware::default() };
        small.give(&scene.cluster.folder.machine(&machine.name))?;
    }
    let api = scene.up().await?;
    api.call(Method::POST, DEPLOYMENTS, Some(&ten(&worker))).await.context("ask for ten pods")?;
    let first = until("ten pods that serve", SOON, async || serving(&api, &worker).await).await?;
    scene.say(&format!("{PODS} pods serve on a worker with {} MiB", MEMORY[1]));

    let end = Instant::now() + STAYS;
    let mut looks = 0;
    while Instant::now() < end {
        let now = serving(&api, &worker).await.context("later")?;
        ensure!(now == first, "containers started again: {now:?}, and before {first:?}");
        looks += 1;
    }
    ensure!(looks > 1, "nobody looked whether they stay");
    for machine in [&master, &worker] {
        check_memory(scene, &master, machine).await?;
    }
    scene.serve().await?;
    scene.say(&format!("all of them stay for {} s, and nothing was killed on either machine", STAYS.as_secs()));
    Ok(Outcome::Passed)
}

fn ten(worker: &Machine) -> Value {
    let labels = json!({ "app": "ten" });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "ten" },
        "spec": {
            "replicas": PODS,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "nodeSelector": { "kubernetes.io/hostname": worker.name },
                    "containers": [{ "name": "ten", "image": SAMPLE_IMAGE, "imagePullPolicy": "IfNotPresent" }],
                },
            },
        },
    })
}

/// The pods by name, with their containers; an error unless all of them serve.
async fn serving(api: &Api, worker: &Machine) -> Result<BTreeMap<String, (String, u64)>> {
    let pods = api.pods("ten").await?;
    let count = pods.iter().filter(|pod| pod.serves() && pod.node == worker.name).count();
    ensure!(count == PODS && pods.len() == PODS, "{count} of {} pods serve", pods.len());
    Ok(pods.into_iter().map(|Pod { name, container, restarts, .. }| (name, (container, restarts))).collect())
}

/// Whether the kernel killed nothing for want of memory, and every service is the one that was started.
async fn check_memory(scene: &Scene, master: &Machine, machine: &Machine) -> Result<()> {
    let groups = look(scene, master, machine, "cgroups").await?;
    let groups = groups.as_array().context("there are no control groups")?;
    let killed: Vec<&Value> = groups.iter().filter(|group| group["memoryKills"].as_u64() != Some(0)).collect();
    ensure!(!groups.is_empty() && killed.is_empty(), "{}: out of memory: {killed:?}", machine.name);
    let status = ask(scene, master, machine, "status", &["--output", "json"]).await?;
    let status: Value = serde_json::from_str(&status).context("read the status")?;
    let services = status["services"].as_array().context("there are no services")?;
    let again: Vec<&Value> = services.iter().filter(|service| service["restarts"].as_u64() != Some(0)).collect();
    ensure!(again.is_empty() && status["ready"] == true, "{}: {again:?}, {}", machine.name, status["unmet"]);
    Ok(())
}
