//! Connections from this server to others: kubelets, pods, services, webhooks and aggregated servers.
//!
//! One connection carries one request. Errors are told in the words that clients know from Go's network library,
//! because they end up in the messages of `Status` objects.

mod roots;

use std::sync::Arc;
use std::time::Duration;

use client::AnyCertificate;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer::Body;
use crate::config::KubeletClient;
use crate::error::Error;
use crate::serve::{certificates, key};

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
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error("dial tcp {0}: {1}")]
    Connect(String, String),
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
        tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(|_elapsed| late())?
    }

    async fn connect(&self) -> Result<Box<dyn Duplex>, DialError> {
        let failed = |e: std::io::Error| DialError::Connect(self.authority(), network_text(&e));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
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

fn network_text(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

fn tls_text(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let x509 = |text: &str| format!("tls: failed to verify certificate: x509: {text}");
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            x509("certificate signed by unknown authority")
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => x509("certificate has expired or is not yet valid"),
        Some(rustls::Error::InvalidCertificate(other)) => x509(&other.to_string()),
        Some(rustls::Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".to_owned(),
        _ => error.to_string(),
    }
}

/// How servers' certificates are checked.
pub enum Trust {
    /// Not at all: upstream's rule for pods behind a proxy, and for kubelets without an authority.
    Anyone,
    /// Against these authorities.
    Roots(RootCertStore),
}

/// TLS settings of a client.
///
/// # Errors
/// When the certificate and its key do not belong together.
pub fn client_config(
    trust: Trust,
    identity: Option<(Vec<CertificateDer<'static>>, rustls_pki_types::PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Roots(trusted) => match roots::Roots::new(trusted, provider) {
            Some(roots) => builder.dangerous().with_custom_certificate_verifier(Arc::new(roots)),
            None => builder.with_root_certificates(RootCertStore::empty()),
        },
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider))),
    };
    Ok(Arc::new(match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    }))
}

/// TLS settings towards kubelets, read anew so that renewed certificates count.
///
/// # Errors
/// When a file cannot be used.
pub fn kubelet_config(settings: &KubeletClient) -> Result<Arc<ClientConfig>, Error> {
    let trust = match &settings.ca {
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
