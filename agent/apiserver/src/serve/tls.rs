//! TLS settings from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::NoClientAuth;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use super::named::Names;
use crate::config::{FrontProxy, Tls};
use crate::error::Error;

/// What connections are accepted with: the files as they are now.
pub struct Certificates {
    tls: Tls,
    front_proxy: Option<FrontProxy>,
    current: Mutex<(Vec<Stamp>, TlsAcceptor)>,
}

/// By which another content of a file is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    changed: Option<(SystemTime, u64)>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(tls: &Tls, front_proxy: Option<&FrontProxy>) -> Result<Self, Error> {
        let stamps = stamps(tls, front_proxy);
        let first = acceptor(tls, front_proxy)?;
        Ok(Self { tls: tls.clone(), front_proxy: front_proxy.cloned(), current: Mutex::new((stamps, first)) })
    }

    /// The acceptor for a new connection. Files that changed are read again; while they do not fit together, as in the
    /// middle of their replacement, the last ones that did are used.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        let stamps = stamps(&self.tls, self.front_proxy.as_ref());
        let mut current = self.current.lock();
        if current.0 != stamps {
            match acceptor(&self.tls, self.front_proxy.as_ref()) {
                Ok(acceptor) => {
                    tracing::info!(certificate = %self.tls.certificate.display(), "the certificates were read again");
                    *current = (stamps, acceptor);
                }
                Err(error) => tracing::warn!(error = %stdx::chain(&error), "changed certificates cannot be used"),
            }
        }
        current.1.clone()
    }
}

fn stamps(tls: &Tls, front_proxy: Option<&FrontProxy>) -> Vec<Stamp> {
    let own = [&tls.certificate, &tls.key].into_iter().chain(&tls.client_ca).chain(front_proxy.map(|f| &f.ca));
    let files = own.chain(tls.named.iter().flat_map(|named| [&named.certificate, &named.key]));
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok();
        let changed = metadata.and_then(|m| Some((m.modified().ok()?, m.len())));
        Stamp { path: path.clone(), changed }
    };
    files.map(stamp).collect()
}

/// An acceptor that asks clients for certificates and lets them go without.
fn acceptor(tls: &Tls, front_proxy: Option<&FrontProxy>) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(tls.limits.restrict(provider()));
    let mut roots = RootCertStore::empty();
    for path in tls.client_ca.iter().chain(front_proxy.map(|f| &f.ca)) {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
    }
    let verifier: Arc<dyn ClientCertVerifier> = if roots.is_empty() {
        Arc::new(NoClientAuth)
    } else {
        Arc::new(AnyCertificate { hints: roots.subjects(), algorithms: provider.signature_verification_algorithms })
    };
    let resolver = Names::read(tls, &provider)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(tls.limits.versions())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.ignore_client_order = true;
    config.alpn_protocols = tls.limits.protocols();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes every certificate whose key the client has. What it is worth, requests are asked for one by one: who shows an
/// old one may hold a token, and gets an answer that says what is missing.
#[derive(Debug)]
struct AnyCertificate {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
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
