//! Reading certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::authority::San;
use crate::{Error, moment};

/// Characters of a line of PEM.
const PEM_LINE: usize = 64;

/// What this crate looks at in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of the subject.
    pub common_name: String,
    /// The organizations of the subject.
    pub organizations: Vec<String>,
    /// The DNS names and addresses.
    pub sans: BTreeSet<San>,
    /// Valid from then on.
    pub not_before: SystemTime,
    /// Valid until then.
    pub not_after: SystemTime,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// The public key as SubjectPublicKeyInfo in DER.
    pub public_der: Vec<u8>,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads the first certificate of a PEM text. `name` is only used in the error.
    ///
    /// # Errors
    /// If there is none or it is damaged.
    pub fn from_pem(name: &str, pem: &str) -> Result<Self, Error> {
        let damaged = || Error::Certificate { name: name.to_owned() };
        let block = Pem::iter_from_buffer(pem.as_bytes()).flatten().find(|block| block.label == "CERTIFICATE");
        Self::from_der(name, &block.ok_or_else(damaged)?.contents)
    }

    /// Reads all certificates of a PEM text; there is at least one. `name` is only used in the error.
    ///
    /// # Errors
    /// If there is none or one is damaged.
    pub fn all_from_pem(name: &str, pem: &str) -> Result<Vec<Self>, Error> {
        let damaged = || Error::Certificate { name: name.to_owned() };
        let blocks: Vec<Pem> =
            Pem::iter_from_buffer(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_invalid| damaged())?;
        let blocks = blocks.iter().filter(|block| block.label == "CERTIFICATE");
        let all: Vec<Self> = blocks.map(|block| Self::from_der(name, &block.contents)).collect::<Result<_, _>>()?;
        if all.is_empty() { Err(damaged()) } else { Ok(all) }
    }

    /// Reads a certificate. `name` is only used in the error.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn from_der(name: &str, der: &[u8]) -> Result<Self, Error> {
        let damaged = || Error::Certificate { name: name.to_owned() };
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_invalid| damaged())?;
        let mut sans = BTreeSet::new();
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                sans.extend(names.general_names.iter().filter_map(san));
            }
        }
        Ok(Self {
            common_name: common_name(parsed.subject()).unwrap_or_default(),
            organizations: organizations(parsed.subject()),
            sans,
            not_before: moment::system(parsed.validity().not_before.timestamp()),
            not_after: moment::system(parsed.validity().not_after.timestamp()),
            is_ca: parsed.is_ca(),
            public_der: parsed.public_key().raw.to_vec(),
            der: der.to_vec(),
        })
    }

    /// Whether the key in `issuer` signed this certificate.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        let (Ok((_, this)), Ok((_, issuer))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&issuer.der))
        else {
            return false;
        };
        this.issuer() == issuer.subject() && this.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// Whether the certificate is valid at a time.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_hash(&self) -> [u8; 32] {
        sha256(&self.public_der)
    }

    /// The same as the pin of a CA.
    #[must_use]
    pub fn pin(&self) -> manifest::CaHash {
        manifest::CaHash::new(self.public_key_hash())
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let text = STANDARD.encode(&self.der);
        let lines = text.as_bytes().chunks(PEM_LINE).map(String::from_utf8_lossy);
        let body: String = lines.map(|line| format!("{line}\n")).collect();
        format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

/// Several certificates in one PEM text.
#[must_use]
pub fn bundle(all: &[Certificate]) -> String {
    all.iter().map(Certificate::to_pem).collect()
}

/// The pin of a CA as kubeadm has it: SHA-256 of the SubjectPublicKeyInfo of the first certificate.
///
/// # Errors
/// If there is no certificate.
pub fn ca_hash(pem: &str) -> Result<manifest::CaHash, Error> {
    Ok(Certificate::from_pem("ca", pem)?.pin())
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

pub(crate) fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().last().and_then(|value| value.as_str().ok()).map(str::to_owned)
}

pub(crate) fn organizations(name: &X509Name<'_>) -> Vec<String> {
    name.iter_organization().filter_map(|value| value.as_str().ok()).map(str::to_owned).collect()
}

pub(crate) fn san(name: &GeneralName<'_>) -> Option<San> {
    match name {
        GeneralName::DNSName(name) => Some(San::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => address(bytes).map(San::Ip),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_wrong| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
