//! Where the kubelet of a pod's node is, and which of its containers is meant.

use std::sync::Arc;

use egress::Selection;
use http::{StatusCode, Uri};
use rustls::ClientConfig;
use serde_json::Value;

use crate::app::{App, Call};
use crate::backend::{self, Target};
use crate::codec;
use crate::handlers::read;
use crate::request::Query;
use crate::status::{Failure, Result};
use crate::tree;

/// Where kubelets listen when their node does not say.
const KUBELET_PORT: i64 = 10_250;

/// A node's kubelet.
pub(super) struct Kubelet {
    pub(super) host: String,
    pub(super) port: u16,
    /// What it can do that not all can.
    features: Vec<String>,
}

impl Kubelet {
    /// Whether it says that it has a feature.
    pub(super) fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|own| own == feature)
    }

    /// How it is reached.
    pub(super) fn target(self, app: &Arc<App>, is_verified: bool) -> Result<Target> {
        let proxy = app.config.egress.proxy(Selection::Cluster);
        let tls = Some((tls(app, is_verified)?, self.host.clone()));
        Ok(Target { tls, host: self.host, port: self.port, proxy })
    }
}

/// TLS settings towards kubelets.
pub(super) fn tls(app: &Arc<App>, is_verified: bool) -> Result<Arc<ClientConfig>> {
    let settings = app.config.kubelet.as_ref();
    let settings = settings.ok_or_else(|| Failure::internal("no client certificate for kubelets is configured"))?;
    backend::kubelet_config(settings, is_verified).map_err(|e| Failure::internal(stdx::chain(&e)))
}

/// What a kubelet that is not reached comes to: an error of the network's, and none of this server's own.
pub(super) fn unreached(text: String) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
}

/// The pod that a call is about.
pub(super) async fn pod(call: &Call) -> Result<Value> {
    let object = read::current(call).await?;
    codec::to_value(call.storage()?, call.kind, &object)
}

/// The kubelet of a node.
pub(super) fn of_node(call: &Call, node: &str) -> Result<Kubelet> {
    let storage = call.app.cache.known("", "nodes");
    // Upstream names the resource that was asked for.
    let object = storage.get("", node).ok_or_else(|| Failure::not_found(call.subject(), node))?;
    let value = codec::to_value(storage, storage.kind, &object)?;
    let addresses = tree::list(&value, "/status/addresses");
    let find = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let types = call.app.config.kubelet.as_ref().map(|kubelet| kubelet.address_types.as_slice()).unwrap_or_default();
    let host = types.iter().find_map(|kind| find(kind));
    let host = host.ok_or_else(|| {
        let shown = |a: &Value| format!("{{{} {}}}", tree::text(a, "/type"), tree::text(a, "/address"));
        let known = addresses.iter().map(shown).collect::<Vec<_>>().join(" ");
        unreached(format!("no preferred addresses found; known addresses: [{known}]"))
    })?;
    let port = tree::integer(&value, "/status/daemonEndpoints/kubeletEndpoint/Port").filter(|port| *port > 0);
    let port = u16::try_from(port.unwrap_or(KUBELET_PORT)).unwrap_or_default();
    let features = tree::list(&value, "/status/declaredFeatures").iter();
    let features = features.filter_map(|feature| feature.as_str().map(str::to_owned)).collect();
    Ok(Kubelet { host: host.to_owned(), port, features })
}

/// The container that is asked for, or the only one.
pub(super) fn container<'a>(call: &Call, asked: &'a str, pod: &'a Value) -> Result<&'a str> {
    let names = |list: &str| {
        tree::list(&pod["spec"], list).iter().filter_map(|container| container["name"].as_str()).collect::<Vec<_>>()
    };
    let own = names("/containers");
    let all = [names("/initContainers"), own.clone(), names("/ephemeralContainers")].concat();
    let name = &call.info.name;
    match (asked, own.as_slice()) {
        ("", [one]) => Ok(one),
        ("", []) => Err(Failure::bad_request(format!("a container name must be specified for pod {name}"))),
        ("", _) => {
            let all = all.join(" ");
            let text = format!("a container name must be specified for pod {name}, choose one of: [{all}]");
            Err(Failure::bad_request(text))
        }
        _ if all.contains(&asked) => Ok(asked),
        _ => Err(Failure::bad_request(format!("container {asked} is not valid for pod {name}"))),
    }
}

/// What a kubelet is asked for: a path and a query, whose keys stand in order.
pub(super) fn uri(path: &str, mut query: Vec<(&str, String)>) -> Result<Uri> {
    query.sort_by_key(|(key, _)| key.to_owned());
    let query = Query::of_pairs(query);
    let mark = if query.raw().is_empty() { "" } else { "?" };
    let uri = format!("{path}{mark}{}", query.raw());
    uri.parse().map_err(|e| Failure::bad_request(format!("the path cannot be asked for: {e}")))
}
