//! Which keys a partition gets, and which of them opens it.

use std::path::{Path, PathBuf};

use stdx::chain;
use tpm::Pcrs;

use crate::error::Error;
use crate::header::{Header, KeyKind, Token};
use crate::key::Key;
use crate::sealer::Sealer;
use crate::volume::Volume;

/// Keys that a partition is to be made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One that the TPM gives out while these registers are as they are.
    pub tpm: Option<Vec<u32>>,
    /// Whether somebody is to know one.
    pub has_passphrase: bool,
    /// That one, as far as it is known.
    pub passphrase: Option<Key>,
}

/// Whose key opened a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// The TPM's.
    Tpm,
    /// Somebody's: a passphrase, or the recovery key.
    Given,
}

/// How a partition was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What is in it.
    pub device: PathBuf,
    /// What opened it; `None` if it was open.
    pub by: Option<(Opener, Key)>,
    /// Why the TPM did not open it.
    pub refused: Option<String>,
}

/// Makes a partition encrypted. What it held is lost. Afterwards every wanted key opens it.
///
/// # Errors
/// A key cannot be had, and then nothing was written; or the disk fails.
pub fn make(volume: Volume<'_>, label: &str, wanted: &Wanted, sealer: &dyn Sealer) -> Result<Key, Error> {
    let mut keys = Vec::new();
    if let Some(pcrs) = &wanted.tpm {
        let key = Key::random()?;
        let sealed = sealer.seal(&key, Pcrs::try_new(pcrs.iter().copied())?)?;
        keys.push((Token::Tpm(sealed), key));
    }
    if wanted.has_passphrase {
        keys.push((Token::Passphrase, wanted.passphrase.clone().ok_or(Error::NoPassphrase)?));
    }
    let ((token, first), others) = keys.split_first().ok_or(Error::NoKeys)?;
    volume.format(label, (token, first))?;
    for (token, key) in others {
        volume.put(&Header::default(), (token, key), first)?;
    }
    Ok(first.clone())
}

/// Opens a partition as `name`, by the TPM or by one of what somebody gave.
///
/// # Errors
/// Nothing opens it ([`Error::Locked`]), or it is damaged.
pub fn open(
    volume: Volume<'_>,
    name: &str,
    header: &Header,
    given: &[Key],
    sealer: &dyn Sealer,
) -> Result<Opened, Error> {
    if volume.is_open(name) {
        return Ok(Opened { device: Path::new("/dev/mapper").join(name), by: None, refused: None });
    }
    let mut refused = None;
    if let Some(sealed) = header.sealed() {
        match sealer.unseal(sealed) {
            Ok(key) => match volume.open(name, &key, Some(KeyKind::Tpm))? {
                Some(device) => return Ok(Opened { device, by: Some((Opener::Tpm, key)), refused }),
                None => refused = Some("the TPM's key does not fit any more".to_owned()),
            },
            Err(error) => refused = Some(chain(&error).to_string()),
        }
    }
    for key in given {
        if let Some(device) = volume.open(name, key, None)? {
            return Ok(Opened { device, by: Some((Opener::Given, key.clone())), refused });
        }
    }
    let mut reasons: Vec<String> = refused.into_iter().collect();
    if !given.is_empty() {
        reasons.push("the passphrase that was given does not fit".to_owned());
    } else if header.sealed().is_none() {
        reasons.push("it needs a passphrase".to_owned());
    }
    Err(Error::Locked(reasons.join("; ")))
}

/// Completes the keys of a partition that was opened: its TPM's key is sealed anew if it did not open it, and it gets a
/// recovery key, left in the file `recovery` on the partition itself, unless it has one. Answers what was done.
///
/// # Errors
/// A key cannot be put; the others stay.
pub fn settle(volume: Volume<'_>, opened: &Opened, recovery: &Path, sealer: &dyn Sealer) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    let (Some((opener, by)), Some(header)) = (&opened.by, volume.header()?) else { return Ok(done) };
    if let (Opener::Given, Some(pcrs)) = (opener, header.pcrs) {
        let key = Key::random()?;
        // Where the TPM is gone, what only that one opens stays, for it may come back.
        if let Ok(sealed) = sealer.seal(&key, pcrs) {
            volume.put(&header, (&Token::Tpm(sealed), &key), by)?;
            done.push("its key is sealed to this TPM as it is now".to_owned());
        }
    }
    if !header.has(KeyKind::Recovery) {
        let key = Key::recovery()?;
        volume.system.replace(recovery, key.bytes(), 0o600)?;
        volume.put(&header, (&Token::Recovery, &key), by)?;
        done.push("it has a recovery key, which `keelson recovery-key` gives out once".to_owned());
    }
    Ok(done)
}
