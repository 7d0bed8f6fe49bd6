//! Certificates in the folder of certificates, and how long they are good.

use std::path::Path;
use std::time::UNIX_EPOCH;

use machine_api::CertificateStatus;
use pki::Certificate;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sys::System;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY_SECONDS: i64 = 86_400;
/// Files of this ending hold certificates; keys and kubeconfigs are not looked into.
const ENDING: &str = ".crt";

pub(super) fn observe(system: &dyn System, folder: &Path) -> Vec<CertificateStatus> {
    let now = system.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for name in system.list(folder).unwrap_or_default() {
        // Those of etcd lie a folder deeper.
        let below = system.list(&folder.join(&name)).unwrap_or_default().into_iter();
        let files: Vec<String> = below.map(|file| format!("{name}/{file}")).collect();
        let files = if files.is_empty() { vec![name] } else { files };
        for file in files.into_iter().filter(|file| file.ends_with(ENDING)) {
            let content = system.read(&folder.join(&file)).unwrap_or_default();
            found.extend(certificates(&file, &content));
        }
    }
    let authorities = authorities(&found);
    found.into_iter().map(|found| status(found, &authorities, now)).collect()
}

/// A certificate in a file, or what is wrong there.
struct Found {
    file: String,
    certificate: Result<Vec<u8>, String>,
}

/// All of one file.
fn certificates(file: &str, content: &[u8]) -> Vec<Found> {
    let of_file = |certificate| Found { file: file.to_owned(), certificate };
    let found: Vec<Found> = CertificateDer::pem_slice_iter(content)
        .map(|certificate| match certificate {
            Ok(certificate) => of_file(Ok(certificate.to_vec())),
            Err(error) => of_file(Err(format!("it is no PEM: {error}"))),
        })
        .collect();
    if found.is_empty() { vec![of_file(Err("it holds no certificate".to_owned()))] } else { found }
}

/// A CA that the machine trusts.
struct Trusted {
    certificate: Certificate,
    /// Whether it is the first of its file.
    is_issuing: bool,
}

fn authorities(found: &[Found]) -> Vec<Trusted> {
    let mut last = None;
    let mut trusted = Vec::new();
    for Found { file, certificate } in found {
        let is_issuing = last.replace(file) != Some(file);
        let certificate = certificate.as_ref().ok().and_then(|der| Certificate::from_der(file, der).ok());
        trusted.extend(certificate.filter(|it| it.is_ca).map(|certificate| Trusted { certificate, is_issuing }));
    }
    trusted
}

fn status(Found { file, certificate }: Found, authorities: &[Trusted], now: i64) -> CertificateStatus {
    let told = certificate.and_then(|der| {
        let told = describe(&der, now).ok_or_else(|| "it is damaged".to_owned())?;
        let this = Certificate::from_der(&file, &der).map_err(|error| error.to_string())?;
        // A CA signed itself, which is told by its key: two of one name may take each other's place.
        let by = authorities.iter().find(|by| match this.is_ca {
            true => by.certificate.public_der == this.public_der,
            false => this.is_signed_by(&by.certificate),
        });
        let signed_by = by.map(|by| by.certificate.pin().to_string()).unwrap_or_default();
        Ok(CertificateStatus { signed_by, is_of_issuing: by.is_some_and(|by| by.is_issuing), ..told })
    });
    match told {
        Ok(told) => CertificateStatus { file, ..told },
        Err(trouble) => CertificateStatus { file, trouble: Some(trouble), ..CertificateStatus::default() },
    }
}

fn describe(certificate: &[u8], now: i64) -> Option<CertificateStatus> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect()).unwrap_or_default();
    let (not_before, not_after) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    Some(CertificateStatus {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names,
        is_ca: certificate.is_ca(),
        not_before,
        not_after,
        days_left: not_after.saturating_sub(now).div_euclid(DAY_SECONDS),
        ..CertificateStatus::default()
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            let sixteen = || <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            four.or_else(|_| sixteen()).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use pki::{Authority, Key, Leaf, San, Usage, os_random};
    use sys::FakeSystem;

    use super::*;

    #[test]
    fn certificates_tell_their_names_and_how_long_they_are_good() {
        let system = FakeSystem::new();
        let day = Duration::from_secs(86_400);
        system.set_uptime(day * 20_000);
        let ca = Authority::generate("kubernetes", system.now(), &mut os_random).unwrap();
        let leaf = Leaf {
            common_name: "apiserver".to_owned(),
            organization: None,
            sans: BTreeSet::from([San::Ip("10.96.0.1".parse().unwrap()), San::Dns("kubernetes".to_owned())]),
            usages: [Usage::ServerAuth].into(),
            life: day * 30,
        };
        let key = Key::generate(&mut os_random).unwrap();
        system.file("/pki/ca.key", key.to_pem().unwrap());
        system.file("/pki/etcd/server.crt", ca.issue(&leaf, &key, system.now(), &mut os_random).unwrap());
        system.file("/pki/torn.crt", "-----BEGIN CERT");
        // Another CA of the same name issues now.
        let new = Authority::derive("kubernetes", &[1; 32]).unwrap();
        system.file("/pki/ca.crt", format!("{}{}", new.pem(), ca.pem()));
        system.file("/pki/new.crt", new.issue(&leaf, &key, system.now(), &mut os_random).unwrap());
        let stranger = Authority::derive("kubernetes", &[2; 32]).unwrap();
        system.file("/pki/strange.crt", stranger.issue(&leaf, &key, system.now(), &mut os_random).unwrap());
        system.set_uptime(day * 20_010);
        let found = observe(&system, Path::new("/pki"));
        let seen: Vec<_> = found
            .iter()
            .map(|it| (it.file.as_str(), it.is_ca, it.signed_by.clone(), it.is_of_issuing, it.trouble.is_some()))
            .collect();
        let (new, old) = (new.hash().to_string(), ca.hash().to_string());
        let expected = [
            ("ca.crt", true, new.clone(), true, false),
            ("ca.crt", true, old.clone(), false, false),
            ("etcd/server.crt", false, old, false, false),
            ("new.crt", false, new, true, false),
            ("strange.crt", false, String::new(), false, false),
            ("torn.crt", false, String::new(), false, true),
        ];
        assert_eq!(seen, expected);
        assert!((19..=20).contains(&found[2].days_left), "{:?}", found[2]);
        assert_eq!(found[2].names.len(), 2);
        assert!(found[2].names.contains(&"10.96.0.1".to_owned()), "{:?}", found[2].names);
        assert!(found[2].issuer.contains("kubernetes"));
    }
}
