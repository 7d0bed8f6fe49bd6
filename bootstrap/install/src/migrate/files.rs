//! What steps see of STATE, and what they change: whole files, none of them large.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use sys::System;

use super::MigrateError;

/// What all files that change may have together. They are in memory while the steps are taken, and beside STATE until the
/// system has proved itself.
const CHANGED_BYTES: usize = 16 << 20;
/// What no step changes: what is read before the format is known, what is large, and what keeps the machine its identity.
const FIXED: [&str; 7] =
    ["machine-id", "format.json", "format.failed", super::beside::FOLDER, "etcd", "lost+found", ".damaged"];

/// A change of one file, whose path is relative to STATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this content from now on.
    Put {
        /// Which.
        path: String,
        /// Who may read it.
        mode: u32,
        /// What is in it.
        content: Vec<u8>,
    },
    /// It is there no more.
    Remove {
        /// Which.
        path: String,
    },
}

/// A file that takes another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

/// The files that differ in another format; `None` of those that are not in it.
pub type Files = BTreeMap<String, Option<File>>;

/// STATE as the steps before have left it.
pub struct View<'a> {
    system: &'a dyn System,
    state: &'a Path,
    changed: Files,
}

impl<'a> View<'a> {
    /// STATE as it is.
    #[must_use]
    pub fn new(system: &'a dyn System, state: &'a Path) -> Self {
        Self { system, state, changed: Files::new() }
    }

    /// What is in a file; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is too large for a step. In words.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(changed) = self.changed.get(path) {
            return Ok(changed.as_ref().map(|file| file.content.clone()));
        }
        match self.system.read_at(&self.state.join(path), 0, CHANGED_BYTES + 1) {
            Ok(content) if content.len() > CHANGED_BYTES => Err(format!("{path} has more than {CHANGED_BYTES} bytes")),
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(stdx::chain(&error).to_string()),
        }
    }

    /// The names in a folder of STATE, in order; none if there is no folder.
    ///
    /// # Errors
    /// It cannot be read. In words.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        let mut names = match self.system.list(&self.state.join(folder)) {
            Ok(names) => names,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(stdx::chain(&error).to_string()),
        };
        let below = |path: &String| Path::new(path).strip_prefix(folder).ok()?.to_str().map(str::to_owned);
        for (name, file) in self.changed.iter().filter_map(|(path, file)| Some((below(path)?, file))) {
            match name.split_once('/') {
                Some((folder, _)) => names.push(folder.to_owned()),
                None => {
                    names.retain(|known| *known != name);
                    names.extend(file.is_some().then_some(name));
                }
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Lets the next step see what this one changes.
    pub(super) fn take(&mut self, changes: Vec<Change>) -> Result<(), MigrateError> {
        for change in changes {
            let (path, file) = match change {
                Change::Put { path, mode, content } => (path, Some(File { mode, content })),
                Change::Remove { path } => (path, None),
            };
            if !may_change(&path) {
                return Err(MigrateError::Path { path });
            }
            self.changed.insert(path, file);
        }
        let bytes: usize = self.changed.values().flatten().map(|file| file.content.len()).sum();
        if bytes > CHANGED_BYTES {
            return Err(MigrateError::TooMuch { bytes: CHANGED_BYTES });
        }
        Ok(())
    }

    pub(super) fn into_files(self) -> Files {
        self.changed
    }
}

/// Whether a step may change it: nothing outside of STATE, and nothing of [`FIXED`].
pub(super) fn may_change(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    let Some(Component::Normal(first)) = parts.next() else { return false };
    FIXED.iter().all(|fixed| first != *fixed) && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use sys::FakeSystem;

    use super::*;

    #[test]
    fn a_step_sees_what_the_one_before_has_changed() {
        let system = FakeSystem::new();
        for path in ["/state/a", "/state/pki/ca.key", "/state/pki/ca.crt"] {
            system.file(path, path);
        }
        let mut view = View::new(&system, Path::new("/state"));
        let put = |path: &str| Change::Put { path: path.to_owned(), mode: 0o600, content: b"new".to_vec() };
        let remove = |path: &str| Change::Remove { path: path.to_owned() };
        view.take(vec![put("pki/ca.key"), remove("pki/ca.crt"), put("pki/old/ca.crt"), remove("absent")]).unwrap();
        assert_eq!(view.list("pki").unwrap(), ["ca.key", "old"]);
        assert_eq!(view.list("pki/old").unwrap(), ["ca.crt"]);
        assert_eq!((view.list("").unwrap(), view.list("none").unwrap()), (vec!["a".into(), "pki".into()], vec![]));
        assert_eq!(view.read("pki/ca.key").unwrap().unwrap(), b"new");
        assert_eq!((view.read("pki/ca.crt").unwrap(), view.read("none").unwrap()), (None, None));
        assert_eq!(view.read("a").unwrap().unwrap(), b"/state/a");
        assert_eq!(view.into_files().len(), 4);
    }

    #[test]
    fn nothing_outside_and_nothing_fixed_is_changed() {
        for path in ["pki/ca.key", "manifest.toml", "a/../b", "etcd.yaml"] {
            assert_eq!(may_change(path), !path.contains(".."), "{path}");
        }
        for path in ["", "/etc/x", "../x", "etcd/db", "machine-id", "format.json", ".formats/1/0", "./x"] {
            assert!(!may_change(path), "{path}");
        }
    }
}
