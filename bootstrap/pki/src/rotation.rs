//! What becomes of a CA and of a key of its own: kept, made, derived, or one in the place of another one.
//!
//! A CA's file holds all certificates that are trusted, first that of the one that issues, whose key lies beside it. So
//! it tells how far this machine is: another CA issues only once it is trusted here, and the one before stays trusted.

use std::time::SystemTime;

use manifest::{CaHash, ClusterSecret};

use crate::Error;
use crate::authority::Authority;
use crate::certificate::{Certificate, bundle};
use crate::files::Desired;
use crate::key::Key;
use crate::plan::{Action, Observed};

/// What a CA will be.
#[derive(Default)]
pub(crate) struct Planned {
    /// The one that issues, where it is known already.
    pub(crate) signer: Option<Certificate>,
    /// The text of all that are trusted, likewise.
    pub(crate) bundle: Option<String>,
    /// What is to be done for it.
    pub(crate) action: Option<Action>,
}

/// What the secrets of the manifest give for a name.
struct Derived<T> {
    secret: ClusterSecret,
    issuing: T,
    accepted: Option<T>,
    /// There is another secret, which was not found: nothing that is trusted is forgotten.
    is_whole: bool,
}

impl<T> Derived<T> {
    /// None without a secret, or where it was not found: that only matters where something is to be made of it.
    fn new(desired: &Desired, derive: impl Fn(&ClusterSecret) -> Result<T, Error>) -> Result<Option<Self>, Error> {
        let Some(secret) = desired.secret().ok().flatten() else { return Ok(None) };
        let accepted = desired.accepted();
        Ok(Some(Self {
            secret: secret.clone(),
            issuing: derive(secret)?,
            is_whole: accepted.is_ok(),
            accepted: accepted.ok().flatten().map(derive).transpose()?,
        }))
    }
}

/// What becomes of a CA.
///
/// # Errors
/// If it is there and cannot be used, or is not to be replaced yet.
pub(crate) fn plan_authority(
    observed: &Observed,
    desired: &Desired,
    (name, common_name): (&'static str, &'static str),
    now: SystemTime,
) -> Result<Planned, Error> {
    let derived = Derived::new(desired, |secret| Authority::derive(common_name, secret.bytes()))?;
    let planned = match derived {
        Some(derived) => plan_derived(observed, desired, (name, common_name), &derived)?,
        None => plan_own(observed, desired, (name, common_name))?,
    };
    // One that is made now begins now.
    let is_over = |signer: &Certificate| planned.action.is_none() && !signer.is_valid_at(now);
    if planned.signer.as_ref().is_some_and(is_over) {
        return Err(Error::AuthorityTime { name: name.to_owned() });
    }
    Ok(planned)
}

/// One that no secret gives.
fn plan_own(
    observed: &Observed,
    desired: &Desired,
    (name, common_name): (&'static str, &'static str),
) -> Result<Planned, Error> {
    match (observed.get(name, "crt"), observed.get(name, "key")) {
        (Some(cert), Some(key)) => {
            let signer = Authority::from_pem(name, cert, key)?.certificate().clone();
            Ok(Planned { signer: Some(signer), bundle: Some(cert.to_owned()), action: None })
        }
        (None, key) => {
            // One that did not come from the secret would be another cluster's.
            desired.secret()?;
            let action = Action::MakeAuthority { name, common_name, keep_key: key.is_some() };
            Ok(Planned { action: Some(action), ..Planned::default() })
        }
        (Some(_), None) => Err(Error::HalfAuthority { name: name.to_owned() }),
    }
}

fn plan_derived(
    observed: &Observed,
    desired: &Desired,
    (name, common_name): (&'static str, &'static str),
    derived: &Derived<Authority>,
) -> Result<Planned, Error> {
    let issuing = derived.issuing.certificate();
    let known = observed.get(name, "crt").map(|pem| Certificate::all_from_pem(name, pem)).transpose()?;
    let known = known.unwrap_or_default();
    let key = observed.get(name, "key").map(|pem| Key::from_pem(name, pem)).transpose()?.map(|key| key.public_der());
    let is_known = |public: &[u8]| known.iter().any(|one| one.public_der == public);
    // The key is written before the certificates.
    if let (Some(key), Some(first)) = (&key, known.first())
        && *key != first.public_der
        && !is_known(key)
    {
        return Err(Error::AuthorityKey { name: name.to_owned() });
    }
    let so_far = key.as_ref().or(known.first().map(|first| &first.public_der));
    if let Some(so_far) = so_far.filter(|so_far| **so_far != issuing.public_der) {
        let accepted = desired.accepted()?.and(derived.accepted.as_ref());
        let stays = accepted.is_some_and(|accepted| accepted.certificate().public_der == *so_far);
        may_replace(name, stays, is_known(&issuing.public_der))?;
    }
    // A certificate that is there is taken as it is.
    let as_known =
        |wanted: &Certificate| known.iter().find(|one| one.public_der == wanted.public_der).unwrap_or(wanted).clone();
    let mut wanted = vec![as_known(issuing)];
    wanted.extend(derived.accepted.as_ref().map(|accepted| as_known(accepted.certificate())));
    if !derived.is_whole {
        wanted.extend(known.iter().filter(|one| one.public_der != issuing.public_der).cloned());
    }
    let text = bundle(&wanted);
    let action = if key.is_none_or(|key| key != issuing.public_der) || known.is_empty() {
        let secret = derived.secret.clone();
        Some(Action::DeriveAuthority { name, common_name, secret, bundle: text.clone() })
    } else {
        (known != wanted).then(|| Action::WriteTrusted { name, bundle: text.clone() })
    };
    Ok(Planned { signer: wanted.first().cloned(), bundle: Some(text), action })
}

/// Whether one that was not the issuing one so far may become it.
fn may_replace(name: &str, stays: bool, is_trusted: bool) -> Result<(), Error> {
    let name = name.to_owned();
    match (stays, is_trusted) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::AuthorityTooEarly { name }),
        (false, true) => Err(Error::AuthorityInUse { name }),
        (false, false) => Err(Error::AuthoritySecret { name }),
    }
}

/// What becomes of a key of its own. Its file of public keys holds those that are believed, first its own.
///
/// # Errors
/// If it is there and cannot be read, or is not to be replaced yet.
pub(crate) fn plan_key_pair(
    observed: &Observed,
    desired: &Desired,
    name: &'static str,
) -> Result<Option<Action>, Error> {
    let derived = Derived::new(desired, |secret| Key::derive(secret.bytes(), name)?.public_pem())?;
    let accepted = desired.accepted().ok().flatten().cloned();
    let make = |secret| Some(Action::MakeKeyPair { name, secret, accepted: accepted.clone() });
    let Some(pem) = observed.get(name, "key") else {
        return Ok(make(desired.secret()?.cloned()));
    };
    let own = Key::from_pem(name, pem)?.public_pem()?;
    let believed = observed.get(name, "pub").unwrap_or_default();
    if let Some(Derived { secret, issuing, accepted: Some(before), .. }) = &derived
        && *before == own
    {
        may_replace(name, true, believed.contains(issuing.as_str()))?;
        return Ok(make(Some(secret.clone())));
    }
    let beside = derived.as_ref().and_then(|derived| derived.accepted.as_deref()).unwrap_or_default();
    let is_current = match &derived {
        Some(Derived { is_whole: false, .. }) => believed.starts_with(&own),
        Some(_) | None => believed == own + beside,
    };
    Ok((!is_current).then(|| Action::WritePublicKey { name, accepted: accepted.clone() }))
}

/// Whether a machine that has joined may go over to trusting these CAs, of which the first issues.
///
/// # Errors
/// When it would lose its cluster, or is not so far yet.
pub fn may_trust(observed: &Observed, wanted: &[CaHash]) -> Result<(), Error> {
    let Some(pem) = observed.get("ca", "crt") else { return Ok(()) };
    let known = Certificate::all_from_pem("ca", pem)?;
    let is_wanted = |one: &&Certificate| wanted.contains(&one.pin());
    let pins = |all: &[Certificate]| all.iter().map(|one| one.pin().to_string()).collect::<Vec<_>>().join(", ");
    let stay: Vec<&Certificate> = known.iter().filter(is_wanted).collect();
    if stay.is_empty() {
        return Err(Error::NothingTrusted { known: pins(&known) });
    }
    if let [issuing, _, ..] = wanted
        && !known.iter().any(|one| one.pin() == *issuing)
    {
        return Err(Error::NotYetKnown { ca: *issuing });
    }
    for name in ["kubelet", "kubelet-server"] {
        let Some(Ok(leaf)) = observed.get(name, "crt").map(|pem| Certificate::from_pem(name, pem)) else { continue };
        let signer = known.iter().find(|ca| leaf.is_signed_by(ca));
        if let Some(signer) = signer.filter(|signer| !stay.contains(signer)) {
            return Err(Error::NotYetReissued { name: name.to_owned(), ca: signer.pin() });
        }
    }
    Ok(())
}
