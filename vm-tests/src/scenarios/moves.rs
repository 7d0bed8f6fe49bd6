//! Machines that come up with other addresses: a master that its owner moves, and a worker that gets another lease.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::json;
use toml_edit::{Array, DocumentMut, value};

use super::Outcome;
use super::network::{ask, manifest};
use super::scene::{SHORTLY, SOON, Scene, run_on, sample_pods};
use crate::leases;
use crate::observe::Api;
use crate::plan::Machine;
use crate::wait::until;

/// Pods of the sample.
const SAMPLES: usize = 3;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A master moves: its data, its certificates and its worker go along.
pub(super) async fn run_master(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let worker = scene.workers()[0].clone();
    let api = scene.up().await?;
    let kept = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kept" }, "data": { "a": "1" } });
    api.call(Method::POST, MAPS, Some(&kept)).await?;
    let to = moved(&master);
    for machine in [&worker, &master] {
        // All of it: its own address, and where the worker finds it.
        let manifest = manifest(scene, machine)?.replace(&master.address.to_string(), &to.to_string());
        let path = scene.cluster.folder.path().join("moved.toml");
        std::fs::write(&path, manifest).context("write the manifest")?;
        ask(scene, &master, machine, "apply", &[&path.display().to_string()]).await?;
    }
    for machine in [&worker.name, &master.name] {
        scene.cluster.stop_machine(machine, false).await?;
    }
    for machine in [&master.name, &worker.name] {
        scene.cluster.start_machine(machine)?;
    }
    let api = scene.serve().await?;
    node_at(&api, &master, to).await?;
    ensure!(api.get(&format!("{MAPS}/kept")).await?["data"]["a"] == "1", "what was in etcd is gone");
    let members = ask(scene, &master, &master, "etcd members", &["--output", "json"]).await?;
    ensure!(members.contains(&to.to_string()), "etcd's members are {members}");
    ensure!(!members.contains(&master.address.to_string()), "etcd still knows the old address: {members}");
    // By the kubernetes Service, whose endpoint has moved along.
    run_on(&api, &worker.name, &["resolve", "kubernetes.default.svc.cluster.local"]).await?;
    scene.say("the master came up with another address: etcd, its certificates and the worker went along");

    scene.cluster.stop_machine(&master.name, true).await?;
    scene.cluster.start_machine(&master.name)?;
    let api = scene.serve().await?;
    node_at(&api, &master, to).await?;
    ensure!(api.get(&format!("{MAPS}/kept")).await?["data"]["a"] == "1", "what was in etcd is gone");
    scene.say("and after a power cut it still is there");
    Ok(Outcome::Passed)
}

/// A worker whose DHCP server gives it another address: it goes on by itself.
pub(super) async fn run_lease(scene: &mut Scene) -> Result<Outcome> {
    let worker = scene.workers()[0].clone();
    let path = scene.cluster.folder.manifest(&worker.name);
    std::fs::write(&path, by_lease(&manifest(scene, &worker)?, &worker)?).context("write the manifest")?;
    scene.cluster.start(&scene.progress)?;
    // What asks before it is there asks again.
    leases::start(&mut scene.cluster, worker.address)?;
    let api = scene.serve().await?;
    node_at(&api, &worker, worker.address).await?;
    scene.say(&format!("{} has its address by DHCP", worker.name));

    scene.cluster.stop_machine(&worker.name, false).await?;
    leases::end(&mut scene.cluster).await?;
    let to = moved(&worker);
    leases::start(&mut scene.cluster, to)?;
    scene.start(&worker.name).await?;
    node_at(&api, &worker, to).await?;
    sample_pods(&api, SAMPLES).await?;
    // What the pod says comes from its kubelet, whose certificate is for the new address.
    let told = until("an answer by the Service", SHORTLY, async || {
        run_on(&api, &worker.name, &["get", "http://sample.default.svc.cluster.local/"]).await
    });
    ensure!(told.await?.contains("sample"), "the Service does not answer with a pod's name");
    scene.say("DHCP gave it another address: its node is Ready there, its pods are reached, and its kubelet is");
    Ok(Outcome::Passed)
}

/// Where a machine goes.
fn moved(machine: &Machine) -> Ipv4Addr {
    let [a, b, c, d] = machine.address.octets();
    Ipv4Addr::new(a, b, c, d + 40)
}

/// The machine's manifest with its address from DHCP, where it was in the manifest. Its way to the host, from which it
/// would get a lease as well, leads no further.
fn by_lease(manifest: &str, machine: &Machine) -> Result<String> {
    let mut document: DocumentMut = manifest.parse().context("read the manifest")?;
    let cards = document["network"]["interfaces"].as_array_of_tables_mut().context("there are no interfaces")?;
    for card in cards.iter_mut() {
        if card.get("mac").and_then(|mac| mac.as_str()) == Some(&machine.mac()) {
            card.remove("addresses");
            card.insert("dhcp", value("ipv4"));
        } else {
            card.remove("dhcp");
            card.insert("addresses", value(Array::from_iter(["10.0.2.15/24"])));
        }
    }
    document.remove("kubelet");
    Ok(document.to_string())
}

/// Waits until a machine's node is Ready, and at this address only.
async fn node_at(api: &Api, machine: &Machine, address: Ipv4Addr) -> Result<()> {
    until(&format!("{} at {address}", machine.name), SOON, async || {
        let node = api.get(&format!("/api/v1/nodes/{}", machine.name)).await?;
        let addresses = node["status"]["addresses"].as_array().context("it has no addresses")?;
        let own: Vec<&str> =
            addresses.iter().filter(|it| it["type"] == "InternalIP").filter_map(|it| it["address"].as_str()).collect();
        ensure!(own == [address.to_string()], "it is at {own:?}");
        let conditions = node["status"]["conditions"].as_array().context("it has no conditions")?;
        let ready = conditions.iter().find(|it| it["type"] == "Ready").context("it has no condition Ready")?;
        ensure!(ready["status"] == "True", "it is not Ready: {}", ready["message"]);
        Ok(())
    })
    .await
}
