//! A worker that becomes a master of its cluster, and a worker again: its member of etcd, its Node's label and taint, its
//! pods and its keys go along.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use toml_edit::{DocumentMut, value};

use super::Outcome;
use super::network::{ask, manifest};
use super::scene::{SHORTLY, SOON, Scene, sample_pods};
use crate::hardware::Hardware;
use crate::observe::Api;
use crate::plan::Machine;
use crate::process::Process;
use crate::wait::until;

/// Pods of the sample.
const SAMPLES: usize = 3;
/// A master's label and taint, as kubeadm gives them.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// The condition of a master whose manifest names other members than etcd has.
const DIFFER: &str = "EtcdMembersDiffer";
/// As a master it has less than this for etcd, the API server and the rest.
const MASTERS_MEMORY: u32 = 1024;

/// The machine whose role changes, and the master that looks on.
struct Pair {
    master: Machine,
    other: Machine,
}

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let pair = Pair { master, other: scene.workers()[0].clone() };
    let larger = Hardware { memory: Some(MASTERS_MEMORY), ..Hardware::default() };
    larger.give(&scene.cluster.folder.machine(&pair.other.name))?;
    let api = scene.up().await?;
    let (first, worker) = (manifest(scene, &pair.master)?, manifest(scene, &pair.other)?);
    let both = first.clone() + &members(&pair);
    let second = as_master(&both, &worker, &pair.other)?;

    pair.apply(scene, &pair.master, &both, &[]).await?;
    pair.differs(scene, Some("the manifest names what is no member of etcd")).await?;
    pair.begin(scene, &api, &second).await?;
    pair.differs(scene, None).await?;
    pair.end(scene, &api, &worker).await?;
    pair.differs(scene, Some("the manifest names what is no member of etcd")).await?;
    pair.apply(scene, &pair.master, &first, &[]).await?;
    pair.differs(scene, None).await?;
    scene.say(&format!("{} tells while its manifest names a member that is none", pair.master.name));
    // What its manifest named, and is gone, keeps no master from going down.
    ask(scene, &pair.master, &pair.master, "reboot", &["--no-drain"]).await?;
    pair.follow(scene, &pair.master).await?;
    scene.serve().await?;
    Ok(Outcome::Passed)
}

impl Pair {
    /// The worker becomes a master.
    async fn begin(&self, scene: &mut Scene, api: &Api, manifest: &str) -> Result<()> {
        let other = &self.other;
        let plan = self.apply(scene, other, manifest, &["--dry-run"]).await?;
        for step in ["keys of a master", "as a learner", "the label of a master", "would count from the next start"] {
            ensure!(plan.contains(step), "the plan does not tell {step:?}: {plan}");
        }
        let applied = self.apply(scene, other, manifest, &[]).await?;
        ensure!(applied.contains("keelson reboot"), "what is to be done is not told: {applied}");
        ask(scene, &self.master, other, "reboot", &[]).await?;
        self.follow(scene, other).await?;
        until(&format!("{} as a master", other.name), SOON, async || {
            self.is_member(scene, true).await?;
            self.is_marked(api, true).await?;
            self.serves(api, true).await?;
            self.is_ready(scene).await
        })
        .await?;
        let pods = api.pods("sample").await?;
        let is_waiting = pods.iter().all(|pod| pod.node.is_empty());
        ensure!(pods.len() == SAMPLES && is_waiting, "a master that is tainted has ordinary pods: {pods:?}");
        ask(scene, &self.master, &self.master, "check port", &[&other.address.to_string(), "6443"]).await?;
        scene.say(&format!("{} is a master: it has its vote, serves the API, and its pods have left", other.name));
        Ok(())
    }

    /// The master becomes a worker again.
    async fn end(&self, scene: &mut Scene, api: &Api, manifest: &str) -> Result<()> {
        let other = &self.other;
        // By its schedule the first one is taken at once.
        let stays = format!("stay in {SNAPSHOTS}");
        let plan = until("a snapshot that stays", SHORTLY, async || {
            let plan = self.apply(scene, other, manifest, &["--dry-run"]).await?;
            ensure!(plan.contains(&stays), "the plan does not tell of it: {plan}");
            Ok(plan)
        })
        .await?;
        let steps =
            ["its Node is closed", "leaves etcd", "starts again as a worker", "its keys", "start again at once"];
        for step in steps {
            ensure!(plan.contains(step), "the plan does not tell {step:?}: {plan}");
        }
        self.is_member(scene, true).await.context("a plan has changed something")?;
        self.apply(scene, other, manifest, &[]).await?;
        self.follow(scene, other).await?;
        until(&format!("{} as a worker", other.name), SOON, async || {
            self.is_member(scene, false).await?;
            self.is_marked(api, false).await?;
            self.serves(api, false).await?;
            self.is_ready(scene).await
        })
        .await?;
        let certificates = ask(scene, &self.master, other, "get", &["certificates"]).await?;
        ensure!(!certificates.contains("apiserver"), "it still has a master's certificates: {certificates}");
        sample_pods(api, SAMPLES).await?;
        scene.serve().await?;
        scene.say(&format!("{} is a worker again: etcd goes on without it, and its pods serve", other.name));
        Ok(())
    }

    /// Hands a manifest to one of the two, by way of the master.
    async fn apply(&self, scene: &Scene, machine: &Machine, manifest: &str, further: &[&str]) -> Result<String> {
        let path = scene.cluster.folder.path().join("role.toml");
        std::fs::write(&path, manifest).context("write the manifest")?;
        let path = path.display().to_string();
        ask(scene, &self.master, machine, "apply", &[&[path.as_str()], further].concat()).await
    }

    /// Goes along with a machine that starts again. A virtual one does so by itself.
    async fn follow(&self, scene: &mut Scene, machine: &Machine) -> Result<()> {
        if !scene.is_netns() {
            return Ok(());
        }
        let machines = &scene.cluster.state.machines;
        let running = machines.iter().find(|running| running.machine.name == machine.name);
        let process: Process = running.and_then(|running| running.process.clone()).context("it does not run")?;
        process.gone(SHORTLY).await?;
        scene.start(&machine.name).await
    }

    /// Whether both are members with a vote, or the master alone.
    async fn is_member(&self, scene: &Scene, wanted: bool) -> Result<()> {
        let status = self.etcd(scene).await?;
        let members = status["members"].as_array().context("there are no members")?;
        let voters: Vec<&str> =
            members.iter().filter(|it| it["isLearner"] == false).filter_map(|it| it["name"].as_str()).collect();
        let all = if wanted { vec![&*self.master.name, &*self.other.name] } else { vec![&*self.master.name] };
        ensure!(members.len() == all.len() && voters == all, "etcd's members are {}", status["members"]);
        Ok(())
    }

    /// Whether the other one's Node has a master's label and taint, or neither, and takes pods again.
    async fn is_marked(&self, api: &Api, wanted: bool) -> Result<()> {
        let node = api.get(&format!("/api/v1/nodes/{}", self.other.name)).await?;
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let is_tainted = taints.iter().any(|taint| taint["key"] == CONTROL_PLANE && taint["effect"] == "NoSchedule");
        let is_labelled = node["metadata"]["labels"][CONTROL_PLANE] == "";
        ensure!((is_labelled, is_tainted) == (wanted, wanted), "its label and taint are {is_labelled}, {is_tainted}");
        ensure!(node["spec"]["unschedulable"].is_null(), "its Node is closed");
        let conditions = node["status"]["conditions"].as_array().context("it has no conditions")?;
        let is_ready = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
        ensure!(is_ready, "its Node is not Ready");
        Ok(())
    }

    /// Whether the other one is among those that serve the API.
    async fn serves(&self, api: &Api, wanted: bool) -> Result<()> {
        let endpoints = api.get("/api/v1/namespaces/default/endpoints/kubernetes").await?;
        let serves = endpoints["subsets"].to_string().contains(&format!("\"{}\"", self.other.address));
        ensure!(serves == wanted, "the API is served at {}", endpoints["subsets"]);
        Ok(())
    }

    /// Whether the other one lacks nothing, and has nothing left to tell of its role.
    async fn is_ready(&self, scene: &Scene) -> Result<()> {
        let status = self.status(scene, &self.other).await?;
        ensure!(status["ready"] == true, "it lacks {}", status["unmet"]);
        ensure!(!status["conditions"].to_string().contains("FormerMaster"), "it tells {}", status["conditions"]);
        Ok(())
    }

    /// Waits until the master tells of members that its manifest does not know, or of none.
    async fn differs(&self, scene: &Scene, wanted: Option<&str>) -> Result<()> {
        until("what the master tells of etcd's members", SHORTLY, async || {
            let told = self.etcd(scene).await?["conditions"].to_string();
            let status = self.status(scene, &self.master).await?["conditions"].to_string();
            for told in [told, status] {
                let is_right = match wanted {
                    Some(why) => told.contains(&format!("{why}: {}", self.other.name)) && told.contains(DIFFER),
                    None => !told.contains(DIFFER),
                };
                if !is_right {
                    bail!("it tells {told}");
                }
            }
            Ok(())
        })
        .await
    }

    async fn status(&self, scene: &Scene, machine: &Machine) -> Result<Value> {
        let told = ask(scene, &self.master, machine, "status", &["--output", "json"]).await?;
        serde_json::from_str(&told).context("read the status")
    }

    async fn etcd(&self, scene: &Scene) -> Result<Value> {
        let told = ask(scene, &self.master, &self.master, "etcd status", &["--output", "json"]).await?;
        serde_json::from_str(&told).context("read etcd's status")
    }
}

/// Where a master keeps its snapshots.
const SNAPSHOTS: &str = "/var/lib/keelson/etcd-snapshots";

/// Both of them as members of etcd, for a manifest.
fn members(pair: &Pair) -> String {
    let one = |machine: &Machine| {
        format!("\n[[etcd.members]]\nname = \"{}\"\naddress = \"{}\"\n", machine.name, machine.address)
    };
    one(&pair.master) + &one(&pair.other)
}

/// The manifest of a master for another machine, which has its own name and network, and takes snapshots.
fn as_master(master: &str, own: &str, machine: &Machine) -> Result<String> {
    let mut document: DocumentMut = master.parse().context("read the master's manifest")?;
    let own: DocumentMut = own.parse().context("read the machine's own manifest")?;
    for section in ["network", "kubelet"] {
        document[section] = own[section].clone();
    }
    document["machine"]["hostname"] = value(&machine.name);
    Ok(document.to_string() + "\n[etcd.snapshots]\ninterval = \"1h\"\n")
}
