//! What STATE tells about its format. Every release reads this, so its form never changes; older ones ignore what a newer
//! one adds.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sys::System;

use super::MigrateError;

/// More is no record.
const RECORD_BYTES: usize = 4096;

/// What STATE tells about its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Form {
    /// It is of this format.
    Settled {
        /// The format.
        format: u32,
    },
    /// It is of this format, and what makes it one of the former lies beside.
    Kept {
        /// The format.
        format: u32,
        /// The one that can be put back.
        former: u32,
    },
    /// Some files are of the one format and some of the other; all that is missing for the second lies beside.
    Moving {
        /// Where it comes from.
        from: u32,
        /// What it becomes, whoever goes on.
        to: u32,
    },
}

impl Form {
    /// What STATE is of, or will be.
    pub(super) fn format(self) -> u32 {
        match self {
            Self::Settled { format } | Self::Kept { format, .. } => format,
            Self::Moving { to, .. } => to,
        }
    }

    /// What STATE tells; `None` if it does not.
    pub(super) fn load(system: &dyn System, state: &Path) -> Result<Option<Self>, MigrateError> {
        let path = path(state);
        match system.read_at(&path, 0, RECORD_BYTES) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(form) => Ok(Some(form)),
                Err(source) => Err(MigrateError::Record { path, source }),
            },
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn store(self, system: &dyn System, state: &Path) -> Result<(), MigrateError> {
        let path = path(state);
        let text = serde_json::to_vec(&self).map_err(|source| MigrateError::Record { path: path.clone(), source })?;
        Ok(system.replace(&path, &text, 0o600)?)
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("format.json")
}
