//! Documents of other servers, such as those of an issuer of tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri};

use crate::client::Client;
use crate::config::{Config, Identity};
use crate::error::{ConfigError, Error};
use crate::hook::{HookError, read_answer};
use crate::transport::Way;

/// How long a document may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where hosts keep the authorities that everybody trusts.
const HOST_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Reads documents from servers whose certificates certain authorities sign.
#[derive(Clone, Debug, Default)]
pub struct Fetcher {
    ca_pem: Option<Vec<u8>>,
    way: Option<Arc<dyn Way>>,
}

impl Fetcher {
    /// Trusts these authorities, or those of the host if there are none.
    #[must_use]
    pub fn new(ca_pem: Option<Vec<u8>>) -> Self {
        Self { ca_pem, way: None }
    }

    /// The same by another way, or straight without one.
    #[must_use]
    pub fn with_way(mut self, way: Option<Arc<dyn Way>>) -> Self {
        self.way = way;
        self
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When there is no answer in time, or it is a refusal.
    pub async fn get(&self, url: &str) -> Result<Bytes, HookError> {
        self.get_with(url, None).await
    }

    /// Reads a document that may be shown to the holder of a token only.
    ///
    /// # Errors
    /// When there is no answer in time, or it is a refusal.
    pub async fn get_with(&self, url: &str, token: Option<&str>) -> Result<Bytes, HookError> {
        let server = |source| HookError::Ask(ConfigError::Server { server: url.to_owned(), source }.into());
        let uri: Uri = url.parse().map_err(server)?;
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        let bad = |_| HookError::Ask(Error::Config(ConfigError::ServerScheme(url.to_owned())));
        let mut config = Config::new(Uri::from_parts(parts).map_err(bad)?);
        config.ca_pem = self.ca_pem.clone().or_else(host_authorities);
        config.way = self.way.clone();
        config.identity = token.map_or(Identity::Anonymous, |token| Identity::Token(token.to_owned()));
        let client = Client::new(config).map_err(HookError::Ask)?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = target.parse().map_err(server)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let exchange = async { read_answer(client.raw(request).await.map_err(HookError::Ask)?).await };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(HookError::Timeout(TIMEOUT)))
    }
}

/// The authorities that the host trusts, in PEM.
#[must_use]
pub fn host_authorities() -> Option<Vec<u8>> {
    HOST_AUTHORITIES.iter().find_map(|path| std::fs::read(Path::new(path)).ok())
}
