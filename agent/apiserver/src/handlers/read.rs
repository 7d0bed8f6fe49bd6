//! GET of one object.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::write::go_package;
use crate::answer::{self, Body};
use crate::app::Call;
use crate::cache::Object;
use crate::codec;
use crate::negotiate::{Encoding, Form, MEDIA_TYPES, Meta};
use crate::request::number_complaint;
use crate::status::{Failure, Result};
use crate::table::{self, Head, Style};
use crate::tree;

pub(super) async fn get(call: &Call) -> Result<Response<Body>> {
    if call.query.has("export") && call.query.flag("export") {
        let text = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(Failure::bad_request(text));
    }
    let object = current(call).await?;
    respond_shared(call, StatusCode::OK, object).await
}

/// The object of the path, at least as new as the query asks for.
pub(super) async fn current(call: &Call) -> Result<Arc<Object>> {
    let storage = call.storage()?;
    call.check_name()?;
    wait_for_version(call).await?;
    storage.get(call.namespace(), &call.info.name).ok_or_else(|| call.not_found())
}

async fn wait_for_version(call: &Call) -> Result<()> {
    match call.query.get("resourceVersion") {
        "" => call.app.cache.fresh().await?,
        "0" => 0,
        text => {
            // Upstream tells a bad version of one object without a reason.
            let version =
                parse_version(text).map_err(|f| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", f.message()))?;
            call.app.cache.wait_for(version).await?
        }
    };
    Ok(())
}

/// A resource version from a query.
pub(super) fn parse_version(text: &str) -> Result<i64> {
    let bad = |why: &str| {
        let why = format!("strconv.ParseUint: parsing {text:?}: {why}");
        Failure::bad_request(format!("resourceVersion: Invalid value: {text:?}: {why}"))
    };
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("invalid syntax"));
    }
    let version = text.parse::<u64>().map_err(|e| bad(number_complaint(e.kind())))?;
    Ok(i64::try_from(version).unwrap_or(i64::MAX))
}

/// The answer with one object in the version and form the client wants.
pub(super) async fn respond(call: &Call, code: StatusCode, object: Object) -> Result<Response<Body>> {
    respond_shared(call, code, Arc::new(object)).await
}

async fn respond_shared(call: &Call, code: StatusCode, object: Arc<Object>) -> Result<Response<Body>> {
    let mut shown = [object];
    crate::custom::converted(&call.app, call.storage()?, call.kind, &mut shown).await?;
    render(call, code, &shown[0])
}

fn render(call: &Call, code: StatusCode, object: &Object) -> Result<Response<Body>> {
    let renderer = call.renderer()?;
    let accept = call.accept;
    match accept.form {
        Form::Object => {
            let body = renderer.object(object, accept.encoding)?;
            let body = if accept.pretty && accept.encoding == Encoding::Json { codec::indent(&body) } else { body };
            Ok(answer::compress(&call.headers, code, accept.encoding.media_type(), body))
        }
        Form::Metadata => {
            answer::message(code, METADATA, &metadata_of(call.kind, accept.meta, renderer.value(object)?), accept)
        }
        Form::MetadataList if crate::custom::is_custom(call.kind) => {
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", "content is not a list"))
        }
        Form::MetadataList => Err(is_no_list(&go_name(call.kind))),
        Form::Table => {
            // What was only tried has no version.
            let metadata = match object.revision {
                0 => "{}".to_owned(),
                revision => format!(r#"{{"resourceVersion":"{revision}"}}"#),
            };
            let head = Head { metadata: &metadata, columns: true };
            let text = table::of_objects(&renderer, Style::of(call)?, [object], head)?;
            Ok(answer::compress(&call.headers, code, accept.encoding.media_type(), table::bytes(text, accept)?))
        }
    }
}

/// The answer with an object that is never stored, in the form the client wants.
pub(super) fn respond_value(call: &Call, code: StatusCode, schema: &str, value: &Value) -> Result<Response<Body>> {
    match call.accept.form {
        Form::Object => answer::message(code, schema, value, call.accept),
        Form::Metadata => answer::message(code, METADATA, &partial(&value["metadata"], call.accept.meta), call.accept),
        Form::Table => Err(Failure::not_acceptable(&MEDIA_TYPES)),
        Form::MetadataList => {
            let package = go_package(schema.strip_prefix("k8s.io.api.").unwrap_or(schema));
            Err(is_no_list(&format!("{package}.{}", tree::text(value, "/kind"))))
        }
    }
}

/// The refusal of the list form of what is one object.
pub(super) fn is_no_list(kind: &str) -> Failure {
    let why = "but the requested object is not a list";
    Failure::not_this_form(format!("you requested PartialObjectMetadataList, {why} (*{kind})"))
}

/// The refusal of an object's form of what is a list.
pub(super) fn is_list(kind: &str) -> Failure {
    Failure::not_this_form(format!("you requested PartialObjectMetadata, but the requested object is a list (*{kind})"))
}

/// A kind's type as error texts name it.
pub(super) fn go_name(kind: &api::Kind) -> String {
    if crate::custom::is_custom(kind) {
        return "unstructured.Unstructured".to_owned();
    }
    format!("{}.{}", go_package(kind.group), kind.kind)
}

/// Schema of the metadata form.
pub(in crate::handlers) const METADATA: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";

/// The metadata form of an object.
pub(super) fn metadata_of(kind: &api::Kind, version: Meta, mut object: Value) -> Value {
    crate::strategy::make_shown_meta(kind, &mut object);
    partial(&object["metadata"].take(), version)
}

/// The metadata form of what has this metadata.
pub(super) fn partial(metadata: &Value, version: Meta) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata})
}
