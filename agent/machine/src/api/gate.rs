//! The way to a call: whether there is one, whether its caller may make it, and all of what is asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use machine_api::machine_server::MachineServer;
use machine_api::{CALLS, Call, DESCRIPTION, Role};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::service::Session;
use super::{BODY, Caller, Known, MESSAGE_BYTES, Server};

/// Tells the service description to whoever may look at the machine.
const REFLECTION: Call = Call {
    name: "reflection",
    path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    needs: &[Role::Reader],
    before_manifest: false,
    is_upload: true,
};

/// Where whoever speaks no gRPC gets what [`METRICS_CALL`] tells.
const METRICS: &str = "/metrics";
const METRICS_CALL: &str = "/keelson.machine.v1.Machine/GetMetrics";

/// How long a caller waits, in gRPC's words.
const PATIENCE: &str = "grpc-timeout";
/// gRPC has no longer numbers.
const PATIENCE_DIGITS: usize = 8;

/// Answers a request, as long as its caller waits.
pub(super) async fn answer(caller: Caller, server: Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    let patience = request.headers().get(PATIENCE).and_then(|value| parse_patience(value.to_str().ok()?));
    let answered = dispatch(caller, server, request);
    match patience {
        None => answered.await,
        Some(patience) => tokio::time::timeout(patience, answered)
            .await
            .unwrap_or_else(|_elapsed| Status::deadline_exceeded("it takes longer than its caller waits").into_http()),
    }
}

/// A number and a unit, such as `500m` for half a second.
fn parse_patience(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = number.len() <= PATIENCE_DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

async fn dispatch(caller: Caller, server: Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() == METRICS {
        return metrics(&caller, &server, request.method()).await;
    }
    let call = match admit(&caller, request.uri().path()) {
        Ok(call) => call,
        Err(refused) => return refused.into_http(),
    };
    let request = if call.is_upload {
        request.map(Body::new)
    } else {
        let (head, body) = request.into_parts();
        match whole(body).await {
            Ok(body) => Request::from_parts(head, Body::new(Full::new(body))),
            Err(refused) => return refused.into_http(),
        }
    };
    let answered = if *call == REFLECTION {
        let reflection = tonic_reflection::server::Builder::configure();
        match reflection.register_encoded_file_descriptor_set(DESCRIPTION).build_v1() {
            Ok(reflection) => reflection.max_decoding_message_size(MESSAGE_BYTES).call(request).await,
            Err(error) => return Status::internal(stdx::chain(&error).to_string()).into_http(),
        }
    } else {
        let machine = MachineServer::new(Session { server, caller });
        machine.max_decoding_message_size(MESSAGE_BYTES).call(request).await
    };
    answered.unwrap_or_else(|never| match never {})
}

/// What monitoring reads, for a plain request.
async fn metrics(caller: &Caller, server: &Server, method: &Method) -> Response<Body> {
    let (status, text) = match admit(caller, METRICS_CALL) {
        Err(refused) => (StatusCode::FORBIDDEN, refused.message().to_owned() + "\n"),
        Ok(_) if method != Method::GET => (StatusCode::METHOD_NOT_ALLOWED, "GET alone is served here\n".to_owned()),
        Ok(_) => (StatusCode::OK, crate::metrics::page(server).await),
    };
    let mut answer = Response::new(Body::new(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(stdx::exposition::MEDIA_TYPE));
    answer
}

/// The call at a path, if this caller may make it.
fn admit(caller: &Caller, path: &str) -> Result<&'static Call, Status> {
    let known = Call::of_path(path).or_else(|| (path == REFLECTION.path).then_some(&REFLECTION));
    let Known { name, roles, .. } = match caller {
        Caller::Known(known) => known,
        Caller::Maintenance => {
            return known.filter(|call| call.before_manifest).ok_or_else(|| {
                let early: Vec<&str> = CALLS.iter().filter(|call| call.before_manifest).map(|call| call.name).collect();
                let reason = "this machine has no manifest and knows nobody yet: it serves";
                Status::failed_precondition(format!("{reason} {}", early.join(", ")))
            });
        }
    };
    if roles.is_empty() {
        return Err(Status::permission_denied("everything here needs a role; this certificate gives none"));
    }
    let call = known.ok_or_else(|| Status::unimplemented(format!("nothing is served at {path}")))?;
    if !call.is_for(roles) {
        let words = |roles: &[Role], by: &str| roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(by);
        let (needs, has) = (words(call.needs, " or "), words(roles, ", "));
        let reason = format!("{} needs the role {needs}; this certificate gives {has}", call.name);
        return Err(Status::permission_denied(reason));
    }
    if !call.needs.contains(&Role::Reader) {
        tracing::info!(caller = name, call = call.name, "machine API");
    }
    Ok(call)
}

/// All of what a caller says who says one thing.
async fn whole(body: Incoming) -> Result<Bytes, Status> {
    match tokio::time::timeout(BODY, Limited::new(body, MESSAGE_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Status::resource_exhausted(format!("the request was not read: {error}"))),
        Err(_elapsed) => Err(Status::deadline_exceeded("the request did not come")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn callers_wait_for_a_number_of_units() {
        let known =
            [("2H", 7200.0), ("3M", 180.0), ("99999999S", 99_999_999.0), ("500m", 0.5), ("7u", 7e-6), ("0n", 0.0)];
        for (text, seconds) in known {
            assert_eq!(parse_patience(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5é"] {
            assert_eq!(parse_patience(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,12}") {
            parse_patience(&text);
        }
    }
}
