//! Connections from this server to others: kubelets, pods, services, webhooks and aggregated servers, straight or by
//! the proxies of [`egress`].
//!
//! One connection carries one request. Errors are told in the words that clients know from Go's network library,
//! because they end up in the messages of `Status` objects.

use std::sync::Arc;
use std::time::Duration;

use egress::{Proxy, network_text, tls_text};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer::Body;
use crate::config::KubeletClient;
use crate::error::Error;
use crate::serve::{certificates, key};

pub use egress::{Trust, client_config};

/// How long a server may take to be connected to, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A server to reach.
#[derive(Clone)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS settings and the name that the certificate has to be for; plain text without.
    pub tls: Option<(Arc<ClientConfig>, String)>,
    /// By which proxy it is reached; straight without.
    pub proxy: Option<Arc<Proxy>>,
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error("dial tcp {0}: {1}")]
    Connect(String, String),
    /// No way through a proxy.
    #[error(transparent)]
    Proxy(#[from] egress::Error),
    /// No agreement on TLS.
    #[error("{0}")]
    Tls(String),
    /// The server broke off.
    #[error("{0}")]
    Exchange(String),
}

impl Target {
    /// `host:port`, brackets around IPv6 addresses.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// When the server is not there, or TLS fails.
    pub async fn dial(&self) -> Result<Box<dyn Duplex>, DialError> {
        let late = || DialError::Connect(self.authority(), "i/o timeout".to_owned());
        // A proxy has deadlines of its own.
        let proxied = match &self.proxy {
            Some(proxy) => Some(proxy.dial(&self.host, self.port).await?),
            None => None,
        };
        let secure = async {
            match proxied {
                Some(stream) => self.secure(stream).await,
                None => self.secure(self.straight().await?).await,
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, secure).await.map_err(|_elapsed| late())?
    }

    async fn straight(&self) -> Result<TcpStream, DialError> {
        let failed = |e: std::io::Error| DialError::Connect(self.authority(), network_text(&e));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }

    async fn secure(&self, stream: impl Duplex + 'static) -> Result<Box<dyn Duplex>, DialError> {
        let Some((config, name)) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(name.clone()).map_err(|e| DialError::Tls(format!("tls: {e}")))?;
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|e| DialError::Tls(tls_text(&e)))?))
    }

    /// Sends one request over a connection of its own.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, DialError> {
        let exchange = |e: hyper::Error| {
            DialError::Exchange(if e.is_incomplete_message() { "EOF".to_owned() } else { stdx::chain(&e).to_string() })
        };
        let stream = self.dial().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
        // Ends with the answer's body, or with what the connection was upgraded to.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to another server ended");
            }
        });
        sender.send_request(request).await.map_err(exchange)
    }
}

/// TLS settings towards kubelets, read anew so that renewed certificates count. Who they are is not looked at unless
/// they are to be verified.
///
/// # Errors
/// When a file cannot be used.
pub fn kubelet_config(settings: &KubeletClient, is_verified: bool) -> Result<Arc<ClientConfig>, Error> {
    let trust = match settings.ca.as_ref().filter(|_| is_verified) {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            Trust::Roots(roots)
        }
        None => Trust::Anyone,
    };
    Ok(client_config(trust, Some((certificates(&settings.certificate)?, key(&settings.key)?)))?)
}
