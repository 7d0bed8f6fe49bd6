//! TLS with a certificate that may be replaced while serving.
//!
//! The certificate of a node that joins is issued some time after its Node object has addresses. Until then there is
//! none to show, and handshakes are refused with an alert, as upstream does under `serverTLSBootstrap`: a certificate
//! made up meanwhile would be refused by an API server that verifies kubelets, and would teach the others to trust it.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ResolvesServerCertUsingSni, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::ServingCertificate;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text is none.
    #[error("read {0}")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    /// The certificate and its key do not serve.
    #[error("use the certificate")]
    Rustls(#[from] rustls::Error),
    /// The client authority does not serve.
    #[error("use the client authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Makes acceptors with the newest certificate.
pub(super) struct TlsSource {
    certificate: watch::Receiver<ServingCertificate>,
    verifier: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
    made: Mutex<(ServingCertificate, TlsAcceptor)>,
}

impl TlsSource {
    pub(super) fn try_new(
        certificate: watch::Receiver<ServingCertificate>,
        client_ca: Option<&[u8]>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = match client_ca {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for root in CertificateDer::pem_slice_iter(pem) {
                    roots.add(root.map_err(|error| TlsError::Pem("the client authority", error))?)?;
                }
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .allow_unauthenticated()
                    .build()?
            }
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let first = certificate.borrow().clone();
        if first.is_missing() {
            tracing::info!("handshakes are refused until the serving certificate is issued");
        }
        let acceptor = acceptor(&first, &verifier, &provider)?;
        Ok(Self { certificate, verifier, provider, made: Mutex::new((first, acceptor)) })
    }

    /// An acceptor with the newest certificate; the one before if that is not usable.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.certificate.borrow().clone();
        if newest != made.0 {
            match acceptor(&newest, &self.verifier, &self.provider) {
                Ok(acceptor) => made.1 = acceptor,
                Err(error) => tracing::warn!(error = %stdx::chain(&error), "the new serving certificate is not used"),
            }
            made.0 = newest;
        }
        made.1.clone()
    }
}

fn acceptor(
    certificate: &ServingCertificate,
    verifier: &Arc<dyn ClientCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<TlsAcceptor, TlsError> {
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.clone());
    let mut config = if certificate.is_missing() {
        builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))
    } else {
        let (chain, key) = read(certificate)?;
        builder.with_single_cert(chain, key)?
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(certificate: &ServingCertificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate.cert_pem).collect();
    let chain = chain.map_err(|error| TlsError::Pem("the certificate", error))?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key_pem).map_err(|error| TlsError::Pem("the key", error))?;
    Ok((chain, key))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    use super::*;

    fn issued() -> ServingCertificate {
        let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
        ServingCertificate {
            cert_pem: made.cert.pem().into_bytes(),
            key_pem: made.signing_key.serialize_pem().into_bytes(),
        }
    }

    async fn shake(source: &TlsSource, roots: &[u8]) -> Result<(), String> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            store.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("node").unwrap();
        let (client, _server) = tokio::join!(connector.connect(name, near), source.acceptor().accept(far));
        client.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn handshakes_are_refused_until_the_certificate_is_issued() {
        let certificate = issued();
        let (sender, receiver) = watch::channel(ServingCertificate::default());
        let source = TlsSource::try_new(receiver, None).unwrap();
        let refused = shake(&source, &certificate.cert_pem).await.unwrap_err();
        assert!(refused.contains("fatal alert"), "{refused}");
        sender.send_replace(certificate.clone());
        shake(&source, &certificate.cert_pem).await.unwrap();
        let broken = ServingCertificate { cert_pem: b"no PEM".to_vec(), key_pem: Vec::new() };
        sender.send_replace(broken);
        shake(&source, &certificate.cert_pem).await.unwrap();
    }
}
