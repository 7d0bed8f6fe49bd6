//! What a webhook said, read as strictly as upstream reads it, in its words; pure.

use base64::Engine as _;
use http::StatusCode;
use serde_json::Value;

use super::operations::Operations;
use crate::tree;

/// The versions in which questions are asked; the first of them that a hook knows is taken.
pub(super) const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What an answer has to fit to.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The version of the question.
    pub(super) version: &'static str,
    /// The uid of the question.
    pub(super) uid: &'a str,
    /// Whether the hook may change the object.
    pub(super) mutating: bool,
}

/// An answer that fits its question.
pub(super) struct Answer {
    pub(super) allowed: bool,
    pub(super) status: Value,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) patch: Option<Operations>,
}

impl Answer {
    pub(super) fn read(review: &Value, expected: Expected<'_>) -> Result<Self, String> {
        let (group_version, kind) = (tree::text(review, "/apiVersion"), tree::text(review, "/kind"));
        let wanted = format!("admission.k8s.io/{}", expected.version);
        // What does not say what it is may be the right thing.
        if (group_version, kind) != ("", "") && (group_version, kind) != (&wanted, "AdmissionReview") {
            return Err(format!("failed to call webhook: {}", unknown(group_version, kind, expected.version)));
        }
        let response = &review["response"];
        if let Some(other) = response.get("allowed").filter(|allowed| !allowed.is_boolean() && !allowed.is_null()) {
            return Err(format!(
                "failed to call webhook: json: cannot unmarshal {} into Go struct field \
                 AdmissionResponse.response.allowed of type bool",
                crate::codec::json_type(other)
            ));
        }
        check(response, (group_version, kind), expected)
            .map_err(|why| format!("received invalid webhook response: {why}"))?;
        let texts = tree::list(response, "/warnings").iter().filter_map(|w| w.as_str().map(str::to_owned));
        let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
        let annotations = annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let allowed = response["allowed"] == true;
        Ok(Self {
            allowed,
            status: response["status"].clone(),
            warnings: texts.collect(),
            annotations: annotations.collect(),
            // Whoever refuses does not change anything.
            patch: if allowed { patch(response)? } else { None },
        })
    }
}

fn unknown(group_version: &str, kind: &str, version: &str) -> String {
    match group_version.strip_prefix("admission.k8s.io/") {
        Some(other) if kind == "AdmissionReview" && VERSIONS.contains(&other) => {
            format!("converting ({other}.AdmissionReview) to ({version}.AdmissionReview): unknown conversion")
        }
        _ => format!(
            "no kind {kind:?} is registered for version {group_version:?} in scheme \"pkg/runtime/scheme.go:111\""
        ),
    }
}

/// What of the answer must not be as it is. Of the older version less is asked.
fn check(response: &Value, (group_version, kind): (&str, &str), expected: Expected<'_>) -> Result<(), String> {
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    if expected.version != "v1" {
        return Ok(());
    }
    let uid = tree::text(response, "/uid");
    if uid != expected.uid {
        return Err(format!("expected response.uid={:?}, got {uid:?}", expected.uid));
    }
    if kind.is_empty() {
        let given = if group_version.is_empty() { "/" } else { group_version };
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {given}, Kind={kind}"
        ));
    }
    let has_patch = !tree::text(response, "/patch").is_empty();
    let patch_type = response["patchType"].as_str();
    match (expected.mutating, has_patch, patch_type) {
        (true, true, None) => Err("webhook returned response.patch but not response.patchType".to_owned()),
        (true, false, Some(_)) => Err("webhook returned response.patchType but not response.patch".to_owned()),
        (true, true, Some("")) => Err("webhook returned invalid response.patchType of \"\"".to_owned()),
        (false, true, _) => Err("validating webhook may not return response.patch".to_owned()),
        (false, false, Some(_)) => Err("validating webhook may not return response.patchType".to_owned()),
        _ => Ok(()),
    }
}

fn patch(response: &Value) -> Result<Option<Operations>, String> {
    let text = tree::text(response, "/patch");
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|error| format!("failed to call webhook: {error}"))?;
    let read = Operations::read(&bytes);
    let read = read.map_err(|why| format!("received undecodable patch in webhook response: {why}"))?;
    match response["patchType"].as_str() {
        Some("JSONPatch") | None => Ok(Some(read).filter(|operations| !operations.is_empty())),
        Some(_) if read.is_empty() => Ok(None),
        Some(other) => Err(format!("unsupported patch type {other:?}")),
    }
}

/// The document of an HTTP answer, or what to say of it.
pub(crate) fn document(status: StatusCode, media_type: &str, body: &[u8]) -> Result<Value, String> {
    let read = serde_json::from_slice::<Value>(body);
    if !(200..=206).contains(&status.as_u16()) {
        let text = if media_type.starts_with("text/") { String::from_utf8_lossy(body) } else { "unknown".into() };
        let told = read.ok().filter(|value| value["kind"] == "Status" && value["status"] != "Success");
        return Err(match told {
            Some(told) => tree::text(&told, "/message").to_owned(),
            None => by_code(status.as_u16(), text.trim()),
        });
    }
    if body.is_empty() {
        let code = status.as_u16();
        return Err(format!("0-length response with status code: {code} and content type: {media_type}"));
    }
    read.map_err(|_| format!("couldn't get version/kind; json parse error: {}", crate::codec::syntax_complaint(body)))
}

fn by_code(code: u16, text: &str) -> String {
    match code {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 | 415 => text,
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 if text.is_empty() || text == "unknown" => {
            "the server was unable to respond with a content type that the client supports"
        }
        406 => text,
        409 => "the server reported a conflict",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        500.. => {
            return format!("an error on the server ({text:?}) has prevented the request from succeeding");
        }
        _ => {
            return format!("the server responded with the status code {code} but did not return more information");
        }
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(mutating: bool, review: Value) -> String {
        let expected = Expected { version: "v1", uid: "u", mutating };
        Answer::read(&review, expected).err().unwrap_or_default()
    }

    fn review(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_told() {
        let invalid = "received invalid webhook response: ";
        for (response, why) in [
            (Value::Null, "webhook response was absent"),
            (json!({"uid": "v"}), "expected response.uid=\"u\", got \"v\""),
            (json!({"uid": "u", "patch": "W10="}), "webhook returned response.patch but not response.patchType"),
            (
                json!({"uid": "u", "patchType": "JSONPatch"}),
                "webhook returned response.patchType but not response.patch",
            ),
        ] {
            assert_eq!(told(true, review(response)), format!("{invalid}{why}"));
        }
        let changes = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"});
        assert_eq!(told(true, review(changes.clone())), "");
        assert_eq!(told(false, review(changes)), format!("{invalid}validating webhook may not return response.patch"));
        let why = "json: cannot unmarshal string into Go struct field AdmissionResponse.response.allowed of type bool";
        assert_eq!(told(true, review(json!({"uid": "u", "allowed": "yes"}))), format!("failed to call webhook: {why}"));
        let mut other = review(json!({"uid": "u"}));
        other["apiVersion"] = "admission.k8s.io/v1beta1".into();
        let why = "converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion";
        assert_eq!(told(true, other), format!("failed to call webhook: {why}"));
    }

    #[test]
    fn a_code_is_told_as_clients_tell_it() {
        let told = |code, media_type, body: &str| {
            document(StatusCode::from_u16(code).unwrap(), media_type, body.as_bytes()).unwrap_err()
        };
        assert_eq!(told(404, "application/json", "x"), "the server could not find the requested resource");
        let failed = |by: &str| format!("an error on the server ({by:?}) has prevented the request from succeeding");
        assert_eq!(told(500, "application/json", "boom"), failed("unknown"));
        assert_eq!(told(500, "text/plain", " boom\n"), failed("boom"));
        assert_eq!(told(400, "application/json", r#"{"kind":"Status","status":"Failure","message":"m"}"#), "m");
        assert!(told(204, "", "").starts_with("0-length response with status code: 204"));
    }
}
