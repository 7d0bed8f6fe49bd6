//! One CA takes the place of another while the cluster runs, as `README.md` tells ("Another CA").

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use toml_edit::{DocumentMut, value};

use super::Outcome;
use super::network::{apply, look, manifest};
use super::scene::{SHORTLY, SOON, Scene, run_on, sample_pods};
use crate::observe::Api;
use crate::plan::Machine;
use crate::wait::until;

/// Pods of the sample.
const SAMPLES: usize = 3;
/// A cluster for tests has no secrets.
const NEW: &str = "616e6f7468657220736563726574206f66206b65656c736f6e27732074657374";

/// What stands in manifests at one step: the issuing one, and one that is trusted beside it.
type Step<'a> = (&'a str, Option<&'a str>);

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let worker = scene.workers()[0].clone();
    let api = scene.up().await?;
    let before = sample_pods(&api, SAMPLES).await?;
    let of_old = fs::read(scene.cluster.folder.kubeconfig()).context("read the kubeconfig")?;
    let secret: DocumentMut = manifest(scene, &master)?.parse().context("read the manifest")?;
    let old = secret["control-plane"]["secret"].as_str().context("the master has no secret")?.to_owned();

    let early = at(scene, &master, (NEW, Some(&old)))?;
    let early = apply(scene, &master, &master, &early).await.err().context("a CA issues that nobody trusts")?;
    ensure!(format!("{early:#}").contains("is not trusted here yet"), "it is refused with {early:#}");
    go(scene, &master, &master, (&old, Some(NEW))).await?;
    scene.serve().await?;
    let pins = until("the CAs that the master trusts", SHORTLY, async || {
        let pins = authorities(&look(scene, &master, &master, "certificates").await?);
        ensure!(pins.len() == 2, "it trusts {pins:?}");
        Ok(pins)
    });
    let pins = pins.await?;
    let (was, is) = (pins[0].as_str(), pins[1].as_str());
    go(scene, &master, &worker, (was, Some(is))).await?;
    settled(scene, &master, &worker, &[was, is]).await?;
    scene.say("all trust both CAs");

    go(scene, &master, &master, (NEW, Some(&old))).await?;
    scene.serve().await?;
    go(scene, &master, &worker, (is, Some(was))).await?;
    for machine in [&master, &worker] {
        settled(scene, &master, machine, &[is, was]).await?;
    }
    scene.say("all have certificates of the new CA");

    go(scene, &master, &master, (NEW, None)).await?;
    scene.serve().await?;
    go(scene, &master, &worker, (is, None)).await?;
    for machine in [&master, &worker] {
        settled(scene, &master, machine, &[is]).await?;
    }
    let api = scene.serve().await?;
    let after = sample_pods(&api, SAMPLES).await?;
    let uids = |pods: &[crate::observe::Pod]| {
        let mut uids: Vec<String> = pods.iter().map(|pod| format!("{} {}", pod.uid, pod.restarts)).collect();
        uids.sort();
        uids
    };
    ensure!(uids(&before) == uids(&after), "pods ended meanwhile");
    run_on(&api, &worker.name, &["resolve", "kubernetes.default.svc.cluster.local"]).await?;
    refused(scene, &of_old).await?;
    scene.say("the former CA is gone, no pod ended, and its administrators are refused");

    for machine in [&master, &worker] {
        scene.restart(&machine.name, true).await?;
    }
    let api = scene.serve().await?;
    run_on(&api, &worker.name, &["resolve", "kubernetes.default.svc.cluster.local"]).await?;
    scene.say("and so it is after a power cut");
    Ok(Outcome::Passed)
}

/// Takes a machine to a step. A master that is alone is away for a moment after its own.
async fn go(scene: &Scene, master: &Machine, machine: &Machine, step: Step<'_>) -> Result<()> {
    let text = at(scene, machine, step)?;
    let what = format!("the next step of {}", machine.name);
    until(&what, SHORTLY, async || apply(scene, master, machine, &text).await).await?;
    // From the master's the administrator's kubeconfig is made.
    fs::write(scene.cluster.folder.manifest(&machine.name), text).context("keep the manifest")
}

/// A machine's manifest at a step.
fn at(scene: &Scene, machine: &Machine, (issuing, accepted): Step<'_>) -> Result<String> {
    let mut document: DocumentMut = manifest(scene, machine)?.parse().context("read the manifest")?;
    let (table, key, other) = match machine.is_master() {
        true => ("control-plane", "secret", "accepted-secret"),
        false => ("cluster", "ca-hash", "accepted-ca-hash"),
    };
    document[table][key] = value(issuing);
    match accepted {
        Some(accepted) => document[table][other] = value(accepted),
        None => _ = document[table].as_table_mut().and_then(|table| table.remove(other)),
    }
    Ok(document.to_string())
}

/// Waits until a machine trusts these CAs, and all that it has is of the first one.
async fn settled(scene: &Scene, master: &Machine, machine: &Machine, pins: &[&str]) -> Result<()> {
    until(&format!("the certificates of {}", machine.name), 2 * SOON, async || {
        let found = look(scene, master, machine, "certificates").await?;
        let trusted = authorities(&found);
        ensure!(trusted == pins, "it trusts {trusted:?}");
        let former = entries(&found).iter().find(|it| it["isCa"] != true && it["isOfIssuing"] != true);
        if let Some(former) = former {
            bail!("{} is still of {}", former["file"], former["signedBy"]);
        }
        Ok(())
    })
    .await
}

fn entries(found: &Value) -> &[Value] {
    let entries = found.as_array().or_else(|| found["certificates"].as_array());
    entries.map(Vec::as_slice).unwrap_or_default()
}

/// The cluster's CAs that a machine trusts, by their pins, the issuing one first.
fn authorities(found: &Value) -> Vec<String> {
    let of_cluster = entries(found).iter().filter(|it| it["file"] == "ca.crt");
    of_cluster.filter_map(|it| it["signedBy"].as_str()).map(str::to_owned).collect()
}

/// Asks with an administrator's kubeconfig of the former CA.
async fn refused(scene: &Scene, kubeconfig: &[u8]) -> Result<()> {
    let path = scene.cluster.folder.path().join("kubeconfig.former");
    fs::write(&path, kubeconfig).context("keep the former kubeconfig")?;
    let answer = Api::new(&path)?.check_ready().await;
    ensure!(answer.is_err(), "an administrator of the former CA is let in");
    Ok(())
}
