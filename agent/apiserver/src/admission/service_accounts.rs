//! ServiceAccount: every pod runs as a service account that is there, with its token mounted.

use std::sync::Arc;
use std::time::Duration;

use api::core::v1::ServiceAccount;
use serde_json::{Value, json};

use crate::app::{Call, random_suffix};
use crate::cache::Object;
use crate::status::{Failure, Result};
use crate::tree;
use crate::validation::names;

/// How long a pod waits for the account of a namespace that was made a moment ago.
const ACCOUNT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Where containers find the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Marks pods that a kubelet runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour, and a few seconds by which kubelets know this token.
const TOKEN_SECONDS: i64 = 3607;

pub(super) async fn admit(call: &Call, pod: &mut Value) -> Result<()> {
    if tree::has(&pod["metadata"]["annotations"], &format!("/{}", MIRROR.replace('/', "~1"))) {
        return check_mirror(call, pod);
    }
    let name = match tree::text(pod, "/spec/serviceAccountName") {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    pod["spec"]["serviceAccountName"] = name.as_str().into();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let refuse = |why: String| {
        let text = format!("error looking up service account {}/{name}: {why}", call.namespace());
        Failure::forbidden(call.subject(), tree::name_given(pod), &text)
    };
    let complaints = names::path_segment(&name);
    if !complaints.is_empty() {
        return Err(refuse(format!("invalid resource name {}: [{}]", stdx::quoted(&name), complaints.join(" "))));
    }
    let object = account(call, &name).await;
    let object = object.ok_or_else(|| refuse(format!("serviceaccount {} not found", stdx::quoted(&name))))?;
    let account: ServiceAccount = api::envelope::decode_message(&object.data).map_err(Failure::internal)?;
    if tree::list(pod, "/spec/imagePullSecrets").is_empty() && !account.image_pull_secrets.is_empty() {
        let names = account.image_pull_secrets.iter().map(|secret| json!({"name": secret.name}));
        pod["spec"]["imagePullSecrets"] = names.collect();
    }
    let wanted = pod["spec"]["automountServiceAccountToken"].as_bool();
    if wanted.or(account.automount_service_account_token).unwrap_or(true) {
        mount_token(pod);
    }
    Ok(())
}

fn check_mirror(call: &Call, pod: &Value) -> Result<()> {
    let refuse = |what: &str| {
        Err(Failure::forbidden(call.subject(), tree::name_given(pod), &format!("a mirror pod may not {what}")))
    };
    if !tree::text(pod, "/spec/serviceAccountName").is_empty() {
        return refuse("reference service accounts");
    }
    if tree::list(pod, "/spec/volumes").iter().any(|v| tree::has(v, "/secret")) {
        return refuse("reference secrets");
    }
    Ok(())
}

/// The account, waited for a little where it is the one every namespace gets.
async fn account(call: &Call, name: &str) -> Option<Arc<Object>> {
    let storage = call.app.cache.known("", "serviceaccounts");
    let found = || storage.get(call.namespace(), name);
    if let Some(object) = found() {
        return Some(object);
    }
    let mut news = storage.subscribe();
    let appears = async {
        loop {
            if let Some(object) = found() {
                return object;
            }
            news.changed().await;
        }
    };
    let limit = if name == "default" { ACCOUNT_TIMEOUT } else { ACCOUNT_TIMEOUT / 10 };
    tokio::time::timeout(limit, appears).await.ok()
}

fn mount_token(pod: &mut Value) {
    let volume = tree::list(pod, "/spec/volumes")
        .iter()
        .filter_map(|v| v["name"].as_str())
        .find(|n| n.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let name = volume.clone().unwrap_or_else(|| format!("kube-api-access-{}", random_suffix(5)));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if tree::list(container, "/volumeMounts").iter().any(|m| m["mountPath"] == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            tree::list_at(container, "volumeMounts").push(mount);
            mounted = true;
        }
    }
    if mounted && volume.is_none() {
        let items = json!([{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]);
        let sources = json!([
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": items}},
        ]);
        let volume = json!({"name": name, "projected": {"sources": sources, "defaultMode": 420}});
        tree::list_at(&mut pod["spec"], "volumes").push(volume);
    }
}
