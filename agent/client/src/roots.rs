//! Servers' certificates, checked as Go's library does.
//!
//! Who makes a certificate for one webhook often lets it sign itself, says that it is an authority, too, or gives the
//! certificate itself as the authority, whoever signed it. The verifier here refuses all of these; Go's takes whatever
//! is itself among those that are trusted.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use crate::judge::{Judge, Shown};

/// Takes certificates that these authorities signed, and the authorities' own.
#[derive(Debug)]
pub struct Roots {
    roots: Arc<RootCertStore>,
    usual: Arc<WebPkiServerVerifier>,
}

impl Roots {
    /// None if nobody is trusted. Signatures are checked by the algorithms of `provider`.
    #[must_use]
    pub fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Option<Self> {
        let roots = Arc::new(roots);
        let usual = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build().ok()?;
        Some(Self { roots, usual })
    }

    /// Whether the certificate is one of the authorities': of that name and with that key, which the server has to hold.
    fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        let mut own = RootCertStore::empty();
        own.add(certificate.clone().into_owned()).is_ok() && own.roots.iter().all(|own| self.roots.roots.contains(own))
    }
}

/// What an authority's certificate has to say to be a server's.
fn verify_own(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    let (_, read) = X509Certificate::from_der(certificate).map_err(|_bad| CertificateError::BadEncoding)?;
    let (time, validity) = (now, read.validity());
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    if let Some(early) = now.filter(|now| *now < validity.not_before) {
        let wait = validity.not_before.timestamp().saturating_sub(early.timestamp());
        let wait = Duration::from_secs(u64::try_from(wait).unwrap_or_default());
        let not_before = UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs()) + wait);
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if !now.is_some_and(|now| validity.is_valid_at(now)) {
        return Err(CertificateError::Expired.into());
    }
    let uses = read.extended_key_usage().map_err(|_bad| CertificateError::BadEncoding)?;
    if uses.is_some_and(|uses| !uses.value.any && !uses.value.server_auth) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

impl Judge for Roots {
    fn judge(&self, shown: &Shown<'_>, at: UnixTime) -> Result<(), rustls::Error> {
        let Shown { certificate, intermediates, name, ocsp } = *shown;
        if self.has(certificate) {
            return verify_own(certificate, name, at);
        }
        self.usual.verify_server_cert(certificate, intermediates, name, ocsp, at).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Verifier;

    fn params(change: impl FnOnce(&mut rcgen::CertificateParams)) -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        change(&mut params);
        params
    }

    /// A certificate that signs itself for `a.example`, changed a little.
    fn own(change: impl FnOnce(&mut rcgen::CertificateParams)) -> CertificateDer<'static> {
        let mut params = params(|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        change(&mut params);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// One that an authority signs which nobody knows.
    fn signed(change: impl FnOnce(&mut rcgen::CertificateParams)) -> CertificateDer<'static> {
        let mut authority = params(|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
        authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let issuer = rcgen::Issuer::new(authority, rcgen::KeyPair::generate().unwrap());
        params(change).signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
    }

    fn verify(trusted: &CertificateDer<'static>, shown: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(Roots::new(roots, provider.clone()).unwrap(), &provider);
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn an_authority_that_is_trusted_may_be_the_server() {
        let certificate = own(|_| {});
        verify(&certificate, &certificate, "a.example").unwrap();
        let server_auth = own(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
        verify(&server_auth, &server_auth, "a.example").unwrap();
    }

    #[test]
    fn a_certificate_that_is_trusted_needs_no_authority() {
        let certificate = signed(|_| {});
        verify(&certificate, &certificate, "a.example").unwrap();
        assert!(verify(&certificate, &signed(|_| {}), "a.example").is_err());
        assert!(verify(&certificate, &certificate, "b.example").is_err());
        let old = signed(|params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
        assert!(verify(&old, &old, "a.example").is_err());
    }

    #[test]
    fn other_authorities_names_times_and_uses_are_refused() {
        let certificate = own(|_| {});
        assert!(verify(&own(|_| {}), &certificate, "a.example").is_err());
        assert!(verify(&certificate, &certificate, "b.example").is_err());
        let old = own(|params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
        assert!(verify(&old, &old, "a.example").is_err());
        let young = own(|params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
        let refused = verify(&young, &young, "a.example").unwrap_err();
        let begins = UnixTime::since_unix_epoch(Duration::from_secs(4_102_444_800));
        assert!(
            matches!(
                refused,
                rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })
                    if not_before == begins
            ),
            "{refused:?}"
        );
        let other = own(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth]);
        assert!(verify(&other, &other, "a.example").is_err());
    }

    #[test]
    fn nobody_is_trusted_without_authorities() {
        assert!(Roots::new(RootCertStore::empty(), Arc::new(rustls::crypto::ring::default_provider())).is_none());
    }
}
