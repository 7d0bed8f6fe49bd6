//! The certificate that the kubelet's server shows.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use kubelet::ServingCertificate;
use pki::{Authority, Certificate, Key, Leaf, San, Usage};

use super::Plan;

/// A year, as upstream.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// The one in the files that the configuration names, else one of the node's own making, kept in the folder of
/// certificates. Not asked for where the cluster issues it.
pub(super) fn of_files(plan: &Plan) -> Result<ServingCertificate> {
    let (cert, key) = (&plan.settings.tls_cert_file, &plan.settings.tls_private_key_file);
    match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
        (false, false) => Ok(ServingCertificate { cert_pem: read(cert)?, key_pem: read(key)? }),
        (true, true) => own(&plan.cert_dir(), &plan.kubelet.node_name, &plan.kubelet.node_ips),
        (true, false) | (false, true) => bail!("tlsCertFile and tlsPrivateKeyFile are only good together"),
    }
}

fn own(folder: &Path, name: &str, addresses: &[IpAddr]) -> Result<ServingCertificate> {
    let (cert, key) = (folder.join("kubelet.crt"), folder.join("kubelet.key"));
    let now = SystemTime::now();
    if let (Ok(cert_pem), Ok(key_pem)) = (std::fs::read(&cert), std::fs::read(&key))
        && is_good(&cert_pem, &key_pem, now)
    {
        return Ok(ServingCertificate { cert_pem, key_pem });
    }
    let made = make(name, addresses, now)?;
    pki::write_file(&key, &made.key_pem, SECRET_MODE).context("keeping the server's key")?;
    pki::write_file(&cert, &made.cert_pem, PUBLIC_MODE).context("keeping the server's certificate")?;
    tracing::info!(path = %cert.display(), "made a certificate for the server; no authority vouches for it");
    Ok(made)
}

fn is_good(cert_pem: &[u8], key_pem: &[u8], now: SystemTime) -> bool {
    let cert = Certificate::from_pem("kubelet.crt", &String::from_utf8_lossy(cert_pem));
    let key = Key::from_pem("kubelet.key", &String::from_utf8_lossy(key_pem));
    cert.is_ok_and(|cert| !pki::needs_renewal(&cert, now) && key.is_ok_and(|key| key.public_der() == cert.public_der))
}

fn make(name: &str, addresses: &[IpAddr], now: SystemTime) -> Result<ServingCertificate> {
    let random: pki::Random<'_> = &mut pki::os_random;
    let authority = Authority::generate(&format!("{name}-ca"), now, random).context("making an authority")?;
    let random: pki::Random<'_> = &mut pki::os_random;
    let key = Key::generate(random).context("making a key")?;
    let names = std::iter::once(San::Dns(name.to_owned()));
    let leaf = Leaf {
        common_name: name.to_owned(),
        organization: None,
        sans: names.chain(addresses.iter().copied().map(San::Ip)).collect(),
        usages: [Usage::DigitalSignature, Usage::ServerAuth].into(),
        life: LIFE,
    };
    let random: pki::Random<'_> = &mut pki::os_random;
    let cert = authority.issue(&leaf, &key, now, random).context("issuing a certificate")?;
    let key_pem = key.to_pem().context("writing the key")?;
    Ok(ServingCertificate {
        cert_pem: format!("{cert}{}", authority.pem()).into_bytes(),
        key_pem: key_pem.into_bytes(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_its_own_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = own(folder.path(), "n1", &[[10, 0, 0, 1].into()]).unwrap();
        assert_eq!(own(folder.path(), "n1", &[]).unwrap(), first);
        let cert = Certificate::from_pem("test", &String::from_utf8_lossy(&first.cert_pem)).unwrap();
        assert!(cert.sans.contains(&San::Ip([10, 0, 0, 1].into())));
    }
}
