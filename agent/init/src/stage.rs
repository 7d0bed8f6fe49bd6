//! Which services run: those that fit what the machine has.

use machine_api::{EventKind, Stage};

use crate::machine::{Machine, Storage};
use crate::runner::Runner;
use crate::{mend, phases};

/// Why nothing runs on a master without a disk.
const NO_DISK: &str = "there is none for STATE and DATA, and a master keeps what its cluster knows there";

/// Starts the services that fit what the machine has.
pub(crate) fn enter_stage(machine: &mut Machine, runner: &mut Runner) {
    if machine.storage == Storage::Memory
        && machine.accepted.as_ref().is_some_and(|accepted| accepted.manifest.machine.role.has_control_plane())
    {
        // A blank etcd in the place of one whose disk is lost: its nodes would end all pods that it knows nothing of.
        machine.storage = Storage::Broken(NO_DISK.to_owned());
    }
    if machine.storage.is_unusable() {
        phases::conceal(machine);
    }
    let is_broken = machine.storage.is_unusable()
        || matches!(machine.storage, Storage::NoData(_) | Storage::NewerData(_) | Storage::Locked(_));
    let manifest = machine.accepted.as_ref().map(|accepted| &accepted.manifest).filter(|_| !is_broken);
    machine.stage = if manifest.is_some() { Stage::Running } else { Stage::Maintenance };
    machine.rekey.wake();
    let specs = (machine.config.services)(manifest, machine.environment);
    if machine.stage == Stage::Maintenance {
        let why = match machine.storage {
            Storage::Broken(_) | Storage::NoData(_) | Storage::NewerData(_) => "its disk cannot be used",
            Storage::Unfit(_) => "its STATE is not of a format that this system reads",
            Storage::Locked(_) => "its disk is locked",
            Storage::Kept | Storage::Memory | Storage::Unmade => "it has no usable manifest",
        };
        machine.say(EventKind::Waiting, "", format!("this machine runs no cluster services: {why}; {}", mend::HINT));
    }
    if let Err(error) = runner.replace(machine, specs) {
        machine.say(EventKind::ServicesRefused, "", format!("the services cannot be started: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use sys::{FakeSystem, System};

    use super::*;
    use crate::conditions;
    use crate::config::{Config, Paths};
    use crate::environment::Environment;
    use crate::intake::examine;
    use crate::sources::Offer;

    /// What becomes of a machine of this role: whether the services of its manifest start, whether others read it, and
    /// what it tells of its disk.
    fn enter(role: &str, storage: Storage) -> (bool, bool, Option<String>) {
        let (system, starts) = (Arc::new(FakeSystem::new()), Arc::new(AtomicBool::new(false)));
        let seen = starts.clone();
        let config = Config {
            environment: Some(Environment::Container),
            manifest: None,
            services: Box::new(move |manifest, _| {
                seen.store(manifest.is_some(), Ordering::Relaxed);
                Vec::new()
            }),
            network_test: Vec::new(),
            support: Vec::new(),
            is_verbose: false,
            paths: Paths::default(),
        };
        let mut machine = Machine::new(config, system.clone());
        let join = "endpoint = \"https://10.0.0.1:6443\"\ntoken = \"keels0.0123456789abcdef\"\nca-hash = \"sha256:\
                    aa2f6d18c8688c25ca76c2f4cc60b2933810ac2c6cfe5121d1ae8e0c34b3d3c5\"";
        let cluster = if role == "worker" { join } else { "name = \"c\"" };
        let text = format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"{role}\"\n[cluster]\n{cluster}\n");
        let accepted = examine(Offer { source: "it".to_owned(), text: Ok(text) }, machine.search()).unwrap();
        phases::take(&mut machine, crate::intake::Intake::Accepted(Box::new(accepted)));
        phases::apply(&mut machine);
        machine.storage = storage;
        let logs = tempfile::tempdir().unwrap();
        enter_stage(&mut machine, &mut Runner::new(logs.path()));
        let told = conditions::observe(&machine, &[]);
        let told = told.into_iter().find(|condition| condition.name == "DiskUnusable").map(|condition| condition.fix);
        (starts.load(Ordering::Relaxed), system.exists(Path::new("/run/keelson/manifest.toml")), told)
    }

    #[test]
    fn a_master_without_a_disk_makes_no_new_cluster() {
        assert_eq!(enter("worker", Storage::Memory), (true, true, None));
        assert_eq!(enter("single", Storage::Kept), (true, true, None));
        let (starts, is_read, told) = enter("single", Storage::Memory);
        assert!(!starts && !is_read && told.is_some_and(|fix| fix.contains("see that the disk is there")));
    }

    #[test]
    fn callers_are_known_as_long_as_state_is_there() {
        let (starts, is_read, told) = enter("single", Storage::Broken("damaged".to_owned()));
        assert!(!starts && !is_read && told.is_some());
        let (starts, is_read, told) = enter("single", Storage::NoData("damaged".to_owned()));
        assert!(!starts && is_read && told.is_some_and(|fix| fix.contains("keelson reset m1 --what data")));
    }
}
