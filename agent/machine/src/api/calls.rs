//! The table of calls put to work: who may make one, and who answers it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use machine_api::{CALLS, Verb};
use sys::{Linux, System};

use super::{
    Answer, BODY, Caller, Known, NO_SLOTS, Server, capture, check, debug, etcd, fetch, forward, locks, look, manifest,
    reset, respond, support, text, update, whole,
};
use crate::debug::Containerd;

/// Answers a request.
pub(super) async fn answer(caller: &Caller, server: &Arc<Server>, request: Request<Incoming>) -> Answer {
    let caller = match caller {
        Caller::Maintenance => return whole(maintenance(&server.run, request).await),
        Caller::Known(caller) => caller,
    };
    let Known { name, roles, .. } = caller;
    if request.method() == Method::CONNECT {
        return whole(forward::answer(server, (name, roles), request).await);
    }
    let (method, path) = (request.method().as_str(), request.uri().path());
    let Some(call) = CALLS.iter().find(|call| call.method == method && call.path == path) else {
        let served: Vec<(&str, &str)> = CALLS.iter().map(|call| (call.method, call.path)).collect();
        return whole(unknown(if roles.is_empty() { &[] } else { &served }, path));
    };
    if !roles.iter().any(|role| role.may(call.needs)) {
        let has = match roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().as_slice() {
            [] => "this certificate gives none".to_owned(),
            roles => format!("this certificate gives {}", roles.join(", ")),
        };
        let reason = format!("{method} {path} needs the role {}; {has}\n", call.needs.as_str());
        return whole(text(StatusCode::FORBIDDEN, reason));
    }
    if call.method != "GET" {
        tracing::info!(caller = name, method, path, query = request.uri().query(), "machine API");
    }
    act(server, caller, call.verb, request).await
}

/// Does what was asked for by somebody who may.
async fn act(server: &Arc<Server>, caller: &Known, verb: Verb, request: Request<Incoming>) -> Answer {
    let query = request.uri().query();
    match verb {
        Verb::Status => whole(status(&server.run)),
        Verb::Crash => whole(crash(server)),
        Verb::Look(view) => whole(look::view(server, view).await),
        Verb::Logs => look::log(server, query),
        Verb::PodLogs => look::pod_log(server, query),
        Verb::Capture => capture::stream(server, caller, request).await,
        Verb::Debug => debug::answer(server, caller, Containerd(server.containerd.clone()), request).await,
        Verb::RestartService => whole(look::restart(server, query)),
        Verb::ShowManifest => whole(manifest::show(server)),
        Verb::Apply => whole(manifest::apply(server, request).await),
        Verb::KeepManifest => whole(manifest::keep(server)),
        Verb::Check(what) => whole(check::answer(what, query).await),
        Verb::Support => support::bundle(server).await,
        Verb::Update => whole(match &server.updates {
            Some(updates) => update::receive(server, updates, request).await,
            None => text(StatusCode::CONFLICT, NO_SLOTS.to_owned()),
        }),
        Verb::LookAtUpdate => fetch::look(server, request).await,
        Verb::FetchUpdate => fetch::fetch(server, request).await,
        Verb::RollBack => whole(match &server.updates {
            Some(updates) => update::roll_back(server, updates, query).await,
            None => text(StatusCode::CONFLICT, NO_SLOTS.to_owned()),
        }),
        Verb::Reboot => whole(update::start_again(server, query).await),
        Verb::ShutDown => whole(update::shut_down(server, query).await),
        Verb::Reset => whole(reset::reset(server, query).await),
        Verb::RecoveryKeys => whole(locks::recovery_keys(&Linux)),
        verb @ (Verb::EtcdStatus
        | Verb::EtcdSnapshot
        | Verb::EtcdRestore
        | Verb::EtcdFetch
        | Verb::EtcdRecover
        | Verb::EtcdDefragment
        | Verb::EtcdRemove) => etcd::answer(server, verb, request).await,
    }
}

/// What is served while there is no manifest.
async fn maintenance(run: &Path, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") => status(run),
        (&Method::PUT, "/manifest") => {
            let body = Limited::new(request.into_body(), ::manifest::MANIFEST_BYTES).collect();
            match tokio::time::timeout(BODY, body).await {
                Ok(Ok(body)) => take_manifest(run, &body.to_bytes()),
                Ok(Err(error)) => text(StatusCode::PAYLOAD_TOO_LARGE, format!("the manifest was not read: {error}\n")),
                Err(_elapsed) => text(StatusCode::REQUEST_TIMEOUT, "the manifest did not come\n".to_owned()),
            }
        }
        (&Method::PUT, "/unlock") => locks::unlock(run, request).await,
        (_, path) => unknown(&[("GET", "/status"), ("PUT", "/manifest"), ("PUT", "/unlock")], path),
    }
}

fn status(run: &Path) -> Response<Full<Bytes>> {
    let status = crate::status::read(run);
    match status.and_then(|status| serde_json::to_vec(&status).map_err(|error| format!("{error}\n"))) {
        Ok(status) => respond(StatusCode::OK, "application/json", status),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

fn crash(server: &Server) -> Response<Full<Bytes>> {
    match Linux.read(&server.crash) {
        Ok(lines) => respond(StatusCode::OK, "text/plain; charset=utf-8", lines),
        Err(error) if error.is_not_found() => text(StatusCode::NOT_FOUND, "no crash is known\n".to_owned()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, stdx::chain(&error).to_string()),
    }
}

/// Says what is served where nothing is.
fn unknown(served: &[(&str, &str)], path: &str) -> Response<Full<Bytes>> {
    let is_known = served.iter().any(|(_, known)| *known == path);
    let code = if is_known { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND };
    let served: Vec<String> = served.iter().map(|(method, path)| format!("{method} {path}")).collect();
    text(code, format!("served here: {}\n", served.join(", ")))
}

/// Checks a manifest and, if it is good, hands it to the first process, which decides.
fn take_manifest(run: &Path, body: &[u8]) -> Response<Full<Bytes>> {
    let Ok(content) = std::str::from_utf8(body) else {
        return text(StatusCode::UNPROCESSABLE_ENTITY, "the manifest is not UTF-8 text\n".to_owned());
    };
    let (good, findings) = ::manifest::check("manifest.toml", content);
    if good.is_none() {
        return text(StatusCode::UNPROCESSABLE_ENTITY, format!("{findings}\n"));
    }
    match Linux.replace(&run.join("inbox/manifest.toml"), body, 0o600) {
        Ok(()) if findings.is_empty() => text(StatusCode::ACCEPTED, "the manifest is good and taken in\n".to_owned()),
        Ok(()) => text(StatusCode::ACCEPTED, format!("{findings}\nthe manifest is taken in\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", stdx::chain(&error))),
    }
}
