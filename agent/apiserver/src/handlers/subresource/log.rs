//! Logs of containers: read from the kubelet and handed on, so that failures become `Status`es and WebSockets work.

use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use serde_json::Value;
use stdx::quoted;

use super::kubelet::{self, unreached};
use crate::answer::{self, Body, BodyError};
use crate::app::Call;
use crate::backend::Target;
use crate::handlers::read_body;
use crate::status::{Failure, FieldError, Result, Subject};
use crate::{asked, codec, tree, websocket};

const OPTIONS: &str = "k8s.io.api.core.v1.PodLogOptions";
const SUBJECT: Subject<'static> = Subject { group: "", resource: "pods/log" };
/// What kubelets are asked for, as they and the options call it.
const ASKED: [&str; 7] = ["follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "tailLines", "timestamps"];

pub(super) async fn serve(call: &Call, parts: Parts) -> Result<Response<Body>> {
    let options = asked::options(codec::schema(OPTIONS), &call.query)?;
    let errors = faults(&options);
    if !errors.is_empty() {
        let subject = Subject { group: "", resource: "PodLogOptions" };
        return Err(Failure::invalid(subject, &call.info.name, &errors));
    }
    let pod = kubelet::pod(call).await?;
    let container = kubelet::container(call, tree::text(&options, "/container"), &pod)?;
    let path = format!("/containerLogs/{}/{}/{container}", call.namespace(), call.info.name);
    let uri = kubelet::uri(&path, query(&options))?;
    let node = tree::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        let mut response = Response::new(answer::full(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let is_verified = options["insecureSkipTLSVerifyBackend"] != true;
    let target = kubelet::of_node(call, node)?.target(&call.app, is_verified)?;
    pass_on(call, &target, uri, parts).await
}

/// The options as the kubelet is told them: no flags that are off.
fn query(options: &Value) -> Vec<(&'static str, String)> {
    let spelled = |key: &'static str| match &options[key] {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => Some((key, text.clone())),
        other => Some((key, other.to_string())),
    };
    ASKED.into_iter().filter_map(spelled).collect()
}

fn faults(options: &Value) -> Vec<FieldError> {
    let number = |key: &str| options[key].as_i64();
    let mut errors = Vec::new();
    if let Some(lines) = number("tailLines").filter(|lines| *lines < 0) {
        errors.push(FieldError::invalid("tailLines", lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = number("limitBytes").filter(|bytes| *bytes < 1) {
        errors.push(FieldError::invalid("limitBytes", bytes, "must be greater than 0"));
    }
    match number("sinceSeconds") {
        Some(_) if !options["sinceTime"].is_null() => {
            // The field is that of the whole, which has no name.
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("[]", why));
        }
        Some(seconds) if seconds < 1 => {
            errors.push(FieldError::invalid("sinceSeconds", seconds, "must be greater than 0"));
        }
        _ => {}
    }
    // One of both outputs is a matter of a gate that is off.
    if !options["stream"].is_null() {
        errors.push(FieldError::forbidden("stream", "may not be specified"));
    }
    errors
}

async fn pass_on(call: &Call, target: &Target, uri: Uri, mut parts: Parts) -> Result<Response<Body>> {
    let mut request = Request::new(answer::full(""));
    let url = format!("https://{}{uri}", target.authority());
    *request.uri_mut() = uri;
    answer::set(request.headers_mut(), HOST, &target.authority());
    let response = target.send(request).await.map_err(|e| unreached(format!("Get {}: {e}", quoted(&url))))?;
    let status = response.status();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) && !location.is_empty() {
        return Err(unreached(format!("Get {}: redirects forbidden", quoted(location))));
    }
    let body = response.into_body().map_err(BodyError::new).boxed_unsync();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&read_body(body).await?).into_owned();
        return Err(failure(&call.info.name, status, &text));
    }
    if websocket::is_asked_for(&parts.headers) {
        return websocket::stream(&mut parts, body);
    }
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// What a kubelet's failure is to the client: of most codes it is known what they mean.
fn failure(name: &str, status: StatusCode, text: &str) -> Failure {
    let (reason, message) = match status.as_u16() {
        500 => return Failure::internal(text),
        400 => return Failure::bad_request(text),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials"),
        403 => ("Forbidden", text),
        404 => ("NotFound", "the server could not find the requested resource"),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
        406 if text.is_empty() => {
            ("NotAcceptable", "the server was unable to respond with a content type that the client supports")
        }
        406 => ("NotAcceptable", text),
        409 => ("Conflict", "the server reported a conflict"),
        415 => ("UnsupportedMediaType", text),
        422 => ("Invalid", "the server rejected our request due to an error in our request"),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        501.. => {
            let text = quoted(text);
            let message = format!("an error on the server ({text}) has prevented the request from succeeding");
            return told(name, status, "InternalError", &message);
        }
        code => {
            let message =
                format!("the server responded with the status code {code} but did not return more information");
            return told(name, status, "", &message);
        }
    };
    told(name, status, reason, message)
}

fn told(name: &str, status: StatusCode, reason: &'static str, message: &str) -> Failure {
    Failure::new(status, reason, format!("{message} ( {SUBJECT} {name})")).with_subject(SUBJECT, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    fn options(query: &str) -> Value {
        asked::options(codec::schema(OPTIONS), &Query::parse(query)).unwrap()
    }

    #[test]
    fn options_of_logs_are_judged() {
        let texts = |query: &str| -> Vec<String> { faults(&options(query)).iter().map(ToString::to_string).collect() };
        assert!(texts("tailLines=0&limitBytes=1&sinceSeconds=1&follow=true").is_empty());
        assert_eq!(
            texts("tailLines=-1&sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z&stream=All"),
            [
                "tailLines: Invalid value: -1: must be greater than or equal to 0",
                "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                "stream: Forbidden: may not be specified",
            ]
        );
    }

    #[test]
    fn kubelets_are_told_what_they_know() {
        let asked = |text: &str| kubelet::uri("/log", query(&options(text))).unwrap().to_string();
        let text = "tailLines=2&container=c&foo=bar&previous=yes&follow=0&sinceTime=2024-01-01T01:00:00%2B01:00";
        assert_eq!(asked(text), "/log?previous=true&sinceTime=2024-01-01T00%3A00%3A00Z&tailLines=2");
        assert_eq!(asked("insecureSkipTLSVerifyBackend=true&pretty=true"), "/log");
    }

    #[test]
    fn failures_of_kubelets_have_reasons() {
        let told = |code: u16| {
            let failure = failure("p", StatusCode::from_u16(code).unwrap(), "why").to_value();
            (failure["reason"].as_str().unwrap_or_default().to_owned(), failure["message"].as_str().unwrap().to_owned())
        };
        assert_eq!(told(403), ("Forbidden".to_owned(), "why ( pods/log p)".to_owned()));
        assert_eq!(told(502).0, "InternalError");
        assert!(told(502).1.contains("(\"why\")"));
        assert_eq!(told(410).0, "");
        assert_eq!(told(429).0, "TooManyRequests");
        assert!(failure("p", StatusCode::NOT_FOUND, "why").to_value()["details"]["causes"].is_null());
    }
}
