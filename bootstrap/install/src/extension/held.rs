//! The extensions that lie on STATE, and how often each was tried.

use std::path::{Path, PathBuf};

use disk::{About, EXTENSION_ENDING, EXTENSION_HEAD_BYTES, ExtensionError, ExtensionHead};
use sys::System;

use crate::signature;

/// No machine has more files of extensions.
pub const MOST: usize = 32;
/// Behind a file's name: how often it was tried.
const TRIED: &str = ".tried";
/// So often one is tried that never proves itself: a power cut in its first start does not end it.
const TRIES: u32 = 2;
const PROVED: &str = "proved";

/// Why a file on STATE is not used.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] sys::Error),
    /// It is none.
    #[error(transparent)]
    Head(#[from] ExtensionError),
    /// Its signature is wrong or not there.
    #[error("its signature {0}")]
    Signature(&'static str),
    /// It is not what its name says.
    #[error("it is {0}, which its file's name does not say")]
    Name(String),
    /// There are too many.
    #[error("there are more than {MOST}")]
    Many,
    /// There is none of the name.
    #[error("this machine has no extension {0} on STATE")]
    Absent(String),
}

/// A file on STATE.
#[derive(Debug)]
pub struct Held {
    /// Where it is.
    pub path: PathBuf,
    /// Its head, or why it is not to be used.
    pub head: Result<ExtensionHead, HeldError>,
}

impl Held {
    /// The name by which the machine has it, also of one that cannot be read.
    #[must_use]
    pub fn name(&self) -> String {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        let stem = file.strip_suffix(EXTENSION_ENDING).unwrap_or(&file);
        stem.split('@').next().unwrap_or(stem).to_owned()
    }

    /// What it says of itself, if it is to be used.
    #[must_use]
    pub fn about(&self) -> Option<&About> {
        self.head.as_ref().ok().map(|head| &head.about)
    }
}

/// How far an extension has proved itself: that the machine starts with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It has.
    Proved,
    /// So many starts were begun with it.
    Begun(u32),
}

impl Trial {
    /// Whether a start may be begun with it, and what it is then.
    #[must_use]
    pub fn again(self) -> Option<Self> {
        match self {
            Self::Proved => Some(self),
            Self::Begun(starts) => (starts < TRIES).then_some(Self::Begun(starts + 1)),
        }
    }
}

/// All of a folder, in the order of their names. With a key those without its signature are not to be used.
#[must_use]
pub fn held(system: &dyn System, folder: &Path, key: Option<&[u8]>) -> Vec<Held> {
    let names = system.list(folder).unwrap_or_default();
    let names = names.iter().filter(|name| name.ends_with(EXTENSION_ENDING)).enumerate();
    let read = |number: usize, name: &str| {
        let path = folder.join(name);
        let head = if number < MOST { read(system, &path, key) } else { Err(HeldError::Many) };
        Held { path, head }
    };
    names.map(|(number, name)| read(number, name)).collect()
}

fn read(system: &dyn System, path: &Path, key: Option<&[u8]>) -> Result<ExtensionHead, HeldError> {
    let head = ExtensionHead::parse(&system.read_at(path, 0, EXTENSION_HEAD_BYTES)?)?;
    signature::check(key, &head.signed, &head.signature).map_err(HeldError::Signature)?;
    let name = head.about.file_name();
    if path.file_name().is_none_or(|found| *found != *name) {
        return Err(HeldError::Name(name));
    }
    Ok(head)
}

/// How far a file has proved itself.
#[must_use]
pub fn trial(system: &dyn System, path: &Path) -> Trial {
    let text = system.read(&tried(path)).unwrap_or_default();
    match String::from_utf8_lossy(&text).trim() {
        PROVED => Trial::Proved,
        // What cannot be read is as if it had never been tried.
        starts => Trial::Begun(starts.parse().unwrap_or(0)),
    }
}

/// Writes down how far it has proved itself.
///
/// # Errors
/// STATE cannot be written.
pub fn keep_trial(system: &dyn System, path: &Path, trial: Trial) -> Result<(), sys::Error> {
    let text = match trial {
        Trial::Proved => PROVED.to_owned(),
        Trial::Begun(starts) => starts.to_string(),
    };
    system.replace(&tried(path), text.as_bytes(), 0o600)
}

/// Forgets that it was tried.
pub(super) fn forget_trial(system: &dyn System, path: &Path) -> Result<(), sys::Error> {
    system.remove_file(&tried(path))
}

fn tried(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TRIED);
    name.into()
}

/// Removes all files of this name, also those that cannot be read. What is in use stays so until the next start.
///
/// # Errors
/// There is none, or STATE cannot be written.
pub fn remove(system: &dyn System, folder: &Path, name: &str) -> Result<(), HeldError> {
    let found: Vec<Held> = held(system, folder, None).into_iter().filter(|held| held.name() == name).collect();
    if found.is_empty() {
        return Err(HeldError::Absent(name.to_owned()));
    }
    for held in found {
        system.remove_file(&held.path)?;
        forget_trial(system, &held.path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use disk::{Extension, Verity};
    use sys::FakeSystem;

    use super::*;

    const FOLDER: &str = "/state/extensions";

    fn file(name: &str) -> Vec<u8> {
        let about = About { name: name.to_owned(), version: "1".to_owned(), ..About::default() };
        let verity = Verity { blocks: 1, digest: [7; 32] };
        Extension::new(about, &"0f".repeat(16), &verity).head(|_line| String::new()).unwrap()
    }

    #[test]
    fn what_is_no_extension_is_told_by_the_name_of_its_file() {
        let system = FakeSystem::new();
        assert!(held(&system, Path::new(FOLDER), None).is_empty());
        for (name, content) in
            [("a.extension", file("a")), ("b.extension", b"x".to_vec()), ("c@6.12.extension", file("c"))]
        {
            system.file(format!("{FOLDER}/{name}"), content);
        }
        system.file(format!("{FOLDER}/a.extension.tried"), "1");
        system.file(format!("{FOLDER}/draft"), "half of one");
        let told = |key| -> Vec<String> {
            let all = held(&system, Path::new(FOLDER), key).into_iter();
            all.map(|it| format!("{}: {}", it.name(), it.head.err().map(|it| it.to_string()).unwrap_or_default()))
                .collect()
        };
        let found = told(None);
        assert_eq!((found.len(), found[0].as_str()), (3, "a: "));
        assert!(found[1].starts_with("b: this is no extension file"), "{found:?}");
        assert!(found[2].starts_with("c: it is c.extension, which"), "{found:?}");
        assert!(told(Some(&[7; 32]))[0].contains("its signature is missing"));
        remove(&system, Path::new(FOLDER), "b").unwrap();
        remove(&system, Path::new(FOLDER), "a").unwrap();
        assert!(!system.exists(Path::new("/state/extensions/a.extension.tried")));
        assert!(matches!(remove(&system, Path::new(FOLDER), "a"), Err(HeldError::Absent(_))));
    }

    #[test]
    fn one_that_never_proves_itself_is_tried_twice() {
        let system = FakeSystem::new();
        let path = Path::new("/state/extensions/a.extension");
        let mut begun = 0;
        while let Some(next) = trial(&system, path).again() {
            keep_trial(&system, path, next).unwrap();
            begun += 1;
        }
        assert_eq!(begun, TRIES);
        forget_trial(&system, path).unwrap();
        assert_eq!(trial(&system, path), Trial::Begun(0));
        keep_trial(&system, path, Trial::Proved).unwrap();
        assert_eq!(trial(&system, path).again(), Some(Trial::Proved));
    }
}
