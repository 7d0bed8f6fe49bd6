//! The machine manifest: TOML schema, newtypes, defaults, validation.
//!
//! [`parse`] turns a text into a [`Manifest`] of closed types, or into every error at once with its place, the key,
//! the reason, what was expected and what was probably meant. The same function serves the command line, the image
//! builder, the machine API and the start of a machine.
//!
//! One table (`keys/table.rs`) holds every key with its type, default, description and example. The check of unknown
//! and missing keys, the defaults, [`schema`] and [`explain`] come from it.
//!
//! A secret may be somewhere else, where a [`Reference`] says. [`check_with`] asks whoever can look there; what was
//! not found leaves the manifest, with [`Unknown`] in the place of the secret, so that nobody takes it for absent.
//!
//! Invariants: pure; no file, socket or clock. Never panics, whatever the text. No message shows the value of a secret.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod change;
mod diagnostic;
mod explain;
mod findings;
mod keys;
mod merge;
mod model;
mod read;
mod reader;
mod rotation;
mod rules;
mod schema;
mod secret;
mod source;
mod structure;
mod vocabulary;
pub mod words;

use toml::de::DeTable;

pub use change::{Change, diff, without_secrets};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use explain::{Explanation, explain, suggest_key};
pub use keys::Impact;
pub use merge::{Origin, Part, merge, origins, says_the_same};
pub use model::{
    API_PORT, Audit, AuditLog, Bond, Bridge, CaTrust, Callers, Cluster, ConfigFile, ControlPlane, DnsDomains,
    Encryption, Etcd, EtcdMember, EtcdSnapshots, Eviction, Firewall, FirewallRule, HostService, Install, Interface,
    InterfaceKind, KeyServer, Kubelet, Login, MACHINE_PORT, Machine, Manifest, Mirror, Modules, Network, Outbound,
    OutboundProxy, OutboundServer, PodNetwork, Registries, Reserved, Route, Rule, SnapshotStore, Storage, StoreAccess,
    Time, UserVolume, VirtualAddress, Vlan, Wireguard, WireguardPeer, host_services,
};
pub use rotation::is_one_step;
pub use schema::schema;
pub use secret::{FindSecret, Secret, SecretText, Unknown, check_secret, key_of_secret};
pub use vocabulary::{unread, vocabulary};
pub use words::*;

use findings::Finding;
use reader::{Notes, Section};
use secret::Nobody;
#[cfg(test)]
use secret::without_indices;
use source::Source;

/// A manifest has a few kilobytes; more than this is some other file.
pub const MANIFEST_BYTES: usize = 256 * 1024;

/// Parses and validates a manifest. `file_name` is only used in messages.
///
/// # Errors
/// Everything that is wrong with it; warnings are among the findings, too.
pub fn parse(file_name: &str, text: &str) -> Result<Manifest, Diagnostics> {
    let (manifest, diagnostics) = check(file_name, text);
    manifest.ok_or(diagnostics)
}

/// Like [`parse`], but gives the warnings also if there is no error. The manifest is there unless there are errors.
/// Secrets that are elsewhere are not looked for.
#[must_use]
pub fn check(file_name: &str, text: &str) -> (Option<Manifest>, Diagnostics) {
    check_with(file_name, text, &Nobody)
}

/// Like [`check`], with whoever finds secrets that are elsewhere. Those that are not found are errors, too, but the
/// manifest is there without them.
#[must_use]
pub fn check_with(file_name: &str, text: &str, finder: &dyn FindSecret) -> (Option<Manifest>, Diagnostics) {
    look(file_name, text, Extent::Whole, finder)
}

/// What is wrong with a text that need not be a whole manifest: not what is missing, nor what does not go together.
#[must_use]
pub fn check_part(file_name: &str, text: &str) -> Diagnostics {
    look(file_name, text, Extent::Part, &Nobody).1
}

/// How much of a manifest a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// Another text may have what this one lacks.
    Part,
}

fn look(file_name: &str, text: &str, extent: Extent, finder: &dyn FindSecret) -> (Option<Manifest>, Diagnostics) {
    let source = Source::new(text);
    let notes = Notes::new(finder);
    let manifest = if text.len() > MANIFEST_BYTES {
        let reason = format!("the manifest has more than the {MANIFEST_BYTES} bytes that are taken");
        notes.findings.borrow_mut().push(Finding::error(0..0, "", reason));
        None
    } else {
        read_text(text, &notes, extent)
    };
    let mut findings = notes.findings.into_inner();
    for unknown in notes.unknown.into_inner() {
        findings.push(unknown);
    }
    (manifest, findings.finish(file_name, &source))
}

fn read_text(text: &str, notes: &Notes<'_>, extent: Extent) -> Option<Manifest> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let reason = format!("this is not TOML: {}", error.message());
        notes.findings.borrow_mut().push_broken_syntax(error.span().unwrap_or(0..0), reason);
    }
    structure::check(tree.get_ref(), extent, &mut notes.findings.borrow_mut());
    let parts = read::Parts::read(&Section::root(tree.get_ref(), notes));
    if extent == Extent::Part {
        return None;
    }
    if errors.is_empty() {
        rules::check(tree.get_ref(), &parts, &mut notes.findings.borrow_mut());
    }
    parts.complete(&notes.findings.borrow(), notes.hidden.take())
}

#[cfg(test)]
mod tests;
