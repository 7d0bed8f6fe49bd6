//! Upstream's kubectl as its users use it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::Outcome;
use super::scene::{self, SHORTLY, Scene};
use crate::observe::ask;
use crate::program::{PATIENCE, Program};
use crate::wait::until;

const EDITOR: &str = "sed -i s/Hello/Goodbye/";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let program = match find(scene) {
        Ok(program) => program,
        Err(error) => return Ok(Outcome::Skipped(format!("there is no kubectl: {error:#}"))),
    };
    let api = scene.up().await?;
    let pods = scene::sample_pods(&api, 3).await?;
    let kubectl = Program::new("kubectl", program, scene.cluster.folder.kubeconfig()).with("KUBE_EDITOR", EDITOR);
    let version = kubectl.run(&["version"]).await?;
    scene.say(&version.lines().collect::<Vec<_>>().join(", "));
    get(&kubectl).await?;
    describe(&kubectl, &pods[0].name, &pods[0].node).await?;
    scene.say("get, describe, explain");
    containers(&kubectl, &pods[0].name).await?;
    port_forward(&kubectl).await?;
    scene.say("logs, exec, port-forward");
    rollout(&kubectl).await?;
    scene.say("rollout, scale");
    change(&kubectl).await?;
    apply(&kubectl).await?;
    scene.say("edit, label, annotate, patch, apply, diff, wait, delete");
    Ok(Outcome::Passed)
}

/// The one that was asked for, or else Debian's newest.
fn find(scene: &Scene) -> Result<PathBuf> {
    if let Some(program) = &scene.kubectl {
        ensure!(program.is_file(), "{} is no file", program.display());
        return Ok(program.clone());
    }
    images::fetch_kubectl(&images::user_cache()?, &scene.request.mirror, &|text| scene.say(text))
}

async fn get(kubectl: &Program) -> Result<()> {
    let nodes = ["NAME", "STATUS", "VERSION", "INTERNAL-IP", "CONTAINER-RUNTIME", "containerd://"];
    kubectl.expect(&["get", "nodes", "-o", "wide"], &nodes).await?;
    let pods = ["NAME", "READY", "RESTARTS", "NODE", "1/1", "Running"];
    kubectl.expect(&["get", "pods", "-l", "app=sample", "-o", "wide"], &pods).await?;
    kubectl
        .expect(&["get", "all", "-A"], &["deployment.apps/sample", "service/kubernetes", "replicaset.apps/"])
        .await?;
    kubectl.expect(&["get", "deployment", "sample", "-o", "yaml"], &["kind: Deployment", "readyReplicas: 3"]).await?;
    let path = "jsonpath={.items[*].status.phase}";
    let phases = kubectl.run(&["get", "pods", "-l", "app=sample", "-o", path]).await?;
    ensure!(phases == "Running Running Running", "the pods' phases are {phases:?}");
    kubectl.expect(&["get", "events"], &["Scheduled", "Started"]).await?;
    kubectl.expect(&["api-resources"], &["deploy", "apps/v1", "Pod"]).await?;
    kubectl.expect(&["auth", "can-i", "create", "pods"], &["yes"]).await?;
    kubectl.refuse(&["get", "pod", "absent"], "(NotFound)").await?;
    kubectl.refuse(&["get", "nonsense"], "doesn't have a resource type").await
}

async fn describe(kubectl: &Program, pod: &str, node: &str) -> Result<()> {
    let words = ["Readiness:", "GREETING:", "Events:", "Started", "QoS Class:", "ConfigMap"];
    kubectl.expect(&["describe", "pod", pod], &words).await?;
    kubectl.expect(&["describe", "deployment", "sample"], &["3 desired", "NewReplicaSet", "Available"]).await?;
    kubectl.expect(&["describe", "node", node], &["Capacity:", "KubeletReady", "Allocated resources:", pod]).await?;
    kubectl.expect(&["describe", "service", "sample"], &["NodePort:", "30080", "Endpoints:"]).await?;
    kubectl.expect(&["explain", "pod.spec.containers"], &["FIELDS:", "livenessProbe", "<[]Container>"]).await?;
    kubectl.expect(&["explain", "deployment.spec.replicas"], &["apps", "FIELD: replicas <integer>"]).await?;
    Ok(())
}

async fn containers(kubectl: &Program, pod: &str) -> Result<()> {
    kubectl.expect(&["logs", pod], &[pod, "listens on port 8080"]).await?;
    kubectl.expect(&["logs", "-l", "app=sample", "--tail", "1", "--prefix"], &["[pod/sample-", "listens"]).await?;
    // The pod may have written a moment ago.
    until("a second without a line", SHORTLY, async || {
        let since = kubectl.run(&["logs", pod, "--since", "1s"]).await?;
        ensure!(since.is_empty(), "the last second's log is {since:?}");
        Ok(())
    })
    .await?;
    let answer = kubectl.run(&["exec", pod, "--", "/sample", "get", "http://127.0.0.1:8080/"]).await?;
    ensure!(answer.trim() == pod, "the pod's own server answers {answer:?} in the pod");
    kubectl.expect(&["exec", "deployment/sample", "--", "/sample", "get", "http://sample/"], &["sample-"]).await?;
    let input = "a line\nanother\n".repeat(20_000);
    let output = kubectl.run_with(&["exec", "-i", pod, "--", "/sample", "echo"], Some(&input)).await?;
    ensure!(output == input, "of {} bytes {} came back through exec", input.len(), output.len());
    kubectl.refuse(&["exec", pod, "--", "/sample", "nonsense"], "exit code 1").await?;
    kubectl.refuse(&["exec", pod, "--", "/absent"], "/absent").await
}

async fn port_forward(kubectl: &Program) -> Result<()> {
    let mut child = kubectl.command(&["port-forward", "service/sample", ":80"]).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("kubectl's words")?).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("port-forward says nothing")??;
    let line = line.context("port-forward has ended")?;
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    let port = port.and_then(|port| port.parse().ok()).with_context(|| format!("port-forward says {line:?}"))?;
    for _ in 0..20 {
        let answer = ask(port).await.context("through port-forward")?;
        ensure!(answer.starts_with("sample-"), "{answer:?} answers through port-forward");
    }
    child.kill().await.context("end port-forward")
}

async fn rollout(kubectl: &Program) -> Result<()> {
    const SAMPLE: &str = "deployment/sample";
    kubectl.run(&["rollout", "restart", SAMPLE]).await?;
    kubectl.expect(&["rollout", "status", SAMPLE, "--timeout", "150s"], &["successfully rolled out"]).await?;
    kubectl.expect(&["rollout", "history", SAMPLE], &["REVISION", "1", "2"]).await?;
    kubectl.expect(&["rollout", "undo", SAMPLE], &["rolled back"]).await?;
    kubectl.expect(&["rollout", "status", SAMPLE, "--timeout", "150s"], &["successfully rolled out"]).await?;
    kubectl.expect(&["rollout", "history", SAMPLE], &["2", "3"]).await?;
    kubectl.expect(&["rollout", "pause", SAMPLE], &["paused"]).await?;
    kubectl.expect(&["rollout", "resume", SAMPLE], &["resumed"]).await?;
    kubectl.expect(&["scale", SAMPLE, "--replicas", "5"], &["scaled"]).await?;
    let ready = "jsonpath={.status.readyReplicas}=5";
    kubectl.expect(&["wait", SAMPLE, "--for", ready, "--timeout", "150s"], &["condition met"]).await?;
    kubectl.refuse(&["scale", SAMPLE, "--current-replicas", "9", "--replicas", "2"], "Expected replicas").await?;
    kubectl.expect(&["scale", SAMPLE, "--replicas", "3"], &["scaled"]).await?;
    Ok(())
}

async fn change(kubectl: &Program) -> Result<()> {
    const MAP: &str = "configmap/sample";
    let greeting = ["get", MAP, "-o", "jsonpath={.data.greeting}"];
    kubectl.expect(&["edit", MAP], &["edited"]).await?;
    kubectl.expect(&greeting, &["Goodbye from"]).await?;
    kubectl.expect(&["patch", MAP, "-p", r#"{"data":{"greeting":"Hello again"}}"#], &["patched"]).await?;
    kubectl.expect(&greeting, &["Hello again"]).await?;
    kubectl.expect(&["label", MAP, "colour=blue"], &["labeled"]).await?;
    kubectl.refuse(&["label", MAP, "colour=red"], "already has a value").await?;
    kubectl.expect(&["label", MAP, "colour=red", "--overwrite"], &["labeled"]).await?;
    kubectl.expect(&["get", "configmap", "-l", "colour=red", "-o", "name"], &[MAP]).await?;
    kubectl.expect(&["label", MAP, "colour-"], &["unlabeled"]).await?;
    kubectl.expect(&["annotate", MAP, "note=one"], &["annotated"]).await?;
    Ok(())
}

const MADE: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: made
  labels: {app: made}
spec:
  containers:
    - name: web
      image: localhost/keelson-sample:1
      imagePullPolicy: IfNotPresent
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: made
data: {text: one}
";

async fn apply(kubectl: &Program) -> Result<()> {
    let apply = ["apply", "-f", "-"];
    let both = |text: &str, words: [&str; 2]| {
        let wanted = [format!("pod/made {}", words[0]), format!("configmap/made {}", words[1])];
        match wanted.iter().find(|line| !text.contains(*line)) {
            Some(line) => bail!("`kubectl apply` does not say {line:?}, but {text:?}"),
            None => Ok(()),
        }
    };
    both(&kubectl.run_with(&apply, Some(MADE)).await?, ["created", "created"])?;
    both(&kubectl.run_with(&apply, Some(MADE)).await?, ["unchanged", "unchanged"])?;
    let changed = MADE.replace("text: one", "text: two");
    let diff = kubectl.end(&["diff", "-f", "-"], Some(&changed)).await?;
    ensure!(!diff.is_success && diff.output.contains("+  text: two"), "diff tells {:?} {:?}", diff.output, diff.errors);
    both(&kubectl.run_with(&apply, Some(&changed)).await?, ["unchanged", "configured"])?;
    kubectl.expect(&["wait", "pod/made", "--for", "condition=Ready", "--timeout", "150s"], &["condition met"]).await?;
    let server = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let applied = kubectl.run_with(&server, Some(&changed)).await?;
    ensure!(applied.contains("configmap/made serverside-applied"), "server-side apply says {applied:?}");
    let wrong = kubectl.end(&apply, Some(&MADE.replace("containers:", "kontainers:"))).await?;
    ensure!(!wrong.is_success && wrong.errors.contains("kontainers"), "a wrong field is answered: {:?}", wrong.errors);
    let deleted = kubectl.run_with(&["delete", "-f", "-"], Some(MADE)).await?;
    ensure!(deleted.contains(r#"pod "made" deleted"#), "delete says {deleted:?}");
    kubectl.refuse(&["get", "pod", "made"], "(NotFound)").await?;
    kubectl.expect(&["delete", "service", "sample"], &["deleted"]).await?;
    kubectl.refuse(&["get", "endpoints", "sample"], "(NotFound)").await
}
