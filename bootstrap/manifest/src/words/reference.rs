//! Where a secret is that does not stand in the manifest itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{SealedSecret, Word, WordError, WordFormat, closest};

/// The longest secret: more than any key, token or document has.
pub const SECRET_BYTES: usize = 64 << 10;
const PATH_BYTES: usize = 512;

/// Where files with secrets can be, and what that is.
const FOLDERS: [&str; 3] = ["/state/secrets/", "/run/keelson-config/", "/sys/firmware/qemu_fw_cfg/by_name/"];

/// What stands in the place of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// A file with this path has it.
    File(String),
    /// The machine's TPM gives it out for this.
    Sealed(String),
}

impl fmt::Display for Reference {
    /// As it is written in a manifest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{{ file = {path:?} }}"),
            Self::Sealed(text) => write!(f, "{{ sealed = {text:?} }}"),
        }
    }
}

impl Reference {
    /// What a reference looks like.
    pub(crate) const EXPECTED: &'static str = "`{ file = \"/state/secrets/NAME\" }` or `{ sealed = \"...\" }`";
    pub(crate) const FILE: &'static WordFormat = &WordFormat {
        name: "file",
        expected: "a file below `/state/secrets/`, as `keelson secret put NAME` makes them, below \
                   `/run/keelson-config/`, which is the disk labelled KEELSON-CFG, or below \
                   `/sys/firmware/qemu_fw_cfg/by_name/`",
        pattern: Some("^/(state/secrets|run/keelson-config|sys/firmware/qemu_fw_cfg/by_name)/.+[^/]$"),
        choices: &[],
    };

    /// Reads `NAME = "TEXT"` as one.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, (WordError, &'static str)> {
        match name {
            "file" => check_path(text).map(|()| Self::File(text.to_owned())).map_err(|it| (it, Self::FILE.expected)),
            "sealed" => {
                let sealed = SealedSecret::parse_word(text).map(|_| Self::Sealed(text.to_owned()));
                sealed.map_err(|error| (error, SealedSecret::FORMAT.expected))
            }
            other => {
                let mut error = WordError::new(format!("a secret is not to be had by `{}`", other.escape_debug()));
                error.suggestion = closest(other, ["file", "sealed"]).map(str::to_owned);
                Err((error, Self::EXPECTED))
            }
        }
    }

    /// For people, without all of what was sealed.
    #[must_use]
    pub fn place(&self) -> &str {
        match self {
            Self::File(path) => path,
            Self::Sealed(_) => "the TPM",
        }
    }
}

fn check_path(path: &str) -> Result<(), WordError> {
    if !path.starts_with('/') {
        // It may be the secret.
        return Err(WordError::new("this is no absolute path"));
    }
    let Some(below) = FOLDERS.iter().find_map(|folder| path.strip_prefix(folder)) else {
        return Err(WordError::new(format!("`{}` is nowhere where a machine keeps secrets", path.escape_debug())));
    };
    let is_plain = below.split('/').all(|part| !matches!(part, "" | "." | "..")) && !below.contains(char::is_control);
    match is_plain && path.len() <= PATH_BYTES {
        true => Ok(()),
        false => {
            Err(WordError::new(format!("`{}` has a part that leads nowhere, or is too long", path.escape_debug())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_where_a_machine_has_files_of_its_owner() {
        let fw = "/sys/firmware/qemu_fw_cfg/by_name/opt/keelson/token/raw";
        for good in ["/state/secrets/token", "/run/keelson-config/a/b", fw] {
            assert_eq!(Reference::parse("file", good), Ok(Reference::File(good.to_owned())));
        }
        for bad in ["/etc/shadow", "token", "/state/secrets/", "/state/secrets/../pki/ca.key", "/state/secrets/a//b"] {
            assert!(Reference::parse("file", bad).is_err(), "{bad}");
        }
        let (error, expected) = Reference::parse("flie", "/state/secrets/token").unwrap_err();
        assert_eq!((error.suggestion.as_deref(), expected), (Some("file"), Reference::EXPECTED));
        assert!(!error.reason.contains("token"));
    }
}
