//! Certificate authorities and the leaves that they issue.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};

use crate::certificate::Certificate;
use crate::csr::Csr;
use crate::key::{Key, Random, derive_bytes};
use crate::{CsrDenied, Error, moment};

/// Clocks of a cluster's machines differ by less.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Derived CAs are the same on every machine and so cannot begin at the time of their making: 2026-01-01 to 2056.
const DERIVED_FROM: i64 = 1_767_225_600;
const DERIVED_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
const SERIAL_BYTES: usize = 16;

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum San {
    /// A DNS name, perhaps a pattern.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl From<&manifest::Host> for San {
    fn from(host: &manifest::Host) -> Self {
        match host {
            manifest::Host::Ip(address) => Self::Ip(*address),
            manifest::Host::Name(name) => Self::Dns(name.clone()),
        }
    }
}

/// What a certificate may be used for, in the words of `certificates.k8s.io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// `digital signature`
    DigitalSignature,
    /// `key encipherment`
    KeyEncipherment,
    /// `client auth`
    ClientAuth,
    /// `server auth`
    ServerAuth,
    /// `code signing`
    CodeSigning,
    /// `email protection`
    EmailProtection,
    /// `timestamping`
    Timestamping,
    /// `ocsp signing`
    OcspSigning,
}

impl Usage {
    /// Every usage with its name.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::DigitalSignature, "digital signature"),
        (Self::KeyEncipherment, "key encipherment"),
        (Self::ClientAuth, "client auth"),
        (Self::ServerAuth, "server auth"),
        (Self::CodeSigning, "code signing"),
        (Self::EmailProtection, "email protection"),
        (Self::Timestamping, "timestamping"),
        (Self::OcspSigning, "ocsp signing"),
    ];

    /// Reads the names of `spec.usages`.
    ///
    /// # Errors
    /// If one of them is not known here.
    pub fn parse_all<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<BTreeSet<Self>, CsrDenied> {
        let parse = |name: &str| {
            let found = Self::NAMES.iter().find(|(_, known)| *known == name).map(|(usage, _)| *usage);
            found.ok_or_else(|| CsrDenied::UnknownUsage(name.to_owned()))
        };
        names.into_iter().map(parse).collect()
    }

    fn add_to(self, params: &mut CertificateParams) {
        match self {
            Self::DigitalSignature => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
            Self::KeyEncipherment => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            Self::ClientAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            Self::ServerAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            Self::CodeSigning => params.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning),
            Self::EmailProtection => params.extended_key_usages.push(ExtendedKeyUsagePurpose::EmailProtection),
            Self::Timestamping => params.extended_key_usages.push(ExtendedKeyUsagePurpose::TimeStamping),
            Self::OcspSigning => params.extended_key_usages.push(ExtendedKeyUsagePurpose::OcspSigning),
        }
    }
}

/// What a leaf certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The common name: the user, for client certificates.
    pub common_name: String,
    /// The organization: the group, for client certificates.
    pub organization: Option<String>,
    /// DNS names and addresses.
    pub sans: BTreeSet<San>,
    /// Usages.
    pub usages: BTreeSet<Usage>,
    /// How long it is valid.
    pub life: Duration,
}

/// A CA with its key.
#[derive(Debug)]
pub struct Authority {
    name: String,
    pem: String,
    certificate: Certificate,
    key: Key,
}

impl Authority {
    /// A new CA with a key of its own.
    ///
    /// # Errors
    /// If no random bytes can be had.
    pub fn generate(common_name: &str, now: SystemTime, random: Random<'_>) -> Result<Self, Error> {
        let key = Key::generate(random)?;
        Self::with_key(common_name, key, now, random)
    }

    /// A CA with a key that is there already, for one that lost its certificate.
    ///
    /// # Errors
    /// If no random bytes can be had.
    pub fn with_key(common_name: &str, key: Key, now: SystemTime, random: Random<'_>) -> Result<Self, Error> {
        let mut serial = [0; SERIAL_BYTES];
        random(&mut serial)?;
        Self::make(common_name, key, serial, (now - BACKDATE, now + AUTHORITY_LIFE))
    }

    /// The CA that a secret gives: the same certificate and key, byte for byte, on every machine.
    ///
    /// # Errors
    /// Never for real secrets.
    pub fn derive(common_name: &str, secret: &[u8; 32]) -> Result<Self, Error> {
        let key = Key::derive(secret, common_name)?;
        let mut serial = [0; SERIAL_BYTES];
        let bytes = derive_bytes(secret, &format!("{common_name} serial"), 0)?;
        serial.copy_from_slice(&bytes[..SERIAL_BYTES]);
        let from = moment::system(DERIVED_FROM);
        Self::make(common_name, key, serial, (from, from + DERIVED_LIFE))
    }

    fn make(
        common_name: &str,
        key: Key,
        serial: [u8; SERIAL_BYTES],
        (from, until): (SystemTime, SystemTime),
    ) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        moment::set_validity(&mut params, from, until);
        params.distinguished_name = subject(common_name, None);
        params.serial_number = Some(serial_number(serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        let made = params.self_signed(&key);
        let pem = made.map_err(|source| Error::Issue { name: common_name.to_owned(), source })?.pem();
        let certificate = Certificate::from_pem(common_name, &pem)?;
        Ok(Self { name: common_name.to_owned(), pem, certificate, key })
    }

    /// Reads a CA. `name` is only used in errors.
    ///
    /// # Errors
    /// If certificate or key are damaged or do not belong together.
    pub fn from_pem(name: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let certificate = Certificate::from_pem(name, certificate_pem)?;
        let key = Key::from_pem(name, key_pem)?;
        if certificate.public_der != key.public_der() || !certificate.is_ca {
            return Err(Error::AuthorityKey { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), pem: certificate_pem.to_owned(), certificate, key })
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The pin of this CA.
    #[must_use]
    pub fn hash(&self) -> manifest::CaHash {
        self.certificate.pin()
    }

    /// Issues a certificate for a key. Returns it in PEM.
    ///
    /// # Errors
    /// If the leaf has names that certificates cannot hold, or no random bytes can be had.
    pub fn issue(&self, leaf: &Leaf, key: &Key, now: SystemTime, random: Random<'_>) -> Result<String, Error> {
        let failed = |source| Error::Issue { name: leaf.common_name.clone(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&leaf.common_name, leaf.organization.as_deref());
        for san in &leaf.sans {
            params.subject_alt_names.push(match san {
                San::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
                San::Ip(address) => SanType::IpAddress(*address),
            });
        }
        self.sign(params, &leaf.usages, key, ((leaf.life, now), random))
    }

    /// Signs a request with the subject and the names that it asks for, and with these usages. Returns the certificate
    /// in PEM. Whether the requester may have it was decided before.
    ///
    /// # Errors
    /// If the request is damaged or asks for something that is not signed here.
    pub fn sign_csr(
        &self,
        csr_pem: &str,
        usages: &BTreeSet<Usage>,
        (life, now): (Duration, SystemTime),
        random: Random<'_>,
    ) -> Result<String, Error> {
        // The first reader is strict about subjects on which the second one would stumble.
        let csr = Csr::parse(csr_pem)?;
        let request = CertificateSigningRequestParams::from_der(&csr.der().to_vec().into())
            .map_err(|_unsupported| CsrDenied::Extension)?;
        if matches!(request.params.is_ca, IsCa::Ca(_)) {
            return Err(CsrDenied::Authority.into());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = request.params.distinguished_name;
        params.subject_alt_names = request.params.subject_alt_names;
        self.sign(params, usages, &request.public_key, ((life, now), random))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        usages: &BTreeSet<Usage>,
        key: &impl PublicKeyData,
        ((life, now), random): ((Duration, SystemTime), Random<'_>),
    ) -> Result<String, Error> {
        let failed = |source| Error::Issue { name: self.name.clone(), source };
        // A leaf that outlives its CA would be refused anyway, and its renewal would come too late.
        moment::set_validity(&mut params, now - BACKDATE, (now + life).min(self.certificate.not_after));
        let mut serial = [0; SERIAL_BYTES];
        random(&mut serial)?;
        params.serial_number = Some(serial_number(serial));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        usages.iter().for_each(|usage| usage.add_to(&mut params));
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der().to_vec().into(), &self.key).map_err(failed)?;
        Ok(params.signed_by(key, &issuer).map_err(failed)?.pem())
    }
}

pub(crate) fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject.push(DnType::CommonName, common_name);
    subject
}

/// Serial numbers are positive and not zero.
fn serial_number(mut bytes: [u8; SERIAL_BYTES]) -> SerialNumber {
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
