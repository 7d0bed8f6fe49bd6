//! What lies on disk: `ca.crt`, and for the client and the serving certificate a file with key and certificate, which
//! counts, beside copies as others like to read them.

use std::io;
use std::path::{Path, PathBuf};

use pki::{Certificate, Key};

use crate::config::{Config, Trust};
use crate::error::Error;
use crate::plan::Observed;

const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
pub(crate) const CLIENT: &str = "kubelet";
pub(crate) const SERVING: &str = "kubelet-server";

/// A certificate with its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub cert_pem: String,
    /// The key.
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(***)")
    }
}

/// Who the node is at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The cluster's CA.
    pub ca_pem: String,
    /// For requests to the API server.
    pub client: Pair,
    /// For the kubelet's server; there some time after the Node.
    pub serving: Option<Pair>,
}

pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

pub(crate) fn write(path: &Path, text: &str, is_secret: bool) -> Result<(), Error> {
    let mode = if is_secret { SECRET_MODE } else { PUBLIC_MODE };
    pki::write_file(path, text.as_bytes(), mode).map_err(|source| Error::Pki { step: "keep a file", source })
}

pub(crate) fn authority_path(config: &Config) -> PathBuf {
    config.dir.join("ca.crt")
}

pub(crate) fn pending_path(config: &Config, name: &str) -> PathBuf {
    config.dir.join(format!("{name}-pending.key"))
}

/// The CA, if there is one that the manifest trusts.
pub(crate) fn authority(config: &Config) -> Result<Option<String>, Error> {
    match &config.trust {
        Trust::Authority(pem) => Ok(Some(pem.clone())),
        Trust::Hash(hash) => {
            let pem = read(&authority_path(config))?;
            Ok(pem.filter(|pem| pki::ca_hash(pem).is_ok_and(|found| found == *hash)))
        }
    }
}

/// A pair, if it is this node's and of this CA.
pub(crate) fn pair(config: &Config, name: &str, ca_pem: &str) -> Result<Option<(Pair, Certificate)>, Error> {
    let Some(text) = read(&config.dir.join(format!("{name}.pem")))? else {
        return Ok(None);
    };
    let Some(at) = text.find("-----BEGIN CERTIFICATE-----") else {
        return Ok(None);
    };
    let (key_pem, cert_pem) = text.split_at(at);
    let pair = Pair { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() };
    Ok(check(config, name, &pair, ca_pem).map(|certificate| (pair, certificate)))
}

/// The certificate of a pair, if everything about it is right except perhaps the time.
pub(crate) fn check(config: &Config, name: &str, pair: &Pair, ca_pem: &str) -> Option<Certificate> {
    let certificate = Certificate::from_pem(name, &pair.cert_pem).ok()?;
    let key = Key::from_pem(name, &pair.key_pem).ok()?;
    let authority = Certificate::from_pem("ca", ca_pem).ok()?;
    let fits = certificate.public_der == key.public_der()
        && certificate.is_signed_by(&authority)
        && certificate.common_name == user(&config.node);
    fits.then_some(certificate)
}

pub(crate) fn user(node: &str) -> String {
    format!("system:node:{node}")
}

/// Keeps a pair: first the file that counts, then the copies.
pub(crate) fn keep(config: &Config, name: &str, pair: &Pair) -> Result<(), Error> {
    write(&config.dir.join(format!("{name}.pem")), &format!("{}{}", pair.key_pem, pair.cert_pem), true)
}

/// Takes over a client certificate that the machine was given, unless it has got one by itself already.
///
/// # Errors
/// When a file cannot be read or written.
pub fn adopt(config: &Config, pair: &Pair) -> Result<(), Error> {
    match read(&config.dir.join(format!("{CLIENT}.pem")))? {
        Some(_) => Ok(()),
        None => keep(config, CLIENT, pair),
    }
}

/// Brings the copies up to date with the files that count.
pub(crate) fn export(config: &Config, identity: &NodeIdentity) -> Result<(), Error> {
    let path = |name: &str, ending: &str| config.dir.join(format!("{name}.{ending}"));
    let mut wanted = vec![(authority_path(config), identity.ca_pem.clone(), false)];
    let serving = identity.serving.as_ref().map(|pair| (SERVING, pair));
    for (name, pair) in std::iter::once((CLIENT, &identity.client)).chain(serving) {
        wanted.push((path(name, "key"), pair.key_pem.clone(), true));
        wanted.push((path(name, "crt"), pair.cert_pem.clone(), false));
    }
    let (cert, key) = (path(CLIENT, "crt"), path(CLIENT, "key"));
    let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
    let files = pki::Identity::Files { cert: &cert, key: &key };
    let text = pki::kubeconfig(&config.cluster, &config.server, &identity.ca_pem, &user(&config.node), files);
    wanted.push((path(CLIENT, "conf"), text, true));
    for (path, text, is_secret) in wanted {
        if read(&path)?.as_ref() != Some(&text) {
            write(&path, &text, is_secret)?;
        }
    }
    Ok(())
}

/// Everything on disk, for the plan and for others.
pub(crate) fn observe(config: &Config) -> Result<(Observed, Option<NodeIdentity>), Error> {
    let Some(ca_pem) = authority(config)? else {
        return Ok((Observed::default(), None));
    };
    let client = pair(config, CLIENT, &ca_pem)?;
    let serving = pair(config, SERVING, &ca_pem)?;
    let observed = Observed {
        has_authority: true,
        client: client.as_ref().map(|(_, certificate)| certificate.clone()),
        serving: serving.as_ref().map(|(_, certificate)| certificate.clone()),
        client_rejected: false,
    };
    let serving = serving.map(|(pair, _)| pair);
    Ok((observed, client.map(|(client, _)| NodeIdentity { ca_pem, client, serving })))
}
