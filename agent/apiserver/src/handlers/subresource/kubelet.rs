//! Subresources that the kubelet answers: logs and streams.

use http::request::Parts;
use http::{Response, Uri};
use serde_json::Value;

use super::tunnel::{self, Target};
use crate::answer::Body;
use crate::app::Call;
use crate::codec;
use crate::handlers::read;
use crate::request::Query;
use crate::status::{Failure, Result};
use crate::tree;

/// Where kubelets listen when their node does not say.
const KUBELET_PORT: i64 = 10_250;

pub(super) async fn serve(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>> {
    let object = read::current(call).await?;
    let value = codec::to_value(call.storage()?, call.kind, &object)?;
    if call.info.subresource == "proxy" {
        return Err(Failure::not_implemented(&format!("the proxy of {}", call.kind.plural)));
    }
    let node = tree::text(&value, "/spec/nodeName");
    if node.is_empty() {
        let text = format!("pod {} does not have a host assigned", call.info.name);
        return Err(Failure::bad_request(text));
    }
    let (host, port) = address_of(call, node)?;
    let path = path_of(call, &value)?;
    let uri: Uri = path.parse().map_err(|e| Failure::bad_request(format!("the path cannot be asked for: {e}")))?;
    let settings = call.app.config.kubelet.as_ref();
    let settings = settings.ok_or_else(|| Failure::internal("no client certificate for kubelets is configured"))?;
    tunnel::forward(settings, &Target { host, port, uri }, parts, body).await
}

/// Address and port of a node's kubelet.
fn address_of(call: &Call, node: &str) -> Result<(String, u16)> {
    let storage = call.app.cache.known("", "nodes");
    let subject = crate::app::resource_subject(storage.kind);
    let object = storage.get("", node).ok_or_else(|| Failure::not_found(subject, node))?;
    let value = codec::to_value(storage, storage.kind, &object)?;
    let addresses = tree::list(&value, "/status/addresses");
    let find = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let host = ["InternalIP", "Hostname", "ExternalIP"].iter().find_map(|kind| find(kind));
    let host = host.ok_or_else(|| Failure::internal(format!("no preferred addresses found; node {node} has none")))?;
    let port = tree::integer(&value, "/status/daemonEndpoints/kubeletEndpoint/Port").unwrap_or(KUBELET_PORT);
    Ok((host.to_owned(), u16::try_from(port).unwrap_or_default()))
}

fn container_of(call: &Call, pod: &Value) -> Result<String> {
    let given = call.query.get("container");
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let names = |list: &str| -> Vec<String> {
        let items = tree::list(&pod["spec"], &format!("/{list}")).iter();
        items.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    let all: Vec<String> = lists.iter().flat_map(|list| names(list)).collect();
    if !given.is_empty() {
        let known = all.iter().any(|name| name == given);
        let text = || format!("container {given} is not valid for pod {}", call.info.name);
        return if known { Ok(given.to_owned()) } else { Err(Failure::bad_request(text())) };
    }
    match names("containers").as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Failure::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            call.info.name,
            all.join(" ")
        ))),
    }
}

/// The kubelet's path of a request.
fn path_of(call: &Call, pod: &Value) -> Result<String> {
    let (namespace, name) = (call.namespace(), call.info.name.as_str());
    let uid = tree::text(pod, "/metadata/uid");
    let subresource = call.info.subresource.as_str();
    let query = kubelet_query(&call.query, subresource);
    let path = match subresource {
        "log" => format!("/containerLogs/{namespace}/{name}/{}", container_of(call, pod)?),
        "portforward" => format!("/portForward/{namespace}/{name}/{uid}"),
        verb => format!("/{verb}/{namespace}/{name}/{uid}/{}", container_of(call, pod)?),
    };
    Ok(if query.is_empty() { path } else { format!("{path}?{query}") })
}

/// The query as kubelets spell it.
fn kubelet_query(query: &Query, subresource: &str) -> String {
    let pairs = query.raw().split('&').filter(|p| !p.is_empty());
    let spell = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let on = matches!(value, "" | "1" | "true");
        match (subresource, key) {
            (_, "container") | ("log", "insecureSkipTLSVerifyBackend") => None,
            ("log" | "portforward", _) => Some(pair.to_owned()),
            (_, "stdin") => on.then(|| "input=1".to_owned()),
            (_, "stdout") => on.then(|| "output=1".to_owned()),
            (_, "stderr") => on.then(|| "error=1".to_owned()),
            (_, "tty") => on.then(|| "tty=1".to_owned()),
            _ => Some(pair.to_owned()),
        }
    };
    pairs.filter_map(spell).collect::<Vec<_>>().join("&")
}
