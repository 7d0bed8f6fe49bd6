//! `meta/v1 Status`: how the API tells failure.

use crate::meta::v1::{Status, StatusDetails};

/// Why a request failed: upstream's reasons with their HTTP codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are upstream's own words")]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    NotImplemented,
    ServiceUnavailable,
    Timeout,
    ServerTimeout,
}

impl Reason {
    /// HTTP status code and the reason's text in the Status; empty where upstream leaves it out.
    #[must_use]
    pub fn code_and_text(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BadRequest"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "NotFound"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::NotAcceptable => (406, "NotAcceptable"),
            Self::AlreadyExists => (409, "AlreadyExists"),
            Self::Conflict => (409, "Conflict"),
            Self::Gone => (410, "Gone"),
            Self::Expired => (410, "Expired"),
            Self::RequestEntityTooLarge => (413, "RequestEntityTooLarge"),
            Self::UnsupportedMediaType => (415, "UnsupportedMediaType"),
            Self::Invalid => (422, "Invalid"),
            Self::TooManyRequests => (429, "TooManyRequests"),
            Self::InternalError => (500, "InternalError"),
            Self::NotImplemented => (501, "NotImplemented"),
            Self::ServiceUnavailable => (503, "ServiceUnavailable"),
            Self::Timeout => (504, "Timeout"),
            Self::ServerTimeout => (500, "ServerTimeout"),
        }
    }
}

impl Status {
    /// A failure with this reason and message.
    #[must_use]
    pub fn failure(reason: Reason, message: impl Into<String>) -> Self {
        let (code, text) = reason.code_and_text();
        Self {
            status: "Failure".to_owned(),
            message: message.into(),
            reason: text.to_owned(),
            code: i32::from(code),
            ..Self::default()
        }
    }

    /// The same failure about an object: its name, group and resource (or kind).
    #[must_use]
    pub fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_with(StatusDetails::default);
        details.group = group.to_owned();
        details.kind = resource.to_owned();
        details.name = name.to_owned();
        self
    }

    /// `pods "a" not found`.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::failure(Reason::NotFound, message).about(group, resource, name)
    }

    /// `pods "a" already exists`.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::failure(Reason::AlreadyExists, message).about(group, resource, name)
    }

    /// A write lost a race or named an old version.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let resource_text = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {resource_text} {name:?}: {why}");
        Self::failure(Reason::Conflict, message).about(group, resource, name)
    }

    /// Whether the reason is this one.
    #[must_use]
    pub fn is(&self, reason: Reason) -> bool {
        let (code, text) = reason.code_and_text();
        self.reason == text || (self.reason.is_empty() && self.code == i32::from(code))
    }
}

/// `deployments.apps`, or `pods` for core.
#[must_use]
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}
