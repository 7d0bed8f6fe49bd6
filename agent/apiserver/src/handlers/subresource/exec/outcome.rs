//! What came of a command, as the client is told it.

use serde_json::{Value, json};
use stdx::quoted;

use crate::status::Failure;
use crate::tree;

/// What the client is told of what came of a command: what the kubelet said of it, as it speaks.
pub(super) fn outcome(spoken: &str, said: &[u8]) -> Value {
    if said.is_empty() {
        return success();
    }
    let text = String::from_utf8_lossy(said);
    match spoken {
        "v5.channel.k8s.io" | "v4.channel.k8s.io" => status(said, &text),
        "v3.channel.k8s.io" | "v2.channel.k8s.io" => internal(&format!("error executing remote command: {text}")),
        _ => internal(&format!("Error executing remote command: {text}")),
    }
}

pub(super) fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn status(said: &[u8], text: &str) -> Value {
    const WRONG: &str = "error stream protocol error:";
    let status: Value = match serde_json::from_slice(said) {
        Ok(status) => status,
        Err(error) => return internal(&format!("{WRONG} {error} in {}", quoted(text))),
    };
    match status["status"].as_str() {
        Some("Success") => return success(),
        Some("Failure") => {}
        _ => return internal(&format!("{WRONG} unknown error")),
    }
    if status["reason"] != "NonZeroExitCode" {
        return internal(status["message"].as_str().unwrap_or_default());
    }
    if status["details"].is_null() {
        return internal(&format!("{WRONG} details must be set"));
    }
    let causes = tree::list(&status, "/details/causes").iter();
    let Some(cause) = causes.clone().find(|cause| cause["reason"] == "ExitCode") else {
        return internal(&format!("{WRONG} no ExitCode cause given"));
    };
    let code = cause["message"].as_str().unwrap_or_default();
    let Ok(code) = code.parse::<u8>() else {
        return internal(&format!("{WRONG} invalid exit code value {}", quoted(code)));
    };
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// What a kubelet says that does not upgrade: a `Status`, or a text.
pub(super) fn not_upgraded(body: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(body) {
        Ok(status) if status["kind"] == "Status" => status,
        _ => internal(&format!("unable to upgrade connection: {}", String::from_utf8_lossy(body).trim())),
    }
}

/// A failure as this server tells it, without the names of its type.
pub(super) fn internal(why: &str) -> Value {
    let mut status = Failure::internal(why).to_value();
    for key in ["kind", "apiVersion"] {
        tree::remove(&mut status, key);
    }
    for cause in tree::list_at(&mut status["details"], "causes") {
        tree::remove(cause, "reason");
    }
    status
}
