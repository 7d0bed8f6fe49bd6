//! Which files are to be made: what is there, what should be there, the time → actions. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use manifest::ClusterSecret;

use crate::Error;
use crate::authority::Leaf;
use crate::certificate::Certificate;
use crate::files::{Desired, DesiredKubeconfig, DesiredLeaf};
use crate::key::Key;
use crate::kubeconfig::{Identity, kubeconfig};
use crate::rotation::{plan_authority, plan_key_pair};

/// The files that are there, by path below the folder of all certificates.
#[derive(Debug, Clone, Default)]
pub struct Observed(pub BTreeMap<String, String>);

impl Observed {
    pub(crate) fn get(&self, name: &str, ending: &str) -> Option<&str> {
        self.0.get(&format!("{name}.{ending}")).map(String::as_str)
    }
}

/// Why a certificate is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is not there.
    Absent,
    /// It or its key cannot be read.
    Damaged,
    /// The key is another one's.
    KeyChanged,
    /// Its CA has not signed it.
    SignerChanged,
    /// The subject should be another one.
    SubjectChanged,
    /// The names and addresses should be others.
    NamesChanged,
    /// Less than a third of its life is left, or it has not begun.
    Expiring,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "not there",
            Self::Damaged => "damaged",
            Self::KeyChanged => "not of its key",
            Self::SignerChanged => "not of its CA",
            Self::SubjectChanged => "of another subject",
            Self::NamesChanged => "of other names and addresses",
            Self::Expiring => "near its end",
        })
    }
}

/// One step. Names are paths without ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a CA; keep its key if that is there already.
    MakeAuthority {
        /// The name.
        name: &'static str,
        /// The common name.
        common_name: &'static str,
        /// Whether only the certificate is missing.
        keep_key: bool,
    },
    /// Derive a CA, which issues from now on.
    DeriveAuthority {
        /// The name.
        name: &'static str,
        /// The common name, also the label of the derivation.
        common_name: &'static str,
        /// What to derive from.
        secret: ClusterSecret,
        /// The certificates of all that are trusted, its own first.
        bundle: String,
    },
    /// Write which CAs are trusted beside the one that issues.
    WriteTrusted {
        /// The name.
        name: &'static str,
        /// The certificates of all of them, that of the one that issues first.
        bundle: String,
    },
    /// Make a key and its public key.
    MakeKeyPair {
        /// The name.
        name: &'static str,
        /// What to derive it from.
        secret: Option<ClusterSecret>,
        /// From what another one comes that is believed, too.
        accepted: Option<ClusterSecret>,
    },
    /// Write the public key of a key that is there.
    WritePublicKey {
        /// The name.
        name: &'static str,
        /// From what another one comes that is believed, too.
        accepted: Option<ClusterSecret>,
    },
    /// Issue a certificate with a new key.
    Issue {
        /// The name.
        name: &'static str,
        /// The CA.
        signer: &'static str,
        /// What it says.
        leaf: Leaf,
        /// Why.
        reason: Reason,
    },
    /// Write a kubeconfig file.
    WriteKubeconfig {
        /// The name of the file and of the certificate.
        name: &'static str,
        /// Name of the cluster.
        cluster: String,
        /// URL of the API.
        server: String,
        /// The user.
        user: String,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeAuthority { name, .. } => write!(f, "make the CA {name}"),
            Self::DeriveAuthority { name, .. } => write!(f, "derive the CA {name}"),
            Self::WriteTrusted { name, .. } => write!(f, "write the trusted CAs {name}"),
            Self::MakeKeyPair { name, .. } => write!(f, "make the key {name}"),
            Self::WritePublicKey { name, .. } => write!(f, "write the public key {name}"),
            Self::Issue { name, reason, .. } => write!(f, "issue the certificate {name}, which is {reason}"),
            Self::WriteKubeconfig { name, .. } => write!(f, "write {name}.conf"),
        }
    }
}

/// Steps in the order in which they are to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub actions: Vec<Action>,
}

/// Compares what is there with what should be.
///
/// # Errors
/// If a CA is there but cannot be used.
pub fn plan(observed: &Observed, desired: &Desired, now: SystemTime) -> Result<Plan, Error> {
    let mut actions = Vec::new();
    let mut authorities = BTreeMap::new();
    for (name, common_name) in &desired.authorities {
        let mut planned = plan_authority(observed, desired, (name, common_name), now)?;
        actions.extend(planned.action.take());
        authorities.insert(*name, planned);
    }
    for name in &desired.key_pairs {
        actions.extend(plan_key_pair(observed, desired, name)?);
    }
    let mut issued = BTreeSet::new();
    for wanted in &desired.leaves {
        let signer = authorities.get(wanted.signer).and_then(|planned| planned.signer.as_ref());
        if let Some(reason) = plan_leaf(observed, wanted, signer, now) {
            issued.insert(wanted.name);
            let DesiredLeaf { name, signer, leaf } = wanted.clone();
            actions.push(Action::Issue { name, signer, leaf, reason });
        }
    }
    let trusted = authorities.get("ca").and_then(|planned| planned.bundle.as_deref());
    for wanted in &desired.kubeconfigs {
        let user = desired.leaves.iter().find(|leaf| leaf.name == wanted.name);
        let user = user.map(|leaf| leaf.leaf.common_name.clone()).unwrap_or_default();
        let fresh = issued.contains(wanted.name);
        if fresh || !is_current(observed, desired, wanted, (&user, trusted)) {
            let (name, cluster, server) = (wanted.name, desired.cluster.clone(), wanted.server.clone());
            actions.push(Action::WriteKubeconfig { name, cluster, server, user });
        }
    }
    Ok(Plan { actions })
}

/// Why a leaf has to be issued, if it has to be. Without a signer, because that is yet to be made, it always has to be.
fn plan_leaf(
    observed: &Observed,
    wanted: &DesiredLeaf,
    signer: Option<&Certificate>,
    now: SystemTime,
) -> Option<Reason> {
    let (Some(cert), Some(key)) = (observed.get(wanted.name, "crt"), observed.get(wanted.name, "key")) else {
        return Some(Reason::Absent);
    };
    let (Ok(cert), Ok(key)) = (Certificate::from_pem(wanted.name, cert), Key::from_pem(wanted.name, key)) else {
        return Some(Reason::Damaged);
    };
    let organizations: Vec<String> = wanted.leaf.organization.iter().cloned().collect();
    if cert.public_der != key.public_der() {
        Some(Reason::KeyChanged)
    } else if !signer.is_some_and(|signer| cert.is_signed_by(signer)) {
        Some(Reason::SignerChanged)
    } else if cert.common_name != wanted.leaf.common_name || cert.organizations != organizations {
        Some(Reason::SubjectChanged)
    } else if cert.sans != wanted.leaf.sans {
        Some(Reason::NamesChanged)
    } else if needs_renewal(&cert, now) {
        Some(Reason::Expiring)
    } else {
        None
    }
}

/// Whether less than a third of a certificate's life is left, or it has not begun.
#[must_use]
pub fn needs_renewal(certificate: &Certificate, now: SystemTime) -> bool {
    let life = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    match certificate.not_after.duration_since(now) {
        Ok(left) => left < life / 3 || now < certificate.not_before,
        Err(_already_over) => true,
    }
}

fn is_current(
    observed: &Observed,
    desired: &Desired,
    wanted: &DesiredKubeconfig,
    (user, trusted): (&str, Option<&str>),
) -> bool {
    let parts = (observed.get(wanted.name, "crt"), observed.get(wanted.name, "key"), trusted);
    let (Some(cert_pem), Some(key_pem), Some(ca)) = parts else {
        return false;
    };
    let identity = Identity::Certificate { cert_pem, key_pem };
    let text = kubeconfig(&desired.cluster, &wanted.server, ca, user, identity);
    observed.get(wanted.name, "conf") == Some(text.as_str())
}
