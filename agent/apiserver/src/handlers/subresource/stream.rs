//! Streams that a kubelet serves: commands, their attachment, and forwarded ports.
//!
//! ```text
//!  SPDY, WebSocket up to v4 ─────────────────────────────▶ passed on untouched
//!  WebSocket v5              ─▶ `exec`: SPDY of our own ─▶
//!  SPDY in a WebSocket       ─▶ unpacked                ─▶
//! ```

use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::tunnel::{self, Unanswered};
use super::{exec, kubelet};
use crate::answer::{self, Body, PassedOn};
use crate::app::Call;
use crate::backend::{DialError, Target};
use crate::request::RequestInfo;
use crate::status::{Failure, Result};
use crate::{handover, tree, websocket};

/// A protocol of WebSockets that is SPDY, and what is spoken over it, is named after this.
const TUNNELED: &str = "SPDY/3.1+";
/// How the protocols are named that may be tunneled.
const OURS: &str = ".k8s.io";
const SPDY: &str = "SPDY/3.1";
/// The protocols that are spoken over SPDY.
const SPOKEN: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Kubelets with it take WebSockets of any version.
const TAKES_WEBSOCKETS: &str = "ExtendWebSocketsToKubelet";

/// `options` is what the client asks for, or what its admission made of that.
pub(super) async fn serve(call: &Call, options: &Value, (mut parts, body): (Parts, Body)) -> Result<Response<Body>> {
    if call.info.verb == "get" {
        // Running a command is a creation whatever method a WebSocket begins with.
        let info = RequestInfo { verb: "create", ..RequestInfo::clone(&call.info) };
        call.app.access.authorize(&call.user, &info, &call.query, &audit::Record::default()).await?;
    }
    let pod = kubelet::pod(call).await?;
    let uri = uri(call, options, &pod)?;
    let node = tree::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(Failure::bad_request(format!("pod {} does not have a host assigned", call.info.name)));
    }
    let kubelet = kubelet::of_node(call, node)?;
    let takes_websockets = kubelet.has(TAKES_WEBSOCKETS);
    let target = kubelet.target(&call.app, true)?;
    tunnel::hide_credentials(&mut parts.headers);
    let is_forward = call.info.subresource == "portforward";
    if websocket::is_asked_for(&parts.headers) && !takes_websockets {
        let offered = websocket::offered(&parts.headers);
        if !is_forward && offered.iter().any(|protocol| protocol == exec::PROTOCOL) {
            return exec::translate(target, uri, &mut parts, exec::Wanted::of(options));
        }
        if is_forward && offered.iter().any(|protocol| spoken(protocol).is_some()) {
            return tunneled(&target, uri, parts, &offered).await;
        }
    }
    if !tunnel::is_upgrade(&parts.headers) {
        return Err(Failure::bad_request("Upgrade request required"));
    }
    tunnel::name_client(&mut parts);
    tunnel::forward(&target, uri, parts, body).await.map_err(unanswered)
}

/// What a failure to upgrade is to the client.
pub(super) fn unanswered(error: Unanswered) -> Failure {
    kubelet::unreached(match error {
        Unanswered::Dial(DialError::Exchange(text)) => text,
        Unanswered::Dial(error) => format!("error dialing backend: {error}"),
        Unanswered::NotUpgraded(_) => error.to_string(),
    })
}

/// What the kubelet is asked for, as it calls it.
fn uri(call: &Call, options: &Value, pod: &Value) -> Result<Uri> {
    let (namespace, name) = (call.namespace(), &call.info.name);
    if call.info.subresource == "portforward" {
        let ports: Vec<String> = tree::list(options, "/ports").iter().map(ToString::to_string).collect();
        let query = if ports.is_empty() { Vec::new() } else { vec![("port", ports.join(","))] };
        return kubelet::uri(&format!("/portForward/{namespace}/{name}"), query);
    }
    let container = kubelet::container(call, tree::text(options, "/container"), pod)?;
    kubelet::uri(&format!("/{}/{namespace}/{name}/{container}", call.info.subresource), command(options))
}

fn command(options: &Value) -> Vec<(&'static str, String)> {
    let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let streams =
        streams.into_iter().filter(|(own, _)| options[*own] == true).map(|(_, theirs)| (theirs, "1".to_owned()));
    let words = tree::list(options, "/command").iter().filter_map(Value::as_str);
    streams.chain(words.map(|word| ("command", word.to_owned()))).collect()
}

/// What is spoken over SPDY in a WebSocket with this protocol.
fn spoken(protocol: &str) -> Option<&str> {
    protocol.strip_prefix(TUNNELED).filter(|spoken| spoken.ends_with(OURS))
}

/// Opens SPDY to the kubelet and carries its bytes over the client's WebSocket.
async fn tunneled(target: &Target, uri: Uri, mut parts: Parts, offered: &[String]) -> Result<Response<Body>> {
    let (mut asked, ()) = http::Request::new(()).into_parts();
    asked.method = Method::POST;
    asked.headers = parts.headers.clone();
    websocket::strip_handshake(&mut asked.headers);
    asked.headers.remove(CONTENT_TYPE);
    asked.headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    asked.headers.remove(&SPOKEN);
    for protocol in offered.iter().filter_map(|protocol| spoken(protocol)) {
        asked.headers.extend(HeaderValue::from_str(protocol).ok().map(|value| (SPOKEN, value)));
    }
    asked.extensions = parts.extensions.clone();
    asked.uri = parts.uri.clone();
    tunnel::name_client(&mut asked);
    let mut answered = tunnel::ask(target, uri, asked).await.map_err(unanswered)?;
    if answered.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(tunnel::whole(answered));
    }
    if !says_spdy(&answered) {
        let text = "unable to upgrade: missing upgrade headers in response\n";
        return Ok(answer::text(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    let chosen = answered.headers().get(&SPOKEN).and_then(|value| value.to_str().ok()).map(str::trim);
    let chosen = chosen.filter(|chosen| !chosen.is_empty()).map(|chosen| format!("{TUNNELED}{chosen}"));
    let chosen = chosen.filter(|chosen| offered.contains(chosen)).unwrap_or_default();
    if let Some(refusal) = websocket::not_agreed(&parts) {
        return Ok(refusal);
    }
    let far = hyper::upgrade::on(&mut answered);
    let (mut answer, near) = websocket::accept(&mut parts, &chosen)?.split();
    answer.extensions_mut().insert(PassedOn::Whole);
    handover::serve(&mut answer, async move {
        match far.await {
            Ok(far) => websocket::tunnel(near, TokioIo::new(far)).await,
            Err(error) => tracing::debug!(%error, "a kubelet did not upgrade"),
        }
    });
    Ok(answer)
}

/// Whether an answer agrees to go on in SPDY.
pub(super) fn says_spdy<T>(answer: &Response<T>) -> bool {
    let has = |name: &HeaderName, word: &str| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.to_ascii_lowercase().contains(&word.to_ascii_lowercase())
    };
    has(&CONNECTION, "upgrade") && has(&UPGRADE, SPDY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kubelets_are_told_what_a_client_wants() {
        let asked = |options: Value| kubelet::uri("/exec", command(&options)).unwrap().to_string();
        let options = json!({"command": ["a", "b c&"], "stdin": true, "stdout": false, "stderr": true, "tty": true});
        assert_eq!(asked(options), "/exec?command=a&command=b+c%26&error=1&input=1&tty=1");
        assert_eq!(asked(json!({})), "/exec");
    }

    #[test]
    fn failures_to_upgrade_name_no_reason() {
        let told = |error| unanswered(error).to_value();
        let code = told(Unanswered::NotUpgraded(StatusCode::OK));
        assert_eq!(
            (&code["message"], &code["code"]),
            (&json!("invalid upgrade response: status code 200"), &json!(500))
        );
        let dial = DialError::Connect("192.0.2.1:1".to_owned(), "connect: connection refused".to_owned());
        let dial = told(Unanswered::Dial(dial));
        assert_eq!(dial["message"], "error dialing backend: dial tcp 192.0.2.1:1: connect: connection refused");
        assert!(dial["reason"].is_null());
    }
}
