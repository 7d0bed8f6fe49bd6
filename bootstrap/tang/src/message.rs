//! What whoever opens disks asks of whoever has the network, and gets. The two are processes of one machine, and meet by
//! files in memory.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::advertisement::Server;
use crate::binding::Binding;

/// What opens something: text, so that it also passes through a shell. It is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// This text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// One key for one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// A new one, which this server gives back.
    Bind(Server),
    /// The one in here. Of those that one volume has, any will do.
    Recover(Box<Binding>),
}

impl Ask {
    /// Whom it is asked of.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::Bind(server) => &server.url,
            Self::Recover(binding) => binding.url(),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Asked {
    /// Whether the machine's disks are closed until it comes.
    pub is_locked: bool,
    /// The volumes, by their labels, and for each what it lacks.
    pub asks: Vec<(String, Ask)>,
}

/// A key that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fetched {
    /// For which volume.
    pub volume: String,
    /// What it is in.
    pub binding: Binding,
    /// The key.
    pub secret: Secret,
}
