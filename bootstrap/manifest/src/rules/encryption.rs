//! Rules of `[[install.encryption]]`.

use std::collections::BTreeMap;

use super::Rules;
use crate::model::KeyServer;
use crate::secret::Secret;
use crate::words::{Passphrase, Word};

/// Registers into which each system that starts is measured: no update would find what it needs in them.
const OF_THE_SYSTEM: [u32; 9] = [4, 5, 8, 9, 10, 11, 12, 13, 15];

/// As many as a partition's header has room for the keys of.
const MOST_SERVERS: usize = 4;

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(install) = &rules.parts.install else { return };
    if rules.has(&format!("install.encryption[{}]", install.encryption.len())) {
        return;
    }
    let mut taken = BTreeMap::new();
    for (index, encryption) in install.encryption.iter().enumerate() {
        let at = format!("install.encryption[{index}]");
        let is_unreadable = encryption.passphrase.is_none() && rules.has(&format!("{at}.passphrase"));
        if encryption.volumes.is_empty() {
            rules.error(&format!("{at}.volumes"), "no partition is named").expected("`state`, `data` or both");
        }
        let has_servers = !encryption.network.is_empty() || rules.has(&format!("{at}.network[0]"));
        if encryption.tpm.is_none() && encryption.passphrase.is_none() && !is_unreadable && !has_servers {
            let expected = "`tpm = true`, a `passphrase`, a `network` key, or several of them";
            rules.error(&at, "nothing opens these partitions").expected(expected);
        }
        check_servers(rules, &format!("{at}.network"), &encryption.network);
        if encryption.tpm.as_ref().is_some_and(Vec::is_empty) {
            let at = format!("{at}.tpm-pcrs");
            rules.error(&at, "without a register any system on this machine opens them").expected("such as `[7]`");
        }
        for (nth, number) in encryption.tpm.iter().flatten().enumerate() {
            if OF_THE_SYSTEM.contains(number) {
                let reason = format!("register {number} is another one after each update, and the key would be lost");
                rules.error(&format!("{at}.tpm-pcrs[{nth}]"), reason).expected("7, or others of the firmware alone");
            }
        }
        let passphrase = format!("{at}.passphrase");
        let is_here = rules.text(&passphrase).is_some_and(|text| Passphrase::reference(text).is_none());
        if let Some(Passphrase::Text(_)) = encryption.passphrase.as_ref().and_then(Secret::known)
            && is_here
        {
            let reason = "this passphrase can be read wherever the manifest lies, as on an EFI system partition";
            rules.warning(&passphrase, reason).help("`ask` keeps it in somebody's head");
        }
        if rules.text(&format!("{passphrase}.file")).is_some_and(|path| path.starts_with("/state/")) {
            let reason = "STATE is not open yet when this is needed to open it";
            rules.error(&passphrase, reason).expected("a file below another folder, `sealed`, or `ask`");
        }
        for (nth, volume) in encryption.volumes.iter().enumerate() {
            if let Some(other) = taken.insert(*volume, index) {
                let reason = format!("install.encryption[{other}] names `{volume}`, too");
                rules.error(&format!("{at}.volumes[{nth}]"), reason).expected("each partition once");
            }
        }
    }
}

fn check_servers(rules: &mut Rules<'_>, at: &str, servers: &[KeyServer]) {
    // Where one of them could not be read, their numbers are others.
    if rules.has(&format!("{at}[{}]", servers.len())) {
        return;
    }
    if servers.len() > MOST_SERVERS {
        let reason = format!("these are {} servers, and a partition takes {MOST_SERVERS}", servers.len());
        rules.error(at, reason).expected("fewer");
    }
    for (index, server) in servers.iter().enumerate() {
        if server.thumbprints.is_empty() {
            let reason = "whoever answers at this address would be taken for the server";
            rules.error(&format!("{at}[{index}].thumbprints"), reason).expected("at least one thumbprint");
        }
        if servers[..index].iter().any(|other| other.url == server.url) {
            rules.error(&format!("{at}[{index}].url"), "this server is named twice").expected("each server once");
        }
    }
}
