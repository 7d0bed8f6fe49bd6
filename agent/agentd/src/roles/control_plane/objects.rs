//! Objects that a cluster of ours has from the start: what joining machines need, and the Service of cluster DNS.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use api::Resource;
use api::core::v1::{ConfigMap, Service, ServicePort};
use api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use client::Client;
use lifecycle::{Shutdown, Tasks};
use manifest::Manifest;

/// Pause before what could not be written is tried again.
const PAUSE: Duration = Duration::from_millis(300);
const CLUSTER_INFO: &str = "cluster-info";
const CLUSTER_INFO_READER: &str = "keelson:cluster-info";

/// Writes the objects, again and again until all are there. Then tells that the control plane is ready.
pub(super) fn start(tasks: &Tasks, shutdown: &Shutdown, client: Client, manifest: &Manifest) -> Result<()> {
    let ca = String::from_utf8_lossy(&super::read("ca.crt")?).into_owned();
    let (manifest, stop) = (manifest.clone(), shutdown.clone());
    let label = (client.clone(), manifest.clone(), shutdown.clone());
    tasks.spawn("first-objects", async move {
        while let Err(error) = write_all(&client, &manifest, &ca).await {
            tracing::info!(error = format!("{error:#}"), "the cluster's first objects");
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        crate::process::notify(&format!("READY=1\nSTATUS={}", super::serving(&manifest.control_plane.external)));
    });
    tasks.spawn("master-label", async move {
        let (client, manifest, stop) = label;
        while let Err(error) = machine::mark_node(&client, &manifest).await {
            tracing::debug!(%error, "labelling the Node of this master");
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(PAUSE * 10) => {}
            }
        }
    });
    Ok(())
}

pub(super) async fn write_all(client: &Client, manifest: &Manifest, ca: &str) -> Result<()> {
    if let Some(token) = manifest.cluster.token.as_ref().and_then(manifest::Secret::known) {
        keep(client, crate::roles::token::secret(token, None, ""), |old, new| old.data == new.data).await?;
    }
    if let Some(endpoint) = &manifest.cluster.endpoint {
        let info = cluster_info(&endpoint.to_string(), ca);
        keep(client, info, |old, new| old.data == new.data).await?;
        keep(client, reader(), |old, new| old.rules == new.rules).await?;
        keep(client, binding(), |old, new| old.subjects == new.subjects).await?;
    }
    keep(client, dns(manifest), |old, new| old.spec.cluster_ip == new.spec.cluster_ip).await
}

/// Makes an object, or brings it back to what it should be.
async fn keep<K: Resource>(client: &Client, mut wanted: K, is_same: fn(&K, &K) -> bool) -> Result<()> {
    let meta = wanted.metadata().clone();
    let about = || format!("{} {}/{}", K::KIND.kind, meta.namespace, meta.name);
    // Looked for first: a Service with an address of its own that is there is not refused as there, but as invalid.
    let found: K = match client.get(Some(&meta.namespace), &meta.name).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => {
            return client.create(&wanted).await.with_context(|| format!("creating {}", about())).map(drop);
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", about())),
    };
    if is_same(&found, &wanted) {
        return Ok(());
    }
    wanted.metadata_mut().resource_version.clone_from(&found.metadata().resource_version);
    client.update(&wanted).await.with_context(|| format!("updating {}", about())).map(drop)
}

/// Where the API is and its CA: public, so that a machine that knows only the CA's hash can find it.
fn cluster_info(server: &str, ca: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = "kube-public".to_owned();
    map.metadata.name = CLUSTER_INFO.to_owned();
    map.data = BTreeMap::from([("kubeconfig".to_owned(), pki::cluster_info(server, ca))]);
    map
}

fn reader() -> Role {
    let mut role = Role::default();
    role.metadata.namespace = "kube-public".to_owned();
    role.metadata.name = CLUSTER_INFO_READER.to_owned();
    role.rules = vec![PolicyRule {
        verbs: vec!["get".to_owned()],
        api_groups: vec![String::new()],
        resources: vec!["configmaps".to_owned()],
        resource_names: vec![CLUSTER_INFO.to_owned()],
        ..PolicyRule::default()
    }];
    role
}

fn binding() -> RoleBinding {
    let mut binding = RoleBinding::default();
    binding.metadata.namespace = "kube-public".to_owned();
    binding.metadata.name = CLUSTER_INFO_READER.to_owned();
    let group = "rbac.authorization.k8s.io".to_owned();
    binding.role_ref =
        RoleRef { api_group: group.clone(), kind: "Role".to_owned(), name: CLUSTER_INFO_READER.to_owned() };
    let anonymous = ("User", "system:anonymous");
    let nobody = ("Group", "system:unauthenticated");
    binding.subjects = [anonymous, nobody]
        .map(|(kind, name)| Subject {
            kind: kind.to_owned(),
            api_group: group.clone(),
            name: name.to_owned(),
            ..Subject::default()
        })
        .to_vec();
    binding
}

/// The Service that tools look for. It selects no pods: every node answers for itself.
fn dns(manifest: &Manifest) -> Service {
    let port = |name: &str, protocol: &str| ServicePort {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        port: 53,
        ..ServicePort::default()
    };
    let mut service = Service::default();
    service.metadata.namespace = "kube-system".to_owned();
    service.metadata.name = "kube-dns".to_owned();
    service.metadata.labels = BTreeMap::from([
        ("k8s-app".to_owned(), "kube-dns".to_owned()),
        ("kubernetes.io/name".to_owned(), "CoreDNS".to_owned()),
    ]);
    service.spec.cluster_ip = manifest.cluster.dns_address.to_string();
    service.spec.ports = vec![port("dns", "UDP"), port("dns-tcp", "TCP")];
    service
}
