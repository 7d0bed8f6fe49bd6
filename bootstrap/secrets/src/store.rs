//! Files with secrets on STATE.

use std::path::{Path, PathBuf};

use manifest::SecretText;
use sys::System;

/// The folder of STATE that they are in.
const FOLDER: &str = "secrets";
const NAME_CHARS: usize = 63;
/// More than any manifest refers to.
const FILES: usize = 256;

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Its name is none.
    #[error("`{0}` is no name: letters, digits, `-`, `_` and `.`, the first no `.`, at most {NAME_CHARS}")]
    Name(String),
    /// There are too many.
    #[error("there are {FILES} secrets already")]
    Many,
    /// There is none.
    #[error("there is no secret `{0}`")]
    Absent(String),
    /// The disk fails.
    #[error("the secret cannot be kept")]
    Disk(#[source] sys::Error),
}

/// Keeps a secret on STATE. Answers where.
///
/// # Errors
/// Its name is none, there are too many, or the disk fails.
pub fn put(system: &dyn System, state: &Path, name: &str, text: &SecretText) -> Result<PathBuf, PutError> {
    let path = path(state, name)?;
    let folder = state.join(FOLDER);
    system.make_dir(&folder, 0o700).map_err(PutError::Disk)?;
    let names = system.list(&folder).map_err(PutError::Disk)?;
    if names.len() >= FILES && !system.exists(&path) {
        return Err(PutError::Many);
    }
    system.replace(&path, text.as_str().as_bytes(), 0o600).map_err(PutError::Disk)?;
    Ok(path)
}

/// Forgets one.
///
/// # Errors
/// There is none, or the disk fails.
pub fn remove(system: &dyn System, state: &Path, name: &str) -> Result<(), PutError> {
    let path = path(state, name)?;
    if !system.exists(&path) {
        return Err(PutError::Absent(name.to_owned()));
    }
    system.remove_file(&path).map_err(PutError::Disk)
}

fn path(state: &Path, name: &str) -> Result<PathBuf, PutError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = !name.is_empty() && name.len() <= NAME_CHARS && !name.starts_with('.') && name.chars().all(is_good);
    is_name.then(|| state.join(FOLDER).join(name)).ok_or_else(|| PutError::Name(name.escape_debug().to_string()))
}

#[cfg(test)]
mod tests {
    use sys::FakeSystem;

    use super::*;

    #[test]
    fn a_secret_is_kept_below_its_folder_only() {
        let (system, state) = (FakeSystem::new(), Path::new("/state"));
        let text = SecretText::new("sesame".to_owned());
        assert_eq!(put(&system, state, "registry", &text).unwrap(), Path::new("/state/secrets/registry"));
        assert_eq!(system.text("/state/secrets/registry"), "sesame");
        for bad in ["", "..", "../pki/ca.key", "a/b", ".hidden", &"x".repeat(64)] {
            assert!(matches!(put(&system, state, bad, &text), Err(PutError::Name(_))), "{bad}");
        }
        remove(&system, state, "registry").unwrap();
        assert!(matches!(remove(&system, state, "registry"), Err(PutError::Absent(_))));
        for number in 0..FILES {
            system.file(format!("/state/secrets/{number}"), "x");
        }
        assert!(matches!(put(&system, state, "more", &text), Err(PutError::Many)));
        assert!(put(&system, state, "7", &text).is_ok());
    }
}
