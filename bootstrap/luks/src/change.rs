//! Does what was planned, one write after another: each leaves the partition with a key that opens it.

use stdx::chain;
use tang::Server;
use tpm::Sealer;

use crate::error::Error;
use crate::header::{Header, Held, KeyKind};
use crate::key::Key;
use crate::keys::Wanted;
use crate::plan::{Change, Want, plan};
use crate::token::Token;

/// Slots, and the tokens that describe them.
pub trait Keyring {
    /// What there is.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    fn keys(&self) -> Result<Header, Error>;
    /// Writes the token of this number, with the key of the same slot, or of one that is to come.
    ///
    /// # Errors
    /// The disk fails.
    fn describe(&self, number: u32, token: &Token, is_whole: bool) -> Result<(), Error>;
    /// Takes a token away.
    ///
    /// # Errors
    /// The disk fails.
    fn forget(&self, id: u32) -> Result<(), Error>;
    /// Puts a key of this kind into a slot. `by` opens the partition.
    ///
    /// # Errors
    /// `by` does not open it, or the disk fails.
    fn put(&self, slot: u32, key: (KeyKind, &Key), by: &Key) -> Result<(), Error>;
    /// Takes the key in a slot away.
    ///
    /// # Errors
    /// The disk fails.
    fn kill(&self, slot: u32) -> Result<(), Error>;
    /// Whether a key fits one slot, or any.
    ///
    /// # Errors
    /// The partition is damaged.
    fn fits(&self, key: &Key, slot: Option<u32>) -> Result<bool, Error>;
}

/// A key that is wanted and cannot be put yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The TPM does not seal it, because of this.
    Tpm(String),
    /// Nobody said it.
    Passphrase,
    /// The server has not made it.
    Network(Server),
}

/// What became of a partition's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekeyed {
    /// What was done, for people.
    pub done: Vec<String>,
    /// What could not be.
    pub lacks: Vec<Lack>,
    /// A key that opens it now; `None` if none is known any more.
    pub by: Option<Key>,
}

/// Gives an open partition the keys that are wanted, and takes others away once all of those are there. What was cut
/// short, by an error or by the power, goes on when it is called again.
///
/// # Errors
/// A key cannot be put or taken away; what opened the partition still does, or one of the new keys.
pub fn rekey(ring: &impl Keyring, wanted: &Wanted, by: &Key, sealer: &dyn Sealer) -> Result<Rekeyed, Error> {
    let header = ring.keys()?;
    let stale = wrong_passphrases(ring, &header, wanted, by)?;
    let changes = plan(&header, &wanted.wants()?, &stale)?;
    apply(ring, (&header, &changes), (wanted, by), sealer)
}

/// Tokens of passphrases that are not the one that the manifest tells.
fn wrong_passphrases(ring: &impl Keyring, header: &Header, wanted: &Wanted, by: &Key) -> Result<Vec<u32>, Error> {
    let Some(told) = wanted.passphrase.as_ref().filter(|_| wanted.is_told) else { return Ok(Vec::new()) };
    let passphrases: Vec<&Held> = header.whole().filter(|held| held.token.kind() == KeyKind::Passphrase).collect();
    let mut wrong = Vec::new();
    for held in &passphrases {
        // To try one takes seconds, which is not spent at each start where the only one opened the partition.
        let is_known = passphrases.len() == 1 && told == by;
        if !is_known && !ring.fits(told, held.slot)? {
            wrong.push(held.id);
        }
    }
    Ok(wrong)
}

/// Does it. Nothing is taken away while something lacks.
pub(crate) fn apply(
    ring: &impl Keyring,
    (header, changes): (&Header, &[Change]),
    (wanted, by): (&Wanted, &Key),
    sealer: &dyn Sealer,
) -> Result<Rekeyed, Error> {
    let mut rekeyed = Rekeyed { done: Vec::new(), lacks: Vec::new(), by: Some(by.clone()) };
    let (mut latest, mut gone) = (None, Vec::new());
    for change in changes {
        match change {
            Change::Put { want, number, leftover } => match obtain(want, wanted, sealer)? {
                Ok((token, key)) => {
                    put(ring, *number, *leftover, (&token, &key), by)?;
                    rekeyed.done.push(format!("it has a new key: {token}"));
                    latest = Some(key);
                }
                Err(lack) => rekeyed.lacks.push(lack),
            },
            Change::Remove { .. } if !rekeyed.lacks.is_empty() => {}
            Change::Remove { id, slot } => {
                slot.map_or(Ok(()), |slot| ring.kill(slot))?;
                ring.forget(*id)?;
                gone.push(*id);
                let whole = header.whole().find(|held| held.id == *id);
                rekeyed.done.extend(whole.map(|held| format!("a key of it is gone: {}", held.token)));
            }
        }
    }
    if !gone.is_empty() {
        // What opened it may be among them.
        rekeyed.by = match latest.or_else(|| unsealed(header, &gone, sealer)) {
            Some(key) => Some(key),
            None => known(ring, wanted, by)?,
        };
    }
    Ok(rekeyed)
}

/// The first of what is known that still opens it.
fn known(ring: &impl Keyring, wanted: &Wanted, by: &Key) -> Result<Option<Key>, Error> {
    let fetched = wanted.fetched.iter().map(|fetched| Key::fetched(&fetched.secret));
    for key in [by.clone()].into_iter().chain(wanted.passphrase.clone()).chain(fetched) {
        if ring.fits(&key, None)? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// What the TPM gives out for a token that is not gone.
fn unsealed(header: &Header, gone: &[u32], sealer: &dyn Sealer) -> Option<Key> {
    header.whole().filter(|held| !gone.contains(&held.id)).find_map(|held| match &held.token {
        Token::Tpm(sealed) => sealer.unseal(sealed).ok().map(Key::new),
        Token::Recovery | Token::Passphrase | Token::Network(_) => None,
    })
}

/// Puts one key: it is said first that it comes, and only once it was tried that it is there.
pub(crate) fn put(
    ring: &impl Keyring,
    number: u32,
    leftover: Option<u32>,
    (token, key): (&Token, &Key),
    by: &Key,
) -> Result<(), Error> {
    leftover.map_or(Ok(()), |slot| ring.kill(slot))?;
    ring.describe(number, token, false)?;
    ring.put(number, (token.kind(), key), by)?;
    if !ring.fits(key, Some(number))? {
        return Err(Error::Unproved(token.kind()));
    }
    ring.describe(number, token, true)
}

/// A key of this kind, and what describes it.
pub(crate) fn obtain(want: &Want, wanted: &Wanted, sealer: &dyn Sealer) -> Result<Result<(Token, Key), Lack>, Error> {
    Ok(match want {
        Want::Recovery => Ok((Token::Recovery, wanted.recovery.clone().map_or_else(Key::recovery, Ok)?)),
        Want::Passphrase => {
            let key = wanted.passphrase.clone();
            key.map(|key| (Token::Passphrase, key)).ok_or(Lack::Passphrase)
        }
        Want::Tpm(pcrs) => {
            let key = Key::random()?;
            let sealed = sealer.seal(key.bytes(), *pcrs).and_then(|sealed| Ok((sealer.unseal(&sealed)?, sealed)));
            match sealed {
                Ok((unsealed, sealed)) if unsealed == key.bytes() => Ok((Token::Tpm(sealed), key)),
                Ok(_) => return Err(Error::Unproved(KeyKind::Tpm)),
                Err(error) => Err(Lack::Tpm(chain(&error).to_string())),
            }
        }
        Want::Network(server) => {
            let made = wanted.fetched_of(server);
            let made = made.map(|it| (Token::Network(Box::new(it.binding.clone())), Key::fetched(&it.secret)));
            made.ok_or_else(|| Lack::Network(server.clone()))
        }
    })
}
