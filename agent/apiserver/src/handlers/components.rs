//! ComponentStatus: how the control plane's other parts are. Nothing is stored; each request asks anew.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::read::{METADATA, go_name, is_list, is_no_list, partial};
use crate::answer::{self, Body};
use crate::app::Call;
use crate::backend::{self, Target, Trust};
use crate::cache::{Object, Selection};
use crate::negotiate::Form;
use crate::status::{Failure, Result, Subject};
use crate::table::{self, Style};

const STATUS: &str = "k8s.io.api.core.v1.ComponentStatus";
const LIST: &str = "k8s.io.api.core.v1.ComponentStatusList";
const METADATA_LIST: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList";

/// Components by the ports they are asked at, on this machine.
const PORTS: [(&str, u16); 2] = [("controller-manager", 10_257), ("scheduler", 10_259)];
const STORE: &str = "etcd-0";
/// How long a component may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most of an answer that is shown.
const SHOWN_BYTES: usize = 10 << 10;

/// Whether this kind is answered here.
pub(super) fn is(kind: &api::Kind) -> bool {
    kind.group.is_empty() && kind.plural == "componentstatuses"
}

pub(super) async fn get(call: &Call) -> Result<Response<Body>> {
    let name = call.info.name.as_str();
    let port = PORTS.iter().find(|(known, _)| *known == name);
    let value = match port {
        Some((name, port)) => asked(name, *port).await,
        None if name == STORE => store(call).await,
        None => return Err(Failure::not_found(Subject { group: "", resource: "componentstatus" }, name)),
    };
    match call.accept.form {
        Form::Object => answer::message(StatusCode::OK, STATUS, &value, call.accept),
        Form::Table => tabled(call, &[value]),
        Form::Metadata => {
            answer::message(StatusCode::OK, METADATA, &partial(&value["metadata"], call.accept.meta), call.accept)
        }
        Form::MetadataList => Err(is_no_list(&go_name(call.kind))),
    }
}

pub(super) async fn list(call: &Call) -> Result<Response<Body>> {
    let query = &call.query;
    let selection = Selection::parse(query.get("labelSelector"), query.get("fieldSelector"), call.kind, &[])?;
    let asking = PORTS.map(|(name, port)| asked(name, port));
    let (mut all, store) = futures::join!(futures::future::join_all(asking), store(call));
    all.push(store);
    all.retain(|value| {
        let name: Arc<str> = value["metadata"]["name"].as_str().unwrap_or_default().into();
        selection.matches(&Object::new(name, 0, bytes::Bytes::new(), &[]))
    });
    let named = |kind: &str, version: &str, items: Vec<Value>| json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items});
    match call.accept.form {
        Form::Object => answer::message(StatusCode::OK, LIST, &named("ComponentStatusList", "v1", all), call.accept),
        Form::Table => tabled(call, &all),
        Form::Metadata => Err(is_list(&format!("{}List", go_name(call.kind)))),
        Form::MetadataList => {
            let items = all.iter().map(|v| partial(&v["metadata"], call.accept.meta));
            let list = named("PartialObjectMetadataList", call.accept.meta.api_version(), items.collect());
            answer::message(StatusCode::OK, METADATA_LIST, &list, call.accept)
        }
    }
}

fn tabled(call: &Call, all: &[Value]) -> Result<Response<Body>> {
    let text = table::of_values(call.kind, Style::of(call)?, all)?;
    Ok(answer::bytes(StatusCode::OK, call.accept.encoding.media_type(), table::bytes(text, call.accept)?))
}

async fn store(call: &Call) -> Value {
    match call.app.cache.store().health().await {
        Ok(_) => component(STORE, ("True", "ok", "")),
        Err(error) => component(STORE, ("False", &error.to_string(), "")),
    }
}

fn component(name: &str, (status, message, error): (&str, &str, &str)) -> Value {
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": status, "message": message, "error": error}],
    })
}

async fn asked(name: &str, port: u16) -> Value {
    let url = format!("https://127.0.0.1:{port}/healthz");
    match tokio::time::timeout(PATIENCE, ask(port)).await {
        Err(_elapsed) => component(name, ("False", &format!("Get \"{url}\": context deadline exceeded"), "")),
        Ok(Err(why)) => component(name, ("False", &format!("Get \"{url}\": {why}"), "")),
        Ok(Ok((code, _))) if !(200..400).contains(&code) => {
            component(name, ("False", &format!("HTTP probe failed with statuscode: {code}"), ""))
        }
        Ok(Ok((_, text))) => component(name, ("True", &text, "")),
    }
}

async fn ask(port: u16) -> std::result::Result<(u16, String), String> {
    let tls = backend::client_config(Trust::Anyone, None).map_err(|e| e.to_string())?;
    let host = "127.0.0.1".to_owned();
    let target = Target { host: host.clone(), port, tls: Some((tls, host)), proxy: None };
    let request = Request::get("/healthz").header(http::header::HOST, target.authority());
    let request = request.body(answer::full(bytes::Bytes::new())).map_err(|e| e.to_string())?;
    let response = target.send(request).await.map_err(|e| e.to_string())?;
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), SHOWN_BYTES).collect().await.map_err(|e| e.to_string())?;
    Ok((code, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}
