//! Certificate signing requests.

use std::collections::BTreeSet;

use rcgen::{CertificateParams, SanType};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::authority::{San, subject};
use crate::certificate::{common_name, organizations, san};
use crate::key::Key;
use crate::{CsrDenied, Error};

/// A request, read and with its signature verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// The common name of the subject.
    pub common_name: String,
    /// The organizations of the subject.
    pub organizations: Vec<String>,
    /// DNS names and addresses.
    pub sans: BTreeSet<San>,
    /// How many e-mail addresses, URIs and other names there are.
    pub other_names: usize,
    der: Vec<u8>,
}

impl Csr {
    /// Reads a request from PEM.
    ///
    /// # Errors
    /// If it is damaged, its signature is wrong, or it asks for something that is never signed here.
    pub fn parse(pem: &str) -> Result<Self, CsrDenied> {
        let mut blocks = Pem::iter_from_buffer(pem.as_bytes());
        let block = match (blocks.next(), blocks.next()) {
            (Some(Ok(block)), None) if block.label == "CERTIFICATE REQUEST" => block,
            _ => return Err(CsrDenied::Unreadable),
        };
        let request = match X509CertificationRequest::from_der(&block.contents) {
            Ok(([], request)) => request,
            _ => return Err(CsrDenied::Unreadable),
        };
        request.verify_signature().map_err(|_wrong| CsrDenied::Signature)?;
        let subject = &request.certification_request_info.subject;
        // An organization in a set of its own is what this crate signs; sets of several would be signed in part.
        if subject.iter().any(|part| part.iter().count() != 1) {
            let organizations = organizations(subject).len();
            return Err(if organizations > 1 { CsrDenied::Organizations(organizations) } else { CsrDenied::Subject });
        }
        let organizations = organizations(subject);
        if organizations.len() > 1 {
            return Err(CsrDenied::Organizations(organizations.len()));
        }
        if subject.iter_common_name().count() > 1 {
            return Err(CsrDenied::Subject);
        }
        let common_name = common_name(subject).unwrap_or_default();
        let (mut sans, mut other_names) = (BTreeSet::new(), 0);
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    let known: Vec<San> = names.general_names.iter().filter_map(san).collect();
                    other_names += names.general_names.len() - known.len();
                    sans.extend(known);
                }
                ParsedExtension::BasicConstraints(constraints) if constraints.ca => return Err(CsrDenied::Authority),
                _ => {}
            }
        }
        Ok(Self { common_name, organizations, sans, other_names, der: block.contents.clone() })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }
}

/// Makes a request in PEM.
///
/// # Errors
/// If a DNS name is not ASCII.
pub fn create_csr(
    key: &Key,
    common_name: &str,
    organization: Option<&str>,
    sans: &BTreeSet<San>,
) -> Result<String, Error> {
    let failed = |source| Error::Issue { name: common_name.to_owned(), source };
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name, organization);
    for san in sans {
        params.subject_alt_names.push(match san {
            San::Dns(name) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
            San::Ip(address) => SanType::IpAddress(*address),
        });
    }
    params.serialize_request(key).and_then(|request| request.pem()).map_err(failed)
}
