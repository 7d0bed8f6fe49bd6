//! Why an API server could not start or had to end.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why [`crate::run`] ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the configuration could not be read.
    #[error("cannot read {path}")]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key file holds something else.
    #[error("{path} holds no usable {what}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// TLS refused the certificates.
    #[error("the certificates cannot be served with")]
    Tls(#[from] rustls::Error),
    /// Client certificate authorities cannot be used.
    #[error("the client certificate authorities cannot be used")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Objects that every cluster has could not be written.
    #[error("the objects every cluster starts with could not be written: {reason}")]
    Bootstrap {
        /// What the write said.
        reason: String,
    },
    /// Requests cannot be written down.
    #[error(transparent)]
    Audit(#[from] audit::Error),
    /// Who decides what users may do cannot be set up.
    #[error("the authorization settings cannot be used: {reason}")]
    Authorization {
        /// Why.
        reason: String,
    },
    /// Credentials of the configuration cannot be used.
    #[error("the authentication settings cannot be used: {reason}")]
    Authentication {
        /// Why.
        reason: String,
    },
    /// A plugin of admission cannot be set up.
    #[error("failed to initialize admission: couldn't init admission plugin {plugin:?}: {reason}")]
    Admission {
        /// The plugin.
        plugin: &'static str,
        /// Why.
        reason: String,
    },
}
