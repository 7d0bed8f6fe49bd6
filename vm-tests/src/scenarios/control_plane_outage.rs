//! Without a control plane: pods go on, containers are restarted, Services answer.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use super::Outcome;
use super::restarts::asked;
use super::scene::{self, SHORTLY, SOON, Scene};
use crate::wait::until;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    let before = scene::sample_pods(&api, 3).await?;
    let service = SocketAddr::from((scene::service_address(&api, "sample").await?, 80));
    let master = scene.cluster.master().context("the cluster has no master")?.name.clone();
    let workers = scene.workers();

    let mut loads = Vec::new();
    for worker in &workers {
        loads.push(scene.outside()?.load(Scene::node_port(worker))?);
        loads.push(scene.inside(worker)?.load(service)?);
    }
    asked(&loads).await?;
    scene.cluster.stop_machine(&master, false).await?;
    ensure!(api.check_ready().await.is_err(), "the API answers without its machine");
    asked(&loads).await?;
    let mut answers = 0;
    for load in loads {
        answers += load.end()?;
    }
    scene.say(&format!("{master} stops: {answers} answers, no failure"));

    let killed = scene::kill_container(&before[0])?;
    let address = SocketAddr::from((before[0].address.context("the pod has no address")?, 8080));
    let node = workers.iter().find(|worker| worker.name == before[0].node).context("the pod is on no worker")?;
    until("the restart of a container without control plane", SHORTLY, async || {
        let now = scene::processes(&before[0])?;
        ensure!(!now.is_empty() && now.iter().all(|number| !killed.contains(number)), "there are {now:?}");
        scene.inside(node)?.ask(address).await
    })
    .await?;
    let loads = workers.iter().map(|worker| scene.outside()?.load(Scene::node_port(worker)));
    let loads = loads.collect::<Result<Vec<_>>>()?;
    asked(&loads).await?;
    loads.into_iter().try_for_each(|load| load.end().map(drop))?;
    scene.say("a killed container is restarted without a control plane");

    scene.start(&master).await?;
    let api = scene.serve().await?;
    until("what happened meanwhile in the status", SOON, async || {
        let now = scene::sample_pods(&api, 3).await?;
        for pod in &before {
            let same = now.iter().find(|other| other.uid == pod.uid);
            let same = same.with_context(|| format!("{} was replaced", pod.name))?;
            let expected = pod.restarts + u64::from(pod.uid == before[0].uid);
            if same.restarts != expected {
                bail!("{} has {} restarts, not {expected}", pod.name, same.restarts);
            }
        }
        Ok(())
    })
    .await?;
    // Controllers work again.
    let path = format!("/api/v1/namespaces/default/pods/{}", before[1].name);
    api.call(http::Method::DELETE, &path, None).await?;
    until("the replacement of a pod", SOON, async || {
        let pods = scene::sample_pods(&api, 3).await?;
        if pods.iter().all(|pod| pod.uid != before[1].uid) { Ok(()) } else { bail!("it is still there") }
    })
    .await?;
    scene.say(&format!("{master} is back, and the status tells what happened meanwhile"));
    Ok(Outcome::Passed)
}
