//! Failures of requests, as the `Status` objects that clients read.

mod fault;

use std::fmt;

use http::StatusCode;
use serde_json::{Map, Value, json};
use stdx::quoted;

use crate::negotiate::MEDIA_TYPES;

pub use fault::{FieldError, Shown, escaped};

/// The result of a step of request handling.
pub type Result<T> = std::result::Result<T, Failure>;

/// A request that was not done, with everything its `Status` says.
#[derive(Clone)]
pub struct Failure(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Map<String, Value>,
    metadata: Map<String, Value>,
    /// Whether details are shown even if there are none.
    shows_details: bool,
    /// Whether the answer is a plain text and no `Status`.
    is_page: bool,
    /// What else the `Status` says that another server gave.
    document: Option<Value>,
}

/// The resource a failure speaks of: group and plural (or kind) name.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Plural resource name; for invalid objects the kind.
    pub resource: &'a str,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

impl Subject<'_> {
    fn details(&self, name: &str) -> Map<String, Value> {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !self.group.is_empty() {
            details.insert("group".into(), self.group.into());
        }
        if !self.resource.is_empty() {
            details.insert("kind".into(), self.resource.into());
        }
        details
    }
}

impl Failure {
    /// A failure with a code, a machine readable reason and a text.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            reason,
            message: message.into(),
            details: Map::new(),
            metadata: Map::new(),
            shows_details: false,
            is_page: false,
            document: None,
        }))
    }

    /// What another server said in a `Status` of its own, with this code and text.
    pub fn told(code: StatusCode, message: impl Into<String>, document: Value) -> Self {
        let mut failure = Self::new(code, "", message);
        failure.0.document = Some(document);
        failure
    }

    fn about(mut self, subject: Subject<'_>, name: &str) -> Self {
        self.0.details = subject.details(name);
        self
    }

    fn cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let mut cause = Map::new();
        cause.insert("reason".into(), reason.into());
        if !message.is_empty() {
            cause.insert("message".into(), message.into());
        }
        if !field.is_empty() {
            cause.insert("field".into(), field.into());
        }
        let causes = self.0.details.entry("causes").or_insert_with(|| json!([]));
        if let Some(causes) = causes.as_array_mut() {
            causes.push(Value::Object(cause));
        }
        self
    }

    /// 404 for an object.
    pub fn not_found(subject: Subject<'_>, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{subject} {} not found", quoted(name)))
            .about(subject, name)
    }

    /// 404 for a path that no handler knows: a plain text.
    pub fn no_such_page() -> Self {
        let mut failure = Self::no_such_path();
        failure.0.is_page = true;
        failure
    }

    /// A failure of the server itself, told as a plain text with what was asked for.
    pub fn page(code: StatusCode, target: &str, why: &str) -> Self {
        let text = format!("Internal Server Error: {}: {why}", quoted(target));
        // The text may end up in a page: what would be markup there is written so that it is not.
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let mut failure = Self::new(code, "InternalError", text);
        failure.0.is_page = true;
        failure
    }

    /// Whether the answer is a plain text.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.0.is_page
    }

    /// 404 for a path that names no resource.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 409 on create.
    pub fn already_exists(subject: Subject<'_>, name: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{subject} {} already exists", quoted(name)))
            .about(subject, name)
    }

    /// 409 on update or delete.
    pub fn conflict(subject: Subject<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {subject} {}: {why}", quoted(name));
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(subject, name)
    }

    /// 409 because the object changed since the client read it.
    pub fn modified(subject: Subject<'_>, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(subject, name, why)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403 for an object.
    pub fn forbidden(subject: Subject<'_>, name: &str, why: &str) -> Self {
        let message = if name.is_empty() && subject.resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{subject} is forbidden: {why}")
        } else {
            format!("{subject} {} is forbidden: {why}", quoted(name))
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(subject, name)
    }

    /// The same refusal with a word for machines.
    #[must_use]
    pub fn because(self, reason: &str) -> Self {
        self.cause(reason, "", "")
    }

    /// Another code and reason for the same refusal.
    #[must_use]
    pub fn with_code(mut self, code: StatusCode, reason: &'static str) -> Self {
        self.0.code = code;
        self.0.reason = reason;
        self
    }

    /// 422 with one cause per field error.
    pub fn invalid(subject: Subject<'_>, name: &str, errors: &[FieldError]) -> Self {
        let text = joined(errors);
        let code = StatusCode::UNPROCESSABLE_ENTITY;
        let mut failure =
            Self::new(code, "Invalid", format!("{subject} {} is invalid: {text}", quoted(name))).about(subject, name);
        for error in errors {
            failure = failure.cause(error.reason(), &error.body(), error.field());
        }
        failure
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", text)
    }

    /// 405 for a verb that a resource lacks.
    pub fn verb_not_supported(subject: Subject<'_>, verb: &str) -> Self {
        let text = format!("{verb} is not supported on resources of kind \"{subject}\"");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", text).about(subject, "")
    }

    /// 406.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let text = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", text)
    }

    /// 406 of an object that has no such form.
    pub fn not_this_form(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", text)
    }

    /// 406 of the routing layer.
    pub fn no_representation() -> Self {
        let watched = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
        Self::no_representation_but(&[&MEDIA_TYPES[..], &watched].concat())
    }

    /// 406 of what has no watches.
    pub fn no_such_representation() -> Self {
        Self::no_representation_but(&MEDIA_TYPES)
    }

    /// 406 of the routing layer, about a text.
    pub fn no_such_text() -> Self {
        Self::no_representation_but(&[&["text/plain"][..], &MEDIA_TYPES].concat())
    }

    /// 406 of the routing layer, which knows these.
    pub fn no_representation_but(known: &[&str]) -> Self {
        let text = format!("406: Not Acceptable\n\nAvailable representations: {}", known.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", text).with_empty_details()
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 410 with reason `Expired`: what was asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 429 with a time to wait.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(seconds)
    }

    /// 429 because too many requests run: a plain text.
    pub fn too_busy(seconds: u32) -> Self {
        let mut failure = Self::too_many_requests("Too many requests, please try again later.", seconds);
        failure.0.is_page = true;
        failure
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let text = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text).cause("", &message.to_string(), "")
    }

    /// 501 for what this server does not do.
    pub fn not_implemented(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", format!("{what} is not implemented by this server"))
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 504.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// 504 because the version asked for does not exist yet.
    pub fn version_too_large(asked: u64, current: u64) -> Self {
        let text = format!("Timeout: Too large resource version: {asked}, current: {current}");
        Self::timeout(text).cause("ResourceVersionTooLarge", "Too large resource version", "").retry_after(1)
    }

    /// Says how long to wait before trying again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.details.insert("retryAfterSeconds".into(), seconds.into());
        self
    }

    /// Says nothing of when to try again.
    #[must_use]
    pub fn without_retry(mut self) -> Self {
        self.0.details.remove("retryAfterSeconds");
        self
    }

    /// Adds a cause with a reason and a text.
    #[must_use]
    pub fn with_cause(self, reason: &str, message: &str) -> Self {
        self.cause(reason, message, "")
    }

    /// Adds a cause with a reason, a text and the field it speaks of.
    #[must_use]
    pub fn with_field_cause(self, reason: &str, message: &str, field: &str) -> Self {
        self.cause(reason, message, field)
    }

    /// Shows details although there are none, as answers of the routing layer do.
    #[must_use]
    pub fn with_empty_details(mut self) -> Self {
        self.0.shows_details = true;
        self
    }

    /// Names the object the failure speaks of.
    #[must_use]
    pub fn with_subject(self, subject: Subject<'_>, name: &str) -> Self {
        self.about(subject, name)
    }

    /// A token to go on with although the old one expired.
    #[must_use]
    pub fn with_continue(mut self, token: String) -> Self {
        self.0.metadata.insert("continue".into(), token.into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn code(&self) -> StatusCode {
        self.0.code
    }

    /// The machine readable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The same with something in front of its message.
    #[must_use]
    pub fn prefixed(mut self, text: &str) -> Self {
        self.0.message.insert_str(0, text);
        self
    }

    /// Seconds for a `Retry-After` header.
    #[must_use]
    pub fn retry_seconds(&self) -> Option<u64> {
        self.0.details.get("retryAfterSeconds").and_then(Value::as_u64).filter(|s| *s > 0)
    }

    /// The `Status` object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        if let Some(mut status) = self.0.document.clone() {
            (status["kind"], status["apiVersion"]) = ("Status".into(), "v1".into());
            (status["message"], status["code"]) = (self.0.message.clone().into(), self.0.code.as_u16().into());
            return status;
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": self.0.metadata, "status": "Failure",
            "message": self.0.message, "reason": self.0.reason, "code": self.0.code.as_u16(),
        });
        if self.0.reason.is_empty() {
            crate::tree::remove(&mut status, "reason");
        }
        if !self.0.details.is_empty() {
            status["details"] = Value::Object(self.0.details.clone());
        } else if self.0.shows_details
            || !matches!(
                self.0.reason,
                "Unauthorized"
                    | "NotAcceptable"
                    | "UnsupportedMediaType"
                    | "BadRequest"
                    | "Expired"
                    | "RequestEntityTooLarge"
                    | "ServiceUnavailable"
                    | ""
            )
        {
            status["details"] = json!({});
        }
        status
    }
}

/// What is wrong with several fields, as one text.
#[must_use]
pub fn joined(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in errors.iter().map(ToString::to_string) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.code.as_u16(), self.0.reason, self.0.message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_object_lists_every_field() {
        let subject = Subject { group: "apps", resource: "Deployment" };
        let errors =
            [FieldError::required("spec.selector", ""), FieldError::invalid("spec.replicas", -1, "must be at least 0")];
        let failure = Failure::invalid(subject, "web", &errors);
        assert_eq!(
            failure.message(),
            "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: must be at least 0]"
        );
        assert_eq!(failure.to_value()["details"]["causes"][1]["field"], "spec.replicas");
    }
}
