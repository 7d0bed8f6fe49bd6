//! Pods from files of this node, and their mirrors in the API server.
//!
//! The folder is read in a slow rhythm, as upstream does it; a changed file is another pod. The mirror is made and renewed whenever it is
//! missing or shows another pod, and its status is that of the pod itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use api::core::v1::{Node, Pod};
use api::meta::v1::OwnerReference;
use api::transcode::{Report, value_to_proto};
use client::{DeleteOptions, Error};
use prost::Message;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::context::NodeContext;
use crate::manager::{PodTable, StaticChange};
use crate::pod::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SOURCE, is_static};
use crate::runtime_config::fingerprint;
use crate::status_writer::patch_status;

/// How often the folder is read and mirrors are compared (upstream: 20 s).
const PERIOD: Duration = Duration::from_secs(10);

/// Follows the folder until the shutdown.
pub(crate) async fn run(node: Arc<NodeContext>, table: PodTable, changes: mpsc::Sender<StaticChange>) {
    let Some(dir) = node.config.static_pod_dir.clone() else { return };
    let mut known: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.shutdown.wait() => return,
            _tick = ticks.tick() => {}
        }
        let found = read_folder(&dir, &node.config.node_name);
        let gone: Vec<_> = known.iter().filter(|(uid, _)| !found.contains_key(*uid)).map(|(_, p)| p.clone()).collect();
        let new: Vec<_> = found.iter().filter(|(uid, _)| !known.contains_key(*uid)).map(|(_, p)| p.clone()).collect();
        for pod in gone {
            remove_mirror(&node, &pod).await;
            if changes.send(StaticChange::Removed(pod)).await.is_err() {
                return;
            }
        }
        for pod in new {
            if changes.send(StaticChange::Applied(pod)).await.is_err() {
                return;
            }
        }
        known = found;
        for (pod, status) in table.list().into_iter().filter(|(pod, _)| is_static(pod)) {
            if !known.contains_key(&pod.metadata.uid) {
                continue;
            }
            if let Err(error) = keep_mirror(&node, &pod, &status).await {
                tracing::warn!(pod = pod.metadata.name, error = %stdx::chain(&error), "mirror not kept");
            }
        }
    }
}

/// The pods of a folder by uid; files that are none are reported and left out.
fn read_folder(dir: &Path, node: &str) -> BTreeMap<String, Arc<Pod>> {
    let mut pods = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if is_hidden || !path.is_file() {
            continue;
        }
        let read = fs::read_to_string(&path).map_err(|error| error.to_string());
        match read.and_then(|text| parse_pod(&text, node)) {
            Ok(pod) => {
                pods.insert(pod.metadata.uid.clone(), Arc::new(pod));
            }
            Err(why) => tracing::warn!(path = %path.display(), why, "not a static pod"),
        }
    }
    pods
}

/// Reads a pod from YAML or JSON and gives it the identity it has on this node.
fn parse_pod(text: &str, node: &str) -> Result<Pod, String> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err("it does not hold a v1 Pod".to_owned());
    }
    let bytes = value_to_proto(Pod::KIND.schema(), &value, &mut Report::default());
    let bytes = bytes.map_err(|issue| format!("{issue:?}"))?;
    let mut pod = Pod::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    let hash = [fingerprint(&[node, text]), fingerprint(&[text, node, "1"]), fingerprint(&["2", node, text])].concat();
    let meta = &mut pod.metadata;
    if meta.name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    meta.name = format!("{}-{node}", meta.name);
    if meta.namespace.is_empty() {
        "default".clone_into(&mut meta.namespace);
    }
    meta.uid.clone_from(&hash);
    meta.annotations.insert(CONFIG_SOURCE.to_owned(), "file".to_owned());
    meta.annotations.insert(CONFIG_HASH.to_owned(), hash);
    set_defaults(&mut pod, node);
    Ok(pod)
}

/// The defaults that matter to a node; the API server sets them all on the mirror.
fn set_defaults(pod: &mut Pod, node: &str) {
    let or = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    let spec = &mut pod.spec;
    node.clone_into(&mut spec.node_name);
    or(&mut spec.restart_policy, "Always");
    or(&mut spec.dns_policy, "ClusterFirst");
    or(&mut pod.status.phase, "Pending");
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        or(&mut container.termination_message_path, "/dev/termination-log");
        or(&mut container.termination_message_policy, "File");
    }
    spec.tolerations.push(api::core::v1::Toleration {
        operator: "Exists".to_owned(),
        effect: "NoExecute".to_owned(),
        ..api::core::v1::Toleration::default()
    });
}

/// Makes the mirror show this pod and its status.
async fn keep_mirror(node: &NodeContext, pod: &Arc<Pod>, status: &api::core::v1::PodStatus) -> Result<(), Error> {
    let meta = &pod.metadata;
    let hash = meta.annotations.get(CONFIG_HASH);
    let mirror = match node.client.get::<Pod>(Some(&meta.namespace), &meta.name).await {
        Ok(found)
            if found.metadata.annotations.get(CONFIG_MIRROR) == hash && found.metadata.deletion_timestamp.is_none() =>
        {
            found
        }
        Ok(found) => {
            delete(node, &found).await?;
            create_mirror(node, pod).await?
        }
        Err(error) if error.is_not_found() => create_mirror(node, pod).await?,
        Err(error) => return Err(error),
    };
    if mirror.status == *status {
        return Ok(());
    }
    patch_status(&node.client, &mirror, &mirror.status, status).await
}

async fn create_mirror(node: &NodeContext, pod: &Pod) -> Result<Pod, Error> {
    let owner = node.client.get::<Node>(None, &node.config.node_name).await?;
    let mut mirror = pod.clone();
    mirror.metadata.uid = String::new();
    let hash = pod.metadata.annotations.get(CONFIG_HASH).cloned().unwrap_or_default();
    mirror.metadata.annotations.insert(CONFIG_MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: owner.metadata.name,
        uid: owner.metadata.uid,
        controller: Some(true),
        ..OwnerReference::default()
    }];
    node.client.create(&mirror).await
}

async fn delete(node: &NodeContext, mirror: &Pod) -> Result<(), Error> {
    let meta = &mirror.metadata;
    let options =
        DeleteOptions { grace_period_seconds: Some(0), uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
    node.client.delete::<Pod>(Some(&meta.namespace), &meta.name, &options).await
}

/// Takes the mirror of a pod away whose file is gone.
async fn remove_mirror(node: &NodeContext, pod: &Pod) {
    let meta = &pod.metadata;
    let gone = async {
        let found = node.client.get::<Pod>(Some(&meta.namespace), &meta.name).await?;
        if crate::pod::is_mirror(&found) { delete(node, &found).await } else { Ok(()) }
    };
    if let Err(error) = gone.await
        && !error.is_not_found()
    {
        tracing::warn!(pod = meta.name, error = %stdx::chain(&error), "mirror not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_pod_of_this_node() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";
        let pod = parse_pod(text, "n1").unwrap();
        assert_eq!((pod.metadata.name.as_str(), pod.metadata.namespace.as_str()), ("web-n1", "default"));
        assert_eq!(pod.spec.node_name, "n1");
        assert!(is_static(&pod));
        assert!(parse_pod("kind: Service", "n1").is_err());
    }
}
