//! Subresources that the kubelet answers: logs and streams.

use std::sync::Arc;

use egress::Selection;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::Value;

use super::tunnel;
use crate::answer::{self, Body, BodyError};
use crate::app::{App, Call};
use crate::backend::{self, Target};
use crate::codec;
use crate::handlers::{read, read_body};
use crate::request::{Query, RequestInfo};
use crate::status::{Failure, FieldError, Result, Subject};
use crate::{handover, tree, websocket};

/// Where kubelets listen when their node does not say.
const KUBELET_PORT: i64 = 10_250;

/// `query` is what the client asks for, or what its admission made of that.
pub(super) async fn serve(call: &Call, query: &Query, (mut parts, body): (Parts, Body)) -> Result<Response<Body>> {
    let is_log = call.info.subresource == "log";
    if !is_log && call.info.verb == "get" {
        // Running a command is a creation whatever method a WebSocket begins with.
        let info = RequestInfo { verb: "create", ..call.info.clone() };
        call.app.access.authorize(&call.user, &info, &call.query, &audit::Record::default()).await?;
    }
    if is_log {
        check_log_options(call)?;
    }
    if call.info.subresource == "portforward" {
        check_ports(query)?;
    }
    let object = read::current(call).await?;
    let value = codec::to_value(call.storage()?, call.kind, &object)?;
    let path = path_of(call, query, &value)?;
    let node = tree::text(&value, "/spec/nodeName");
    if node.is_empty() && is_log {
        let mut response = Response::new(answer::full(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    if node.is_empty() {
        let text = format!("pod {} does not have a host assigned", call.info.name);
        return Err(Failure::bad_request(text));
    }
    let (host, port) = address_of(call, node)?;
    let uri: Uri = path.parse().map_err(|e| Failure::bad_request(format!("the path cannot be asked for: {e}")))?;
    let proxy = call.app.config.egress.proxy(Selection::Cluster);
    let target = Target { tls: Some((tls(&call.app)?, host.clone())), host, port, proxy };
    if is_log {
        return log(call, &target, uri, parts).await;
    }
    if !parts.headers.contains_key(UPGRADE) {
        return Err(Failure::bad_request("Upgrade request required"));
    }
    let offered = websocket::offered(&parts.headers);
    if websocket::is_asked_for(&parts.headers) && offered.iter().any(|p| p == TUNNEL_PROTOCOL) {
        return tunnel_spdy(&target, uri, parts).await;
    }
    tunnel::hide_credentials(&mut parts.headers);
    tunnel::forward(&target, uri, parts, body).await.map_err(dialing)
}

/// Ports are numbers, before anything is looked for.
fn check_ports(query: &Query) -> Result<()> {
    for port in query.all("ports").iter().flat_map(|list| list.split(',')) {
        if port.parse::<u16>().is_err() {
            let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let why = if is_number { "value out of range" } else { "invalid syntax" };
            let text = format!("cannot convert to []int32: strconv.ParseUint: parsing {port:?}: {why}");
            return Err(Failure::bad_request(text));
        }
    }
    Ok(())
}

fn dialing(error: backend::DialError) -> Failure {
    unreached(format!("error dialing backend: {error}"))
}

/// What a kubelet that is not reached comes to: an error of the network's, and none of this server's own.
fn unreached(text: String) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
}

/// TLS settings towards kubelets.
pub(super) fn tls(app: &Arc<App>) -> Result<Arc<ClientConfig>> {
    let settings = app.config.kubelet.as_ref();
    let settings = settings.ok_or_else(|| Failure::internal("no client certificate for kubelets is configured"))?;
    backend::kubelet_config(settings).map_err(|e| Failure::internal(stdx::chain(&e)))
}

/// Logs are read here and handed on, so that failures become Statuses and WebSockets work.
async fn log(call: &Call, target: &Target, uri: Uri, mut parts: Parts) -> Result<Response<Body>> {
    let mut request = Request::new(answer::full(""));
    let url = format!("https://{}{uri}", target.authority());
    *request.uri_mut() = uri;
    answer::set(request.headers_mut(), HOST, &target.authority());
    let response = target.send(request).await.map_err(|e| unreached(format!("Get {url:?}: {e}")))?;
    let status = response.status();
    let body = response.into_body().map_err(BodyError::new).boxed_unsync();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&read_body(body).await?).into_owned();
        return Err(log_failure(call, status, &text));
    }
    if websocket::is_asked_for(&parts.headers) {
        return websocket::stream(&mut parts, body);
    }
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn log_failure(call: &Call, status: StatusCode, text: &str) -> Failure {
    let subject = Subject { group: "", resource: "pods/log" };
    let name = &call.info.name;
    let failure = match status {
        StatusCode::INTERNAL_SERVER_ERROR => return Failure::internal(text),
        StatusCode::BAD_REQUEST => return Failure::bad_request(text),
        StatusCode::NOT_FOUND => {
            let message = format!("the server could not find the requested resource ( {subject} {name})");
            Failure::new(status, "NotFound", message)
        }
        _ => {
            let code = status.as_u16();
            let message = format!(
                "the server responded with the status code {code} but did not return more information ( {subject} {name})"
            );
            Failure::new(status, "", message)
        }
    };
    failure.with_subject(subject, name).with_cause("UnexpectedServerResponse", text)
}

/// The WebSocket protocol that carries SPDY, as port forwarding uses it.
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol that is spoken over SPDY then.
const FORWARD_PROTOCOL: &str = "portforward.k8s.io";

/// Opens SPDY to the kubelet and carries its bytes over the client's WebSocket.
async fn tunnel_spdy(target: &Target, uri: Uri, mut parts: Parts) -> Result<Response<Body>> {
    let mut request = Request::new(answer::full(""));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    answer::set(headers, HOST, &target.authority());
    answer::set(headers, CONNECTION, "Upgrade");
    answer::set(headers, UPGRADE, "SPDY/3.1");
    answer::set(headers, "x-stream-protocol-version", FORWARD_PROTOCOL);
    let mut response = target.send(request).await.map_err(dialing)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = response.into_parts();
        let text = read_body(body.map_err(BodyError::new).boxed_unsync()).await?;
        let text = format!("unable to upgrade to SPDY: {} {}", head.status, String::from_utf8_lossy(&text));
        return Err(Failure::internal(text));
    }
    let far = hyper::upgrade::on(&mut response);
    let (mut answer, near) = websocket::accept(&mut parts, TUNNEL_PROTOCOL)?.split();
    handover::serve(&mut answer, async move {
        match far.await {
            Ok(far) => websocket::tunnel(near, TokioIo::new(far)).await,
            Err(error) => tracing::debug!(%error, "a kubelet did not upgrade"),
        }
    });
    Ok(answer)
}

/// What of a log is asked for, before the pod is looked for.
fn check_log_options(call: &Call) -> Result<()> {
    let errors = log_option_errors(&call.query)?;
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(Subject { group: "", resource: "PodLogOptions" }, &call.info.name, &errors))
}

fn log_option_errors(query: &Query) -> Result<Vec<FieldError>> {
    let mut errors = Vec::new();
    if let Some(lines) = query.integer("tailLines")?.filter(|lines| *lines < 0) {
        errors.push(FieldError::invalid("tailLines", lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = query.integer("limitBytes")?.filter(|bytes| *bytes < 1) {
        errors.push(FieldError::invalid("limitBytes", bytes, "must be greater than 0"));
    }
    match query.integer("sinceSeconds")? {
        Some(_) if !query.get("sinceTime").is_empty() => {
            // The field is that of the whole, which has no name.
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("[]", why));
        }
        Some(seconds) if seconds < 1 => {
            errors.push(FieldError::invalid("sinceSeconds", seconds, "must be greater than 0"));
        }
        _ => {}
    }
    Ok(errors)
}

/// Address and port of a node's kubelet.
pub(super) fn address_of(call: &Call, node: &str) -> Result<(String, u16)> {
    let storage = call.app.cache.known("", "nodes");
    // Upstream names the resource that was asked for.
    let object = storage.get("", node).ok_or_else(|| Failure::not_found(call.subject(), node))?;
    let value = codec::to_value(storage, storage.kind, &object)?;
    let addresses = tree::list(&value, "/status/addresses");
    let find = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let types = call.app.config.kubelet.as_ref().map(|kubelet| kubelet.address_types.as_slice()).unwrap_or_default();
    let host = types.iter().find_map(|kind| find(kind));
    let host = host.ok_or_else(|| {
        let shown = |a: &serde_json::Value| format!("{{{} {}}}", tree::text(a, "/type"), tree::text(a, "/address"));
        let known = addresses.iter().map(shown).collect::<Vec<_>>().join(" ");
        let text = format!("no preferred addresses found; known addresses: [{known}]");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
    })?;
    let port = tree::integer(&value, "/status/daemonEndpoints/kubeletEndpoint/Port").unwrap_or(KUBELET_PORT);
    Ok((host.to_owned(), u16::try_from(port).unwrap_or_default()))
}

fn container_of(call: &Call, query: &Query, pod: &Value) -> Result<String> {
    let given = query.get("container");
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
        containers => {
            let mut text = format!("a container name must be specified for pod {}", call.info.name);
            if !containers.is_empty() {
                text.push_str(&format!(", choose one of: [{}]", containers.join(" ")));
            }
            let init = names("initContainers");
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Failure::bad_request(text))
        }
    }
}

/// The kubelet's path of a request.
fn path_of(call: &Call, query: &Query, pod: &Value) -> Result<String> {
    let (namespace, name) = (call.namespace(), call.info.name.as_str());
    let subresource = call.info.subresource.as_str();
    let spelled = kubelet_query(query, subresource);
    let path = match subresource {
        "log" => format!("/containerLogs/{namespace}/{name}/{}", container_of(call, query, pod)?),
        "portforward" => format!("/portForward/{namespace}/{name}"),
        verb => format!("/{verb}/{namespace}/{name}/{}", container_of(call, query, pod)?),
    };
    Ok(if spelled.is_empty() { path } else { format!("{path}?{spelled}") })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_logs_are_judged() {
        let texts = |query: &str| -> Vec<String> {
            log_option_errors(&Query::parse(query)).unwrap().iter().map(ToString::to_string).collect()
        };
        assert!(texts("tailLines=0&limitBytes=1&sinceSeconds=1&follow=true").is_empty());
        assert_eq!(
            texts("tailLines=-1&sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z"),
            [
                "tailLines: Invalid value: -1: must be greater than or equal to 0",
                "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            ]
        );
        assert!(log_option_errors(&Query::parse("tailLines=x")).is_err());
    }
}
