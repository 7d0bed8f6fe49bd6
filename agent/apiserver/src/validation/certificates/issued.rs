//! The certificate that a pod gets: it is for the key that was asked about, and lasts as long as it says.

use api::certificates::v1beta1::{PodCertificateRequestSpec as Spec, PodCertificateRequestStatus as Status};
use api::meta::v1::Time;
use api::time::format_seconds;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::STATUS;
use super::pod_request::{KEY, NO_KEY, NO_REQUEST, REQUEST, bytes};
use crate::status::FieldError;
use crate::validation::{Errors, Path};

const MAX_CHAIN_BYTES: usize = 100 << 10;
/// How far from now a certificate may begin.
const MAX_SKEW_SECONDS: i64 = 5 * 60;
const MIN_LIFE_SECONDS: i64 = 60 * 60;
/// How far from both ends of a certificate's life the next one is asked for.
const MARGIN_SECONDS: i64 = 10 * 60;
const NANOS: i64 = 1_000_000_000;

const CHAIN: Path<'static> = STATUS.child("certificateChain");
const NOT_BEFORE: Path<'static> = STATUS.child("notBefore");
const NOT_AFTER: Path<'static> = STATUS.child("notAfter");
const BEGIN_REFRESH: Path<'static> = STATUS.child("beginRefreshAt");

/// What is wrong with a certificate that was issued; `now` is in seconds since the Unix epoch.
pub(super) fn certificate(spec: &Spec, status: &Status, now: i64, errors: &mut Errors) {
    let chain = status.certificate_chain.as_str();
    if chain.len() > MAX_CHAIN_BYTES {
        return errors.push(FieldError::too_long(CHAIN, MAX_CHAIN_BYTES));
    }
    let refuse = |why: &str| FieldError::invalid(CHAIN, chain, why);
    let mut blocks = Pem::iter_from_buffer(chain.as_bytes()).map_while(Result::ok);
    let Some(leaf) = blocks.next() else {
        return errors.push(refuse("issued certificate chain must contain at least one certificate"));
    };
    if leaf.label != "CERTIFICATE" {
        return errors.push(refuse("issued certificate chain must consist entirely of CERTIFICATE PEM blocks"));
    }
    let Some(leaf) = read(&leaf) else {
        return errors.push(refuse("leaf certificate does not parse as valid X.509"));
    };
    alternative_names(&leaf, errors);
    match is_of_key(spec, &leaf) {
        Err(error) => return errors.push(error),
        Ok(false) => return errors.push(refuse("leaf certificate was not issued to the requested public key")),
        Ok(true) => {}
    }
    let Some(times) = times(status, errors) else { return };
    if !errors.is_empty() {
        return;
    }
    if let Some(error) = bad_times(&leaf, times, (spec.max_expiration_seconds.unwrap_or_default(), now)) {
        return errors.push(error);
    }
    let rest = blocks.map(|block| match block.label.as_str() {
        "CERTIFICATE" => read(&block).is_none().then_some("intermediate certificate does not parse as valid X.509"),
        // The word is upstream's.
        _ => Some("issued certificate chain must consist entirely of CERTFICATE PEM blocks"),
    });
    errors.extend(rest.flatten().next().map(refuse));
}

fn read(block: &Pem) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    rest.is_empty().then_some(certificate)
}

fn alternative_names(leaf: &X509Certificate<'_>, errors: &mut Errors) {
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let mut refuse = |name: &str, why: &str| errors.push(FieldError::invalid(CHAIN, name, why));
    for name in names {
        let GeneralName::DNSName(name) = name else { continue };
        if name.is_empty() {
            refuse(name, "leaf certificate should not contain empty DNSName");
        }
        if name.contains("..") {
            refuse(name, "leaf certificate's DNSName should not contain '..'");
        }
        if name.starts_with('.') || name.ends_with('.') {
            refuse(name, "leaf certificate's DNSName should not start or end with '.'");
        }
    }
    for name in names {
        if let GeneralName::RFC822Name(address) = name
            && !is_address(address)
        {
            refuse(address, "leaf certificate should not contain invalid EmailAddress");
        }
    }
}

/// Whether a text is a mailbox and a domain.
fn is_address(text: &str) -> bool {
    let is_word = |word: &str| {
        let is_atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        !word.is_empty() && word.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
    };
    text.rsplit_once('@').is_some_and(|(mailbox, domain)| is_word(mailbox) && is_word(domain))
}

/// Whether a certificate is for the key that was asked about.
fn is_of_key(spec: &Spec, leaf: &X509Certificate<'_>) -> Result<bool, FieldError> {
    let request = bytes(&spec.stub_pkc_s10_request);
    let own = &leaf.tbs_certificate.subject_pki;
    let is_own = |key: &SubjectPublicKeyInfo<'_>| {
        key.algorithm.algorithm == own.algorithm.algorithm && key.subject_public_key == own.subject_public_key
    };
    if request.is_empty() {
        let (_, key) = SubjectPublicKeyInfo::from_der(bytes(&spec.pkix_public_key))
            .map_err(|_| FieldError::invalid_omitted(KEY, NO_KEY))?;
        return Ok(is_own(&key));
    }
    let (_, request) =
        X509CertificationRequest::from_der(request).map_err(|_| FieldError::invalid_omitted(REQUEST, NO_REQUEST))?;
    Ok(is_own(&request.certification_request_info.subject_pki))
}

/// When a certificate begins, ends, and is asked for anew.
fn times(status: &Status, errors: &mut Errors) -> Option<[i64; 3]> {
    let consistent = "must be present and consistent with the issued certificate";
    let rows = [
        (NOT_BEFORE, &status.not_before, consistent),
        (NOT_AFTER, &status.not_after, consistent),
        (BEGIN_REFRESH, &status.begin_refresh_at, "must be present and in the range [notbefore+10min, notafter-10min]"),
    ];
    let mut found = Vec::with_capacity(rows.len());
    for (path, time, why) in rows {
        match time.as_ref().and_then(Time::unix) {
            Some(seconds) => found.push(seconds),
            None => errors.push(FieldError::required(path, why)),
        }
    }
    found.try_into().ok()
}

fn bad_times(
    leaf: &X509Certificate<'_>,
    [begin, end, refresh]: [i64; 3],
    (max_life, now): (i32, i64),
) -> Option<FieldError> {
    let at = |path: Path<'_>, time: i64, why: &str| Some(FieldError::invalid(path, format_seconds(time), why));
    let validity = leaf.validity();
    if begin != validity.not_before.timestamp() {
        return at(NOT_BEFORE, begin, "must be set to the NotBefore time encoded in the leaf certificate");
    }
    if (begin - now).abs() >= MAX_SKEW_SECONDS {
        return at(NOT_BEFORE, begin, "must be set to within 5 minutes of kube-apiserver's current time");
    }
    if end != validity.not_after.timestamp() {
        return at(NOT_AFTER, end, "must be set to the NotAfter time encoded in the leaf certificate");
    }
    let life = end.saturating_sub(begin);
    let lives = |why: String| Some(FieldError::invalid(CHAIN, life.saturating_mul(NANOS), why));
    if life < MIN_LIFE_SECONDS {
        return lives("leaf certificate lifetime must be >= 1 hour".to_owned());
    }
    if life > i64::from(max_life) {
        return lives(format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max_life})"));
    }
    if refresh < begin + MARGIN_SECONDS {
        return at(BEGIN_REFRESH, refresh, "must be at least 10 minutes after status.notBefore");
    }
    if refresh > end - MARGIN_SECONDS {
        return at(BEGIN_REFRESH, refresh, "must be at least 10 minutes before status.notAfter");
    }
    None
}
