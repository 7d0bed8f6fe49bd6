//! Which keys a partition gets, and which of them opens it.

use std::path::{Path, PathBuf};

use stdx::chain;
use tang::{Fetched, Server};
use tpm::{Pcrs, Sealer};

use crate::change::{Lack, Rekeyed, apply, obtain};
use crate::error::Error;
use crate::header::{Header, Held, KeyKind};
use crate::key::Key;
use crate::plan::{Change, Want, plan};
use crate::token::Token;
use crate::volume::Volume;

/// Keys that a partition is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One that the TPM gives out while these registers are as they are.
    pub tpm: Option<Vec<u32>>,
    /// Whether somebody is to know one.
    pub has_passphrase: bool,
    /// That one, as far as it is known.
    pub passphrase: Option<Key>,
    /// Whether the manifest tells it, so that it is that one and no other.
    pub is_told: bool,
    /// One for each of these servers.
    pub network: Vec<Server>,
    /// What they made.
    pub fetched: Vec<Fetched>,
    /// The recovery key, where it is to have one, and it is known.
    pub recovery: Option<Key>,
}

impl Wanted {
    /// Whether a partition can be made with them: whatever people and servers have to give is there.
    ///
    /// # Errors
    /// Says what is not.
    pub fn check(&self) -> Result<(), Error> {
        if self.has_passphrase && self.passphrase.is_none() {
            return Err(Error::NoPassphrase);
        }
        let silent = || self.network.iter().filter(|server| self.fetched_of(server).is_none()).cloned().collect();
        let is_silent = self.network.iter().all(|server| self.fetched_of(server).is_none());
        if self.network.is_empty() || !is_silent { Ok(()) } else { Err(Error::NoNetworkKey(silent())) }
    }

    /// What this server made.
    pub(crate) fn fetched_of(&self, server: &Server) -> Option<&Fetched> {
        let is_it = |binding: &tang::Binding| binding.url() == server.url && binding.is_signed_by(&server.thumbprints);
        self.fetched.iter().find(|fetched| is_it(&fetched.binding))
    }

    /// The keys, one by one.
    pub(crate) fn wants(&self) -> Result<Vec<Want>, Error> {
        let pcrs = self.tpm.as_ref().map(|pcrs| Pcrs::try_new(pcrs.iter().copied())).transpose()?;
        let passphrase = self.has_passphrase.then_some(Want::Passphrase);
        let network = self.network.iter().cloned().map(Want::Network);
        Ok(pcrs.map(Want::Tpm).into_iter().chain(passphrase).chain(network).collect())
    }
}

/// What may open a partition, beside its TPM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// What people said, or the manifest does.
    pub keys: &'a [Key],
    /// What servers gave back.
    pub fetched: &'a [Fetched],
}

/// Whose key opened a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opener {
    /// The TPM's.
    Tpm,
    /// That of the server at this address.
    Network(String),
    /// Somebody's: a passphrase, or the recovery key.
    Given,
}

/// How a partition was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What is in it.
    pub device: PathBuf,
    /// What opened it; `None` if it was open, and nothing of what is known would have.
    pub by: Option<(Opener, Key)>,
    /// Tokens of the TPM that did not open it, and why.
    pub refused: Vec<(u32, String)>,
}

/// Makes a partition encrypted. What it held is lost. Afterwards every wanted key opens it; of those of several servers
/// it takes one.
///
/// # Errors
/// A key cannot be had, and then nothing was written; or the disk fails.
pub fn make(volume: Volume<'_>, label: &str, wanted: &Wanted, sealer: &dyn Sealer) -> Result<Key, Error> {
    wanted.check()?;
    let mut keys = Vec::new();
    for want in wanted.wants()? {
        match obtain(&want, wanted, sealer)? {
            Ok(key) => keys.push(key),
            Err(Lack::Tpm(reason)) => return Err(Error::Sealing(reason)),
            Err(Lack::Passphrase) => return Err(Error::NoPassphrase),
            // Another one gave a key; this one's is put once it does.
            Err(Lack::Network(_)) => {}
        }
    }
    let mut header = Header::default();
    let mut first: Option<Key> = None;
    for (token, key) in keys {
        let number = header.free(token.kind(), &[]).ok_or(Error::Full)?;
        match &first {
            None => volume.format(label, number, (&token, &key))?,
            Some(by) => crate::change::put(&volume, number, None, (&token, &key), by)?,
        }
        header.slots.insert(number);
        first.get_or_insert(key);
    }
    first.ok_or(Error::NoKeys)
}

/// Opens a partition as `name`: by the TPM, by what a server gave back, or by one of what somebody gave.
///
/// # Errors
/// Nothing opens it ([`Error::Locked`]), or it is damaged.
pub fn open(
    volume: Volume<'_>,
    name: &str,
    header: &Header,
    given: Given<'_>,
    sealer: &dyn Sealer,
) -> Result<Opened, Error> {
    let mut refused = Vec::new();
    for (slot, by) in tries(header, given, sealer, &mut refused) {
        if let Some(device) = volume.open(name, &by.1, slot)? {
            return Ok(Opened { device, by: Some(by), refused });
        }
        if let (Opener::Tpm, Some(held)) = (&by.0, header.whole().find(|held| held.slot == slot)) {
            refused.push((held.id, "the TPM's key does not fit any more".to_owned()));
        }
    }
    if volume.is_open(name) {
        return Ok(Opened { device: Path::new("/dev/mapper").join(name), by: None, refused });
    }
    let mut reasons: Vec<String> = refused.into_iter().map(|(_, reason)| reason).collect();
    reasons.dedup();
    let servers: Vec<&str> = header.network().map(tang::Binding::url).collect();
    if !servers.is_empty() {
        reasons.push(format!("no key has come from the network yet ({})", servers.join(", ")));
    }
    if !given.keys.is_empty() {
        reasons.push("the passphrase that was given does not fit".to_owned());
    } else if reasons.is_empty() {
        reasons.push("it needs a passphrase".to_owned());
    }
    Err(Error::Locked(reasons.join("; ")))
}

/// What is tried, in order, each with its slot if it has one. What the TPM refuses is noted.
fn tries(
    header: &Header,
    given: Given<'_>,
    sealer: &dyn Sealer,
    refused: &mut Vec<(u32, String)>,
) -> Vec<(Option<u32>, (Opener, Key))> {
    let mut tries = Vec::new();
    for Held { id, token, slot, .. } in header.whole() {
        match token {
            Token::Tpm(sealed) => match sealer.unseal(sealed) {
                Ok(key) => tries.push((*slot, (Opener::Tpm, Key::new(key)))),
                Err(error) => refused.push((*id, chain(&error).to_string())),
            },
            Token::Network(binding) => {
                let fetched = given.fetched.iter().find(|fetched| fetched.binding == **binding);
                let by = fetched.map(|it| (Opener::Network(binding.url().to_owned()), Key::fetched(&it.secret)));
                tries.extend(by.map(|by| (*slot, by)));
            }
            Token::Recovery | Token::Passphrase => {}
        }
    }
    tries.extend(given.keys.iter().map(|key| (None, (Opener::Given, key.clone()))));
    tries
}

/// Completes the keys of a partition that was opened: its TPM's key is sealed anew if it did not open it, and it gets a
/// recovery key, left in the file `recovery` on the partition itself, unless it has one. Answers what was done.
///
/// # Errors
/// A key cannot be put; the others stay.
pub fn settle(volume: Volume<'_>, opened: &Opened, recovery: &Path, sealer: &dyn Sealer) -> Result<Vec<String>, Error> {
    let (Some((_, by)), Some(header)) = (&opened.by, volume.header()?) else { return Ok(Vec::new()) };
    let stale: Vec<u32> = opened.refused.iter().map(|(id, _)| *id).collect();
    let mut done = Vec::new();
    if let Some(pcrs) = header.pcrs() {
        let wanted = Wanted { tpm: Some(pcrs.numbers().collect()), ..Wanted::default() };
        let is_tpm = |id: &u32| header.held.iter().any(|held| held.id == *id && held.token.kind() == KeyKind::Tpm);
        let mut changes = plan(&header, &wanted.wants()?, &stale)?;
        changes.retain(|change| match change {
            Change::Put { .. } => true,
            Change::Remove { id, .. } => is_tpm(id),
        });
        // Where the TPM is gone, what only that one opens stays, for it may come back.
        let Rekeyed { done: sealed, .. } = apply(&volume, (&header, &changes), (&wanted, by), sealer)?;
        done.extend(sealed);
    }
    if !header.has(KeyKind::Recovery) {
        let header = volume.header()?.unwrap_or_default();
        let key = Key::recovery()?;
        volume.system.replace(recovery, key.bytes(), 0o600)?;
        let wanted = Wanted { recovery: Some(key), ..Wanted::default() };
        let changes = plan(&header, &[Want::Recovery], &[])?;
        let puts: Vec<Change> = changes.into_iter().filter(|change| matches!(change, Change::Put { .. })).collect();
        apply(&volume, (&header, &puts), (&wanted, by), sealer)?;
        done.push("it has a recovery key, which `keelson recovery-key` gives out once".to_owned());
    }
    Ok(done)
}
