//! Services from where their users are: in pods, on nodes and outside.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::scene::{self, SAMPLE_PORT, SHORTLY, Scene};
use crate::observe::{Api, Pod};
use crate::wait::until;

const SERVICES: &str = "/api/v1/namespaces/default/services";
/// With three pods behind it, all of these go to one by chance less than once in a million runs.
const MANY: &str = "15";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    let pods = scene::sample_pods(&api, 3).await?;
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    ensure!(nodes.len() > 1, "all pods are on {nodes:?}");
    scene.say(&format!("pods are on {nodes:?}"));
    for node in scene.workers().iter().map(|worker| &worker.name) {
        ask_from(scene, &api, node, &pods).await?;
    }
    if scene.is_netns() {
        for machine in scene.machines() {
            let answer = scene.outside()?.ask(Scene::node_port(&machine)).await?;
            expect_pod(&pods, &answer)?;
        }
        scene.say("every node's port answers outside of the machines");
    }
    check_headless(scene, &api, &pods).await?;
    check_affinity(scene, &api).await?;
    check_change(scene, &api, &pods).await?;
    Ok(Outcome::Passed)
}

/// Asks in all ways from a pod on one node.
async fn ask_from(scene: &Scene, api: &Api, node: &str, pods: &[Pod]) -> Result<()> {
    let address = scene::service_address(api, "sample").await?;
    let by_address = scene::run_on(api, node, &["get", &format!("http://{address}/"), MANY]).await?;
    let answering: BTreeSet<&str> = by_address.lines().collect();
    ensure!(answering.len() > 1, "of three pods only {answering:?} answered {MANY} requests");
    answering.iter().try_for_each(|answer| expect_pod(pods, answer))?;
    let names = ["sample", "sample.default", "sample.default.svc", "sample.default.svc.cluster.local"];
    for name in names {
        expect_pod(pods, &scene::run_on(api, node, &["get", &format!("http://{name}/")]).await?)?;
    }
    for machine in scene.machines() {
        let url = format!("http://{}:{SAMPLE_PORT}/", machine.address);
        expect_pod(pods, &scene::run_on(api, node, &["get", &url]).await?)?;
    }
    let absent = scene::run_on(api, node, &["resolve", "absent.default.svc.cluster.local"]).await;
    ensure!(absent.is_err(), "a Service that does not exist has the addresses {absent:?}");
    scene.say(&format!("a pod on {node} has its answers by address, by name and from every node's port"));
    Ok(())
}

fn expect_pod(pods: &[Pod], answer: &str) -> Result<()> {
    let answer = answer.trim();
    ensure!(pods.iter().any(|pod| pod.name == answer), "{answer:?} answers, which is no pod of the sample");
    Ok(())
}

fn service(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

/// A name without an address of its own stands for the pods' addresses.
async fn check_headless(scene: &Scene, api: &Api, pods: &[Pod]) -> Result<()> {
    let spec = json!({ "clusterIP": "None", "selector": { "app": "sample" }, "ports": [{ "port": 8080 }] });
    scene::create(api, SERVICES, &service("headless", &spec)).await?;
    let expected: BTreeSet<String> = pods.iter().filter_map(|pod| Some(pod.address?.to_string())).collect();
    for node in scene.workers().iter().map(|worker| &worker.name) {
        until("the headless Service's addresses", SHORTLY, async || {
            let text = scene::run_on(api, node, &["resolve", "headless.default.svc.cluster.local"]).await?;
            let seen: BTreeSet<String> = text.lines().map(str::to_owned).collect();
            if seen == expected { Ok(()) } else { bail!("they are {seen:?}, the pods have {expected:?}") }
        })
        .await?;
    }
    scene.say("a headless Service's name has the pods' addresses");
    Ok(())
}

async fn check_affinity(scene: &Scene, api: &Api) -> Result<()> {
    let spec = json!({
        "sessionAffinity": "ClientIP",
        "selector": { "app": "sample" },
        "ports": [{ "port": 80, "targetPort": 8080 }],
    });
    scene::create(api, SERVICES, &service("faithful", &spec)).await?;
    let node = &scene.workers()[0].name;
    let answers = until("an answer of the Service with affinity", SHORTLY, async || {
        scene::run_on(api, node, &["get", "http://faithful/", MANY]).await
    })
    .await?;
    let answering: BTreeSet<&str> = answers.lines().collect();
    ensure!(answering.len() == 1, "with affinity, one client was answered by {answering:?}");
    scene.say("a Service with affinity keeps to one pod");
    Ok(())
}

/// A port that leads nowhere refuses; one that gets a pod leads there.
async fn check_change(scene: &Scene, api: &Api, pods: &[Pod]) -> Result<()> {
    let spec = |app: &str| json!({ "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 8080 }] });
    scene::create(api, SERVICES, &service("changing", &spec("nothing"))).await?;
    let node = &scene.workers()[0].name;
    let refused = scene::run_on(api, node, &["get", "http://changing/"]).await;
    ensure!(refused.is_err(), "a Service without pods answers {refused:?}");
    let path = format!("{SERVICES}/changing");
    api.call(http::Method::PATCH, &path, Some(&json!({ "spec": spec("sample") }))).await?;
    let answer = until("an answer of the changed Service", SHORTLY, async || {
        scene::run_on(api, node, &["get", "http://changing/"]).await
    })
    .await?;
    expect_pod(pods, &answer)?;
    scene.say("a Service follows its selector");
    Ok(())
}
