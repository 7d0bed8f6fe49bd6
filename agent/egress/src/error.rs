//! What goes wrong on the way, in the words that clients know from Go's network library.

use std::io;

use rustls::CertificateError;

/// Why there is no way to a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection with the proxy.
    #[error("dial {network} {proxy}: {why}")]
    Connect {
        /// `tcp` or `unix`.
        network: &'static str,
        /// Its address.
        proxy: String,
        /// What the system said.
        why: String,
    },
    /// No agreement on TLS with the proxy.
    #[error("{0}")]
    Tls(String),
    /// No connection with a proxy that speaks gRPC, for as long as that is tried.
    #[error("context deadline exceeded: connection error: desc = \"transport: Error while dialing: {0}\"")]
    Grpc(#[source] Box<Error>),
    /// The proxy did not answer as it should.
    #[error("reading HTTP response from CONNECT to {address} via proxy {proxy} failed: {why}")]
    Answer {
        /// The server.
        address: String,
        /// The proxy.
        proxy: String,
        /// What came instead.
        why: String,
    },
    /// The proxy said no.
    #[error("proxy error from {proxy} while dialing {address}, code {code}: {status}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// The server.
        address: String,
        /// The HTTP status.
        code: u16,
        /// The same with its reason.
        status: String,
    },
    /// What a proxy that speaks gRPC reports of the server.
    #[error("{0}")]
    Endpoint(String),
    /// A proxy that speaks gRPC gave the attempt up.
    #[error("dial closed")]
    DialClosed,
    /// The stream of packets ended.
    #[error("tunnel closed")]
    TunnelClosed,
    /// A proxy that speaks gRPC did not answer in time.
    #[error("dial timeout, backstop")]
    Timeout,
}

/// What the network says, as Go words it.
#[must_use]
pub fn network_text(error: &io::Error) -> String {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        ErrorKind::NotFound => "connect: no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => "connect: permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// What is wrong with TLS, as Go words it.
#[must_use]
pub fn tls_text(error: &io::Error) -> String {
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
