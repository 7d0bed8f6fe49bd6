//! Upstream's Helm as its users use it, with a chart of our own: `clients/chart`.

use anyhow::{Result, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Outcome;
use super::scene::{SAMPLE_IMAGE, Scene};
use crate::clients::{Client, Go};
use crate::observe::Api;
use crate::program::Program;

const SPACE: &str = "/api/v1/namespaces/charts";
const MAP: &str = "/api/v1/namespaces/charts/configmaps/web";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/charts/deployments/web";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let go = match Go::find() {
        Ok(go) => go,
        Err(error) => return Ok(Outcome::Skipped(format!("there is no Go to build Helm with: {error:#}"))),
    };
    scene.say("building Helm");
    let program = Client::Helm.build(&go)?;
    let api = scene.up().await?;
    let helm = Helm {
        program: Program::new("helm", program, scene.cluster.folder.kubeconfig()).with("HELM_NAMESPACE", "charts"),
        chart: images::workspace().join("vm-tests/clients/chart").display().to_string(),
        api,
    };
    helm.install().await?;
    scene.say("install, dry run, list, status, get, hooks, lookup, test");
    helm.upgrade().await?;
    scene.say("upgrade, history, rollback, rollback on failure");
    helm.drift().await?;
    scene.say("what others changed: conflicts, and a merge of three");
    helm.uninstall().await?;
    scene.say("uninstall");
    Ok(Outcome::Passed)
}

struct Helm {
    program: Program,
    chart: String,
    api: Api,
}

impl Helm {
    /// What is there of an object.
    async fn find(&self, path: &str) -> Result<Option<Value>> {
        let (status, body) = self.api.send(Method::GET, path, None).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => Ok(Some(serde_json::from_slice(&body)?)),
        }
    }

    async fn has(&self, path: &str, pointer: &str, wanted: &Value) -> Result<()> {
        let object = self.find(path).await?.unwrap_or_default();
        let found = object.pointer(pointer).unwrap_or(&Value::Null);
        ensure!(found == wanted, "{path} has {found} at {pointer}, not {wanted}");
        Ok(())
    }

    async fn install(&self) -> Result<()> {
        let (helm, chart) = (&self.program, self.chart.as_str());
        self.api.call(Method::POST, "/api/v1/namespaces", Some(&json!({"metadata": {"name": "charts"}}))).await?;
        let outside = json!({"metadata": {"name": "outside"}, "data": {"text": "something"}});
        self.api.call(Method::POST, &format!("{SPACE}/configmaps"), Some(&outside)).await?;
        // The definition of tickets is not made by a dry run, so that none can be tried.
        let tried = ["install", "web", chart, "--set", "ticket=false", "--dry-run=server"];
        helm.expect(&tried, &["STATUS: pending-install", r#"outside: "something""#]).await?;
        ensure!(self.find(MAP).await?.is_none(), "a dry run has made a ConfigMap");
        let words = ["STATUS: deployed", "REVISION: 1", "Hello from web, revision 1"];
        helm.expect(&["install", "web", chart, "--wait", "--timeout", "150s"], &words).await?;
        self.has(DEPLOYMENT, "/status/readyReplicas", &json!(1)).await?;
        self.has(MAP, "/data/outside", &json!("something")).await?;
        self.has(MAP, "/data/knows", &json!("true")).await?;
        self.has(&format!("{SPACE}/configmaps/web-before"), "/data/revision", &json!("1")).await?;
        self.has("/apis/batch/v1/namespaces/charts/jobs/web-after", "/status/succeeded", &json!(1)).await?;
        self.has("/apis/charts.keelson.test/v1/namespaces/charts/tickets/web", "/spec/text", &json!("Hello")).await?;
        helm.refuse(&["install", "web", chart], "cannot reuse a name that is still in use").await?;
        helm.expect(&["list"], &["web", "charts", "deployed", "sample-1.0.0"]).await?;
        helm.expect(&["list", "--all-namespaces", "-o", "json"], &[r#""name":"web""#, r#""revision":"1""#]).await?;
        helm.expect(&["status", "web"], &["STATUS: deployed", "Hello from web"]).await?;
        helm.expect(&["get", "manifest", "web"], &["kind: Deployment", "outside: \"something\""]).await?;
        helm.expect(&["get", "hooks", "web"], &["web-before", "web-after", "web-test"]).await?;
        helm.expect(&["get", "values", "web", "--all"], &["replicas: 1", SAMPLE_IMAGE]).await?;
        helm.expect(&["test", "web", "--timeout", "150s"], &["TEST SUITE:", "web-test", "Phase:", "Succeeded"]).await?;
        Ok(())
    }

    async fn upgrade(&self) -> Result<()> {
        let (helm, chart) = (&self.program, self.chart.as_str());
        let scaled = ["--set", "replicas=2,greeting=Goodbye", "--wait", "--timeout", "150s"];
        helm.expect(&[&["upgrade", "web", chart][..], &scaled].concat(), &["REVISION: 2", "Goodbye from web"]).await?;
        self.has(DEPLOYMENT, "/status/readyReplicas", &json!(2)).await?;
        self.has(MAP, "/data/greeting", &json!("Goodbye")).await?;
        helm.expect(&["rollback", "web", "1", "--wait", "--timeout", "150s"], &["Rollback was a success"]).await?;
        self.has(DEPLOYMENT, "/spec/replicas", &json!(1)).await?;
        self.has(MAP, "/data/greeting", &json!("Hello")).await?;
        let broken = ["--set", "image=localhost/absent:1", "--rollback-on-failure", "--wait", "--timeout", "20s"];
        let command = [&["upgrade", "web", chart][..], &broken].concat();
        helm.refuse(&command, "UPGRADE FAILED").await?;
        self.has(DEPLOYMENT, "/spec/template/spec/containers/0/image", &json!(SAMPLE_IMAGE)).await?;
        helm.expect(&["history", "web"], &["superseded", "failed", "deployed", "Rollback to"]).await?;
        Ok(())
    }

    async fn drift(&self) -> Result<()> {
        let (helm, chart) = (&self.program, self.chart.as_str());
        let drifted = json!({"data": {"greeting": "drifted", "added": "by others"}});
        self.api.call(Method::PATCH, MAP, Some(&drifted)).await?;
        helm.refuse(&["upgrade", "web", chart], "conflict with").await?;
        self.has(MAP, "/data/greeting", &json!("drifted")).await?;
        helm.expect(&["upgrade", "web", chart, "--force-conflicts"], &["deployed"]).await?;
        self.has(MAP, "/data/greeting", &json!("Hello")).await?;
        self.has(MAP, "/data/added", &json!("by others")).await?;
        // As Helm did before servers could apply: from the old chart, the new one and what is there.
        self.api.call(Method::PATCH, MAP, Some(&drifted)).await?;
        helm.expect(&["upgrade", "web", chart, "--server-side=false", "--set", "replicas=1"], &["deployed"]).await?;
        self.has(MAP, "/data/greeting", &json!("Hello")).await?;
        self.has(MAP, "/data/added", &json!("by others")).await
    }

    async fn uninstall(&self) -> Result<()> {
        let helm = &self.program;
        helm.expect(&["uninstall", "web", "--wait", "--timeout", "150s"], &["release \"web\" uninstalled"]).await?;
        for path in [MAP, DEPLOYMENT, "/api/v1/namespaces/charts/services/web"] {
            ensure!(self.find(path).await?.is_none(), "{path} is still there");
        }
        helm.refuse(&["status", "web"], "release: not found").await?;
        let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tickets.charts.keelson.test";
        ensure!(self.find(definition).await?.is_some(), "Helm leaves definitions of resources, but this is gone");
        let secrets = self.api.get(&format!("{SPACE}/secrets")).await?;
        let left = secrets["items"].as_array().map_or(0, Vec::len);
        ensure!(left == 0, "{left} records of releases are left");
        Ok(())
    }
}
