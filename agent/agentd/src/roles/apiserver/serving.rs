//! What the API server serves TLS with: files that are given, or a certificate that is made.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use apiserver::{NamedCertificate, Tls, TlsLimits};
use clap::{ArgAction, Args};
use pki::{Authority, Key, Leaf, San, Usage};

/// How long a certificate that is made is valid.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// What the files of a certificate that is made are called.
const PAIR: &str = "apiserver";

/// Upstream's flags about TLS.
#[derive(Args)]
pub(super) struct ServingOptions {
    /// Certificate to serve with.
    #[arg(long)]
    tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    tls_private_key_file: Option<PathBuf>,
    /// Folder for the certificate that is made when none is given.
    #[arg(long, default_value = "/var/run/kubernetes")]
    cert_dir: PathBuf,
    /// Further certificates by name: `CERTIFICATE,KEY[:NAME,NAME]`; their own names without.
    #[arg(long, value_parser = named)]
    tls_sni_cert_key: Vec<NamedCertificate>,
    /// Ciphers of TLS 1.2 to take.
    #[arg(long, value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
    /// The oldest version to take.
    #[arg(long, default_value = "")]
    tls_min_version: String,
    /// Whether HTTP/2 is not spoken.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    disable_http2_serving: bool,
    /// CA of client certificates.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
}

impl ServingOptions {
    /// The settings; `host` is the address that clients are told, `bind` the one to listen at, `service` that of the
    /// Service `kubernetes`.
    pub(super) fn tls(&self, host: IpAddr, bind: IpAddr, service: Option<IpAddr>) -> Result<Tls> {
        let given = (&self.tls_cert_file, &self.tls_private_key_file);
        let (certificate, key) = match given {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (None, None) => self.own(host, bind, service).context("error creating self-signed certificates")?,
            _ => bail!("--tls-cert-file and --tls-private-key-file belong together"),
        };
        let limits = TlsLimits::parse(&self.tls_cipher_suites, &self.tls_min_version)?;
        Ok(Tls {
            certificate,
            key,
            client_ca: self.client_ca_file.clone(),
            named: self.tls_sni_cert_key.clone(),
            limits: if self.disable_http2_serving { limits.with_http1_only() } else { limits },
        })
    }

    /// The certificate in the folder, which is made unless it is there.
    fn own(&self, host: IpAddr, bind: IpAddr, service: Option<IpAddr>) -> Result<(PathBuf, PathBuf)> {
        let file = |ending: &str| self.cert_dir.join(format!("{PAIR}.{ending}"));
        let (certificate, key) = (file("crt"), file("key"));
        match (certificate.exists(), key.exists()) {
            (true, true) => return Ok((certificate, key)),
            (false, false) => {}
            (has_certificate, _) => {
                let missing = if has_certificate { &key } else { &certificate };
                bail!("{} is missing: certificate and key must be supplied as a pair", missing.display());
            }
        }
        let (chain, secret) = issue(&names(host, bind, service), host, SystemTime::now())?;
        write(&certificate, &chain, 0o644)?;
        write(&key, &secret, 0o600)?;
        tracing::info!(certificate = %certificate.display(), "a self-signed certificate was made");
        Ok((certificate, key))
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    pki::write_file(path, text.as_bytes(), mode).with_context(|| format!("writing {}", path.display()))
}

/// What the server is called by its clients.
fn names(host: IpAddr, bind: IpAddr, service: Option<IpAddr>) -> BTreeSet<San> {
    let mut names: BTreeSet<San> =
        ["kubernetes.default.svc", "kubernetes.default", "kubernetes"].map(|name| San::Dns(name.to_owned())).into();
    names.extend([Some(host), service].into_iter().flatten().map(San::Ip));
    names.insert(if bind.is_unspecified() { San::Dns("localhost".to_owned()) } else { San::Ip(bind) });
    names
}

/// A certificate, that of the authority which is made for it alone, and the key.
fn issue(names: &BTreeSet<San>, host: IpAddr, now: SystemTime) -> Result<(String, String)> {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let authority = Authority::generate(&format!("{host}-ca@{seconds}"), now, &mut pki::os_random)?;
    let leaf = Leaf {
        common_name: format!("{host}@{seconds}"),
        organization: None,
        sans: names.clone(),
        usages: [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth].into(),
        life: LIFE,
    };
    let key = Key::generate(&mut pki::os_random)?;
    let certificate = authority.issue(&leaf, &key, now, &mut pki::os_random)?;
    Ok((certificate + authority.pem(), key.to_pem()?))
}

/// Reads `CERTIFICATE,KEY[:NAME,NAME]`.
fn named(text: &str) -> Result<NamedCertificate, String> {
    let (files, names) = text.split_once(':').map_or((text, None), |(files, names)| (files, Some(names)));
    if names.is_some_and(|names| names.trim().is_empty()) {
        return Err("empty names list is not allowed".to_owned());
    }
    let pair = files.split_once(',').filter(|(_, key)| !key.contains(','));
    let (certificate, key) = pair.ok_or("expected comma separated certificate and key file paths")?;
    Ok(NamedCertificate {
        certificate: certificate.trim().into(),
        key: key.trim().into(),
        names: names.into_iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &Path) -> ServingOptions {
        ServingOptions {
            tls_cert_file: None,
            tls_private_key_file: None,
            cert_dir: folder.to_owned(),
            tls_sni_cert_key: Vec::new(),
            tls_cipher_suites: Vec::new(),
            tls_min_version: String::new(),
            disable_http2_serving: false,
            client_ca_file: None,
        }
    }

    #[test]
    fn a_certificate_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder.path().join("new"));
        let host: IpAddr = [192, 0, 2, 2].into();
        let tls = options.tls(host, [0, 0, 0, 0].into(), Some([10, 0, 0, 1].into())).unwrap();
        let first = std::fs::read_to_string(&tls.certificate).unwrap();
        assert!(tls.certificate.ends_with("new/apiserver.crt") && tls.key.ends_with("new/apiserver.key"));
        assert_eq!(first.matches("BEGIN CERTIFICATE").count(), 2);
        options.tls(host, host, None).unwrap();
        assert_eq!(std::fs::read_to_string(&tls.certificate).unwrap(), first);
        std::fs::remove_file(&tls.key).unwrap();
        assert!(options.tls(host, host, None).is_err());
    }

    #[test]
    fn certificates_have_names() {
        let two = named("a.crt,a.key:*.foo.com, foo.com").unwrap();
        assert_eq!((two.key, two.names), (PathBuf::from("a.key"), vec!["*.foo.com".to_owned(), "foo.com".to_owned()]));
        assert!(named("a.crt,a.key").unwrap().names.is_empty());
        assert_eq!(named("a").unwrap_err(), "expected comma separated certificate and key file paths");
        assert_eq!(named("a,b:").unwrap_err(), "empty names list is not allowed");
    }
}
