//! Puts the firewall in force, before anything has an address.

use super::Network;
use crate::network::firewall::empty;

/// How far the firewall is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// It has still to be put in force, or taken away; the reason if that failed.
    Pending(String),
    /// The kernel has it as it should be. Nobody else touches it.
    Done,
}

impl Network {
    /// Brings the firewall to where the manifest wants it.
    pub(super) async fn guard(&mut self) {
        if self.guard == Guard::Done {
            return;
        }
        let script = match &self.firewall {
            Some(firewall) => firewall.table.replace_script(),
            None if self.owned.firewall => empty().delete_script(),
            None => {
                self.guard = Guard::Done;
                return;
            }
        };
        let is_wanted = self.firewall.is_some();
        // Written down before, so that whoever comes after a fall in between takes it away.
        self.note_firewall(is_wanted || self.owned.firewall);
        match self.nft.run(&script).await {
            Ok(()) => {
                self.note_firewall(is_wanted);
                self.guard = Guard::Done;
                tracing::info!(is_wanted, "firewall as the manifest has it");
            }
            Err(error) => {
                let reason = stdx::chain(&error).to_string();
                tracing::warn!(error = reason, "firewall not as the manifest has it");
                self.guard = Guard::Pending(reason);
            }
        }
    }

    fn note_firewall(&mut self, is_there: bool) {
        if self.owned.firewall != is_there {
            self.owned.firewall = is_there;
            self.owned.save(&self.config.run);
        }
    }

    /// Why it is not in force; empty if it is.
    pub(super) fn unguarded(&self) -> String {
        match &self.guard {
            Guard::Pending(reason) => reason.clone(),
            Guard::Done => String::new(),
        }
    }
}
