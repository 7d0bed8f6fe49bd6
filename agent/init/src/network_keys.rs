//! Keys that servers of the network give. This process has no network: it writes down which keys are asked for, and takes
//! in what comes.

use std::path::PathBuf;

use luks::{Error, Volume};
use machine_api::EventKind;
use tang::{Ask, Asked, Fetched};

use crate::machine::{Machine, Storage};
use crate::phases;

/// Below the folder for it.
const FILE: &str = "asked.json";

/// Writes down what is asked for, if it is something else than before.
pub(crate) fn ask(machine: &mut Machine, asked: Asked) {
    if machine.asked == asked {
        return;
    }
    machine.asked = asked;
    match serde_json::to_vec(&machine.asked) {
        Ok(text) => machine.publish(&machine.config.paths.network_keys().join(FILE), &text, 0o600),
        Err(error) => machine.fault(format!("the network is not asked for keys: {error}")),
    }
}

/// What the network could give where this keeps STATE and DATA from being open; of partitions that have been made, with
/// their labels, what their headers say.
pub(crate) fn lacking(machine: &Machine, error: &install::Error, made: &[(&'static str, PathBuf)]) -> Asked {
    let asks = match error {
        install::Error::Luks { label, source: Error::NoNetworkKey(servers) } => {
            servers.iter().map(|server| ((*label).to_owned(), Ask::Bind(server.clone()))).collect()
        }
        install::Error::Luks { source: Error::Locked(_), .. } => {
            made.iter().flat_map(|(label, partition)| kept(machine, label, partition)).collect()
        }
        _ => Vec::new(),
    };
    Asked { is_locked: !asks.is_empty(), asks }
}

/// What servers would give back for one partition, unless one has.
fn kept(machine: &Machine, label: &str, partition: &std::path::Path) -> Vec<(String, Ask)> {
    let volume = Volume { system: &*machine.system, device: partition, scratch: &machine.config.paths.run };
    // What cannot be read was told by whoever wanted to open it.
    let header = volume.header().ok().flatten().unwrap_or_default();
    if header.network().any(|binding| machine.fetched.iter().any(|fetched| fetched.binding == *binding)) {
        return Vec::new();
    }
    header.network().map(|binding| (label.to_owned(), Ask::Recover(Box::new(binding.clone())))).collect()
}

/// Takes in what servers gave. Answers whether STATE and DATA are open by it.
pub(crate) fn take(machine: &mut Machine, text: &str) -> bool {
    let fetched: Vec<Fetched> = match serde_json::from_str(text) {
        Ok(fetched) => fetched,
        Err(error) => {
            // Its words would tell of the keys.
            machine.fault(format!("the keys of the network make no sense: {:?}", error.classify()));
            return false;
        }
    };
    let is_asked = |fetched: &Fetched| {
        machine.asked.asks.iter().any(|(label, ask)| match ask {
            Ask::Bind(server) => {
                *label == fetched.volume
                    && fetched.binding.url() == server.url
                    && fetched.binding.is_signed_by(&server.thumbprints)
            }
            Ask::Recover(binding) => *label == fetched.volume && **binding == fetched.binding,
        })
    };
    let wanted: Vec<Fetched> = fetched.into_iter().filter(is_asked).collect();
    for fetched in &wanted {
        machine.say(
            EventKind::DiskKeyGiven,
            &fetched.volume,
            format!("{}: {} gave a key", fetched.volume, fetched.binding.url()),
        );
    }
    let has_come = !wanted.is_empty();
    machine.fetched.extend(wanted);
    match machine.storage {
        Storage::Locked(_) if has_come => phases::find_again(machine),
        Storage::Locked(_) => false,
        Storage::Kept
        | Storage::Memory
        | Storage::Broken(_)
        | Storage::Unfit(_)
        | Storage::NoData(_)
        | Storage::NewerData(_)
        | Storage::Unmade => {
            machine.rekey.wake();
            false
        }
    }
}
