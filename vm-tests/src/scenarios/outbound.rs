//! What machines fetch from elsewhere and keep there, with passwords and CAs of their owner's.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};

use super::Outcome;
use super::etcd_recovery::{check_present, forget, write};
use super::network::{apply, ask, manifest};
use super::scene::{PODS, SHORTLY, SOON, Scene};
use crate::container::Layout;
use crate::files::Files;
use crate::observe::Api;
use crate::plan::Machine;
use crate::wait::until;

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// So many objects come back.
const WRITES: usize = 5;

/// A pod from a registry that wants a password: none starts before the machine knows it, and then one does that has no
/// secret of its own.
pub(super) async fn run_registry(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let files = scene.files().await?;
    have_image(scene, &files)?;
    let image = format!("{}/private/sample:1", files.authority);
    let before = manifest(scene, &machine)?;
    for (name, words, told) in [
        ("stranger", String::new(), "certificate"),
        ("unknown", files.manifest().replace(crate::files::PASSWORD, "another"), "401"),
    ] {
        apply(scene, &machine, &machine, &(before.clone() + &words)).await?;
        until(&format!("word of the refused image of {name}"), SOON, async || {
            start(&api, &machine, name, &image).await?;
            let events = api.get("/api/v1/namespaces/default/events").await?;
            let said = messages(&events, name);
            ensure!(said.contains(told), "what is said of it is {said:?}");
            Ok(())
        })
        .await?;
    }
    scene.say("a registry that is not believed, or does not know the machine, gives nothing, and why is told");
    let plan = apply(scene, &machine, &machine, &(before + &files.manifest())).await?;
    ensure!(!plan.contains(crate::files::PASSWORD), "the password is shown: {plan}");
    start(&api, &machine, "guest", &image).await?;
    until("a pod from the private registry", SOON, async || {
        let pod = api.get(&format!("{PODS}/guest")).await?;
        match pod["status"]["phase"].as_str() {
            Some("Running") => Ok(()),
            _ => bail!("its status is {}", pod["status"]),
        }
    })
    .await?;
    ensure!(files.asked().iter().any(|(_, path, _)| path.contains("/private/sample/")), "nobody asked for the image");
    scene.say("with a CA and a password in its manifest the machine starts pods from a private registry");
    Ok(Outcome::Passed)
}

async fn start(api: &Api, on: &Machine, name: &str, image: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeName": on.name,
            "containers": [{ "name": "main", "image": image, "imagePullPolicy": "Always" }],
        },
    });
    super::scene::create(api, PODS, &pod).await
}

/// What events say of a pod.
fn messages(events: &Value, pod: &str) -> String {
    let items = events["items"].as_array().into_iter().flatten();
    let own = items.filter(|event| event["involvedObject"]["name"] == pod);
    own.filter_map(|event| event["message"].as_str()).collect::<Vec<_>>().join("; ")
}

/// The sample's image, as a registry has it.
fn have_image(scene: &Scene, files: &Files) -> Result<()> {
    let path = scene.cluster.image().tree.join("usr/share/keelson/images/sample.tar");
    let archive = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut parts = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().context("read the sample's image")? {
        let mut entry = entry.context("read the sample's image")?;
        let name = entry.path().context("read the sample's image")?.display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).context("read the sample's image")?;
        parts.insert(name, content);
    }
    let index: Value = serde_json::from_slice(parts.get("index.json").context("the image has no index")?)?;
    let main = index["manifests"][0]["digest"].as_str().context("the image has no manifest")?;
    for (name, content) in &parts {
        let Some(digest) = name.strip_prefix("blobs/sha256/") else { continue };
        files.have(&format!("/v2/private/sample/blobs/sha256:{digest}"), content.clone());
        if main == format!("sha256:{digest}") {
            for tag in ["1", main] {
                files.have_as(&format!("/v2/private/sample/manifests/{tag}"), content.clone(), IMAGE_MANIFEST);
            }
        }
    }
    Ok(())
}

/// Snapshots go to a server elsewhere by schedule; a blank machine fetches one and has what was in it.
pub(super) async fn run_snapshots(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    let machine = scene.cluster.master().context("the cluster has no master")?.clone();
    let files = scene.files().await?;
    let written = write(&api, "kept", WRITES).await?;
    let store = format!(
        "\n[etcd.snapshots]\ninterval = \"1m\"\n[etcd.snapshots.store]\nurl = \"https://{}/etcd\"\n",
        files.authority
    );
    let words = manifest(scene, &machine)? + &store + &files.manifest();
    apply(scene, &machine, &machine, &words).await?;
    let path = until("a snapshot in the store", SOON, async || {
        let mut paths = files.paths().into_iter();
        paths.find(|path| path.ends_with(".db")).with_context(|| format!("there is {:?}", files.paths()))
    })
    .await?;
    ensure!(path.starts_with(&format!("/etcd/{}/", machine.name)), "it is at {path}");
    scene.say(&format!("a snapshot by schedule is in the store, as {path}"));

    scene.cluster.stop_machine(&machine.name, true).await?;
    forget(&Layout::new(&scene.cluster.folder.machine(&machine.name)))?;
    scene.start(&machine.name).await?;
    let api = scene.serve().await?;
    ensure!(check_present(&api, &written).await.is_err(), "the blank machine has what it had before");
    apply(scene, &machine, &machine, &words).await?;
    let source = format!("https://{}{path}", files.authority);
    let restore = async |further: &[&str]| ask(scene, &machine, &machine, "etcd restore", further).await;
    let refused = restore(&[&source]).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("would be replaced"), "a restore into a cluster that lives is answered with {refused:?}");
    restore(&["--force", &source]).await?;
    let api = Api::new(&scene.cluster.folder.kubeconfig())?;
    until("the objects of the snapshot", SHORTLY, async || check_present(&api, &written).await).await?;
    ensure!(files.asked().contains(&(Method::GET, path.clone(), 0)), "nobody asked for {path}");
    scene.serve().await?;
    scene.say("a blank machine fetched it, and has what was in it");
    Ok(Outcome::Passed)
}
