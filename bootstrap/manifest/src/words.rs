//! Words: the closed types that the texts of a manifest become at the door.
//!
//! A [`Word`] is parsed from one TOML string. Its [`WordFormat`] is what the key table, the JSON Schema and the
//! diagnostics say about it, so that no message about a format is written twice. Words with secrets inside have a
//! `Debug` that does not show them and errors that do not quote them.

mod choice;
mod disk;
mod dns;
mod document;
mod firewall;
mod link;
mod names;
mod net;
mod network_key;
mod outbound;
mod passphrase;
mod quantity;
mod reference;
mod sealed;
mod secret;
mod store;
mod wireguard;

pub use choice::{ControlPlanePart, DhcpMode, PodNetworkMode, Role, TaintEffect, Volume};
pub use disk::{DiskKind, DiskSelector};
pub use dns::NameServer;
pub use document::{
    AuditPolicy, AuthenticationConfiguration, AuthorizationConfiguration, EncryptionConfiguration, FileContent,
    FileName, KeptFolder, Kubeconfig, LogPath,
};
pub use firewall::{FirewallAction, FirewallProtocol, PortRange};
pub use link::{BondMode, HashPolicy, InterfaceId, LacpRate};
pub use names::{
    CONTROL_PLANE_KEY, ClusterName, DnsName, FeatureName, Hostname, InterfaceName, LabelKey, LabelValue, ModuleName,
    ModuleParameters, RegistryHost, SysctlName, Taint, VolumeName,
};
pub use net::{Cidr, Endpoint, Host, InterfaceAddress, IpWord, MacAddress, MirrorScheme, MirrorUrl, RouteDestination};
pub use network_key::{KeyServerUrl, Thumbprint};
pub use outbound::{ProxyException, ProxyUrl, ServerHost};
pub use passphrase::Passphrase;
pub use quantity::{ByteSize, Cpu, Threshold, TimeSpan};
pub use reference::{Reference, SECRET_BYTES};
pub use sealed::SealedSecret;
pub use secret::{CaHash, ClusterSecret, JoinToken, PemCertificates};
pub use store::{BucketPlace, StoreRegion, StoreSecret, StoreUrl, StoreUser};
pub use wireguard::{PeerEndpoint, PublicKey, SecretKey};

/// What a word looks like, for people and for the JSON Schema.
#[derive(Debug, PartialEq, Eq)]
pub struct WordFormat {
    /// Short name of the format, as in `explain`.
    pub name: &'static str,
    /// What is expected, as the continuation of "expected".
    pub expected: &'static str,
    /// Regular expression for editors; the parser is the authority.
    pub pattern: Option<&'static str>,
    /// The only values allowed, if the set is closed.
    pub choices: &'static [&'static str],
}

/// Why a text is not the word it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct WordError {
    /// The reason, without the key and without the value of a secret.
    pub reason: String,
    /// A value that was probably meant.
    pub suggestion: Option<String>,
}

impl WordError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), suggestion: None }
    }

    pub(crate) fn meant(reason: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self { reason: reason.into(), suggestion: Some(suggestion.into()) }
    }
}

/// A type that is written as one string in a manifest.
pub trait Word: Sized {
    /// The description of the format.
    const FORMAT: &'static WordFormat;

    /// Parses the text of one value.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    fn parse_word(text: &str) -> Result<Self, WordError>;

    /// The parts of a secret that must not be shown anywhere, as they would stand in a line.
    fn hidden(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    /// Where the secret is, if its text says no more than that.
    fn reference(_text: &str) -> Option<Reference> {
        None
    }

    /// Parses a secret as it was found elsewhere.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    fn parse_found(text: &str) -> Result<Self, WordError> {
        Self::parse_word(text)
    }
}

/// Implements `FromStr` and, for words that keep their text, `Display`, `as_str` and `AsRef<str>`.
macro_rules! text_word {
    ($(#[$doc:meta])* $name:ident, $format:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::words::Word for $name {
            const FORMAT: &'static $crate::words::WordFormat = &$format;

            fn parse_word(text: &str) -> Result<Self, $crate::words::WordError> {
                let check: fn(&str) -> Result<(), $crate::words::WordError> = $check;
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        $crate::words::from_str_by_word!($name);
    };
}

macro_rules! from_str_by_word {
    ($name:ident) => {
        impl std::str::FromStr for $name {
            type Err = $crate::words::WordError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::words::Word::parse_word(text)
            }
        }
    };
}

pub(crate) use {from_str_by_word, text_word};

/// The first of `candidates` that is close enough to `text` to be what was meant.
pub(crate) fn closest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SIMILAR: f64 = 0.75;
    let text = text.to_lowercase().replace('_', "-");
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&text, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
