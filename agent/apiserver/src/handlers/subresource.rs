//! Requests on subresources, and on kinds that are only ever created.

mod binding;
mod eviction;
mod exec;
mod kubelet;
mod links;
mod log;
mod proxy;
mod review;
pub(crate) mod scale;
mod stream;
mod token;
pub(crate) mod tunnel;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use stdx::quoted;

use super::update::replace;
use super::write::{check_fields, decode_object};
use super::{patch, read, read_body, write};
use crate::answer::{self, Body};
use crate::app::Call;
use crate::negotiate;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::{admission, asked, codec, tree};

/// Parts of objects that are shown in no table.
const NO_TABLES: [(&str, &str); 3] =
    [("resourceclaims", "status"), ("pods", "ephemeralcontainers"), ("pods", "resize")];

pub(super) async fn dispatch(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>> {
    let Some(row) = call.kind.subresource(&call.info.subresource) else {
        return Err(call.no_such_resource());
    };
    if matches!(row.name, "exec" | "attach" | "portforward" | "proxy") {
        return connect(call, row.name, (parts, body)).await;
    }
    if !row.verbs.contains(&call.info.verb) {
        return Err(Failure::method_not_allowed());
    }
    if call.info.verb == "create" {
        super::options::check(call, "CreateOptions")?;
    }
    let part = match row.name {
        "status" => Part::Status,
        "finalize" => Part::Finalize,
        "approval" => Part::Approval,
        "ephemeralcontainers" => Part::EphemeralContainers,
        "resize" => Part::Resize,
        "scale" => return scale::serve(call, &parts.method, read_body(body).await?).await,
        "binding" => return binding::bind(call, &call.info.name, &read_body(body).await?).await,
        "eviction" => return eviction::evict(call, &read_body(body).await?).await,
        "token" => return token::request(call, &read_body(body).await?).await,
        "log" => return log::serve(call, parts).await,
        other => return Err(Failure::not_implemented(&format!("the subresource {other}"))),
    };
    let is_table = call.accept.form == crate::negotiate::Form::Table;
    if is_table && NO_TABLES.contains(&(call.kind.plural, row.name)) {
        return Err(Failure::not_acceptable(&negotiate::MEDIA_TYPES));
    }
    part_of(call, part, parts, body).await
}

/// Leads a client to a pod, a service or a node.
async fn connect(call: &Call, subresource: &str, (parts, body): (Parts, Body)) -> Result<Response<Body>> {
    let is_proxy = subresource == "proxy";
    let is_known = match parts.method {
        Method::GET | Method::POST => true,
        Method::PUT | Method::DELETE | Method::HEAD | Method::PATCH | Method::OPTIONS => is_proxy,
        _ => false,
    };
    if !is_known {
        return Err(Failure::method_not_allowed());
    }
    let options = admission::check_connect(call, asked::of_connection(call)?).await?;
    if is_proxy {
        proxy::serve(call, &options, (parts, body)).await
    } else {
        stream::serve(call, &options, (parts, body)).await
    }
}

/// Requests on parts of custom resources: any verb but these is told by its name.
pub(super) async fn of_custom(call: &Call, parts: Parts, body: Body) -> Result<Response<Body>> {
    // What a definition could give its objects is missing from the object, not from the server.
    let row = call.kind.subresource(&call.info.subresource).ok_or_else(|| call.not_found())?;
    if !matches!(call.info.verb, "get" | "update" | "patch") {
        return Err(Failure::verb_not_supported(call.subject(), call.info.verb));
    }
    match row.name {
        "scale" => scale::serve(call, &parts.method, read_body(body).await?).await,
        _ => part_of(call, Part::Status, parts, body).await,
    }
}

async fn part_of(call: &Call, part: Part, parts: Parts, body: Body) -> Result<Response<Body>> {
    match parts.method {
        Method::GET | Method::HEAD => read::get(call).await,
        Method::PUT => {
            super::options::check(call, "UpdateOptions")?;
            let value = decode_object(call, &read_body(body).await?)?;
            let changed = replace(call, part, value).await?;
            read::respond(call, StatusCode::OK, changed.object).await
        }
        Method::PATCH => {
            let changed = patch::apply(call, part, &read_body(body).await?).await?;
            read::respond(call, StatusCode::OK, changed.object).await
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

/// POST to a kind that is never stored.
pub(super) async fn create_review(call: &Call, body: &[u8]) -> Result<Response<Body>> {
    match call.kind.plural {
        "bindings" => {
            super::options::check(call, "CreateOptions")?;
            let value = decode_as(call, body, BINDING)?;
            let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            binding::bind(call, &name, body).await
        }
        _ => review::create(call, body).await,
    }
}

const BINDING: &str = "k8s.io.api.core.v1.Binding";

/// Reads a body as a message of the schema.
fn decode_as(call: &Call, body: &[u8], name: &str) -> Result<Value> {
    let schema = codec::schema(name);
    let type_name = call.kind.type_of(&call.info.subresource);
    let encoding = negotiate::body_encoding(&call.headers)?;
    let unrecognized = |why: &str| write::unrecognized(type_name.kind, body, why);
    let parsed = codec::parse_body(body, encoding, schema).map_err(|failure| match encoding {
        negotiate::Encoding::Protobuf => failure,
        _ => unrecognized(failure.message()),
    });
    let mut parsed = parsed?;
    if parsed.value.is_null() {
        parsed.value = Value::Object(Default::default());
    }
    if let Some(why) = write::type_complaint(&parsed.value) {
        return Err(unrecognized(&why));
    }
    check_names(call, &parsed.value)?;
    let namespace = tree::text(&parsed.value, "/metadata/namespace");
    if call.info.verb == "create" && !namespace.is_empty() && namespace != call.namespace() {
        return Err(Failure::bad_request(write::OTHER_NAMESPACE));
    }
    if let Some(why) = codec::mistyped(schema, &parsed.value) {
        let api::TypeName { version, kind, .. } = type_name;
        return Err(Failure::bad_request(format!(
            "{kind} in version {} cannot be handled as a {kind}: {why}",
            quoted(version)
        )));
    }
    check_fields(call, &parsed, schema)?;
    crate::audited::message(call, schema, &parsed.value);
    Ok(parsed.value)
}

/// The type names that a body gives, if any, are those of the subresource: its kind, in a version of its group that
/// is as stable.
fn check_names(call: &Call, value: &Value) -> Result<()> {
    let api::TypeName { group, version, kind } = call.kind.type_of(&call.info.subresource);
    let given = |key: &str| value[key].as_str().unwrap_or_default();
    let (given_version, given_kind) = (given("apiVersion"), given("kind"));
    let (given_group, short) = given_version.rsplit_once('/').unwrap_or(("", given_version));
    let is_version = given_version.is_empty() || (given_group == group && short.starts_with(version));
    if is_version && (given_kind.is_empty() || given_kind == kind) {
        return Ok(());
    }
    let given_kind = if given_kind.is_empty() { kind } else { given_kind };
    Err(Failure::bad_request(format!(
        "{given_kind} in version {} cannot be handled as a {kind}: no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:111\"",
        quoted(short),
        quoted(given_kind),
        quoted(given_version)
    )))
}

/// The answer of subresources that only do something.
fn done(call: &Call) -> Result<Response<Body>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    answer::message(StatusCode::CREATED, answer::STATUS, &status, call.accept)
}
