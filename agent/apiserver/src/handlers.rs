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
    check_scope(call)?;
    if crate::custom::is_custom(call.kind) {
        return custom(call, parts, body).await;
    }
    let proxies = call.info.subresource == "proxy";
    if !proxies && (call.info.path.contains("//") || call.info.name.contains('/')) {
        return Err(Failure::no_such_path());
    }
    if !proxies && parts.method == Method::HEAD {
        return Err(Failure::method_not_allowed());
    }
    if matches!(call.info.verb, "update" | "patch") && call.info.name.is_empty() {
        return Err(Failure::method_not_allowed());
    }
    if !call.kind.deprecation.is_empty() {
        call.warn(call.kind.deprecation);
        note_deprecated(call);
    }
    // Nothing is served any more at the paths where proxies once were.
    if call.info.verb == "proxy" || call.info.is_old_watch && !is_watchable(call) {
        return Err(Failure::no_such_path());
    }
    if !call.info.subresource.is_empty() {
        return subresource::dispatch(call, parts, body).await;
    }
    // What is only ever created has no names.
    if call.kind.etcd_prefix.is_empty() && !call.kind.has_verb("get") && !call.info.name.is_empty() {
        return Err(Failure::no_such_path());
    }
    if !call.kind.has_verb(call.info.verb) {
        let is_watch = call.info.verb == "watch" && call.kind.has_verb("list");
        return Err(if is_watch {
            Failure::verb_not_supported(call.subject(), "watch")
        } else {
            Failure::method_not_allowed()
        });
    }
    if parts.method == Method::POST && !call.info.name.is_empty() {
        return Err(Failure::method_not_allowed());
    }
    by_verb(call, parts, body, Failure::method_not_allowed).await
}

/// Hands a request on a custom resource to its handler: what serves those looks at nothing but the verb.
async fn custom(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>> {
    let verb = call.info.verb;
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

/// Objects in namespaces are written below one; others are not.
fn check_scope(call: &Call) -> Result<()> {
    let in_namespace = !call.info.namespace.is_empty() && call.kind.plural != "namespaces";
    match (call.kind.namespaced, in_namespace) {
        (false, true) => Err(call.no_such_resource()),
        (true, false) if crate::custom::is_custom(call.kind) && !matches!(call.info.verb, "list" | "watch") => {
            Err(call.no_such_resource())
        }
        // What is only ever created has no place but in a namespace.
        (true, false) if !call.kind.has_verb("list") => Err(Failure::no_such_path()),
        (true, false) if !matches!(call.info.verb, "list" | "watch" | "create") => Err(Failure::method_not_allowed()),
        (true, false) if call.info.verb == "create" && !call.info.name.is_empty() => Err(Failure::no_such_path()),
        (true, false) if call.info.verb == "create" => Err(Failure::method_not_allowed()),
        _ => Ok(()),
    }
}

/// Whether a path of the old form leads to what can be watched: no part of an object, and no object that is in no
/// namespace though its kind is.
fn is_watchable(call: &Call) -> bool {
    let named = !call.info.name.is_empty() && !call.query.has("fieldSelector");
    call.info.subresource.is_empty() && !(named && call.kind.namespaced && call.info.namespace.is_empty())
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
