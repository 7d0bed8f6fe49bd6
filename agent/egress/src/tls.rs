//! TLS towards other servers.

use std::sync::Arc;

use client::{AnyCertificate, Roots, Verifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Roots(trusted) => match Roots::new(trusted, provider.clone()) {
            Some(roots) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(roots, &provider)))
            }
            None => builder.with_root_certificates(RootCertStore::empty()),
        },
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(AnyCertificate, &provider)))
        }
    };
    Ok(Arc::new(match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    }))
}

/// The authorities of a bundle; what is none of them is left out, and a text that is broken is none.
pub(crate) fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    Some(roots)
}
