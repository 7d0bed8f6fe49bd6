//! One request to a kubelet, and the raw bytes after an upgrade.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderName, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer::{self, Body, BodyError};
use crate::config::KubeletClient;
use crate::serve::{certificates, key};
use crate::status::{Failure, Result};

/// How long a kubelet may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What to ask for, and where.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) uri: Uri,
}

/// Sends the request on and answers as the kubelet does; after an upgrade bytes pass both ways untouched.
pub(super) async fn forward(
    settings: &KubeletClient,
    target: &Target,
    mut parts: Parts,
    body: Body,
) -> Result<Response<Body>> {
    let failed = |e: &dyn std::fmt::Display| {
        Failure::internal(format!("error dialing backend {}:{}: {e}", target.host, target.port))
    };
    let connect = connect(settings, target);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|e| failed(&e))??;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    // Ends with the answer's body, or with the tunnel.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a kubelet ended");
        }
    });
    let upgrade =
        parts.extensions.remove::<hyper::upgrade::OnUpgrade>().filter(|_| parts.headers.contains_key(UPGRADE));
    let request = request(target, &parts, body)?;
    let mut response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = upgrade
    {
        let kubelet = hyper::upgrade::on(&mut response);
        tokio::spawn(splice(client, kubelet));
    }
    let (mut head, body) = response.into_parts();
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        for name in HOP_BY_HOP {
            head.headers.remove(name);
        }
    }
    Ok(Response::from_parts(head, body.map_err(BodyError::new).boxed_unsync()))
}

/// Headers that speak of one connection only.
const HOP_BY_HOP: [HeaderName; 3] =
    [CONNECTION, http::header::TRANSFER_ENCODING, HeaderName::from_static("keep-alive")];

fn request(target: &Target, parts: &Parts, body: Body) -> Result<Request<Body>> {
    let mut request = Request::new(if parts.method == Method::GET { answer::full("") } else { body });
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    let headers = request.headers_mut();
    // The client's credentials are for this server alone.
    headers.remove(AUTHORIZATION);
    if !headers.contains_key(UPGRADE) {
        headers.remove(CONNECTION);
    }
    answer::set(headers, HOST, &format!("{}:{}", target.host, target.port));
    Ok(request)
}

async fn connect(settings: &KubeletClient, target: &Target) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let dialing = |e: &dyn std::fmt::Display| {
        Failure::internal(format!("error dialing backend {}:{}: {e}", target.host, target.port))
    };
    let config = client_config(settings).map_err(|e| Failure::internal(stdx::chain(&e)))?;
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|e| dialing(&e))?;
    let name = ServerName::try_from(target.host.clone()).map_err(|e| dialing(&e))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| dialing(&e))
}

fn client_config(settings: &KubeletClient) -> std::result::Result<rustls::ClientConfig, crate::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &settings.ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
    };
    Ok(builder.with_client_auth_cert(certificates(&settings.certificate)?, key(&settings.key)?)?)
}

async fn splice(client: hyper::upgrade::OnUpgrade, kubelet: hyper::upgrade::OnUpgrade) {
    match (client.await, kubelet.await) {
        (Ok(client), Ok(kubelet)) => {
            let result = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(kubelet)).await;
            if let Err(error) = result {
                tracing::debug!(%error, "a stream to a kubelet ended");
            }
        }
        (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "an upgrade did not happen"),
    }
}

/// Takes any serving certificate: upstream's rule where no authority for kubelets is configured.
#[derive(Debug)]
struct Unchecked(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
