//! What a machine has to know to join.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use manifest::{CaHash, CaTrust, JoinToken, Manifest};

/// How the cluster is recognized.
#[derive(Debug, Clone)]
pub enum Trust {
    /// By its CA certificates.
    Authority {
        /// They, in PEM.
        pem: String,
        /// Whether the first one is that of the CA that issues.
        is_issuing_first: bool,
    },
    /// By the hashes of its CAs' public keys, first that of the one that issues.
    Hashes(Vec<CaHash>),
}

/// Everything for joining.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL of the API.
    pub server: String,
    /// Name of the cluster in the kubeconfig file.
    pub cluster: String,
    /// How the cluster is recognized.
    pub trust: Trust,
    /// What the machine shows while it has no certificate; none where it was given one ([`crate::adopt`]).
    pub token: Option<JoinToken>,
    /// Name of the Node.
    pub node: String,
    /// Addresses in the serving certificate.
    pub addresses: Vec<IpAddr>,
    /// Whether a serving certificate is asked for, too.
    pub wants_serving: bool,
    /// Where the files are kept.
    pub dir: PathBuf,
}

impl Config {
    /// The configuration of a worker, with the addresses that it has. `None` if the manifest is not a worker's.
    #[must_use]
    pub fn new(manifest: &Manifest, addresses: &[IpAddr], dir: &Path) -> Option<Self> {
        let trust = match manifest.cluster.trust.as_ref()? {
            CaTrust::Certificates(pem) => Trust::Authority { pem: pem.as_str().to_owned(), is_issuing_first: true },
            CaTrust::Hashes(hashes) => Trust::Hashes(hashes.clone()),
        };
        Some(Self {
            server: manifest.cluster.endpoint.as_ref()?.to_string(),
            cluster: manifest.cluster.name.to_string(),
            trust,
            // Whoever has joined does without one that was not found.
            token: manifest.cluster.token.as_ref()?.known().cloned(),
            node: manifest.machine.hostname.to_string(),
            addresses: addresses.to_vec(),
            wants_serving: true,
            dir: dir.to_owned(),
        })
    }
}
