//! Which certificates of name servers are believed.
//!
//! Name and authority always count. Time counts as far as it is known: a machine without a battery begins with the last
//! time that it knew, and the names of the servers that tell it the time are asked here. Until one has, a certificate
//! that begins later than the clock says is judged as at its beginning; one that has ended is refused as ever. That gives
//! nothing to anybody who could not set the clock anyway, by answering as a time server does, and nobody is asked in plain
//! text for it.

use std::sync::Arc;

use client::{Judge, Roots, Shown, Verifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::clock::Clock;

/// Certificates of one chain; each may begin later than the one before it.
const CHAIN: usize = 8;

/// The TLS settings for a server whose authorities are in this text, or are the host's.
pub(crate) fn client_config(ca: Option<&str>, clock: &Clock) -> Result<ClientConfig, String> {
    let host;
    let pem = match ca {
        Some(pem) => pem.as_bytes(),
        None => {
            host = client::host_authorities().ok_or("this host has no authorities that it trusts")?;
            &host
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Roots::new(roots(pem), provider.clone()).ok_or("its CA certificates cannot be read")?;
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let verifier = Arc::new(Verifier::new(Patient { roots, clock: clock.clone() }, &provider));
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(pem: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    roots
}

/// Why a handshake failed, for people.
pub(crate) fn words(error: &std::io::Error, name: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(error)) = inner else { return format!("TLS failed: {error}") };
    #[allow(clippy::wildcard_enum_match_arm, reason = "of the library's many reasons these have words of ours")]
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for {name}")
        }
        // The latter is what another authority of the same name gives.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody who is trusted signed its certificate".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, by this machine's clock".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, by this machine's clock".to_owned()
        }
        other => format!("its certificate is no good: {other}"),
    }
}

/// Waits for the time to be told before it says that a certificate is too young.
#[derive(Debug)]
struct Patient {
    roots: Roots,
    clock: Clock,
}

impl Judge for Patient {
    fn judge(&self, shown: &Shown<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        let verify = |at| self.roots.judge(shown, at);
        let (mut at, mut verdict) = (now, verify(now));
        for _later in 0..CHAIN {
            match verdict {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if !self.clock.is_told() && not_before > at =>
                {
                    at = not_before;
                    verdict = verify(at);
                }
                Ok(()) | Err(_) => break,
            }
        }
        verdict
    }
}
