//! GET of one object.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::{self, Body};
use crate::app::Call;
use crate::cache::Object;
use crate::codec;
use crate::negotiate::{Encoding, Form};
use crate::status::{Failure, Result};
use crate::table::{self, Head, Include};

pub(super) async fn get(call: &Call) -> Result<Response<Body>> {
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
    text.parse::<i64>().ok().filter(|v| *v >= 0).ok_or_else(|| {
        Failure::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
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
        Form::Metadata => answer::message(code, METADATA, &metadata_of(call.kind, renderer.value(object)?), accept),
        Form::Table => {
            let include = Include::parse(call.query.get("includeObject"))?;
            let metadata = format!(r#"{{"resourceVersion":"{}"}}"#, object.revision);
            let head = Head { metadata: &metadata, columns: true };
            let text = table::of_objects(&renderer, include, [object], head)?;
            Ok(answer::compress(&call.headers, code, accept.encoding.media_type(), table::bytes(text, accept)?))
        }
    }
}

/// Schema of the metadata form.
pub(in crate::handlers) const METADATA: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";

/// The metadata form of an object.
pub(super) fn metadata_of(kind: &api::Kind, mut object: Value) -> Value {
    crate::strategy::make_shown_meta(kind, &mut object);
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"].take()})
}
