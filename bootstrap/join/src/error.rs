//! What can go wrong while joining. Everything is tried again with back-off.

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("cannot {step}")]
    Api {
        /// What was done.
        step: &'static str,
        /// Why not.
        source: client::Error,
    },
    /// The URL of the API is none.
    #[error("the API endpoint is not a URL")]
    Server(#[source] http::uri::InvalidUri),
    /// `cluster-info` is not as it should be.
    #[error("the ConfigMap kube-public/cluster-info has no CA certificates")]
    ClusterInfo,
    /// The certificate was given to the machine and is of no use any more.
    #[error("the machine's certificate is not valid any more, and there is no token to get another one with")]
    NoToken,
    /// The cluster is another one, or somebody stands in between.
    #[error("no CA of the cluster at the endpoint has the hash {0} of the manifest")]
    ForeignCluster(String),
    /// A key, certificate or file failed.
    #[error("cannot {step}")]
    Pki {
        /// What was done.
        step: &'static str,
        /// Why not.
        source: pki::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The request was denied, or the signer failed.
    #[error("the certificate signing request {name} was refused: {message}")]
    Refused {
        /// Which request.
        name: String,
        /// What the approver or signer said.
        message: String,
    },
    /// The request was deleted before it was answered.
    #[error("the certificate signing request {0} was deleted before it was answered")]
    Deleted(String),
    /// Nobody answered the request in time.
    #[error("the certificate signing request {0} was not approved and signed in time")]
    Unanswered(String),
    /// The certificate is not the one that was asked for.
    #[error("the certificate in the answer to {0} is not for this machine's key and name, or not of the cluster's CA")]
    ForeignCertificate(String),
}

impl Error {
    /// Whether the server did not accept who the machine says it is.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Api { source, .. } if source.is_unauthorized())
    }
}
