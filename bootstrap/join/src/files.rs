//! What lies on disk: `ca.crt` with the CAs that are trusted, and for the client and the serving certificate a file with
//! key and certificate, which counts, beside copies as others like to read them.

use std::io;
use std::path::{Path, PathBuf};

use manifest::CaHash;
use pki::{Certificate, Key};

use crate::config::{Config, Trust};
use crate::discovery::pinned;
use crate::error::Error;
use crate::plan::{Held, Observed};

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
    /// The cluster's CAs that are trusted, first the one that issues.
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

/// The cluster's CAs that the manifest trusts, first the one that issues.
pub(crate) struct Authorities {
    pub(crate) pem: String,
    all: Vec<Certificate>,
    /// Whether the manifest names one that was not found yet.
    pub(crate) lack: bool,
    issuing: Option<CaHash>,
}

impl Authorities {
    fn signed(&self, certificate: &Certificate) -> bool {
        self.all.iter().any(|one| certificate.is_signed_by(one))
    }

    /// Whether this is of the CA that issues, as far as that is known.
    fn is_of_issuing(&self, certificate: &Certificate) -> bool {
        let issuing = self.all.iter().find(|one| Some(one.pin()) == self.issuing);
        issuing.is_none_or(|issuing| certificate.is_signed_by(issuing))
    }

    /// These, and those that were found by their hashes.
    pub(crate) fn with(&self, found: &[Certificate]) -> String {
        let new = found.iter().filter(|one| !self.all.contains(one));
        pki::bundle(&self.all.iter().chain(new).cloned().collect::<Vec<_>>())
    }
}

/// The CAs that the manifest trusts; none if none of them is known yet.
pub(crate) fn authorities(config: &Config) -> Result<Option<Authorities>, Error> {
    let (all, issuing, wanted) = match &config.trust {
        Trust::Authority { pem, is_issuing_first } => {
            let failed = |source| Error::Pki { step: "read the cluster's CA", source };
            let all = Certificate::all_from_pem("ca", pem).map_err(failed)?;
            let issuing = all.first().filter(|_| *is_issuing_first).map(Certificate::pin);
            (all, issuing, 0)
        }
        Trust::Hashes(hashes) => {
            let known = read(&authority_path(config))?.unwrap_or_default();
            (pinned(&known, hashes), hashes.first().copied(), hashes.len())
        }
    };
    let authorities = || Authorities { pem: pki::bundle(&all), lack: wanted > all.len(), issuing, all: all.clone() };
    Ok((!all.is_empty()).then(authorities))
}

/// A pair, if it is this node's and of one of these CAs.
pub(crate) fn pair(config: &Config, name: &str, trusted: &Authorities) -> Result<Option<(Pair, Certificate)>, Error> {
    let Some(text) = read(&config.dir.join(format!("{name}.pem")))? else {
        return Ok(None);
    };
    let Some(at) = text.find("-----BEGIN CERTIFICATE-----") else {
        return Ok(None);
    };
    let (key_pem, cert_pem) = text.split_at(at);
    let pair = Pair { cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() };
    Ok(check(config, name, &pair, trusted).map(|certificate| (pair, certificate)))
}

/// The certificate of a pair, if everything about it is right except perhaps the time.
pub(crate) fn check(config: &Config, name: &str, pair: &Pair, trusted: &Authorities) -> Option<Certificate> {
    let certificate = Certificate::from_pem(name, &pair.cert_pem).ok()?;
    let key = Key::from_pem(name, &pair.key_pem).ok()?;
    let fits = certificate.public_der == key.public_der()
        && trusted.signed(&certificate)
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
    let Some(trusted) = authorities(config)? else {
        return Ok((Observed::default(), None));
    };
    let client = pair(config, CLIENT, &trusted)?;
    let serving = pair(config, SERVING, &trusted)?;
    let held = |pair: &Option<(Pair, Certificate)>| {
        let certificate = pair.as_ref().map(|(_, certificate)| certificate.clone());
        certificate.map(|certificate| Held { is_of_issuing: trusted.is_of_issuing(&certificate), certificate })
    };
    let observed = Observed {
        has_authority: true,
        lacks_authority: trusted.lack,
        client: held(&client),
        serving: held(&serving),
        client_rejected: false,
    };
    let serving = serving.map(|(pair, _)| pair);
    Ok((observed, client.map(|(client, _)| NodeIdentity { ca_pem: trusted.pem, client, serving })))
}
