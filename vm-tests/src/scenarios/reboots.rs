//! Machines that stop and start, in order and without warning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Outcome;
use super::scene::{self, SOON, Scene};
use crate::observe::{Api, Pod};
use crate::wait::until;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Writes that were acknowledged before the machine goes down.
const BEFORE: usize = 200;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    for is_power_cut in [false, true] {
        check_worker(scene, &api, is_power_cut).await?;
    }
    for is_power_cut in [false, true] {
        check_master(scene, is_power_cut).await?;
    }
    Ok(Outcome::Passed)
}

async fn check_worker(scene: &mut Scene, api: &Api, is_power_cut: bool) -> Result<()> {
    let worker = scene.workers()[0].name.clone();
    let all = scene::sample_pods(api, 3).await?;
    let before: Vec<Pod> = all.into_iter().filter(|pod| pod.node == worker).collect();
    ensure!(!before.is_empty(), "no pod is on {worker}");
    scene.restart(&worker, is_power_cut).await?;
    until(&format!("the pods of {worker}"), SOON, async || {
        let now = scene::sample_pods(api, 3).await?;
        for pod in &before {
            let same = now.iter().find(|other| other.uid == pod.uid);
            let same = same.with_context(|| format!("{} was replaced", pod.name))?;
            if same.container == pod.container {
                bail!("{} is said to run in the container from before", pod.name);
            }
        }
        Ok(())
    })
    .await?;
    let api = scene.serve().await?;
    if scene.is_netns() {
        for machine in scene.machines() {
            let to = Scene::node_port(&machine);
            let visitor = scene.outside()?;
            until(&format!("an answer at {to}"), SOON, async || visitor.ask(to).await).await?;
        }
    }
    scene::sample_pods(&api, 3).await?;
    scene.say(&format!("{worker} is back with its {} pods", before.len()));
    Ok(())
}

/// Cuts the master off in the middle of writes. What was acknowledged has to be there afterwards.
async fn check_master(scene: &mut Scene, is_power_cut: bool) -> Result<()> {
    let master = scene.cluster.master().context("the cluster has no master")?.name.clone();
    let before = scene::sample_pods(&scene.serve().await?, 3).await?;
    let round = if is_power_cut { "cut" } else { "stop" };
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let (kubeconfig, is_over) = (scene.cluster.folder.kubeconfig(), is_over.clone());
            let prefix = format!("{round}-{number}");
            tokio::spawn(async move { write(&Api::new(&kubeconfig)?, &prefix, &is_over).await })
        })
        .collect();
    let api = scene.serve().await?;
    until("writes", SOON, async || {
        let count = names(&api, round).await?.len();
        if count >= BEFORE { Ok(()) } else { bail!("there are {count}") }
    })
    .await?;
    scene.restart(&master, is_power_cut).await?;
    is_over.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.context("a writer failed")??);
    }
    ensure!(acknowledged.len() >= BEFORE, "only {} writes were acknowledged", acknowledged.len());
    let api = scene.serve().await?;
    let present = names(&api, round).await?;
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !present.contains(name)).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
    let now = scene::sample_pods(&api, 3).await?;
    for pod in &before {
        let same = now.iter().find(|other| other.uid == pod.uid).with_context(|| format!("{} is gone", pod.name))?;
        ensure!(same.container == pod.container, "{} was restarted with the master", pod.name);
    }
    scene.say(&format!("{master} is back with all {} acknowledged writes", acknowledged.len()));
    Ok(())
}

/// Creates one object after the other until one fails; answers the names that were acknowledged.
async fn write(api: &Api, prefix: &str, is_over: &AtomicBool) -> Result<Vec<String>> {
    let mut acknowledged = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let name = format!("{prefix}-{}", acknowledged.len());
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name },
            "data": { "text": name.repeat(20) },
        });
        match api.send(Method::POST, CONFIG_MAPS, Some(&object)).await {
            Ok((StatusCode::CREATED, _)) => acknowledged.push(name),
            // The machine is on its way down; this one may be there or not.
            Ok(_) | Err(_) => break,
        }
    }
    Ok(acknowledged)
}

async fn names(api: &Api, round: &str) -> Result<Vec<String>> {
    let list = api.get(CONFIG_MAPS).await?;
    let whole = |object: &Value| {
        let name = object["metadata"]["name"].as_str()?.to_owned();
        (object["data"]["text"] == name.repeat(20)).then_some(name)
    };
    let names = list["items"].as_array().into_iter().flatten().filter_map(whole);
    Ok(names.filter(|name| name.starts_with(round)).collect())
}
