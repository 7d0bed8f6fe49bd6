//! What can go wrong on the way to another server's file.

use std::io;

use http::StatusCode;

/// A step that failed, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("{text:?} is no address of a file: {reason}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no connection. Another try may help.
    #[error("connect with {server}")]
    Connect {
        /// Host and port.
        server: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The proxy does not lead there. Another try may help, unless it wants to know who asks.
    #[error("{proxy} does not lead to {server}: it answered {status}")]
    Proxy {
        /// Which.
        proxy: String,
        /// Host and port.
        server: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// The server's certificate is not believed, or it speaks another TLS.
    #[error("speak TLS with {server}")]
    Tls {
        /// Host and port.
        server: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody is trusted, or what should be certificates is none.
    #[error("whom to trust: {0}")]
    Authorities(String),
    /// Nothing came in time. Another try may help.
    #[error("{url} was silent for {seconds} s")]
    Silent {
        /// What was asked for.
        url: String,
        /// For how long.
        seconds: u64,
    },
    /// The connection broke, or what came is no HTTP. Another try may help.
    #[error("the exchange with {url} broke off")]
    Broken {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The server refuses.
    #[error("{url}: the server answered {status}{}", if .reason.is_empty() { String::new() } else { format!(": {}", .reason) })]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of its answer.
        reason: String,
    },
    /// The server sends elsewhere, and that is not followed.
    #[error("{url}: the server sends elsewhere, {reason}")]
    Elsewhere {
        /// What was asked for.
        url: String,
        /// Why that is not followed.
        reason: &'static str,
    },
    /// The file is larger than may be.
    #[error("{url} is larger than the {limit} bytes that may come")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// What may come.
        limit: u64,
    },
    /// The server has another file there by now.
    #[error("{url} was replaced by another file while it came")]
    Changed {
        /// What was asked for.
        url: String,
    },
    /// The file is longer or shorter than it was promised.
    #[error("{url} has {found} bytes, not {wanted}")]
    Length {
        /// What was asked for.
        url: String,
        /// What came.
        found: u64,
        /// What was promised.
        wanted: u64,
    },
    /// The file is another one, or damaged.
    #[error("{url} has the SHA-256 {found}, not {wanted}")]
    Digest {
        /// What was asked for.
        url: String,
        /// What came.
        found: String,
        /// What was promised.
        wanted: String,
    },
    /// The answer is not of the form that it should have.
    #[error("the answer of {url} is not understood: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What the registry has there is something else.
    #[error("{reference} is no update: {reason}")]
    NoUpdate {
        /// What was asked for.
        reference: String,
        /// What it is.
        reason: String,
    },
    /// A file of this machine cannot be read.
    #[error("read {path}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether another try might go better.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Proxy { status, .. } | Self::Refused { status, .. } => {
                status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(status)
            }
            Self::Address { .. }
            | Self::Tls { .. }
            | Self::Authorities(_)
            | Self::Elsewhere { .. }
            | Self::TooLarge { .. }
            | Self::Changed { .. }
            | Self::Length { .. }
            | Self::Digest { .. }
            | Self::Answer { .. }
            | Self::NoUpdate { .. }
            | Self::File { .. } => false,
        }
    }
}
