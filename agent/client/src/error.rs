//! What can go wrong between a typed call and its typed answer.

use std::path::PathBuf;
use std::time::Duration;

use api::meta::v1::Status;

/// A boxed error of a transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The result of a client call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed call, by the step that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a Status. Retry depends on its reason.
    #[error("{}", describe(.0))]
    Api(Box<Status>),
    /// No answer came: the connection failed or broke. Worth a retry with back-off.
    #[error("{request}: no answer from the API server")]
    Transport {
        /// Method and path.
        request: String,
        /// What the transport said.
        #[source]
        source: BoxError,
    },
    /// No complete answer within the deadline. Worth a retry with back-off.
    #[error("{request}: no answer within {after:?}")]
    Timeout {
        /// Method and path.
        request: String,
        /// The deadline.
        after: Duration,
    },
    /// An answer came that does not decode. A retry does not help.
    #[error("answer of the API server")]
    Decode(#[from] DecodeError),
    /// The client is set up wrongly. A retry does not help.
    #[error("client configuration")]
    Config(#[from] ConfigError),
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a protobuf envelope.
    #[error("{what}: envelope")]
    Envelope {
        /// The kind of object that was expected.
        what: &'static str,
        /// What the envelope reader said.
        #[source]
        source: BoxError,
    },
    /// The protobuf message inside does not decode.
    #[error("{what}: protobuf message")]
    Message {
        /// The kind of object that was expected.
        what: &'static str,
        /// What the message reader said.
        #[source]
        source: prost::DecodeError,
    },
    /// The JSON document does not decode.
    #[error("{what}: JSON document")]
    Json {
        /// The kind of object that was expected.
        what: &'static str,
        /// What the JSON reader said.
        #[source]
        source: BoxError,
    },
    /// A content type that was not asked for.
    #[error("content type {0:?} was not asked for")]
    ContentType(String),
    /// A watch event type nobody knows.
    #[error("unknown watch event type {0:?}")]
    EventType(String),
    /// A watch frame above the limit.
    #[error("watch frame of {0} bytes is above the limit")]
    FrameTooLarge(usize),
    /// The stream ended inside a watch frame.
    #[error("watch ended inside a frame")]
    Truncated,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A kubeconfig that is not valid YAML of the expected shape.
    #[error("parse kubeconfig {path:?}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// A name in a kubeconfig that refers to nothing.
    #[error("kubeconfig has no {what} named {name:?}")]
    Missing {
        /// context, cluster or user.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A feature of kubeconfig files that this client does not have.
    #[error("kubeconfig: {0} is not supported")]
    Unsupported(&'static str),
    /// A `…-data` field that is not base64.
    #[error("kubeconfig: {field} is not base64")]
    Base64 {
        /// The field.
        field: &'static str,
        /// Why.
        #[source]
        source: base64::DecodeError,
    },
    /// A server address that is not a URL.
    #[error("server address {server:?}")]
    Server {
        /// The address.
        server: String,
        /// Why.
        #[source]
        source: http::uri::InvalidUri,
    },
    /// A server address that lacks its scheme or host, or has another scheme than http and https.
    #[error("server address {0:?} is not http(s)://HOST[:PORT]")]
    ServerScheme(String),
    /// An https server without a certificate authority to verify it.
    #[error("no certificate authority for the server is configured")]
    NoAuthority,
    /// PEM data without what is needed.
    #[error("{what}: no usable PEM data")]
    Pem {
        /// Which data.
        what: &'static str,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// Certificates or key that TLS refuses.
    #[error("TLS set-up")]
    Tls(#[source] rustls::Error),
    /// A token, user agent or header that does not fit in a header.
    #[error("{0} does not fit in a header")]
    Header(&'static str),
}

impl Error {
    /// The Status, where the server answered with one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(status) => Some(status),
            Self::Transport { .. } | Self::Timeout { .. } | Self::Decode(_) | Self::Config(_) => None,
        }
    }

    /// Whether a connection that was there broke before the answer came.
    #[must_use]
    pub fn is_broken_off(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let by_peer = |error: &std::io::Error| {
                use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
                matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
            };
            let in_between = |error: &hyper::Error| error.is_incomplete_message() || error.is_canceled();
            if error.downcast_ref().is_some_and(by_peer) || error.downcast_ref().is_some_and(in_between) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The HTTP code of the Status, or 0.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status().map_or(0, |status| status.code)
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    /// The object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.has_reason("NotFound") || (self.code() == 404 && self.has_reason(""))
    }

    /// Somebody else changed the object in between.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.has_reason("Conflict")
    }

    /// An object of that name is there already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }

    /// The resource version or continue token is too old: list again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.code() == 410 || self.has_reason("Expired") || self.has_reason("Gone")
    }

    /// The object is not valid: a retry with the same object does not help.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.has_reason("Invalid") || self.has_reason("BadRequest")
    }

    /// The caller may not do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.has_reason("Forbidden")
    }

    /// The caller is not known to the server.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.code() == 401
    }
}

fn describe(status: &Status) -> String {
    match (status.message.is_empty(), status.reason.is_empty()) {
        (false, _) => status.message.clone(),
        (true, false) => format!("the API server answered {} ({})", status.code, status.reason),
        (true, true) => format!("the API server answered {}", status.code),
    }
}
