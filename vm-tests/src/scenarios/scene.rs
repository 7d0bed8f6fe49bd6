//! What scenarios have at hand.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Request};
use crate::files::Files;
use crate::firmware::Firmware;
use crate::flash::Medium;
use crate::network;
use crate::observe::{Api, Pod};
use crate::plan::{Machine, gateway};
use crate::progress::Progress;
use crate::qemu;
use crate::state::Provider;
use crate::visitor::Visitor;
use crate::wait::{Watcher, until};

/// For what takes seconds on an idle machine at its own speed.
pub(super) const SHORTLY: Duration = Duration::from_secs(120);
/// For what takes a minute there.
pub(super) const SOON: Duration = Duration::from_secs(300);
/// Where the sample is on every node.
pub(super) const SAMPLE_PORT: u16 = 30080;
pub(super) const SAMPLE: &str = "/apis/apps/v1/namespaces/default/deployments/sample";
/// Where virtual machines find the host.
const UPLINK: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(super) const SAMPLE_IMAGE: &str = "localhost/keelson-sample:1";

/// A scenario's cluster, and how it is watched.
pub struct Scene {
    /// Prepared; the scenario starts it.
    pub cluster: Cluster,
    /// What it was made from.
    pub request: Request,
    /// A kubectl to use in place of Debian's.
    pub kubectl: Option<PathBuf>,
    /// Where upstream's scheduler and controller manager are.
    pub upstream: Option<PathBuf>,
    /// Where to tell.
    pub progress: Progress,
}

impl Scene {
    pub(super) fn say(&self, text: &str) {
        self.progress.say(&format!("  {text}"));
    }

    /// Starts all machines and waits until they serve.
    pub(super) async fn up(&mut self) -> Result<Api> {
        self.cluster.start(&self.progress)?;
        self.serve().await
    }

    /// Lets all machines, which do not run yet, start from this.
    pub(super) fn flash(&mut self, medium: Medium) -> Result<()> {
        self.flash_for(medium, Firmware::Uefi)
    }

    /// The same, where the firmware is this.
    pub(super) fn flash_for(&mut self, medium: Medium, firmware: Firmware) -> Result<()> {
        self.cluster.flash((medium, firmware), &self.request.mirror, &self.progress)
    }

    /// Waits until all machines, which run, serve.
    pub(super) async fn serve(&self) -> Result<Api> {
        Watcher { cluster: &self.cluster, progress: &self.progress }.serve().await
    }

    pub(super) fn workers(&self) -> Vec<Machine> {
        let machines = self.cluster.state.machines.iter().map(|running| running.machine.clone());
        machines.filter(|machine| !machine.is_master()).collect()
    }

    pub(super) fn machines(&self) -> Vec<Machine> {
        self.cluster.state.machines.iter().map(|running| running.machine.clone()).collect()
    }

    pub(super) fn is_netns(&self) -> bool {
        self.cluster.state.provider == Provider::Netns
    }

    /// A client outside of all machines, in their network.
    pub(super) fn outside(&self) -> Result<Visitor> {
        Visitor::open(&network::path(&self.cluster.state.name))
    }

    /// A client in the network of a machine.
    pub(super) fn inside(&self, machine: &Machine) -> Result<Visitor> {
        Visitor::open(&network::path(&network::namespace(&self.cluster.state.name, machine)))
    }

    /// A server elsewhere that all machines reach.
    pub(super) async fn files(&self) -> Result<Files> {
        let listen = |address: Ipv4Addr| TcpListener::bind((address, 0)).context("listen for machines");
        if self.is_netns() {
            let listener = self.outside()?.run(move || listen(gateway())).await?;
            return Files::start(listener, gateway().into());
        }
        Files::start(listen(Ipv4Addr::LOCALHOST)?, UPLINK.into())
    }

    /// One that virtual machines reach, and that everybody may ask, without TLS.
    pub(super) fn public_files(&self) -> Result<Files> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen for machines")?;
        Files::start_public(listener, UPLINK.into())
    }

    /// Where the sample is on a node.
    pub(super) fn node_port(machine: &Machine) -> SocketAddr {
        SocketAddr::from((machine.address, SAMPLE_PORT))
    }

    /// Stops a machine and starts it again.
    pub(super) async fn restart(&mut self, machine: &str, is_power_cut: bool) -> Result<()> {
        self.cluster.stop_machine(machine, is_power_cut).await?;
        self.say(&format!("{machine} {}", if is_power_cut { "has lost its power" } else { "has stopped" }));
        self.start(machine).await
    }

    /// Starts a machine that has stopped and waits until all its services are ready.
    pub(super) async fn start(&mut self, machine: &str) -> Result<()> {
        let seen = self.console(machine)?.len();
        self.cluster.start_machine(machine)?;
        let what = format!("all services of {machine}");
        let ready = until(&what, SOON, async || {
            let text = self.console(machine)?;
            let text = text.get(seen..).unwrap_or(&text);
            match text.lines().last() {
                _ if text.contains("all services are ready") => Ok(()),
                Some(last) => bail!("its console ends with: {last}"),
                None => bail!("its console says nothing"),
            }
        });
        let ready = ready.await;
        if self.is_netns() {
            return ready;
        }
        // A processor that stands still leaves nothing on the console.
        ready.or_else(|error| {
            let registers = qemu::registers(&self.cluster.folder.machine(machine))?;
            Err(error.context(format!("the processor is at\n{registers}")))
        })
    }

    /// What a machine has said.
    pub(super) fn console(&self, machine: &str) -> Result<String> {
        let path = self.cluster.folder.machine(machine).join("console.log");
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Waits until the pods of the Deployment `sample` serve, exactly `count` of them.
pub(super) async fn sample_pods(api: &Api, count: usize) -> Result<Vec<Pod>> {
    until(&format!("{count} pods of the sample"), SOON, async || {
        let pods = api.pods("sample").await?;
        if pods.len() != count || !pods.iter().all(Pod::serves) {
            let seen: Vec<String> = pods.iter().map(describe).collect();
            bail!("there are {}", seen.join(", "));
        }
        Ok(pods)
    })
    .await
}

fn describe(pod: &Pod) -> String {
    let state = match (&pod.waiting, pod.is_ending, pod.is_ready) {
        (_, true, _) => "ending",
        (Some(reason), ..) => reason,
        (None, false, true) => "ready",
        (None, false, false) => "not ready",
    };
    format!("{} on {} ({}, {state})", pod.name, pod.node, pod.phase)
}

/// Runs a command of the sample's image as a pod on a node, to its end; answers its log.
pub(super) async fn run_on(api: &Api, node: &str, arguments: &[&str]) -> Result<String> {
    place_command(api, node, arguments, None).await?;
    end_of_command(api, node, arguments).await
}

/// Places such a pod, with a folder of the node at `/volume`.
pub(super) async fn place_command(api: &Api, node: &str, arguments: &[&str], volume: Option<&str>) -> Result<()> {
    let name = format!("visitor-on-{node}");
    remove_pod(api, &name).await?;
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "visitor" } },
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": { "kubernetes.io/hostname": node },
            // Masters take it, too.
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "visitor",
                "image": SAMPLE_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/sample"],
                "args": arguments,
            }],
        },
    });
    if let Some(path) = volume {
        // The host's folder belongs to root.
        pod["spec"]["securityContext"] = json!({ "runAsUser": 0 });
        pod["spec"]["volumes"] = json!([{ "name": "volume", "hostPath": { "path": path } }]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "volume", "mountPath": "/volume" }]);
    }
    api.call(Method::POST, PODS, Some(&pod)).await.map(drop)
}

/// Waits until the pod has come to its end; answers its log.
pub(super) async fn end_of_command(api: &Api, node: &str, arguments: &[&str]) -> Result<String> {
    let name = format!("visitor-on-{node}");
    let path = format!("{PODS}/{name}");
    let phase = until(&format!("the end of `sample {}` on {node}", arguments.join(" ")), SHORTLY, async || {
        let pod = api.get(&path).await?;
        match pod["status"]["phase"].as_str() {
            Some(phase @ ("Succeeded" | "Failed")) => Ok(phase.to_owned()),
            phase => bail!("it is {}", phase.unwrap_or("in no phase")),
        }
    })
    .await?;
    let log = api.text(&format!("{path}/log")).await?;
    remove_pod(api, &name).await?;
    if phase != "Succeeded" {
        bail!("`sample {}` on {node} failed: {}", arguments.join(" "), log.trim());
    }
    Ok(log)
}

/// A pod of the sample's image on a node that is no part of the sample, to look from.
pub(super) async fn place_visitor(api: &Api, node: &str) -> Result<Pod> {
    let name = format!("place-on-{node}");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "place" } },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "containers": [{ "name": "place", "image": SAMPLE_IMAGE, "imagePullPolicy": "IfNotPresent" }],
        },
    });
    create(api, PODS, &pod).await?;
    until(&format!("the pod {name}"), SHORTLY, async || {
        let pods = api.pods("place").await?;
        pods.into_iter().find(|pod| pod.name == name && pod.serves()).context("it is not ready")
    })
    .await
}

/// Removes a pod, if there is one, and waits until it is gone.
pub(super) async fn remove_pod(api: &Api, name: &str) -> Result<()> {
    let path = format!("{PODS}/{name}");
    let (status, _) = api.send(Method::DELETE, &path, Some(&json!({ "gracePeriodSeconds": 0 }))).await?;
    if status == http::StatusCode::NOT_FOUND {
        return Ok(());
    }
    until(&format!("the removal of the pod {name}"), SHORTLY, async || {
        let (status, _) = api.send(Method::GET, &path, None).await?;
        if status == http::StatusCode::NOT_FOUND { Ok(()) } else { bail!("it is answered with {status}") }
    })
    .await
}

/// Creates an object, if there is none of its name.
pub(super) async fn create(api: &Api, path: &str, object: &Value) -> Result<()> {
    let (status, _) = api.send(Method::POST, path, Some(object)).await?;
    if !status.is_success() && status != http::StatusCode::CONFLICT {
        bail!("create {} {}: {status}", object["kind"], object["metadata"]["name"]);
    }
    Ok(())
}

/// The cluster's own address of a Service.
pub(super) async fn service_address(api: &Api, name: &str) -> Result<IpAddr> {
    let service = api.get(&format!("/api/v1/namespaces/default/services/{name}")).await?;
    let address = service["spec"]["clusterIP"].as_str().context("the Service has no address")?;
    address.parse().with_context(|| format!("the Service's address is {address:?}"))
}

/// The processes of the sample in the containers of a pod, as the host counts. Only where machines are namespaces.
pub(super) fn processes(pod: &Pod) -> Result<Vec<i32>> {
    // One of the two ways to name a pod's control group has no hyphens.
    let names = [pod.uid.clone(), pod.uid.replace('-', "_")];
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read the processes")?.flatten() {
        let Ok(number) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if command.starts_with(b"/sample\0") && names.iter().any(|name| groups.contains(name)) {
            found.push(number);
        }
    }
    Ok(found)
}

/// Kills the container of a pod, as the kernel does when memory runs out.
pub(super) fn kill_container(pod: &Pod) -> Result<Vec<i32>> {
    let found = processes(pod)?;
    if found.is_empty() {
        bail!("the pod {} has no process", pod.name);
    }
    for &number in &found {
        kill(Pid::from_raw(number), Signal::SIGKILL).with_context(|| format!("kill process {number}"))?;
    }
    Ok(found)
}

/// A client in the network of a pod.
pub(super) fn inside_pod(pod: &Pod) -> Result<Visitor> {
    let number = *processes(pod)?.first().with_context(|| format!("the pod {} has no process", pod.name))?;
    Visitor::open(Path::new(&format!("/proc/{number}/ns/net")))
}
