//! The providers of one resource: the first writes, all read.

use std::sync::Arc;

use bytes::Bytes;

use crate::cipher::Cipher;
use crate::envelope::Envelope;

/// What encrypted values begin with, whatever the provider.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Why a value cannot be encrypted or decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// There is less than the algorithm needs.
    #[error("the stored data was shorter than the required size")]
    TooShort,
    /// There are no whole blocks.
    #[error("the stored data is not a multiple of the block size")]
    BlockSize,
    /// The last block ends in nothing that could be padding.
    #[error("invalid PKCS7 data (empty or not padded)")]
    NoPadding,
    /// The last block's padding is broken.
    #[error("invalid padding on input")]
    Padding,
    /// Another key, another place, or a changed value.
    #[error("cipher: message authentication failed")]
    Authentication,
    /// The same of a secretbox.
    #[error("output array was not large enough for encryption")]
    Secretbox,
    /// The value could not be encrypted.
    #[error("the value could not be encrypted")]
    Seal,
    /// An encrypted value where plain ones are expected.
    #[error("identity transformer tried to read encrypted data")]
    Identity,
    /// No key of a provider has the name that the value begins with.
    #[error("no matching key was found for the provided {0} transformer")]
    NoKey(&'static str),
    /// No provider has the name that the value begins with.
    #[error("no matching prefix found")]
    NoPrefix,
    /// Several that could have done it failed.
    #[error("[{0}]")]
    Several(String),
    /// The plugin cannot be used.
    #[error("{0}")]
    Plugin(String),
}

/// A provider and the beginning of what it writes.
pub(crate) enum Provider {
    /// Values lie there as they are.
    Identity,
    /// Named keys, the first of which writes.
    Keys { prefix: String, what: &'static str, keys: Vec<(String, Cipher)> },
    /// A plugin's.
    Kms { prefix: String, envelope: Arc<Envelope> },
}

/// The providers of one resource, in order.
#[derive(Clone, Default)]
pub struct Providers(pub(crate) Vec<Arc<Provider>>);

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// As it was before it was written.
    pub value: Bytes,
    /// Whether it would be written in another way now.
    pub is_stale: bool,
}

impl Provider {
    fn prefix(&self) -> &str {
        match self {
            Self::Identity => "",
            Self::Keys { prefix, .. } | Self::Kms { prefix, .. } => prefix,
        }
    }

    async fn open(&self, data: &Bytes, place: &[u8]) -> Result<Opened, TransformError> {
        match self {
            Self::Identity if data.starts_with(ENCRYPTED) => Err(TransformError::Identity),
            Self::Identity => Ok(Opened { value: data.clone(), is_stale: false }),
            Self::Keys { what, keys, .. } => open_by_key(keys, what, data, place),
            Self::Kms { envelope, .. } => envelope.open(data, place).await,
        }
    }

    async fn seal(&self, plain: &Bytes, place: &[u8]) -> Result<Bytes, TransformError> {
        match self {
            Self::Identity => Ok(plain.clone()),
            Self::Keys { prefix, what, keys } => {
                let (name, cipher) = keys.first().ok_or(TransformError::NoKey(what))?;
                let sealed = cipher.seal(plain, place)?;
                Ok([prefix.as_bytes(), name.as_bytes(), b":", &sealed].concat().into())
            }
            Self::Kms { prefix, envelope } => {
                let sealed = envelope.seal(plain, place)?;
                Ok([prefix.as_bytes(), &sealed].concat().into())
            }
        }
    }
}

fn open_by_key(
    keys: &[(String, Cipher)],
    what: &'static str,
    data: &Bytes,
    place: &[u8],
) -> Result<Opened, TransformError> {
    let mut failures = Vec::new();
    for (at, (name, cipher)) in keys.iter().enumerate() {
        let Some(sealed) = data.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) else {
            continue;
        };
        match cipher.open(sealed, place) {
            Ok(value) => return Ok(Opened { value: value.into(), is_stale: at != 0 }),
            Err(error) => failures.push(error),
        }
    }
    Err(reduced(failures).unwrap_or(TransformError::NoKey(what)))
}

/// Several failures as one.
fn reduced(mut failures: Vec<TransformError>) -> Option<TransformError> {
    if failures.len() <= 1 {
        return failures.pop();
    }
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    Some(TransformError::Several(texts.join(", ")))
}

impl Providers {
    /// Decrypts the value of a key.
    ///
    /// # Errors
    /// When no provider can.
    pub async fn open(&self, data: &Bytes, place: &[u8]) -> Result<Opened, TransformError> {
        let mut failures = Vec::new();
        for (at, provider) in self.0.iter().enumerate() {
            let prefix = provider.prefix().as_bytes();
            if !data.starts_with(prefix) {
                continue;
            }
            match provider.open(&data.slice(prefix.len()..), place).await {
                Ok(opened) => return Ok(Opened { is_stale: opened.is_stale || at != 0, ..opened }),
                // Plain values may come first, on the way from encrypted ones to them.
                Err(_) if prefix.is_empty() => {}
                Err(error) => failures.push(error),
            }
        }
        Err(reduced(failures).unwrap_or(TransformError::NoPrefix))
    }

    /// Encrypts the value of a key.
    ///
    /// # Errors
    /// When the first provider cannot.
    pub async fn seal(&self, plain: &Bytes, place: &[u8]) -> Result<Bytes, TransformError> {
        match self.0.first() {
            Some(provider) => provider.seal(plain, place).await,
            None => Ok(plain.clone()),
        }
    }
}

/// The providers of a resource that no rule speaks of.
pub(crate) async fn open_plain(data: &Bytes) -> Result<Opened, TransformError> {
    if data.starts_with(ENCRYPTED) {
        return Err(TransformError::Identity);
    }
    Ok(Opened { value: data.clone(), is_stale: false })
}
