//! Secrets of a manifest: known, or still where the manifest says that they are.

use std::fmt;

use crate::keys;
use crate::words::{Reference, WordError};

/// A secret. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<W>(Result<W, Unknown>);

/// A secret that was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is not known: {reason}")]
pub struct Unknown {
    /// What it is for.
    pub key: String,
    /// Where it should be.
    pub reference: Reference,
    /// Why it is not.
    pub reason: String,
}

impl<W> Secret<W> {
    pub(crate) fn known_as(word: W) -> Self {
        Self(Ok(word))
    }

    pub(crate) fn unknown(unknown: Unknown) -> Self {
        Self(Err(unknown))
    }

    /// The secret.
    ///
    /// # Errors
    /// It was not found, or nobody has looked for it.
    pub fn get(&self) -> Result<&W, Unknown> {
        self.0.as_ref().map_err(Clone::clone)
    }

    /// The secret, if it was found.
    pub fn known(&self) -> Option<&W> {
        self.0.as_ref().ok()
    }
}

impl<W> fmt::Debug for Secret<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(_) => f.write_str("***"),
            Err(unknown) => unknown.fmt(f),
        }
    }
}

/// The text of a secret. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// This one.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// It.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whoever finds secrets that a manifest only refers to.
pub trait FindSecret {
    /// The text of the secret for a key. Its path has no indices, see [`key_of_secret`].
    ///
    /// # Errors
    /// Why it is not there. `None` is no error of the manifest's: nobody looks here.
    fn find(&self, key: &str, reference: &Reference) -> Result<SecretText, Option<String>>;
}

/// Whoever has only the manifest.
pub(crate) struct Nobody;

impl FindSecret for Nobody {
    fn find(&self, _: &str, _: &Reference) -> Result<SecretText, Option<String>> {
        Err(None)
    }
}

/// What is said of a secret that nobody looked for.
pub(crate) const UNSOUGHT: &str = "it is on the machine that the manifest is for";

/// The path of a secret's key without the indices of arrays, which change when something else does; `None` if there is
/// no such key, or it is no secret. `outbound.servers."r.example.com".password` stays as it is.
#[must_use]
pub fn key_of_secret(path: &str) -> Option<String> {
    let is_secret = crate::explain::find(path).is_some_and(keys::Key::is_secret);
    is_secret.then(|| without_indices(path))
}

/// Whether a text is what a secret's key takes.
///
/// # Errors
/// There is no such key, or what is wrong with the text, which is not quoted.
pub fn check_secret(path: &str, text: &str) -> Result<(), WordError> {
    let key = crate::explain::find(path).and_then(|key| key.secret);
    let check = key.ok_or_else(|| WordError::new(format!("`{}` is no key of a secret", path.escape_debug())))?;
    check(text)
}

pub(crate) fn without_indices(path: &str) -> String {
    let (mut is_quoted, mut is_index) = (false, false);
    let kept = path.chars().filter(|c| {
        is_quoted ^= *c == '"';
        let is_end = *c == ']' && !is_quoted;
        is_index = !is_end && (is_index || (*c == '[' && !is_quoted));
        !is_index && !is_end
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_for_a_key_whatever_its_place() {
        for (path, key) in [
            ("cluster.token", Some("cluster.token")),
            ("network.interfaces[12].wireguard.private-key", Some("network.interfaces.wireguard.private-key")),
            ("outbound.servers.\"[fd00::5]:80\".password", Some("outbound.servers.\"[fd00::5]:80\".password")),
            ("cluster.name", None),
            ("cluster.tokne", None),
        ] {
            assert_eq!(key_of_secret(path).as_deref(), key, "{path}");
        }
        assert!(check_secret("cluster.token", "abcdef.0123456789abcdef").is_ok());
        assert!(check_secret("cluster.token", "sesame").is_err() && check_secret("cluster.name", "c").is_err());
    }
}
