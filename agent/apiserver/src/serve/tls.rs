//! TLS settings from files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{RootCertStore, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::{FrontProxy, Tls};
use crate::error::Error;

/// An acceptor that asks clients for certificates and lets them go without.
pub fn acceptor(tls: &Tls, front_proxy: Option<&FrontProxy>) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(provider());
    let mut roots = RootCertStore::empty();
    for path in tls.client_ca.iter().chain(front_proxy.map(|f| &f.ca)) {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
    }
    let verifier: Arc<dyn ClientCertVerifier> = if roots.is_empty() {
        Arc::new(NoClientAuth)
    } else {
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()?
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.certificate)?, key(&tls.key)?)?;
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Ciphers in the order of this server: as with upstream, the one that costs least comes first.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_cheap = |suite: &SupportedCipherSuite| {
        use rustls::CipherSuite::{
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256,
        };
        matches!(
            suite.suite(),
            TLS13_AES_128_GCM_SHA256 | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    // Newer protocols stay before older ones.
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_cheap(suite)));
    provider
}

/// All certificates of a PEM file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::Pem { path: path.to_owned(), what: "certificate" }),
    }
}

/// The private key of a PEM file.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| Error::Pem { path: path.to_owned(), what: "private key" })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::ReadFile { path: path.to_owned(), source })
}
