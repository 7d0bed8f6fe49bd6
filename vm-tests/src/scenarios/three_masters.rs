//! Three masters: the loss of one changes nothing but its own node.

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::json;

use super::Outcome;
use super::scene::{self, SOON, Scene};
use crate::wait::until;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    let masters: Vec<String> =
        scene.machines().into_iter().filter(|machine| machine.is_master()).map(|machine| machine.name).collect();
    for lost in &masters[1..] {
        scene.cluster.stop_machine(lost, true).await?;
        let object =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("without-{lost}") } });
        until(&format!("a write without {lost}"), SOON, async || {
            api.call(Method::POST, CONFIG_MAPS, Some(&object)).await
        })
        .await?;
        let pods = scene::sample_pods(&api, 3).await?;
        let name = &pods[0].name;
        api.call(Method::DELETE, &format!("/api/v1/namespaces/default/pods/{name}"), None).await?;
        until("the replacement of a pod", SOON, async || {
            let now = scene::sample_pods(&api, 3).await?;
            if now.iter().all(|pod| pod.uid != pods[0].uid) { Ok(()) } else { bail!("{name} is still there") }
        })
        .await?;
        scene.start(lost).await?;
        until(lost, SOON, async || {
            let nodes = api.nodes().await?;
            let node = nodes.iter().find(|node| &node.name == lost).context("it has no node")?;
            ensure!(node.is_ready, "it is not Ready: {}", node.message);
            Ok(())
        })
        .await?;
        scene.say(&format!("all went on without {lost}, and it is back"));
    }
    Ok(Outcome::Passed)
}
