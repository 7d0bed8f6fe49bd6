//! TLS with a certificate that may be replaced while serving.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
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
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate.cert_pem).collect();
    let chain = chain.map_err(|error| TlsError::Pem("the certificate", error))?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key_pem).map_err(|error| TlsError::Pem("the key", error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
