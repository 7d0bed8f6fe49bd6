//! What PID 1 found, in memory, for the services of the machine.

use std::path::{Path, PathBuf};

use manifest::{Diagnostics, FindSecret, Manifest, Reference, SecretText};
use serde::{Deserialize, Serialize};
use sys::System;

use crate::search::Found;

/// Beside the manifest in force. Like that, it is on no disk.
const NAME: &str = "secrets.json";
const MANIFEST: &str = "manifest.toml";

/// A secret as it lies there.
#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    reference: Reference,
    found: Outcome,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Text(String),
    Missing(String),
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum InForceError {
    /// A file cannot be read.
    #[error("reading the manifest in force")]
    Read(#[source] sys::Error),
    /// What PID 1 found is damaged.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is no good.
    #[error("{0}")]
    Bad(Diagnostics),
}

/// Tells services of the secrets of the manifest that is put in force next, and of those of `others` for whoever reads
/// the one before in this moment.
///
/// # Errors
/// The file cannot be written.
pub fn publish(system: &dyn System, run: &Path, secrets: &[Found], others: &[Found]) -> Result<(), sys::Error> {
    let is_other =
        |found: &&Found| !secrets.iter().any(|it| (&it.key, &it.reference) == (&found.key, &found.reference));
    let entries: Vec<Entry> = secrets.iter().chain(others.iter().filter(is_other)).map(Entry::new).collect();
    let text = serde_json::to_vec(&entries).unwrap_or_default();
    system.replace(&run.join(NAME), &text, 0o600)
}

/// What PID 1 found last.
///
/// # Errors
/// The file cannot be read.
pub fn published(system: &dyn System, run: &Path) -> Result<Vec<Found>, InForceError> {
    let path = run.join(NAME);
    let text = match system.read(&path) {
        Ok(text) => text,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(InForceError::Read(error)),
    };
    let entries: Vec<Entry> = serde_json::from_slice(&text).map_err(|source| InForceError::Damaged { path, source })?;
    Ok(entries.into_iter().map(Entry::found).collect())
}

/// The manifest in force, with its secrets.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn in_force(system: &dyn System, run: &Path) -> Result<Manifest, InForceError> {
    read(system, run, &run.join(MANIFEST))
}

/// Another one that PID 1 has put there, with its secrets.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn read(system: &dyn System, run: &Path, path: &Path) -> Result<Manifest, InForceError> {
    // In this order: what PID 1 found is written first.
    let text = system.read(path).map_err(InForceError::Read)?;
    let finder = Published(published(system, run)?);
    let name = path.display().to_string();
    let (manifest, diagnostics) = manifest::check_with(&name, &String::from_utf8_lossy(&text), &finder);
    manifest.ok_or(InForceError::Bad(diagnostics))
}

struct Published(Vec<Found>);

impl FindSecret for Published {
    fn find(&self, key: &str, reference: &Reference) -> Result<SecretText, Option<String>> {
        let known = self.0.iter().find(|found| found.key == key && found.reference == *reference);
        let found = known.ok_or_else(|| Some("the first process has not looked for it".to_owned()))?;
        found.outcome.clone().map_err(Some)
    }
}

impl Entry {
    fn new(found: &Found) -> Self {
        let outcome = match &found.outcome {
            Ok(text) => Outcome::Text(text.as_str().to_owned()),
            Err(reason) => Outcome::Missing(reason.clone()),
        };
        Self { key: found.key.clone(), reference: found.reference.clone(), found: outcome }
    }

    fn found(self) -> Found {
        let outcome = match self.found {
            Outcome::Text(text) => Ok(SecretText::new(text)),
            Outcome::Missing(reason) => Err(reason),
        };
        Found { key: self.key, reference: self.reference, outcome }
    }
}

#[cfg(test)]
mod tests {
    use sys::FakeSystem;

    use super::*;

    fn found(path: &str, outcome: Result<&str, &str>) -> Found {
        let outcome = outcome.map(|text| SecretText::new(text.to_owned())).map_err(str::to_owned);
        Found { key: "cluster.token".to_owned(), reference: Reference::File(path.to_owned()), outcome }
    }

    #[test]
    fn services_read_the_manifest_with_what_was_found() {
        let (system, run) = (FakeSystem::new(), Path::new("/run/keelson"));
        let text = |name: &str| {
            format!(
                "version = 1\nmachine = {{ hostname = \"a\", role = \"single\" }}\n[cluster]\n\
                 token = {{ file = \"/state/secrets/{name}\" }}\n"
            )
        };
        assert!(matches!(in_force(&system, run), Err(InForceError::Read(_))));
        let (one, two) = ("abcdef.0123456789abcdef", "abcdef.1123456789abcdef");
        let before = [found("/state/secrets/one", Ok(one))];
        let after = [found("/state/secrets/two", Ok(two)), found("/state/secrets/three", Err("it is empty"))];
        publish(&system, run, &after, &before).unwrap();
        let bearer = |name: &str| {
            system.file("/run/keelson/manifest.toml", text(name));
            let token = in_force(&system, run).unwrap().cluster.token.unwrap();
            token.get().map(manifest::JoinToken::bearer).map_err(|unknown| unknown.reason)
        };
        // Whoever reads while another manifest is put in force finds the secrets of either.
        assert_eq!(bearer("one").as_deref(), Ok(one));
        assert_eq!(bearer("two").as_deref(), Ok(two));
        assert_eq!(bearer("three"), Err("it is empty".to_owned()));
        assert_eq!(bearer("four"), Err("the first process has not looked for it".to_owned()));
        publish(&system, run, &after, &[]).unwrap();
        assert!(!system.text("/run/keelson/secrets.json").contains(one));
        system.file("/run/keelson/secrets.json", "{");
        assert!(matches!(in_force(&system, run), Err(InForceError::Damaged { .. })));
    }
}
