//! Frames of an interface, for an administrator.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use machine_api::CaptureRequest;

use super::{Answer, BODY, Known, Server, streamed, text, whole};
use crate::capture::{Capture, Refused};

/// What is asked for is short.
const REQUEST_BYTES: usize = 8 << 10;

/// Begins a capture and streams it.
pub(super) async fn stream(server: &Server, caller: &Known, request: Request<Incoming>) -> Answer {
    let asked = match tokio::time::timeout(BODY, Limited::new(request.into_body(), REQUEST_BYTES).collect()).await {
        Ok(Ok(body)) => serde_json::from_slice::<CaptureRequest>(&body.to_bytes()).map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("it did not come".to_owned()),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(reason) => {
            return whole(text(StatusCode::BAD_REQUEST, format!("what to capture was not read: {reason}\n")));
        }
    };
    let Ok(turn) = server.captures.clone().try_acquire_owned() else {
        let reason = "as many capture already as this machine serves at once\n".to_owned();
        return whole(text(StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    tracing::info!(caller = caller.name, interface = asked.interface, filter = asked.filter, "machine API: capture");
    match Capture::open(asked, caller.connection) {
        Ok(capture) => streamed(capture.start(turn, server.shutdown.clone()), (), "application/x-pcapng"),
        Err(refused) => {
            let (status, reason) = match refused {
                Refused::Absent(reason) => (StatusCode::NOT_FOUND, reason),
                Refused::Bad(reason) => (StatusCode::BAD_REQUEST, reason),
                Refused::Failed(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason),
            };
            whole(text(status, format!("{reason}\n")))
        }
    }
}
