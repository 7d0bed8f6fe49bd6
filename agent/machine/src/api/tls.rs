//! Access over the network: TLS with the node's certificate, callers by certificates of the cluster's CA, whose groups
//! are their roles.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use machine_api::Role;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates that this machine may have, the one with more names first.
const CERTIFICATES: [&str; 2] = ["apiserver", "kubelet-server"];

/// Why a caller cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("this machine has no certificate yet")]
    NoCertificate,
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("use the certificates")]
    Rustls(#[from] rustls::Error),
    #[error("use the cluster's CA")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Made for each caller, so that renewed certificates count at once.
pub(super) fn acceptor(pki: &Path) -> Result<TlsAcceptor, TlsError> {
    let path = |name: &str, ending: &str| pki.join(format!("{name}.{ending}"));
    let name = CERTIFICATES.iter().find(|name| path(name, "crt").exists()).ok_or(TlsError::NoCertificate)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(&path("ca", "crt"))? {
        roots.add(root)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let key = path(name, "key");
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|source| TlsError::Read { path: key, source })?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&path(name, "crt"))?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// The name and the roles of a caller with this certificate, which was verified.
pub(super) fn caller(certificate: &[u8]) -> (String, Vec<Role>) {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Default::default() };
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let groups = certificate.subject().iter_organization();
    let roles = groups.filter_map(|group| group.as_str().ok().and_then(Role::of_group)).collect();
    (name.unwrap_or_default().to_owned(), roles)
}
