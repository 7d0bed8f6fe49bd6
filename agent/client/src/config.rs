//! Where the API server is and who is asking.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::error::{ConfigError, Error, Result};
use crate::kubeconfig;
use crate::transport::Way;

/// Long enough for a list of everything on a busy server, short enough that a dead one is noticed.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is asking.
#[derive(Clone, Debug, Default)]
pub enum Identity {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// The owner of a client certificate.
    Certificate {
        /// Certificate chain, leaf first.
        cert_pem: Vec<u8>,
        /// Private key.
        key_pem: Vec<u8>,
    },
    /// The owner of a bearer token.
    Token(String),
    /// The owner of the bearer token in a file that others renew.
    TokenFile(PathBuf),
}

/// Everything needed to reach an API server.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://HOST:PORT`, optionally with a path prefix.
    pub server: Uri,
    /// Certificates that sign the server's certificate.
    pub ca_pem: Option<Vec<u8>>,
    /// The name to verify in the server's certificate, where it is not the host of `server`.
    pub tls_server_name: Option<String>,
    /// Accepts any server certificate. For trial use only.
    pub insecure_skip_tls_verify: bool,
    /// Who is asking.
    pub identity: Identity,
    /// The component, as in `keelson/VERSION (COMPONENT)`.
    pub component: String,
    /// Deadline of a request that is not a watch.
    pub timeout: Duration,
    /// The namespace of the kubeconfig's context; empty where none is given.
    pub namespace: String,
    /// How connections are made, if not straight over the network.
    pub way: Option<Arc<dyn Way>>,
}

impl Config {
    /// An anonymous caller of `server`.
    #[must_use]
    pub fn new(server: Uri) -> Self {
        Self {
            server,
            ca_pem: None,
            tls_server_name: None,
            insecure_skip_tls_verify: false,
            identity: Identity::Anonymous,
            component: "client".to_owned(),
            timeout: DEFAULT_TIMEOUT,
            namespace: String::new(),
            way: None,
        }
    }

    /// Reads the current context of a kubeconfig file.
    ///
    /// # Errors
    /// When the file, or a file it refers to, cannot be read or understood.
    pub fn from_kubeconfig(path: &Path) -> Result<Self> {
        kubeconfig::load(path).map_err(Error::Config)
    }

    /// The same for another component name.
    #[must_use]
    pub fn with_component(mut self, component: &str) -> Self {
        component.clone_into(&mut self.component);
        self
    }

    /// The same by another way, or straight without one.
    #[must_use]
    pub fn with_way(mut self, way: Option<Arc<dyn Way>>) -> Self {
        self.way = way;
        self
    }
}

/// Parses an address given as text.
pub(crate) fn parse_server(server: &str) -> std::result::Result<Uri, ConfigError> {
    server.parse().map_err(|source| ConfigError::Server { server: server.to_owned(), source })
}
