//! Upstream's scheduler and controller manager at our API server, in place of ours: each alone, then both.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Outcome;
use super::restarts::{check_pod, check_rolling_update};
use super::scene::{self, SAMPLE, SHORTLY, SOON, Scene};
use crate::cluster::{self, Cluster, Request};
use crate::observe::Api;
use crate::process::last_lines;
use crate::upstream::Part;
use crate::wait::until;

const ROUNDS: [&[Part]; 3] = [&[Part::Scheduler], &[Part::ControllerManager], &Part::ALL];
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const PLACE: &str = "peers";
/// What is shown of a program's log when it fails.
const LOG_LINES: usize = 25;

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let Some(programs) = scene.upstream.clone() else {
        let programs = Part::ALL.map(Part::program).join(" and ");
        return Ok(Outcome::Skipped(format!("it needs upstream's {programs}: --upstream FOLDER")));
    };
    let host = nix::unistd::gethostname().context("read this machine's name")?.to_string_lossy().into_owned();
    let is_taken = scene.cluster.names().contains(&host);
    ensure!(!is_taken, "this machine is called {host}, as one of the cluster's; their processes cannot be told apart");
    for external in ROUNDS {
        let names: Vec<&str> = external.iter().map(|part| part.program()).collect();
        scene.say(&format!("with upstream's {}", names.join(" and ")));
        cluster::down(&scene.cluster.folder).await?;
        let request = Request { external: external.to_vec(), is_built: true, ..scene.request.clone() };
        scene.cluster = Cluster::prepare(&request, &scene.progress).await?;
        let checked = round(scene, external, &programs, &host).await;
        checked.map_err(|error| anyhow!("{error:#}\n{}", logs(&scene.cluster, external)))?;
    }
    Ok(Outcome::Passed)
}

async fn round(scene: &mut Scene, external: &[Part], programs: &Path, host: &str) -> Result<()> {
    scene.cluster.start(&scene.progress)?;
    let kubeconfig = until("the administrator's certificate", SOON, async || {
        scene.cluster.write_kubeconfig()?.context("the master has not made it")
    });
    let api = Api::new(&kubeconfig.await?)?;
    until("the API server", SOON, async || api.check_ready().await).await?;
    for part in external {
        part.start(&mut scene.cluster, programs)?;
    }
    scene.serve().await?;
    let master = scene.cluster.master().context("the cluster has no master")?.name.clone();
    for part in Part::ALL {
        let is_external = external.contains(&part);
        check_holder(scene, &api, part, if is_external { host } else { &master }).await?;
    }
    check_ranges(&api).await?;
    if external.contains(&Part::ControllerManager) {
        approve_serving(scene, &api).await?;
    }
    for worker in scene.workers() {
        scene::run_on(&api, &worker.name, &["get", "http://sample/"]).await?;
    }
    scene.say("pods' logs can be read; the sample answers by its name");
    check_scale(scene, &api).await?;
    check_pod(scene, &api).await?;
    check_rolling_update(scene, &api).await?;
    check_removal(scene, &api).await?;
    match scene.cluster.state.helpers.iter().find(|helper| !helper.is_alive()) {
        Some(ended) => bail!("{} has ended", ended.name),
        None => Ok(()),
    }
}

/// Who does the work of a part is who holds its Lease, by the name of the machine that it runs on.
async fn check_holder(scene: &Scene, api: &Api, part: Part, machine: &str) -> Result<()> {
    let path = format!("{LEASES}/{}", part.program());
    let what = format!("the Lease {}", part.program());
    let holder = until(&what, SHORTLY, async || {
        let lease = api.get(&path).await?;
        let holder = lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
        holder.map(str::to_owned).context("nobody holds it")
    });
    let holder = holder.await?;
    ensure!(holder.starts_with(&format!("{machine}_")), "{} is led by {holder}, not from {machine}", part.program());
    scene.say(&format!("{} is led by {holder}", part.program()));
    Ok(())
}

/// Every node has one range of pod addresses, its own. A controller that looks at an old state gives a second one, which
/// the server has to refuse.
async fn check_ranges(api: &Api) -> Result<()> {
    let nodes = api.get("/api/v1/nodes").await?;
    let mut taken = BTreeSet::new();
    for spec in nodes["items"].as_array().into_iter().flatten().map(|node| &node["spec"]) {
        let range = spec["podCIDR"].as_str().context("a node has no range of pod addresses")?;
        ensure!(spec["podCIDRs"] == json!([range]), "a node has the range {range} and the ranges {}", spec["podCIDRs"]);
        ensure!(taken.insert(range), "two nodes have the range {range}");
    }
    Ok(())
}

/// Upstream leaves it to an administrator to judge serving certificates of kubelets.
async fn approve_serving(scene: &Scene, api: &Api) -> Result<()> {
    let workers = scene.workers().len();
    let issued = until("the serving certificates of all workers", SHORTLY, async || {
        let list = api.get(REQUESTS).await?;
        let serving = list["items"].as_array().into_iter().flatten();
        let serving: Vec<&Value> = serving.filter(|item| item["spec"]["signerName"] == KUBELET_SERVING).collect();
        for request in serving.iter().filter(|request| request["status"]["conditions"].is_null()) {
            let mut approved = (*request).clone();
            let condition = json!({ "type": "Approved", "status": "True", "reason": "Test", "message": "looked at" });
            approved["status"]["conditions"] = json!([condition]);
            let name = request["metadata"]["name"].as_str().context("a request without a name")?;
            api.call(Method::PUT, &format!("{REQUESTS}/{name}/approval"), Some(&approved)).await?;
        }
        let issued = serving.iter().filter(|request| request["status"]["certificate"].is_string()).count();
        if issued >= workers { Ok(issued) } else { bail!("{issued} are signed") }
    });
    let issued = issued.await?;
    scene.say(&format!("{issued} serving certificates of kubelets are signed"));
    Ok(())
}

async fn check_scale(scene: &Scene, api: &Api) -> Result<()> {
    let path = format!("{SAMPLE}/scale");
    api.call(Method::PATCH, &path, Some(&json!({ "spec": { "replicas": 4 } }))).await?;
    let pods = scene::sample_pods(api, 4).await?;
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    let workers = scene.workers();
    let empty = workers.iter().find(|worker| !nodes.contains(worker.name.as_str()));
    ensure!(empty.is_none(), "of four pods none is on one of the workers: {nodes:?}");
    api.call(Method::PATCH, &path, Some(&json!({ "spec": { "replicas": 3 } }))).await?;
    scene::sample_pods(api, 3).await?;
    scene.say("a scaled Deployment gets pods on all workers, and loses one");
    Ok(())
}

/// A Job is done; what is owned goes with its owner, what is in a namespace with that.
async fn check_removal(scene: &Scene, api: &Api) -> Result<()> {
    let space = format!("/api/v1/namespaces/{PLACE}");
    api.call(Method::POST, "/api/v1/namespaces", Some(&json!({ "metadata": { "name": PLACE } }))).await?;
    let account = format!("{space}/serviceaccounts/default");
    until("the namespace's ServiceAccount", SHORTLY, async || api.get(&account).await).await?;
    let jobs = format!("/apis/batch/v1/namespaces/{PLACE}/jobs");
    api.call(Method::POST, &jobs, Some(&job())).await?;
    until("the Job's success", SHORTLY, async || {
        let job = api.get(&format!("{jobs}/once")).await?;
        if job["status"]["succeeded"] == 1 { Ok(()) } else { bail!("it is {}", job["status"]) }
    })
    .await?;
    let background = json!({ "propagationPolicy": "Background" });
    api.call(Method::DELETE, &format!("{jobs}/once"), Some(&background)).await?;
    until("the removal of the Job's pod", SHORTLY, async || {
        let left = api.get(&format!("{space}/pods")).await?["items"].as_array().map_or(0, Vec::len);
        if left == 0 { Ok(()) } else { bail!("there are {left}") }
    })
    .await?;
    api.call(Method::DELETE, &space, None).await?;
    until("the removal of the namespace", SHORTLY, async || match api.send(Method::GET, &space, None).await? {
        (StatusCode::NOT_FOUND, _) => Ok(()),
        (status, body) => bail!("{status}: {}", String::from_utf8_lossy(&body)),
    })
    .await?;
    scene.say("a Job is done; its pod goes with it, a namespace with all that is in it");
    Ok(())
}

fn job() -> Value {
    let container = json!({
        "name": "once",
        "image": scene::SAMPLE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/sample"],
        "args": ["resolve", "kubernetes.default"],
    });
    json!({
        "metadata": { "name": "once" },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [container] } } },
    })
}

fn logs(cluster: &Cluster, external: &[Part]) -> String {
    let log = |part: &Part| {
        let path = part.log(cluster);
        format!("--- {} ends with:\n{}", path.display(), last_lines(&path, LOG_LINES))
    };
    external.iter().map(log).collect::<Vec<_>>().join("\n")
}
