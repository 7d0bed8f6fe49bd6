//! What ends and has to come back while all machines run.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use http::Method;
use serde_json::json;

use super::Outcome;
use super::scene::{self, SAMPLE, SHORTLY, SOON, Scene};
use crate::observe::{Api, Pod};
use crate::visitor::Load;
use crate::wait::until;

/// The second restart of a container waits this long, less what the look from outside is late.
const BACK_OFF: Duration = Duration::from_secs(8);
/// Each client has asked this often before a rolling update, and again after it.
const AROUND: u64 = 50;
const KILLED: i64 = 128 + 9;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    check_container(scene, &api).await?;
    check_pod(scene, &api).await?;
    check_rolling_update(scene, &api).await?;
    Ok(Outcome::Passed)
}

async fn check_container(scene: &Scene, api: &Api) -> Result<()> {
    let pods = scene::sample_pods(api, 3).await?;
    let first = restart_after_kill(api, &pods[0]).await?;
    let start = Instant::now();
    let mut has_backed_off = false;
    scene::kill_container(&first)?;
    let second = until("the second restart", SHORTLY, async || {
        let pod = find(api, &first).await?;
        has_backed_off |= pod.waiting.as_deref() == Some("CrashLoopBackOff");
        if pod.restarts == first.restarts + 1 && pod.is_ready { Ok(pod) } else { bail!("{pod:?}") }
    })
    .await?;
    let took = start.elapsed();
    ensure!(has_backed_off, "the container was not said to be in CrashLoopBackOff");
    ensure!(took > BACK_OFF, "the second restart came after {:.1} s", took.as_secs_f64());
    ensure!(second.address == pods[0].address, "a restart of a container gave the pod another address");
    scene.say(&format!("a killed container is back; killed again, after {:.1} s", took.as_secs_f64()));
    Ok(())
}

async fn find(api: &Api, pod: &Pod) -> Result<Pod> {
    let found = api.pods("sample").await?.into_iter().find(|other| other.uid == pod.uid);
    found.ok_or_else(|| anyhow::anyhow!("the pod {} is gone", pod.name))
}

async fn restart_after_kill(api: &Api, pod: &Pod) -> Result<Pod> {
    scene::kill_container(pod)?;
    let after = until("the restart of a killed container", SHORTLY, async || {
        let now = find(api, pod).await?;
        if now.restarts == pod.restarts + 1 && now.is_ready { Ok(now) } else { bail!("{now:?}") }
    })
    .await?;
    ensure!(after.container != pod.container, "the restarted container has the old identifier");
    ensure!(after.last_exit == Some(KILLED), "the killed container is said to have ended with {:?}", after.last_exit);
    Ok(after)
}

pub(super) async fn check_pod(scene: &Scene, api: &Api) -> Result<()> {
    let before = scene::sample_pods(api, 3).await?;
    let name = &before[0].name;
    api.call(Method::DELETE, &format!("/api/v1/namespaces/default/pods/{name}"), None).await?;
    let after = until("the replacement of a deleted pod", SOON, async || {
        let pods = scene::sample_pods(api, 3).await?;
        if pods.iter().all(|pod| pod.uid != before[0].uid) { Ok(pods) } else { bail!("{name} is still there") }
    })
    .await?;
    let stayed = after.iter().filter(|pod| before.iter().any(|other| other.uid == pod.uid)).count();
    ensure!(stayed == 2, "of the two other pods, {stayed} stayed");
    let processes = until("the end of the deleted pod's processes", SHORTLY, async || {
        let left = scene::processes(&before[0])?;
        if left.is_empty() { Ok(left) } else { bail!("there are {left:?}") }
    });
    processes.await?;
    scene.say("a deleted pod is replaced");
    Ok(())
}

/// Clients of all kinds, while every pod is replaced.
pub(super) async fn check_rolling_update(scene: &Scene, api: &Api) -> Result<()> {
    let before = scene::sample_pods(api, 3).await?;
    let address = SocketAddr::from((scene::service_address(api, "sample").await?, 80));
    let mut loads = Vec::new();
    for worker in scene.workers() {
        loads.push(scene.outside()?.load(Scene::node_port(&worker))?);
        loads.push(scene.inside(&worker)?.load(address)?);
        let place = scene::place_visitor(api, &worker.name).await?;
        loads.push(scene::inside_pod(&place)?.load(address)?);
    }
    asked(&loads).await?;
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": { "restarted": "once" } } } } });
    api.call(Method::PATCH, SAMPLE, Some(&patch)).await?;
    let after = until("the rolling update", SOON, async || {
        let pods = scene::sample_pods(api, 3).await?;
        let old = pods.iter().filter(|pod| before.iter().any(|other| other.uid == pod.uid)).count();
        if old == 0 { Ok(pods) } else { bail!("{old} of the old pods are there") }
    });
    after.await?;
    asked(&loads).await?;
    let mut answers = 0;
    for load in loads {
        answers += load.end()?;
    }
    scene.say(&format!("a rolling update under load: {answers} answers, no failure"));
    Ok(())
}

/// Waits until every client has had some more answers.
pub(super) async fn asked(loads: &[Load]) -> Result<()> {
    let before: Vec<u64> = loads.iter().map(Load::answers).collect();
    until("more answers for every client", SHORTLY, async || {
        let counts = loads.iter().zip(&before).map(|(load, before)| load.answers() - before);
        match counts.min() {
            Some(least) if least < AROUND => bail!("one has {least}"),
            _ => Ok(()),
        }
    })
    .await
}
