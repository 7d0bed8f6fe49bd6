//! Questions to other servers in the form of a review: who is this, may they, may this image run.
//!
//! How an answer is judged is the same for all of them: it has to be a review of the kind and version that was asked
//! with, and what it says has to have the types of that kind.

use client::{Hook, HookError};
use serde_json::Value;
use stdx::Backoff;

use crate::admission::document;
use crate::codec;
use crate::tree;

/// A kind of review.
pub struct Asked<'a> {
    /// Its group and version.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'static str,
    /// What its answers have to fit.
    pub schema: &'static str,
}

/// Puts a question, again after a pause as long as the failure looks like one that passes, and reads the answer.
///
/// # Errors
/// When there is no answer, or none to the question: a text for users.
pub async fn ask(hook: &Hook, asked: &Asked<'_>, review: &Value, backoff: &Backoff) -> Result<Value, String> {
    let answer = hook.post_patiently(review.to_string().into(), backoff).await.map_err(|error| told(&error))?;
    read(asked, &answer)
}

/// What clients are told of a server that did not answer.
fn told(error: &HookError) -> String {
    match error {
        HookError::Refused { code, media_type, text } => match document(*code, media_type, text.as_bytes()) {
            Err(why) => why,
            Ok(_) => error.to_string(),
        },
        other => stdx::chain(other).to_string(),
    }
}

fn read(asked: &Asked<'_>, answer: &[u8]) -> Result<Value, String> {
    let answer = document(http::StatusCode::OK, "application/json", answer)?;
    let name = (tree::text(&answer, "/apiVersion"), tree::text(&answer, "/kind"));
    // What does not say what it is may be the right thing.
    if name != ("", "") && name != (asked.api_version, asked.kind) {
        return Err(unknown(asked, name));
    }
    codec::mistyped(codec::schema(asked.schema), &answer).map_or(Ok(answer), Err)
}

fn unknown(asked: &Asked<'_>, (api_version, kind): (&str, &str)) -> String {
    let split = |text: &'_ str| text.split_once('/').map(|(group, version)| (group.to_owned(), version.to_owned()));
    match (split(asked.api_version), split(api_version)) {
        (Some((group, wanted)), Some((other_group, other)))
            if group == other_group && kind == asked.kind && matches!(other.as_str(), "v1" | "v1beta1") =>
        {
            format!("converting ({other}.{kind}) to ({wanted}.{kind}): unknown conversion")
        }
        (Some((_, wanted)), None) if (api_version, kind) == ("v1", "Status") => {
            format!("converting (v1.Status) to ({wanted}.{}): unknown conversion", asked.kind)
        }
        _ => {
            format!(
                "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/runtime/scheme.go:111\""
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_of_the_kind_and_version_that_was_asked_with() {
        let asked = Asked {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            schema: "k8s.io.api.authentication.v1.TokenReview",
        };
        let told = |answer: Value| read(&asked, answer.to_string().as_bytes()).err().unwrap_or_default();
        let status = json!({"authenticated": true});
        let named = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "status": status});
        assert_eq!(told(named("authentication.k8s.io/v1", "TokenReview")), "");
        assert_eq!(told(json!({ "status": status })), "");
        for (version, kind, why) in [
            (
                "authentication.k8s.io/v1beta1",
                "TokenReview",
                "converting (v1beta1.TokenReview) to (v1.TokenReview): unknown conversion",
            ),
            (
                "authentication.k8s.io/v9",
                "TokenReview",
                "no kind \"TokenReview\" is registered for version \"authentication.k8s.io/v9\" in scheme \"pkg/runtime/scheme.go:111\"",
            ),
            ("v1", "Status", "converting (v1.Status) to (v1.TokenReview): unknown conversion"),
        ] {
            assert_eq!(told(named(version, kind)), why);
        }
        let groups = told(json!({"status": {"user": {"groups": "g"}}}));
        assert_eq!(
            groups,
            "json: cannot unmarshal string into Go struct field UserInfo.status.user.groups of type []string"
        );
        assert!(read(&asked, b"").unwrap_err().starts_with("0-length response"));
        assert!(read(&asked, b"<html>").unwrap_err().starts_with("couldn't get version/kind; json parse error"));
    }

    #[test]
    fn a_refusal_is_told_as_clients_tell_it() {
        let refused = |code: u16, text: &str| {
            let code = http::StatusCode::from_u16(code).unwrap();
            told(&HookError::Refused { code, media_type: "application/json".to_owned(), text: text.to_owned() })
        };
        assert_eq!(refused(404, "nope"), "the server could not find the requested resource");
        assert_eq!(refused(403, r#"{"kind":"Status","status":"Failure","message":"no"}"#), "no");
    }
}
