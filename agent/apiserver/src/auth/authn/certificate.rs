//! Client certificates: of users, and of the front proxy that speaks for users.
//!
//! The connection proved that the client has the key, and nothing else: whether a known authority signed the
//! certificate, and which one, is checked here, and remembered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

use super::remembered::Remembered;
use super::{AuthRequest, AuthnError, ConfigError, REMEMBER_SECONDS};
use crate::auth::identity::{CREDENTIAL_ID, UserInfo};
use crate::config::FrontProxyHeaders;
use crate::request::percent_decode;

/// The subject attribute that carries a user's uid.
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// Whose word about users is taken, and where it is written.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// Authorities of the proxies' certificates, a PEM bundle.
    pub ca_pem: Vec<u8>,
    /// Common names allowed; empty allows all.
    pub allowed_names: Vec<String>,
    /// Where it is written.
    pub headers: FrontProxyHeaders,
}

pub(super) struct Certificates {
    users: Option<Authority>,
    front_proxy: Option<(Authority, FrontProxy)>,
}

impl Certificates {
    pub(super) fn new(client_ca: Option<&[u8]>, front_proxy: Option<FrontProxy>) -> Result<Self, ConfigError> {
        let users = client_ca.map(|pem| Authority::new("client CA", pem)).transpose()?;
        let front_proxy = match front_proxy {
            Some(proxy) => Some((Authority::new("front proxy CA", &proxy.ca_pem)?, proxy)),
            None => None,
        };
        Ok(Self { users, front_proxy })
    }

    pub(super) fn authenticate(&self, request: &AuthRequest<'_>, now: i64) -> Result<Option<UserInfo>, AuthnError> {
        if request.peer_certificates.is_empty() {
            return Ok(None);
        }
        let by_proxy = self.by_front_proxy(request, now);
        if let Ok(Some(user)) = by_proxy {
            return Ok(Some(user));
        }
        let user = match &self.users {
            Some(authority) => authority.subject(request.peer_certificates, now)?,
            None => None,
        };
        // Who is neither known nor a proxy has shown something that is no good.
        if user.is_some() { Ok(user) } else { by_proxy }
    }

    fn by_front_proxy(&self, request: &AuthRequest<'_>, now: i64) -> Result<Option<UserInfo>, AuthnError> {
        let Some((authority, proxy)) = &self.front_proxy else { return Ok(None) };
        let subject = authority.subject(request.peer_certificates, now)?;
        let name = subject.map(|subject| subject.name).unwrap_or_default();
        if !proxy.allowed_names.is_empty() && !proxy.allowed_names.contains(&name) {
            return Err(AuthnError::Certificate(format!("subject with cn={name} is not in the allowed list")));
        }
        Ok(proxy.user(request.headers))
    }
}

impl FrontProxy {
    fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let all = |names: &[String]| -> Vec<String> {
            let values = names.iter().flat_map(|name| headers.get_all(name.as_str()));
            values
                .filter_map(|value| value.to_str().ok())
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let mut prefixes = self.headers.extra_prefixes.iter();
            let suffix = prefixes.find_map(|prefix| name.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
            if let (Some(key), Ok(value)) = (suffix, value.to_str()) {
                extra.entry(percent_decode(key, false)).or_default().push(value.to_owned());
            }
        }
        Some(UserInfo {
            name: all(&self.headers.username).into_iter().next()?,
            uid: all(&self.headers.uid).into_iter().next().unwrap_or_default(),
            groups: all(&self.headers.group),
            extra,
        })
    }
}

/// Authorities that certificates of one purpose are signed by.
struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
    subjects: Remembered<Option<UserInfo>>,
}

impl Authority {
    fn new(what: &'static str, pem: &[u8]) -> Result<Self, ConfigError> {
        let failed = |reason: String| ConfigError::Authorities { what, reason };
        let mut roots = RootCertStore::empty();
        for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| failed(error.to_string()))?;
            if block.label == "CERTIFICATE" {
                roots.add(block.contents.into()).map_err(|error| failed(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { verifier, subjects: Remembered::default() })
    }

    /// The subject of a chain that these authorities signed; `None` if it has no name.
    fn subject(&self, chain: &[CertificateDer<'static>], now: i64) -> Result<Option<UserInfo>, AuthnError> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(None) };
        let digest: [u8; 32] = Sha256::digest(leaf).into();
        if let Some(known) = self.subjects.get(&digest, now) {
            return Ok(known);
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        self.verifier
            .verify_client_cert(leaf, intermediates, time)
            .map_err(|error| AuthnError::Certificate(error.to_string()))?;
        let user = read_subject(leaf, &digest)?;
        self.subjects.put(digest, user.clone(), now + REMEMBER_SECONDS, now);
        Ok(user)
    }
}

fn read_subject(leaf: &CertificateDer<'_>, digest: &[u8; 32]) -> Result<Option<UserInfo>, AuthnError> {
    let refused = |reason: &str| AuthnError::Certificate(reason.to_owned());
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| refused("it cannot be read"))?;
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    // Where a name has several, the last one counts, as it does upstream.
    let Some(name) = subject.iter_common_name().filter_map(text).last().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let groups = subject.iter_organization().filter_map(text).collect();
    let fingerprint: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={fingerprint}")])]);
    Ok(Some(UserInfo { name, uid: read_uid(subject)?, groups, extra }))
}

fn read_uid(subject: &X509Name<'_>) -> Result<String, AuthnError> {
    let refused = |reason: &str| AuthnError::Certificate(reason.to_owned());
    let mut uids = subject.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == UID_OID);
    let Some(uid) = uids.next() else { return Ok(String::new()) };
    if uids.next().is_some() {
        return Err(refused("it holds more than one uid"));
    }
    let uid = uid.as_str().map_err(|_| refused("its uid is no text"))?;
    if uid.is_empty() { Err(refused("its uid is empty")) } else { Ok(uid.to_owned()) }
}
