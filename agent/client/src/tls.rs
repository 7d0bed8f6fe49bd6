//! The rustls set-up of a [`Config`].

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Config, Identity};
use crate::error::ConfigError;
use crate::judge::Verifier;
use crate::roots::Roots;
use crate::unverified::AnyCertificate;

/// The TLS configuration that `config` describes.
pub(crate) fn client_config(config: &Config) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ConfigError::Tls)?;
    let builder = if config.insecure_skip_tls_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(AnyCertificate, &provider)))
    } else {
        let pem = config.ca_pem.as_deref().ok_or(ConfigError::NoAuthority)?;
        let roots = Roots::new(roots(pem)?, provider.clone()).ok_or(ConfigError::NoAuthority)?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(roots, &provider)))
    };
    let mut tls = match &config.identity {
        Identity::Certificate { cert_pem, key_pem } => {
            let chain = certificates("client certificate", cert_pem)?;
            let key = PrivateKeyDer::from_pem_slice(key_pem)
                .map_err(|source| ConfigError::Pem { what: "client key", source: source.into() })?;
            builder.with_client_auth_cert(chain, key).map_err(ConfigError::Tls)?
        }
        Identity::Anonymous | Identity::Token(_) | Identity::TokenFile(_) => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("certificate authority", pem)? {
        store.add(certificate).map_err(ConfigError::Tls)?;
    }
    Ok(store)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|source| ConfigError::Pem { what, source: source.into() })?;
    if found.is_empty() {
        return Err(ConfigError::Pem { what, source: "no certificate inside".into() });
    }
    Ok(found)
}
