//! Certificates in the folder of certificates, and how long they are good.

use std::path::Path;
use std::time::UNIX_EPOCH;

use machine_api::CertificateStatus;
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
            found.extend(certificates(&file, &content, now));
        }
    }
    found
}

/// All of one file.
fn certificates(file: &str, content: &[u8], now: i64) -> Vec<CertificateStatus> {
    let trouble = |reason: String| CertificateStatus {
        file: file.to_owned(),
        trouble: Some(reason),
        ..CertificateStatus::default()
    };
    let found: Vec<CertificateStatus> = CertificateDer::pem_slice_iter(content)
        .map(|certificate| match certificate {
            Ok(certificate) => status(file, &certificate, now).unwrap_or_else(|| trouble("it is damaged".to_owned())),
            Err(error) => trouble(format!("it is no PEM: {error}")),
        })
        .collect();
    if found.is_empty() { vec![trouble("it holds no certificate".to_owned())] } else { found }
}

fn status(file: &str, certificate: &[u8], now: i64) -> Option<CertificateStatus> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect()).unwrap_or_default();
    let (not_before, not_after) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    Some(CertificateStatus {
        file: file.to_owned(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names,
        is_ca: certificate.is_ca(),
        not_before,
        not_after,
        days_left: not_after.saturating_sub(now).div_euclid(DAY_SECONDS),
        trouble: None,
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
        system.file("/pki/ca.crt", ca.pem());
        system.file("/pki/ca.key", key.to_pem().unwrap());
        system.file("/pki/etcd/server.crt", ca.issue(&leaf, &key, system.now(), &mut os_random).unwrap());
        system.file("/pki/torn.crt", "-----BEGIN CERT");
        system.set_uptime(day * 20_010);
        let found = observe(&system, Path::new("/pki"));
        let files: Vec<&str> = found.iter().map(|status| status.file.as_str()).collect();
        assert_eq!(files, ["ca.crt", "etcd/server.crt", "torn.crt"]);
        assert!(found[0].is_ca && !found[1].is_ca && found[2].trouble.is_some());
        assert!((19..=20).contains(&found[1].days_left), "{:?}", found[1]);
        assert_eq!(found[1].names.len(), 2);
        assert!(found[1].names.contains(&"10.96.0.1".to_owned()), "{:?}", found[1].names);
        assert!(found[1].issuer.contains("kubernetes"));
    }
}
