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

/// Makes acceptors with the newest certificate and the authorities of callers that are trusted now.
pub(super) struct TlsSource {
    certificate: watch::Receiver<ServingCertificate>,
    client_ca: Option<watch::Receiver<Vec<u8>>>,
    provider: Arc<CryptoProvider>,
    made: Mutex<(Material, TlsAcceptor)>,
}

/// What an acceptor is made of.
#[derive(Clone, PartialEq, Eq)]
struct Material {
    certificate: ServingCertificate,
    client_ca: Option<Vec<u8>>,
}

impl TlsSource {
    pub(super) fn try_new(
        certificate: watch::Receiver<ServingCertificate>,
        client_ca: Option<watch::Receiver<Vec<u8>>>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let first = newest(&certificate, client_ca.as_ref());
        if first.certificate.is_missing() {
            tracing::info!("handshakes are refused until the serving certificate is issued");
        }
        let acceptor = acceptor(&first, &provider)?;
        Ok(Self { certificate, client_ca, provider, made: Mutex::new((first, acceptor)) })
    }

    /// An acceptor with the newest material; the one before if that is not usable.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = newest(&self.certificate, self.client_ca.as_ref());
        if newest != made.0 {
            match acceptor(&newest, &self.provider) {
                Ok(acceptor) => made.1 = acceptor,
                Err(error) => tracing::warn!(error = %stdx::chain(&error), "the new serving certificate is not used"),
            }
            made.0 = newest;
        }
        made.1.clone()
    }
}

fn newest(certificate: &watch::Receiver<ServingCertificate>, client_ca: Option<&watch::Receiver<Vec<u8>>>) -> Material {
    let client_ca = client_ca.map(|client_ca| client_ca.borrow().clone());
    Material { certificate: certificate.borrow().clone(), client_ca }
}

fn verifier(client_ca: Option<&[u8]>, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(pem) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        roots.add(root.map_err(|error| TlsError::Pem("the client authority", error))?)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    Ok(builder.allow_unauthenticated().build()?)
}

fn acceptor(material: &Material, provider: &Arc<CryptoProvider>) -> Result<TlsAcceptor, TlsError> {
    let certificate = &material.certificate;
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier(material.client_ca.as_deref(), provider)?);
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

    /// Whether somebody who trusts these roots, and has no certificate or this one, is talked to.
    async fn shake(source: &TlsSource, roots: &[u8], own: Option<&ServingCertificate>) -> Result<(), String> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            store.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store);
        let config = match own {
            Some(own) => {
                let (chain, key) = read(own).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let (near, far) = tokio::io::duplex(16 * 1024);
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("node").unwrap();
        let (client, server) = tokio::join!(connector.connect(name, near), source.acceptor().accept(far));
        client.map_err(|error| error.to_string())?;
        server.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn handshakes_are_refused_until_the_certificate_is_issued() {
        let certificate = issued();
        let (sender, receiver) = watch::channel(ServingCertificate::default());
        let source = TlsSource::try_new(receiver, None).unwrap();
        let refused = shake(&source, &certificate.cert_pem, None).await.unwrap_err();
        assert!(refused.contains("fatal alert"), "{refused}");
        sender.send_replace(certificate.clone());
        shake(&source, &certificate.cert_pem, None).await.unwrap();
        let broken = ServingCertificate { cert_pem: b"no PEM".to_vec(), key_pem: Vec::new() };
        sender.send_replace(broken);
        shake(&source, &certificate.cert_pem, None).await.unwrap();
    }

    /// An authority, and somebody whom it vouches for.
    fn vouched() -> (String, ServingCertificate) {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes");
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let caller = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::default();
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        leaf.use_authority_key_identifier_extension = true;
        let signed = leaf.signed_by(&caller, &rcgen::Issuer::new(params, key)).unwrap();
        let (cert_pem, key_pem) = (signed.pem().into_bytes(), caller.serialize_pem().into_bytes());
        (authority, ServingCertificate { cert_pem, key_pem })
    }

    #[tokio::test]
    async fn callers_are_those_of_the_authorities_that_are_trusted_now() {
        let own = issued();
        let ((old, of_old), (new, of_new)) = (vouched(), vouched());
        let (_sender, certificate) = watch::channel(own.clone());
        let (sender, authorities) = watch::channel(Vec::new());
        sender.send_replace(old.clone().into_bytes());
        let source = TlsSource::try_new(certificate, Some(authorities)).unwrap();
        for (trusted, takes) in [
            (old.clone(), [true, false]),
            (format!("{old}{new}"), [true, true]),
            (format!("{new}{old}"), [true, true]),
            (new, [false, true]),
        ] {
            sender.send_replace(trusted.into_bytes());
            for (caller, takes) in [&of_old, &of_new].into_iter().zip(takes) {
                let shaken = shake(&source, &own.cert_pem, Some(caller)).await;
                assert_eq!(shaken.is_ok(), takes, "{shaken:?}");
            }
        }
    }
}
