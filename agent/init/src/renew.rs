//! Another manifest for a machine that runs: what can count at once does, everything else waits for the next start.
//!
//! One that is tried is in force, but not the one that the next start begins with; unless somebody keeps it, the one
//! before is back after a while, whatever becomes of the machine meanwhile.

use std::time::Duration;

use machine_api::EventKind;
use manifest::Impact;
use supervisor::{Input, ServiceState};

use crate::intake::{self, Accepted};
use crate::machine::Machine;
use crate::runner::Runner;
use crate::sources::Offer;
use crate::{mend, phases, sources, watchdog};

const FROM_WHICH_CERTIFICATES_COME: &str = "control-plane.secret";

/// A manifest that is tried.
#[derive(Clone, Debug)]
pub(crate) struct Trying {
    /// Until when.
    pub(crate) until: Duration,
    /// The one before.
    before: Accepted,
    /// Whose network counted before.
    mended: Option<String>,
}

#[cfg(test)]
impl Trying {
    /// One that nobody keeps for an hour.
    pub(crate) fn of_a_test(before: Accepted) -> Self {
        Self { until: Duration::from_secs(3600), before, mended: None }
    }
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing is different.
    Nothing,
    /// It counts now, once these services have started anew.
    Now(Vec<&'static str>),
    /// It counts from the next start, because of this key.
    Later(String),
}

fn plan(before: &Accepted, after: &Accepted) -> Plan {
    let of_text = manifest::diff(&before.text, &after.text).into_iter().map(|change| (change.impact, change.key));
    let of_secrets = secrets::changed(&before.secrets, &after.secrets);
    let is_lacking = |key: &str| before.secrets.iter().any(|it| it.key == key && it.outcome.is_err());
    let of_secrets = of_secrets.into_iter().map(|key| {
        // Nothing has come to be without it: whoever needs certificates of it waits for them.
        let is_first = key == FROM_WHICH_CERTIFICATES_COME && is_lacking(&key);
        (if is_first { Impact::Restart(&["bootstrap"]) } else { Impact::of(&key, false) }, key)
    });
    plan_changes(of_text.chain(of_secrets).collect())
}

fn plan_changes(changes: Vec<(Impact, String)>) -> Plan {
    let mut services = Vec::new();
    let is_nothing = changes.is_empty();
    for (impact, key) in changes {
        match impact {
            Impact::Live | Impact::Later(_) => {}
            Impact::Restart(names) => services.extend(names),
            Impact::Reboot => return Plan::Later(key),
        }
    }
    services.sort_unstable();
    services.dedup();
    if is_nothing { Plan::Nothing } else { Plan::Now(services) }
}

/// A manifest has come, by whoever may hand one in or from a source where it was found. It is not taken in if it is no
/// good, or lacks secrets that are known now.
pub(crate) fn offered(
    machine: &mut Machine,
    runner: &mut Runner,
    (offer, is_found): (Offer, bool),
    trial: Option<Duration>,
) {
    let examined = intake::examine(offer, machine.search());
    let of_another = |accepted: &Accepted| intake::another(&machine.accepted.as_ref()?.manifest, accepted);
    // Whoever may hand one in may make another machine of this one; nothing that is merely found may.
    if let Some(why) = examined.as_ref().ok().filter(|_| is_found).and_then(of_another) {
        return machine.refuse(why);
    }
    let known = machine.accepted.as_ref().map_or(&[][..], |accepted| &accepted.secrets);
    match examined {
        Ok(accepted) if accepted.lacks_no_more(known) => take(machine, runner, accepted, trial),
        Ok(Accepted { warnings: diagnostics, .. }) | Err(diagnostics) => {
            machine.say(EventKind::ManifestWrong, "", &diagnostics);
            machine.diagnostics = Some(diagnostics);
        }
    }
}

/// Files with secrets have changed, or perhaps a disk with them has come. Nothing is written down: what the next start
/// begins with stays.
pub(crate) fn search_again(machine: &mut Machine, runner: &mut Runner) {
    let Some(current) = machine.accepted.clone().filter(|accepted| !accepted.secrets.is_empty()) else { return };
    let offer = Offer { source: current.source.clone(), text: Ok(current.text.clone()) };
    match intake::examine(offer, machine.search()) {
        Ok(found) if found.lacks_no_more(&current.secrets) => match plan(&current, &found) {
            Plan::Nothing => {}
            Plan::Now(services) => {
                let mended = machine.mended.clone();
                put_in_force(machine, runner, (found, mended), &services);
            }
            Plan::Later(key) => {
                let told = format!("the secret of {key} is another one, which counts from the next start");
                machine.say(EventKind::ManifestNotTaken, "", format!("manifest: {told}"));
                machine.pending = Some(told);
            }
        },
        Ok(Accepted { warnings: diagnostics, .. }) | Err(diagnostics) => {
            machine.say(EventKind::ManifestWrong, "", &diagnostics);
            machine.diagnostics = Some(diagnostics);
        }
    }
    runner.touch();
}

/// Takes another manifest in, to keep it or to try it for a while.
pub(crate) fn take(machine: &mut Machine, runner: &mut Runner, accepted: Accepted, trial: Option<Duration>) {
    let Some(current) = machine.accepted.clone() else { return };
    machine.diagnostics = None;
    let planned = match plan(&counting(machine, &current), &accepted) {
        // The network that was set at the console becomes the manifest's.
        Plan::Nothing if machine.mended.is_some() => Plan::Now(Vec::new()),
        planned => planned,
    };
    match (planned, trial) {
        (Plan::Nothing, None) => {
            // Perhaps it is tried, another one was to count from the next start, or a source holds one that is not for
            // this machine: it is of no account any more.
            let is_known = machine.trying.take().is_none() && machine.pending.is_none() && machine.foreign.is_none();
            if !is_known || accepted.text != current.text {
                keep(machine, &accepted);
            }
        }
        (Plan::Nothing, Some(_)) => {}
        (Plan::Now(services), None) => {
            machine.trying = None;
            keep(machine, &accepted);
            put_in_force(machine, runner, (accepted, None), &services);
        }
        (Plan::Now(services), Some(time)) => {
            let (before, mended) = match &machine.trying {
                Some(trying) => (trying.before.clone(), trying.mended.clone()),
                None => (current, machine.mended.clone()),
            };
            if let Plan::Later(key) = plan(&accepted, &before) {
                machine.say(
                    EventKind::ManifestNotTaken,
                    &accepted.source,
                    format!("manifest: {} is not tried: {key} goes back with a new start only", accepted.source),
                );
                return;
            }
            machine.trying = Some(Trying { until: machine.system.uptime() + time, before, mended });
            machine.say(
                EventKind::ManifestTried,
                &accepted.source,
                format!("manifest: {} is tried for {} s", accepted.source, time.as_secs()),
            );
            put_in_force(machine, runner, (accepted, None), &services);
        }
        (Plan::Later(key), None) => {
            keep(machine, &accepted);
            let told = format!("{} is good and counts from the next start, because of {key}", accepted.source);
            machine.say(EventKind::ManifestNotTaken, "", format!("manifest: {told}"));
            machine.pending = Some(told);
        }
        (Plan::Later(key), Some(_)) => {
            machine.say(
                EventKind::ManifestNotTaken,
                &accepted.source,
                format!("manifest: {} is not tried: {key} needs a new start", accepted.source),
            );
        }
    }
}

/// The one that is tried is kept.
pub(crate) fn keep_tried(machine: &mut Machine) {
    if machine.trying.take().is_some()
        && let Some(accepted) = machine.accepted.clone()
    {
        keep(machine, &accepted);
        machine.rekey.wake();
        machine.user_volumes.wake();
        machine.say(EventKind::ManifestKept, "", "manifest: the one that was tried is kept");
    }
}

/// Time has passed: goes on with services that start anew, and back to the manifest before one that nobody kept.
pub(crate) fn tick(machine: &mut Machine, runner: &mut Runner) {
    if machine.trying.as_ref().is_some_and(|trying| trying.until <= machine.system.uptime())
        && let (Some(trying), Some(current)) = (machine.trying.take(), machine.accepted.clone())
    {
        let back = trying.before.clone().with_network_of(trying.mended.as_ref());
        match plan(&counting(machine, &current), &back) {
            Plan::Now(services) => put_in_force(machine, runner, (trying.before, trying.mended), &services),
            Plan::Nothing => put_in_force(machine, runner, (trying.before, trying.mended), &[]),
            // It was not tried then.
            Plan::Later(_) => {}
        }
        machine.say(
            EventKind::ManifestTakenBack,
            "",
            "manifest: nobody kept the one that was tried, and the one before is back",
        );
    }
    go_on(machine, runner);
}

/// Writes down what the next start begins with.
fn keep(machine: &mut Machine, accepted: &Accepted) {
    machine.pending = None;
    machine.foreign = None;
    let last_good = machine.config.paths.last_good();
    machine.publish(&last_good, accepted.text.as_bytes(), 0o600);
    sources::remember_fetched(machine);
    // Where it came from otherwise is still there at the next start, and must not win over this one.
    sources::supersede(machine);
}

/// Lets the network of this manifest, which was set at the console, count before that of the one in force.
pub(crate) fn mend(machine: &mut Machine, runner: &mut Runner, text: &str) {
    let Some(current) = machine.accepted.clone() else { return };
    let mended = current.clone().with_network_of(Some(&text.to_owned()));
    if let Plan::Now(services) = plan(&counting(machine, &current), &mended) {
        mend::keep(machine, Some(mended.text));
        runner.touch();
        start_anew(machine, runner, &services);
    }
}

/// The manifest in force with the network that counts.
fn counting(machine: &Machine, current: &Accepted) -> Accepted {
    current.clone().with_network_of(machine.mended.as_ref())
}

/// Puts a manifest in force, with another one whose network counts before its own, if there is one.
fn put_in_force(
    machine: &mut Machine,
    runner: &mut Runner,
    (accepted, mended): (Accepted, Option<String>),
    services: &[&'static str],
) {
    mend::keep(machine, mended);
    machine.publish_manifest(&machine.config.paths.manifest(), &accepted);
    machine.say(EventKind::ManifestInForce, &accepted.source, format!("manifest: {} is in force", accepted.source));
    machine.accepted = Some(accepted);
    machine.rekey.wake();
    runner.touch();
    phases::apply(machine);
    watchdog::settle(machine);
    start_anew(machine, runner, services);
}

fn start_anew(machine: &mut Machine, runner: &mut Runner, services: &[&'static str]) {
    for name in services {
        if runner.supervisor().state(name).is_some() && !machine.renewals.iter().any(|known| known == name) {
            machine.renewals.push((*name).to_owned());
        }
    }
    go_on(machine, runner);
}

/// Starts services anew: those that do something once first, and the others when that is done.
fn go_on(machine: &mut Machine, runner: &mut Runner) {
    if machine.renewals.is_empty() || machine.preparing.iter().any(|name| !is_done(runner, name)) {
        return;
    }
    machine.preparing.clear();
    let all = std::mem::take(&mut machine.renewals);
    let (first, rest): (Vec<String>, Vec<String>) = all.into_iter().partition(|name| is_done(runner, name));
    let now = if first.is_empty() {
        rest
    } else {
        machine.preparing.clone_from(&first);
        machine.renewals = rest;
        first
    };
    for name in now {
        machine.say(EventKind::ServiceRestarting, &name, format!("{name} starts anew, for the manifest"));
        runner.step(machine, Input::Restart { name });
    }
}

fn is_done(runner: &Runner, name: &str) -> bool {
    matches!(runner.supervisor().state(name), Some(ServiceState::Done { .. }) | None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use luks::MachineTpm;
    use secrets::Search;
    use sys::{FakeSystem, System};

    use super::*;

    fn accepted(text: &str, system: &FakeSystem) -> Accepted {
        let offer = Offer { source: "test".to_owned(), text: Ok(text.to_owned()) };
        intake::examine(offer, Search::new(system, &MachineTpm)).unwrap()
    }

    #[test]
    fn a_change_that_needs_a_start_holds_all_others_back() {
        let text = |labels: &str, rest: &str| {
            let text = format!(
                "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\nlabels = {{ {labels} }}\n\
                 [kubelet]\nmax-pods = 5\n{rest}"
            );
            accepted(&text, &FakeSystem::new())
        };
        let before = text("a = \"1\"", "");
        assert_eq!(plan(&before, &before), Plan::Nothing);
        assert_eq!(plan(&before, &text("a = \"2\"", "[sysctls]\n\"vm.x\" = 1\n")), Plan::Now(vec!["node"]));
        let both = text("a = \"2\"", "").text.replace("m1", "m2");
        assert_eq!(plan(&before, &accepted(&both, &FakeSystem::new())), Plan::Later("machine.hostname".to_owned()));
    }

    #[test]
    fn another_secret_in_the_same_file_is_a_change_of_its_key() {
        const TEXT: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\n\
                            token = { file = \"/state/secrets/token\" }\n[control-plane]\n\
                            secret = { file = \"/state/secrets/secret\" }\n";
        let system = Arc::new(FakeSystem::new());
        let lacking = accepted(TEXT, &system);
        system.file("/state/secrets/token", "abcdef.0123456789abcdef");
        system.file("/state/secrets/secret", "0123456789abcdef".repeat(4));
        let one = accepted(TEXT, &system);
        assert_eq!(plan(&lacking, &one), Plan::Now(vec!["bootstrap", "control-plane", "node"]));
        system.file("/state/secrets/token", "abcdef.1123456789abcdef");
        assert_eq!(plan(&one, &accepted(TEXT, &system)), Plan::Now(vec!["control-plane", "node"]));
        system.file("/state/secrets/secret", "1123456789abcdef".repeat(4));
        let all = ["bootstrap", "control-plane", "etcd", "node", "virtual-address"];
        assert_eq!(plan(&one, &accepted(TEXT, &system)), Plan::Now(all.to_vec()));
    }

    #[test]
    fn a_secret_that_is_gone_takes_nothing_from_what_runs_and_one_that_comes_is_taken_in() {
        const TEXT: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\n\
                            token = { file = \"/state/secrets/token\" }\n";
        let system = Arc::new(FakeSystem::new());
        let (mut machine, logs) = (Machine::of_a_test(&system), tempfile::tempdir().unwrap());
        let mut runner = Runner::new(logs.path());
        machine.accepted = Some(accepted(TEXT, &system));
        let missing = |machine: &Machine| {
            let unmet = crate::conditions::observe(machine, &[]);
            unmet.into_iter().find(|condition| condition.name == "SecretMissing").map(|condition| condition.subject)
        };
        assert_eq!(missing(&machine).as_deref(), Some("cluster.token"));
        system.file("/state/secrets/token", "abcdef.0123456789abcdef");
        search_again(&mut machine, &mut runner);
        assert_eq!(missing(&machine), None);
        let bearer = |system: &FakeSystem| {
            let manifest = secrets::in_force(system, std::path::Path::new("/run/keelson")).unwrap();
            manifest.cluster.token.unwrap().get().unwrap().bearer()
        };
        assert_eq!(bearer(&system), "abcdef.0123456789abcdef");
        // The manifest that others see, and the next start begins with, has no secret.
        assert_eq!(system.text("/run/keelson/manifest.toml"), TEXT);
        assert_eq!(system.text("/state/manifest.toml"), "");
        system.remove_file(std::path::Path::new("/state/secrets/token")).unwrap();
        search_again(&mut machine, &mut runner);
        assert!(machine.diagnostics.as_ref().is_some_and(|told| told.contains("there is no such file")));
        assert_eq!((missing(&machine), bearer(&system).as_str()), (None, "abcdef.0123456789abcdef"));
        // Neither does a manifest that lacks more.
        let other = TEXT.replace("m1\"", "m1\"\nlabels = { a = \"1\" }");
        let offer = Offer { source: "handed in".to_owned(), text: Ok(other) };
        offered(&mut machine, &mut runner, (offer, false), None);
        assert_eq!(system.text("/state/manifest.toml"), "");
    }
}
