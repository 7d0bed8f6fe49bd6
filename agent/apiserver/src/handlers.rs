//! One handler per verb, over the kind table; a module per subresource that is more than a view of its object.

mod components;
mod create;
pub mod delete;
mod list;
mod options;
mod patch;
mod read;
mod subresource;
mod update;
mod watch;
pub mod write;

use http::request::Parts;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};

use crate::answer::Body;
use crate::app::Call;
use crate::status::{Failure, Result};

pub use create::create_object;
pub use delete::DeleteOptions;
pub(crate) use patch::apply;
pub(crate) use subresource::{scale, tunnel};
pub use write::check_namespace;

/// Largest body that is read.
pub const MAX_BODY_BYTES: usize = 3 << 20;

/// Tells the metrics and the audit log that somebody uses what is deprecated.
pub fn note_deprecated(call: &Call) {
    let removed = call.app.metrics.kinds.deprecated(call.kind, &call.info.subresource);
    if call.record.is_on() {
        call.record.annotate("k8s.io/deprecated", "true");
        if !removed.is_empty() {
            call.record.annotate("k8s.io/removed-release", removed);
        }
    }
}

/// Hands a request on a resource to its handler.
pub async fn dispatch(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>> {
    if crate::custom::is_custom(call.kind) {
        return custom(call, parts, body).await;
    }
    if !is_path(call) {
        return Err(Failure::no_such_path());
    }
    if !may_have(call, &parts.method) {
        return Err(Failure::method_not_allowed());
    }
    if !call.kind.deprecation.is_empty() {
        call.warn(call.kind.deprecation);
        note_deprecated(call);
    }
    if !call.info.subresource.is_empty() {
        return subresource::dispatch(call, parts, body).await;
    }
    if !call.kind.has_verb(call.info.verb) {
        let is_watch = call.info.verb == "watch" && call.kind.has_verb("list");
        return Err(if is_watch {
            Failure::verb_not_supported(call.subject(), "watch")
        } else {
            Failure::method_not_allowed()
        });
    }
    by_verb(call, parts, body, Failure::method_not_allowed).await
}

/// Hands a request on a custom resource to its handler: what serves those looks at nothing but the verb.
async fn custom(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>> {
    let verb = call.info.verb;
    let is_list = matches!(verb, "list" | "watch");
    if is_in_namespace(call) && !call.kind.namespaced || !is_scoped(call) && !is_list {
        return Err(call.no_such_resource());
    }
    if !call.info.subresource.is_empty() {
        return subresource::of_custom(call, parts, body).await;
    }
    if matches!(verb, "update" | "patch") && call.info.name.is_empty() {
        return Err(Failure::bad_request("name must be provided"));
    }
    by_verb(call, parts, body, || Failure::verb_not_supported(call.subject(), verb)).await
}

/// Hands a request on whole objects to the handler of its verb, if there is one.
async fn by_verb(call: &Call, parts: Parts, body: Body, unknown: impl FnOnce() -> Failure) -> Result<Response<Body>> {
    match call.info.verb {
        "get" if components::is(call.kind) => components::get(call).await,
        "list" if components::is(call.kind) => components::list(call).await,
        "get" => read::get(call).await,
        "list" => list::list(call).await,
        "watch" => watched(call, parts).await,
        "create" => create::create(call, read_body(body).await?).await,
        "update" => update::update(call, read_body(body).await?).await,
        "patch" => patch::patch(call, read_body(body).await?).await,
        "delete" => delete::delete(call, read_body(body).await?).await,
        "deletecollection" => delete::delete_collection(call, read_body(body).await?).await,
        _ => Err(unknown()),
    }
}

async fn watched(call: &Call, mut parts: Parts) -> Result<Response<Body>> {
    let answer = watch::watch(call).await?;
    if crate::websocket::is_asked_for(&parts.headers) {
        return crate::websocket::watch(&mut parts, answer);
    }
    Ok(answer)
}

/// Whether the path leads below a namespace.
fn is_in_namespace(call: &Call) -> bool {
    !call.info.namespace.is_empty() && call.kind.plural != "namespaces"
}

/// Whether the path names as much as objects of the kind need.
fn is_scoped(call: &Call) -> bool {
    !call.kind.namespaced || is_in_namespace(call)
}

/// Whether anything is served at the path of a request on one of the server's own kinds, by whatever method.
fn is_path(call: &Call) -> bool {
    let (info, kind) = (&call.info, call.kind);
    let proxies = info.subresource == "proxy";
    let is_plain = proxies || !info.path.contains("//") && !info.name.contains('/');
    // Nothing is served any more at the paths where proxies once were.
    if !is_plain || info.verb == "proxy" || is_in_namespace(call) && !kind.namespaced {
        return false;
    }
    // Lists may have their name from a selector.
    let is_collection = info.name.is_empty() || !info.is_old_watch && matches!(info.verb, "list" | "watch");
    if info.is_old_watch {
        return info.subresource.is_empty() && kind.has_verb("watch") && (is_collection || is_scoped(call));
    }
    if is_collection {
        return is_scoped(call) || kind.has_verb("list");
    }
    // What is only ever created has no names.
    is_scoped(call)
        && match info.subresource.as_str() {
            "" => kind.has_verb("get"),
            part => kind.subresource(part).is_some() && (proxies || info.rest.is_empty()),
        }
}

/// Whether a path that leads somewhere may be asked for by this method.
fn may_have(call: &Call, method: &Method) -> bool {
    let info = &call.info;
    let is_object = !info.name.is_empty();
    match *method {
        Method::HEAD => info.subresource == "proxy",
        Method::GET => true,
        _ if info.is_old_watch || !is_scoped(call) => false,
        Method::PUT | Method::PATCH => is_object,
        Method::POST => !is_object || !info.subresource.is_empty(),
        _ => true,
    }
}

/// A whole body, up to the limit.
pub async fn read_body(body: Body) -> Result<bytes::Bytes> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Failure::too_large(format!("Request entity too large: limit is {MAX_BODY_BYTES}")))
        }
        Err(error) => Err(Failure::bad_request(format!("the body could not be read: {error}"))),
    }
}
