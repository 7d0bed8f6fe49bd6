//! The range's object and the `kubernetes` Service, which leads to this server.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::{App, now_text};
use crate::handlers::write::modify_tree;
use crate::start::{internal_call, make};
use crate::status::Result;
use crate::strategy::Part;
use crate::tree;

/// Makes what Services need at the start.
pub async fn start(app: &Arc<App>) -> Result<()> {
    let ranges: Vec<String> = app.config.service_ranges.iter().map(ToString::to_string).collect();
    let version = "networking.k8s.io/v1";
    let range = json!({"apiVersion": version, "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}});
    make(app, "", range).await?;
    let status = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": now_text(),
    }]});
    change(app, (version, "ServiceCIDR"), ("", "kubernetes"), Part::Status, |old| {
        if tree::list(old, "/status/conditions").is_empty() {
            old["status"] = status.clone();
        }
    })
    .await?;
    // A server that ended in its first moments may have taken the Service's address without making it.
    super::repair::repair(app).await;
    make(app, "default", kubernetes_service(app)).await?;
    crate::peers::withdraw(app).await
}

fn kubernetes_service(app: &App) -> Value {
    let address = app.config.service_ranges.first().map(|r| r.nth(1).to_string()).unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": address, "clusterIPs": [address], "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": app.config.bind.port()}],
        },
    })
}

/// Changes an object of ours unless it is as it should be.
async fn change(
    app: &Arc<App>,
    (version, kind): (&str, &str),
    (namespace, name): (&str, &str),
    part: Part,
    change: impl Fn(&mut Value),
) -> Result<()> {
    let Some(kind) = api::kind_by_name(version, kind) else { return Ok(()) };
    let call = internal_call(app, kind, namespace, "update").on(name);
    modify_tree(&call, part, |old| {
        let mut new = old.clone();
        change(&mut new);
        Ok(new)
    })
    .await
    .map(|_| ())
}
