//! What keeps the machine from being ready: by name, since when, why, and what helps.

use std::collections::BTreeMap;
use std::time::Duration;

use machine_api::{Condition, Event, EventKind, detail};
use manifest::Reference;
use secrets::Found;
use supervisor::ServiceStatus;

use crate::machine::{Machine, Storage};
use crate::{extensions, locks, mend, sources, volumes};

/// How the names of files end whose conditions do not keep the machine from being ready.
const CONCERN: &str = ".concern";
/// What goes by itself sooner is not worth a line on the console.
const TELL_AFTER: Duration = Duration::from_secs(30);

/// Since when each condition has been unmet, and which ones the operator was told of.
#[derive(Debug, Default)]
pub(crate) struct Conditions(BTreeMap<String, Unmet>);

#[derive(Debug)]
struct Unmet {
    since: Duration,
    is_told: bool,
}

impl Conditions {
    /// Whether there may be [`Conditions::news`].
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.0.values().any(|unmet| !unmet.is_told && now.saturating_sub(unmet.since) >= TELL_AFTER)
    }

    /// Takes note of what is unmet now, and says in each since when.
    pub(crate) fn follow(&mut self, now: Duration, conditions: &mut [Condition]) -> Vec<Event> {
        let mut gone = Vec::new();
        self.0.retain(|title, unmet| {
            let stays = conditions.iter().any(|condition| condition.title() == *title);
            if !stays && unmet.is_told {
                gone.push(Event::new(EventKind::ConditionMet, title, format!("no longer: {title}")));
            }
            stays
        });
        for condition in conditions {
            let unmet = self.0.entry(condition.title()).or_insert(Unmet { since: now, is_told: false });
            condition.since_seconds = unmet.since.as_secs_f64();
        }
        gone
    }

    /// What the operator is to be told of now.
    pub(crate) fn news(&mut self, now: Duration, conditions: &[Condition]) -> Vec<Event> {
        let mut news = Vec::new();
        for condition in conditions {
            let Some(unmet) = self.0.get_mut(&condition.title()) else { continue };
            let condition = Condition { since_seconds: unmet.since.as_secs_f64(), ..condition.clone() };
            if !unmet.is_told && now.saturating_sub(unmet.since) >= TELL_AFTER {
                unmet.is_told = true;
                let text = format!("unmet: {}", condition.describe(now.as_secs_f64()));
                let event = Event::new(EventKind::ConditionUnmet, &condition.title(), text);
                news.push(event.with(detail::WHY, &condition.why).with(detail::FIX, &condition.fix));
            }
        }
        news
    }
}

/// Looks at everything that could keep the machine from being ready.
pub(crate) fn observe(machine: &Machine, services: &[ServiceStatus]) -> Vec<Condition> {
    let mut unmet = Vec::new();
    unmet.extend(locks::conditions(machine));
    if machine.accepted.is_none() && !matches!(machine.storage, Storage::Locked(_)) {
        let fix = "hand one in by `keelson apply manifest.toml --endpoint MACHINE`, or on a disk labelled KEELSON-CFG";
        unmet.push(Condition::new("NoManifest", "it has no usable manifest", fix));
    }
    unmet.extend(foreign(machine));
    unmet.extend(extensions::conditions(machine));
    unmet.extend(disk(machine));
    unmet.extend(volumes::conditions(machine));
    unmet.extend(machine.accepted.iter().flat_map(|accepted| accepted.secrets.iter().filter_map(secret)));
    unmet.extend(mend::condition(machine));
    unmet.extend(services.iter().filter_map(service));
    let folder = machine.config.paths.conditions();
    for name in machine.system.list(&folder).unwrap_or_default() {
        let text = sources::text_of(&*machine.system, &folder.join(&name)).unwrap_or_default();
        let is_concern = name.ends_with(CONCERN);
        unmet.extend(Condition::parse(&name, &text).map(|condition| Condition { is_concern, ..condition }));
    }
    unmet
}

/// A manifest that is not for this machine. It goes on as before, so that is no reason not to be ready.
fn foreign(machine: &Machine) -> Option<Condition> {
    let why = format!("{}; the one before is in force", machine.foreign.as_ref()?);
    let fix = format!(
        "correct it where it comes from, or hand in by `keelson apply` the one that counts: that in force, or this one if \
         the machine is to be that; for another cluster it begins anew by `keelson reset {} --what all`",
        machine.hostname
    );
    Some(Condition { is_concern: true, ..Condition::new("ManifestNotTaken", why, fix) })
}

/// A disk that cannot be used. One that was lost comes back; what is damaged is made anew.
fn disk(machine: &Machine) -> Option<Condition> {
    let again = "the machine tries again at its next start";
    if let Storage::Unfit(reason) = &machine.storage {
        let fix = "start the system that wrote it: the other one of this disk, in the menu of its loader, or an \
                   installation medium of its version; it is left as it is";
        return Some(Condition::new("StateFormat", format!("its STATE cannot be read: {reason}"), fix));
    }
    let reset_data = || format!("`keelson reset {} --what data`", machine.hostname);
    if let Storage::NewerData(reason) = &machine.storage {
        let fix =
            format!("start the system that wrote it, which it is left for as it is; or {} makes it anew", reset_data());
        return Some(Condition::new("DataFormat", format!("its DATA cannot be read: {reason}"), fix));
    }
    let (reason, fix) = match &machine.storage {
        Storage::Broken(reason) if machine.volumes.is_some() => {
            let reset = format!("`keelson reset {} --what all --endpoint MACHINE`", machine.hostname);
            (reason, format!("{again}; {reset} makes STATE and DATA anew, and what they held is lost"))
        }
        Storage::Broken(reason) => (reason, format!("see that the disk is there and whole; {again}")),
        Storage::NoData(reason) => {
            (reason, format!("{again}; {} makes DATA anew, and what it held is lost", reset_data()))
        }
        Storage::Kept
        | Storage::Memory
        | Storage::Unfit(_)
        | Storage::NewerData(_)
        | Storage::Locked(_)
        | Storage::Unmade => return None,
    };
    Some(Condition::new("DiskUnusable", format!("its disk cannot be used: {reason}"), fix))
}

/// A secret of the manifest that is not where it should be.
fn secret(found: &Found) -> Option<Condition> {
    let why = found.outcome.as_ref().err()?;
    let fix = match &found.reference {
        Reference::File(path) => match path.strip_prefix("/state/secrets/") {
            Some(name) => format!("`keelson secret put {name}` puts it there; it is looked for again at once"),
            None => "it is looked for again when a disk comes, or a manifest is applied".to_owned(),
        },
        Reference::Sealed(_) => {
            format!(
                "`keelson secret seal '{}'` seals it for the TPM as it is, and `keelson apply` takes that",
                found.key
            )
        }
    };
    let why = format!("the secret of `{}` in {} is not to be had: {why}", found.key, found.reference.place());
    Some(Condition::new("SecretMissing", why, fix).about(&found.key))
}

/// Only what keeps the machine from being ready.
pub(crate) fn grave(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().filter(|condition| !condition.is_concern).map(ToString::to_string).collect()
}

fn service(service: &ServiceStatus) -> Option<Condition> {
    let name = &service.name;
    let fix = match service.state {
        "ready" | "done" => return None,
        "waiting" => "it starts by itself once those are ready".to_owned(),
        "stopping" | "stopped" => format!("`keelson service restart {name}` starts it"),
        "failed" => format!("`keelson logs {name}` tells why; `keelson service restart {name}` starts it"),
        _ => format!("it is tried for ever; `keelson logs {name}` tells what it does"),
    };
    let why = match service.why.as_str() {
        "" => format!("{name} is {}", service.state),
        why => format!("{name} is {}: {why}", service.state),
    };
    let doing = service.doing.as_ref().map(|doing| format!("; it says: {doing}")).unwrap_or_default();
    Some(Condition::new("ServiceNotReady", why + &doing, fix).about(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_unmet_is_told_and_so_is_its_end() {
        let at = Duration::from_secs;
        let mut conditions = Conditions::default();
        let mut unmet = [Condition::new("NodeNotReady", "it starts", "wait")];
        assert!(conditions.follow(at(10), &mut unmet).is_empty());
        assert!(conditions.news(at(39), &unmet).is_empty());
        unmet[0].why = "it still starts".to_owned();
        assert!(conditions.follow(at(40), &mut unmet).is_empty());
        assert_eq!(unmet[0].since_seconds, 10.0);
        let told = conditions.news(at(40), &unmet);
        assert_eq!(told[0].message, "unmet: NodeNotReady, for 30s: it still starts\n  what helps: wait");
        assert_eq!((told.len(), told[0].details["fix"].as_str()), (1, "wait"));
        assert!(conditions.news(at(100), &unmet).is_empty() && !conditions.is_due(at(100)));
        let gone = Event::new(EventKind::ConditionMet, "NodeNotReady", "no longer: NodeNotReady");
        assert_eq!(conditions.follow(at(100), &mut []), [gone]);
        assert!(conditions.follow(at(101), &mut []).is_empty());
    }

    #[test]
    fn a_concern_keeps_nothing_from_being_ready() {
        let backup = Condition { is_concern: true, ..Condition::new("EtcdSnapshotNotStored", "no answer", "wait") };
        assert_eq!(grave(&[backup.clone(), Condition::new("NodeNotReady", "it starts", "wait")]), ["it starts"]);
        assert!(grave(&[backup]).is_empty());
    }

    #[test]
    fn a_manifest_that_is_not_for_this_machine_is_told_and_keeps_nothing_from_being_ready() {
        let mut machine = Machine::of_a_test(&std::sync::Arc::new(sys::FakeSystem::new()));
        assert_eq!(foreign(&machine), None);
        machine.refuse("the manifest (disk vdb) is for a worker, and this machine is a master".to_owned());
        let told = foreign(&machine).unwrap();
        assert!(told.name == "ManifestNotTaken" && told.why.contains("(disk vdb)"), "{told:?}");
        assert!(told.fix.contains("keelson apply") && grave(&[told]).is_empty());
    }

    #[test]
    fn a_service_says_what_it_lacks() {
        let status = |state| ServiceStatus {
            name: "etcd".to_owned(),
            state,
            since: Duration::ZERO,
            pid: None,
            restarts: 0,
            why: "exit code 1".to_owned(),
            doing: None,
            last_lines: Vec::new(),
            after: Vec::new(),
            started: None,
            ready: None,
            last_exit: None,
        };
        assert_eq!(service(&status("ready")), None);
        let failed = service(&status("failed")).unwrap();
        assert_eq!(
            (failed.title().as_str(), failed.why.as_str()),
            ("ServiceNotReady etcd", "etcd is failed: exit code 1")
        );
        assert!(failed.fix.contains("service restart etcd"));
    }
}
