//! Which volumes this machine has made, or had: kept on STATE.

use std::collections::BTreeMap;
use std::path::Path;

use manifest::UserVolume;
use serde::{Deserialize, Serialize};
use sys::{BlockDevice, System};

use crate::error::Error;

/// More is no record.
const MADE_BYTES: usize = 64 * 1024;

/// Volumes by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Made(pub(super) BTreeMap<String, Origin>);

/// Where one was last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// What the manifest said of its disk.
    pub disk: String,
    /// The disk's serial number; may be empty.
    pub serial: String,
}

impl Origin {
    /// For people.
    pub(super) fn words(&self) -> String {
        if self.serial.is_empty() { format!("that fits \"{}\"", self.disk) } else { format!("serial:{}", self.serial) }
    }
}

impl Made {
    /// Its file, in the folder of STATE.
    pub const FILE: &str = "volumes.json";

    /// What is kept there; nothing if nothing is.
    ///
    /// # Errors
    /// It is there and cannot be read: for people.
    pub fn load(system: &dyn System, path: &Path) -> Result<Self, String> {
        match system.read_at(path, 0, MADE_BYTES) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.is_not_found() => Ok(Self::default()),
            Err(error) => Err(stdx::chain(&error).to_string()),
        }
    }

    /// Keeps it there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self, system: &dyn System, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).map_err(Error::Record)?;
        Ok(system.replace(path, &text, 0o600)?)
    }

    /// Takes note of a volume that is on this disk.
    pub fn note(&mut self, volume: &UserVolume, disk: &BlockDevice) {
        let origin = Origin { disk: volume.disk.to_string(), serial: disk.serial.clone() };
        self.0.insert(volume.name.to_string(), origin);
    }

    /// Forgets those that the manifest does not name any more: whoever takes one out and puts it in again means another.
    pub fn keep(&mut self, wanted: &[UserVolume]) {
        self.0.retain(|name, _| wanted.iter().any(|volume| volume.name.as_str() == name));
    }

    /// Whether there was one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
