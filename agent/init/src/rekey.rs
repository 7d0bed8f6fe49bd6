//! Keys of encrypted partitions that change with the manifest, while the machine runs.

use std::time::Duration;

use luks::{Lack, MachineTpm, Rekeyed};
use machine_api::{Condition, EventKind, Stage};
use tang::{Ask, Asked};

use crate::machine::{Machine, Storage};
use crate::{locks, network_keys};

/// After so long what failed is tried again.
const AGAIN: Duration = Duration::from_secs(300);

/// How far the keys are what the manifest says.
#[derive(Debug, Default)]
pub(crate) struct Rekey {
    /// Whether to look at them.
    is_due: bool,
    /// When to look again, as something failed.
    again: Option<Duration>,
    /// What keeps them from being so, by partition.
    unmet: Vec<(&'static str, Unmet)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Unmet {
    Lack(Lack),
    Failed(String),
    /// It was open, and nothing that is known opens it.
    NoKey,
}

impl Rekey {
    /// Something has come that they may depend on.
    pub(crate) fn wake(&mut self) {
        self.is_due = true;
    }

    /// Whether somebody is to say a passphrase.
    pub(crate) fn lacks_passphrase(&self) -> bool {
        self.unmet.iter().any(|(_, unmet)| *unmet == Unmet::Lack(Lack::Passphrase))
    }

    /// What keeps them from being what the manifest says. What servers lack is told by whoever asks them.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        self.unmet.iter().filter_map(|(label, unmet)| unmet.condition(label)).collect()
    }

    fn is_due(&mut self, now: Duration) -> bool {
        self.is_due |= self.again.is_some_and(|again| again <= now);
        std::mem::take(&mut self.is_due)
    }
}

impl Unmet {
    fn condition(&self, label: &str) -> Option<Condition> {
        let (why, fix) = match self {
            Self::Lack(Lack::Network(_)) => return None,
            Self::Lack(Lack::Passphrase) => (
                format!("the manifest asks for a passphrase of {label}, which nobody has given yet"),
                "`keelson unlock` takes it".to_owned(),
            ),
            Self::Lack(Lack::Tpm(reason)) => (
                format!("the manifest asks for a key of {label} in the TPM, which does not take it: {reason}"),
                "it is tried again, also at the next start; what opened it before still does".to_owned(),
            ),
            Self::Failed(reason) => (
                format!("the keys of {label} are not what the manifest asks for: {reason}"),
                "it is tried again, also at the next start; what opened it before still does".to_owned(),
            ),
            Self::NoKey => (
                format!("the keys of {label} stay as they are until it is opened again"),
                "they change by themselves after the next start".to_owned(),
            ),
        };
        Some(Condition { is_concern: true, ..Condition::new("DiskKeysNotChanged", why, fix).about(label) })
    }
}

/// Makes the keys what the manifest says, as far as there is something new. Answers whether there was.
pub(crate) fn step(machine: &mut Machine) -> bool {
    let now = machine.system.uptime();
    let is_ready = machine.stage == Stage::Running && machine.storage == Storage::Kept && machine.trying.is_none();
    if !is_ready || !machine.rekey.is_due(now) {
        return false;
    }
    let mut unmet = Vec::new();
    for (label, _) in locks::VOLUMES {
        unmet.extend(change(machine, label).into_iter().map(|unmet| (label, unmet)));
    }
    let asks = unmet.iter().filter_map(|(label, unmet)| match unmet {
        Unmet::Lack(Lack::Network(server)) => Some(((*label).to_owned(), Ask::Bind(server.clone()))),
        Unmet::Lack(Lack::Passphrase | Lack::Tpm(_)) | Unmet::Failed(_) | Unmet::NoKey => None,
    });
    let asked = Asked { is_locked: false, asks: asks.collect() };
    network_keys::ask(machine, asked);
    let is_worth_it = |(_, unmet): &(_, Unmet)| matches!(unmet, Unmet::Failed(_) | Unmet::Lack(Lack::Tpm(_)));
    machine.rekey.again = unmet.iter().any(is_worth_it).then_some(now + AGAIN);
    machine.rekey.unmet = unmet;
    // What there was of keys has been put, or is of no use.
    machine.given.clear();
    machine.fetched.clear();
    true
}

/// One partition. Answers what it lacks.
fn change(machine: &mut Machine, label: &'static str) -> Vec<Unmet> {
    let system = machine.system.clone();
    let Some(install) = machine.accepted.as_ref().map(|accepted| &accepted.manifest.install) else { return Vec::new() };
    let given = (&machine.given[..], &machine.fetched[..]);
    let Some(wanted) = locks::wanted(install, label, given) else { return Vec::new() };
    let scratch = machine.config.paths.run.clone();
    let Some(volumes) = &mut machine.volumes else { return Vec::new() };
    let volume = if label == disk::layout::STATE_NAME { &mut volumes.state } else { &mut volumes.data };
    let partition = luks::Volume { system: &*system, device: &volume.partition, scratch: &scratch };
    let Some(opened) = &mut volume.opened else { return Vec::new() };
    let Some((_, by)) = &mut opened.by else { return vec![Unmet::NoKey] };
    let header = || partition.header().ok().flatten().map(|header| header.keys());
    match luks::rekey(&partition, &wanted, by, &MachineTpm) {
        Ok(Rekeyed { done, lacks, by: known }) => {
            match known {
                Some(key) => *by = key,
                None => opened.by = None,
            }
            let keys = header().filter(|_| !done.is_empty());
            note(machine, label, &done, keys);
            lacks.into_iter().map(Unmet::Lack).collect()
        }
        Err(error) => {
            let keys = header();
            note(machine, label, &[], keys);
            vec![Unmet::Failed(stdx::chain(&error).to_string())]
        }
    }
}

/// Tells what was done, and keeps which keys there are now.
fn note(machine: &mut Machine, label: &str, done: &[String], keys: Option<Vec<String>>) {
    for done in done {
        machine.say(EventKind::DiskKeysChanged, label, format!("{label}: {done}"));
    }
    let status = machine.volume_status.iter_mut().find(|status| status.name == label);
    if let (Some(status), Some(keys)) = (status, keys) {
        status.keys = keys;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use install::rest::{Volume, Volumes};
    use luks::{Key, Opened, Opener};
    use machine_api::VolumeStatus;
    use sys::{Call, FakeSystem};
    use tang::{Fetched, Secret};

    use super::*;
    use crate::intake::{Intake, decide};
    use crate::sources::Offer;

    /// What a server gives back.
    const BINDING: &str = include_str!("../../../bootstrap/tang/testdata/binding.json");
    const TEXT: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[[install.encryption]]\n\
                        volumes = [\"state\"]\nnetwork = [{ url = \"http://127.0.0.1:17473\", thumbprints = \
                        [\"3jKDXRBbjhJdjbUIo3BQJLJPnffkrM9mfz6UtoeGb00\"] }]\n";
    const HEADER: &str = r#"{"keyslots":{"0":{},"1":{}},"tokens":{"0":{"type":"keelson-recovery","keyslots":["0"]},
                             "1":{"type":"keelson-passphrase","keyslots":["1"]}}}"#;

    /// A machine that runs, with a STATE that a passphrase opened.
    fn machine(system: &Arc<FakeSystem>) -> Machine {
        system.file("/dev/vda4", b"LUKS\xba\xbe\x00\x02");
        system.answer("luksDump", HEADER);
        let mut machine = Machine::of_a_test(system);
        let opened = Opened {
            device: "/dev/mapper/keelson-state".into(),
            by: Some((Opener::Given, Key::typed("correct horse"))),
            refused: Vec::new(),
        };
        let state = Volume { partition: "/dev/vda4".into(), opened: Some(opened) };
        machine.volumes = Some(Volumes { state, data: Volume { partition: "/dev/vda5".into(), opened: None } });
        machine.volume_status = vec![VolumeStatus { name: "KEELSON-STATE".to_owned(), ..VolumeStatus::default() }];
        let offer = Offer { source: "test".to_owned(), text: Ok(TEXT.to_owned()) };
        let Intake::Accepted(accepted) = decide(Some(offer), None, machine.search()) else {
            panic!("the manifest is bad")
        };
        machine.accepted = Some(*accepted);
        machine.stage = Stage::Running;
        machine.rekey.wake();
        machine
    }

    fn steps(system: &FakeSystem) -> Vec<String> {
        let words = |call: Call| match call {
            Call::Run(argv) => Some(argv[1..].iter().take(2).cloned().collect::<Vec<_>>().join(" ")),
            _ => None,
        };
        system.calls().into_iter().filter_map(words).filter(|words| !words.contains("luksDump")).collect()
    }

    fn fetched() -> String {
        let fetched = Fetched {
            volume: "KEELSON-STATE".to_owned(),
            binding: serde_json::from_str(BINDING).unwrap(),
            secret: Secret::new("a secret".to_owned()),
        };
        serde_json::to_string(&[fetched]).unwrap()
    }

    #[test]
    fn a_key_of_the_network_is_asked_for_put_and_only_then_another_goes() {
        let system = Arc::new(FakeSystem::new());
        let mut machine = machine(&system);
        assert!(step(&mut machine) && !step(&mut machine));
        let asked: Asked = serde_json::from_str(&system.text("/run/keelson/network-keys/asked.json")).unwrap();
        assert_eq!((asked.is_locked, asked.asks[0].1.url()), (false, "http://127.0.0.1:17473"));
        assert_eq!(steps(&system), Vec::<String>::new());
        // What somebody else asked for is not taken.
        assert!(!network_keys::take(&mut machine, &fetched().replace("KEELSON-STATE", "KEELSON-DATA")));
        assert!(!network_keys::take(&mut machine, "nonsense") && machine.fetched.is_empty());
        assert!(!network_keys::take(&mut machine, &fetched()));
        assert!(step(&mut machine));
        let expected = [
            "token import",
            "luksAddKey --batch-mode",
            "open --test-passphrase",
            "token import",
            "luksKillSlot --batch-mode",
            "token remove",
        ];
        assert_eq!(steps(&system), expected);
        assert_eq!((machine.asked.asks.len(), machine.fetched.len()), (0, 0));
        let by = machine.volumes.unwrap().state.opened.unwrap().by.unwrap().1;
        assert_eq!(by, Key::typed("a secret"));
    }

    #[test]
    fn what_keeps_keys_from_changing_is_told_and_tried_again() {
        let system = Arc::new(FakeSystem::new());
        let mut machine = machine(&system);
        machine.stage = Stage::Maintenance;
        assert!(!step(&mut machine));
        machine.stage = Stage::Running;
        machine.rekey.unmet = vec![("KEELSON-STATE", Unmet::Lack(Lack::Passphrase))];
        let [condition] = &machine.rekey.conditions()[..] else { panic!("nothing is told") };
        assert!(condition.is_concern && condition.fix.contains("keelson unlock"), "{condition:?}");
        assert!(!locks::unlock(&mut machine, "short") && machine.given.is_empty());
        assert!(!locks::unlock(&mut machine, "correct horse battery") && machine.given.len() == 1);
        assert_eq!(machine.keys_tried, 2);
        system.fail("luksDump", 5);
        assert!(step(&mut machine));
        assert!(machine.rekey.conditions()[0].why.contains("are not what the manifest asks for"));
        assert!(machine.rekey.again.is_some());
    }
}
