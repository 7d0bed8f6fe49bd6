//! What etcd's failures mean to us. Its codes are coarse, so the texts decide where they have to.

use tonic::Code;

use crate::Error;

/// A failed call.
pub(super) struct Refusal {
    pub(super) error: Error,
    /// Nothing of the request can have reached a server, so that even a write may be sent again.
    pub(super) unsent: bool,
    /// The lease that a write named is gone.
    pub(super) lease_lost: bool,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, unsent: false, lease_lost: false }
    }
}

impl From<etcd_client::Error> for Refusal {
    fn from(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self {
                unsent: never_connected(&status),
                lease_lost: status.message().contains("requested lease not found"),
                error: classify(&status),
            },
            other => Error::Unavailable { reason: other.to_string() }.into(),
        }
    }
}

fn classify(status: &tonic::Status) -> Error {
    let text = status.message();
    let reason = || text.to_owned();
    match status.code() {
        Code::OutOfRange if text.contains("has been compacted") => Error::Compacted { at: None },
        Code::OutOfRange if text.contains("future revision") => Error::FutureRevision,
        Code::InvalidArgument if text.contains("request is too large") => Error::TooLarge,
        Code::ResourceExhausted if text.contains("larger than max") => Error::TooLarge,
        Code::ResourceExhausted if text.contains("space exceeded") => Error::NoSpace,
        Code::ResourceExhausted => Error::Overloaded,
        Code::Unavailable if text.contains("request timed out") => Error::Timeout { operation: "commit" },
        Code::DeadlineExceeded => Error::Timeout { operation: "call" },
        Code::Unauthenticated | Code::PermissionDenied => Error::Unauthenticated { reason: reason() },
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented | Code::OutOfRange => {
            Error::Protocol { reason: reason() }
        }
        _ => Error::Unavailable { reason: chain(status) },
    }
}

/// With its causes: the status alone mostly says no more than "transport error".
fn chain(status: &tonic::Status) -> String {
    let text = status.message();
    std::error::Error::source(status).map_or_else(|| text.to_owned(), |cause| format!("{text}: {}", stdx::chain(cause)))
}

fn never_connected(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}
