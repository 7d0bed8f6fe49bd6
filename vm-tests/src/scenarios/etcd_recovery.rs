//! etcd that loses members, its majority and everything: by commands, without wiping, with all that was acknowledged.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use http::{Method, StatusCode};
use images::tools;
use serde_json::{Value, json};

use super::Outcome;
use super::scene::{SOON, Scene};
use crate::container::Layout;
use crate::observe::Api;
use crate::plan::Machine;
use crate::wait::until;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// So many writes at least are acknowledged in each round.
const WRITES: usize = 20;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let api = scene.up().await?;
    let masters: Vec<Machine> = scene.machines().into_iter().filter(Machine::is_master).collect();
    let [first, second, third] = masters.as_slice() else { bail!("there are {} masters", masters.len()) };
    voters(scene, first, 3).await?;
    check_refusals(scene, first).await?;

    let early = write(&api, "early", WRITES).await?;
    let snapshot = scene.cluster.folder.path().join("snapshot.db");
    let file = snapshot.to_string_lossy().into_owned();
    etcd(scene, first, &["snapshot", &file]).await?;
    scene.say("a snapshot was taken and verified");

    until("a snapshot by schedule", SOON, async || {
        let status = etcd(scene, first, &["status"]).await?;
        ensure!(status["snapshots"][0]["bytes"].as_u64() > Some(0), "there is none: {}", status["conditions"]);
        Ok(())
    })
    .await?;

    let acknowledged = lose_majority(scene, &api, [second, third]).await?;
    etcd(scene, first, &["recover"]).await?;
    check_present(&api, &early).await?;
    check_present(&api, &acknowledged).await?;
    scene.say(&format!("recovered in place with all {} acknowledged writes", early.len() + acknowledged.len()));

    scene.start(&second.name).await?;
    voters(scene, first, 2).await?;
    scene.say(&format!("{} came back with its old data and joined", second.name));
    forget(&Layout::new(&scene.cluster.folder.machine(&third.name)))?;
    scene.start(&third.name).await?;
    voters(scene, first, 3).await?;
    scene.serve().await?;
    scene.say(&format!("a blank machine took the place of {}", third.name));

    let said = etcd(scene, first, &["defrag"]).await?;
    ensure!(said["members"].as_array().is_some_and(|members| members.len() == 3), "defrag says {said}");
    check_restored(scene, first, &file, (&early, &acknowledged)).await?;
    Ok(Outcome::Passed)
}

/// What would do harm is refused while all is well, and the reason told.
async fn check_refusals(scene: &Scene, master: &Machine) -> Result<()> {
    let none = scene.cluster.folder.path().join("none.db");
    fs::write(&none, vec![0; 4096 + 32]).context("write what is no snapshot")?;
    let none = none.to_string_lossy().into_owned();
    for (arguments, told) in [
        (&["recover"][..], "nothing to recover"),
        (&["restore", &none], "would be replaced"),
        (&["restore", "--force", &none], "damaged"),
        (&["members", "remove", "master-9"], "there is no member"),
    ] {
        let refused = etcd(scene, master, arguments).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains(told), "{arguments:?} is answered with {refused:?}");
    }
    scene.say("what would do harm is refused");
    Ok(())
}

/// Takes two masters away, one after the other, under a writer. What it was acknowledged after the first loss, the
/// master that stays has.
async fn lose_majority(scene: &mut Scene, api: &Api, lost: [&Machine; 2]) -> Result<BTreeSet<String>> {
    let mut acknowledged = write(api, "three", WRITES).await?;
    scene.cluster.stop_machine(&lost[0].name, true).await?;
    acknowledged.extend(until("writes with two masters", SOON, async || write(api, "two", WRITES).await).await?);
    let (kubeconfig, is_over) = (scene.cluster.folder.kubeconfig(), Arc::new(AtomicBool::new(false)));
    let own = is_over.clone();
    let writer = tokio::spawn(async move {
        let (api, mut done) = (Api::new(&kubeconfig)?, BTreeSet::new());
        while !own.load(Ordering::Relaxed) {
            // The last one may be there or not.
            let Ok(more) = write(&api, &format!("last-{}", done.len()), 1).await else { break };
            done.extend(more);
        }
        anyhow::Ok(done)
    });
    scene.cluster.stop_machine(&lost[1].name, true).await?;
    is_over.store(true, Ordering::Relaxed);
    acknowledged.extend(writer.await.context("the writer failed")??);
    scene.say(&format!("{} and {} have lost their power", lost[0].name, lost[1].name));
    Ok(acknowledged)
}

/// The snapshot in the place of a cluster that lives: what was there before it is there, and nothing else.
async fn check_restored(
    scene: &Scene,
    master: &Machine,
    file: &str,
    (early, late): (&BTreeSet<String>, &BTreeSet<String>),
) -> Result<()> {
    etcd(scene, master, &["restore", "--force", file]).await?;
    let api = Api::new(&scene.cluster.folder.kubeconfig())?;
    until("the objects of the snapshot", SOON, async || check_present(&api, early).await).await?;
    let present = names(&api).await?;
    ensure!(present.is_disjoint(late), "what came after the snapshot is still there");
    voters(scene, master, 3).await?;
    scene.serve().await?;
    scene.say("the snapshot was restored, and the other masters joined by themselves");
    Ok(())
}

/// Gives a machine a blank disk.
pub(super) fn forget(layout: &Layout) -> Result<()> {
    for name in ["state", "var"] {
        let folder: &Path = &layout.kept().join(name);
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    layout.prepare()
}

/// Waits until etcd has so many members, all with a vote and well.
async fn voters(scene: &Scene, master: &Machine, count: usize) -> Result<()> {
    until(&format!("{count} healthy members of etcd"), SOON, async || {
        let status = etcd(scene, master, &["status"]).await?;
        let members = status["members"].as_array().context("there are no members")?;
        let well = members.iter().filter(|m| m["state"].is_object() && m["isLearner"] == false).count();
        ensure!(
            members.len() == count && well == count && status["hasQuorum"] == true,
            "there are {} members: {}",
            members.len(),
            status["conditions"]
        );
        Ok(())
    })
    .await
}

/// The operator's tool, at a master.
async fn etcd(scene: &Scene, master: &Machine, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(scene.cluster.keelson());
    command.arg("etcd").args(arguments).args(["--output", "json", "--endpoint", &master.address.to_string()]);
    command.arg("--kubeconfig").arg(scene.cluster.folder.inner_kubeconfig());
    let said = scene.outside()?.run(move || tools::run(&mut command)).await?;
    serde_json::from_str(&said).with_context(|| format!("it says {said:?}"))
}

pub(super) async fn write(api: &Api, prefix: &str, count: usize) -> Result<BTreeSet<String>> {
    let mut acknowledged = BTreeSet::new();
    for number in 0..count {
        let name = format!("etcd-{prefix}-{number}");
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let (status, _) = api.send(Method::POST, CONFIG_MAPS, Some(&object)).await?;
        // Of an attempt before this one.
        ensure!(status == StatusCode::CREATED || status == StatusCode::CONFLICT, "a write is answered with {status}");
        acknowledged.insert(name);
    }
    Ok(acknowledged)
}

pub(super) async fn check_present(api: &Api, wanted: &BTreeSet<String>) -> Result<()> {
    let present = names(api).await?;
    let lost: Vec<&String> = wanted.difference(&present).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), wanted.len());
    Ok(())
}

async fn names(api: &Api) -> Result<BTreeSet<String>> {
    let list = api.get(CONFIG_MAPS).await?;
    let names = list["items"].as_array().into_iter().flatten().filter_map(|object| object["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}
