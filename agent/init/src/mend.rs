//! Does what the [`crate::form`] decides, and keeps the network that was set there.

use std::path::Path;
use std::time::Duration;

use machine_api::{Condition, EventKind, NetworkStatus, Stage};
use supervisor::Input;

use crate::form::{Answer, Form, Scene};
use crate::machine::Machine;
use crate::mended::{Card, NAMELESS};
use crate::runner::Runner;
use crate::{observe, renew};

/// Said to whoever stands at the console.
pub(crate) const HINT: &str = "Enter shows the status and a form for the network and the manifest";
/// Whoever types nothing for so long has left.
const AWAY: Duration = Duration::from_secs(600);

/// What a test of the network gets.
const TEST: Duration = Duration::from_secs(30);
/// What collecting everything gets, and a slow stick. Nothing else is asked for meanwhile.
const SUPPORT: Duration = Duration::from_secs(600);

/// So many lines in a row that mean nothing were typed by nobody.
const UNCLEAR: u32 = 3;
/// For so long after them nothing is listened to.
const DEAF: Duration = Duration::from_secs(2);

/// Takes lines that were typed at the console.
pub(crate) fn take(machine: &mut Machine, runner: &mut Runner, lines: Vec<String>) {
    if machine.stage == Stage::Stopping {
        return;
    }
    for line in lines {
        let now = machine.system.uptime();
        if machine.unclear >= UNCLEAR && now.saturating_sub(machine.typed) < DEAF {
            // Perhaps what is at the other end sends back what it gets, or takes this for something that it may talk to.
            continue;
        }
        machine.typed = now;
        let scene = scene(machine);
        let mut form = std::mem::take(&mut machine.form);
        let answer = form.take(&line, &scene);
        machine.form = form;
        // What is typed next may be a secret, and consoles are recorded.
        sys::show_typed(machine.form != Form::Passphrase).ok();
        perform(machine, runner, answer);
    }
}

fn perform(machine: &mut Machine, runner: &mut Runner, answer: Answer) {
    let inbox = machine.config.paths.inbox();
    machine.unclear = if matches!(answer, Answer::Unclear(_)) { machine.unclear + 1 } else { 0 };
    // Not into the log: what is typed may come back in it.
    match answer {
        Answer::More => {}
        Answer::Unclear(_) if machine.unclear >= UNCLEAR => close(machine, "nothing of that is understood"),
        Answer::Show(text) | Answer::Unclear(text) => machine.answer(&text),
        Answer::Status => {
            let status = status(machine, runner);
            machine.answer(&status);
        }
        Answer::Network(text) => {
            set_network(machine, runner, &text);
            machine.answer("the network was set; `1` shows what becomes of it");
        }
        Answer::Test(words) => {
            let argv = test_argv(&machine.config.network_test, &words);
            run(machine, runner, argv, TEST);
        }
        Answer::Support => {
            let argv = machine.config.support.clone();
            run(machine, runner, argv, SUPPORT);
        }
        Answer::Unlock(text) => {
            machine.answer("");
            // As if it had been handed in.
            machine.publish(&inbox.join("unlock"), text.as_bytes(), 0o600);
        }
        Answer::Take(text, warnings) => {
            machine.answer(&warnings);
            machine.say(EventKind::ManifestHandedIn, "", "a manifest was pasted at the console");
            // As if it had been handed in: there is one way for that.
            machine.publish(&inbox.join("manifest.toml"), text.as_bytes(), 0o600);
        }
    }
}

/// Runs a program whose output is the answer.
fn run(machine: &mut Machine, runner: &mut Runner, argv: Vec<String>, within: Duration) {
    // What it prints comes next.
    if let Err(reason) = runner.run_errand(machine, argv, within) {
        machine.answer(&reason);
    }
}

/// The program that tests the network, with what is tested; nothing where there is none.
fn test_argv(program: &[String], words: &[String]) -> Vec<String> {
    let (Some((what, about)), false) = (words.split_first(), program.is_empty()) else { return Vec::new() };
    // What comes behind is none of its options.
    let what = [what.clone(), "--".to_owned()];
    program.iter().chain(&what).chain(about).cloned().collect()
}

/// Time has passed: tells what has waited long enough, and closes the form of somebody who has left.
pub(crate) fn tick(machine: &mut Machine) {
    let now = machine.system.uptime();
    if machine.form != Form::Closed && now.saturating_sub(machine.typed) >= AWAY {
        close(machine, "nobody has typed anything for a while");
    }
    machine.console.tick(now);
}

/// Asks nothing any more, and tells everything that has waited.
pub(crate) fn close(machine: &mut Machine, why: &str) {
    if machine.form != Form::Closed {
        machine.form = Form::Closed;
        sys::show_typed(true).ok();
        machine.answer(why);
    }
}

/// Lets the network of this manifest count, and no other one, until there is another manifest.
fn set_network(machine: &mut Machine, runner: &mut Runner, text: &str) {
    machine.say(
        EventKind::NetworkMended,
        "",
        "the network was set at the console, until there is another manifest or the machine starts again",
    );
    if machine.stage == Stage::Running {
        renew::mend(machine, runner, text);
        return;
    }
    keep(machine, Some(text.to_owned()));
    // All that runs without a manifest is there to get one, by way of the network.
    for service in runner.supervisor().status() {
        runner.step(machine, Input::Restart { name: service.name });
    }
}

/// Writes down whose network counts before that of the manifest in force; none is for the latter.
pub(crate) fn keep(machine: &mut Machine, network_of: Option<String>) {
    let path = machine.config.paths.mended();
    match &network_of {
        // It may be all of a manifest, with its secrets.
        Some(text) => machine.publish(&path, text.as_bytes(), 0o600),
        None => drop(machine.system.remove_file(&path)),
    }
    machine.mended = network_of;
}

/// That the network is not the manifest's.
pub(crate) fn condition(machine: &Machine) -> Option<Condition> {
    let (accepted, mended) = (machine.accepted.as_ref()?, machine.mended.as_ref()?);
    let differs = *mended != accepted.text;
    let why = "the network was set at the console, and is not the manifest's";
    let fix = "`keelson apply` of a manifest whose network is right ends it; so does a new start, with the network of \
               the manifest there is";
    let condition = Condition::new("NetworkMended", why, fix);
    differs.then_some(Condition { is_concern: true, ..condition })
}

/// What the form has to know.
pub(crate) fn scene(machine: &Machine) -> Scene {
    let known = network_status(machine);
    let is_ours = |name: &String| {
        // Those of pods are none.
        known.interfaces.iter().any(|own| own.name == *name)
            || machine.system.exists(&Path::new("/sys/class/net").join(name).join("device"))
    };
    let names = machine.system.list(Path::new("/sys/class/net")).unwrap_or_default();
    let card = |name: String| Card { mac: fact(machine, &name, "address"), name };
    let in_force = || machine.accepted.as_ref().map(|accepted| accepted.text.clone());
    Scene {
        cards: names.into_iter().filter(is_ours).map(card).collect(),
        network: machine.mended.clone().or_else(in_force).unwrap_or_else(|| NAMELESS.to_owned()),
        has_manifest: machine.accepted.is_some(),
    }
}

/// How the machine is, in the words of `keelson status`, with its interfaces.
fn status(machine: &mut Machine, runner: &Runner) -> String {
    let mut status = observe::observe(machine, runner.supervisor().status());
    let virtual_address = machine.system.read(&machine.config.paths.run.join("virtual-address.json")).ok();
    status.virtual_address = virtual_address.and_then(|text| serde_json::from_slice(&text).ok());
    format!("{}\n\n{}", status.describe().trim_end(), describe_network(machine))
}

/// The interfaces as the kernel and the network's own service have them, a line each.
fn describe_network(machine: &Machine) -> String {
    let known = network_status(machine);
    let line = |card: Card| {
        let own = known.interfaces.iter().find(|interface| interface.name == card.name);
        let (addresses, waits) = own.map(|own| (own.addresses.join(", "), own.waits_for.clone())).unwrap_or_default();
        let waits = if waits.is_empty() { waits } else { format!("; waits for {waits}") };
        format!("{}: {}, {}, {addresses}{waits}", card.name, fact(machine, &card.name, "operstate"), card.mac)
    };
    let servers: Vec<String> = known.dns_servers.iter().map(ToString::to_string).collect();
    let lines = scene(machine).cards.into_iter().map(line).chain([format!("DNS servers: {}", servers.join(", "))]);
    lines.collect::<Vec<_>>().join("\n")
}

fn network_status(machine: &Machine) -> NetworkStatus {
    let status = machine.system.read(&machine.config.paths.run.join("network.json")).unwrap_or_default();
    serde_json::from_slice(&status).unwrap_or_default()
}

/// What the kernel tells of an interface.
fn fact(machine: &Machine, name: &str, file: &str) -> String {
    let text = machine.system.read(&Path::new("/sys/class/net").join(name).join(file)).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use supervisor::ServiceSpec;
    use sys::{Call, FakeSystem, System};

    use super::*;
    use crate::intake::{Accepted, examine};
    use crate::sources::Offer;
    use crate::{conditions, phases};
    use luks::MachineTpm;
    use secrets::Search;

    const MANIFEST: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n\
        [control-plane]\nsecret = \"6b65656c736f6e206578616d706c6520736563726574206e6f7420666f722075\"\n\
        [network.firewall]\ningress = \"block\"\n[[network.interfaces]]\nmac = \"02:00:00:00:00:0a\"\n\
        addresses = [\"10.0.0.2/24\"]\n";

    fn accepted(text: &str) -> Accepted {
        let system = FakeSystem::new();
        let search = Search::new(&system, &MachineTpm);
        examine(Offer { source: "it".to_owned(), text: Ok(text.to_owned()) }, search).unwrap()
    }

    /// One that runs by this manifest, with a card and a link of a pod.
    fn running(system: &Arc<FakeSystem>) -> (Machine, Runner) {
        system.file("/sys/class/net/eth0/address", "02:00:00:00:00:0a\n");
        system.file("/sys/class/net/eth0/operstate", "up\n");
        system.file("/sys/class/net/eth0/device/vendor", "");
        system.file("/sys/class/net/pod1/address", "02:00:00:00:00:0b\n");
        let mut machine = Machine::of_a_test(system);
        let logs = tempfile::tempdir().unwrap();
        let mut runner = Runner::new(logs.path());
        phases::take(&mut machine, crate::intake::Intake::Accepted(Box::new(accepted(MANIFEST))));
        machine.stage = Stage::Running;
        let specs = ["machine", "node"].map(|name| ServiceSpec::daemon(name, vec![format!("/bin/{name}")]));
        runner.replace(&mut machine, specs.to_vec()).unwrap();
        (machine, runner)
    }

    fn types(machine: &mut Machine, runner: &mut Runner, lines: &str) {
        take(machine, runner, lines.lines().map(str::to_owned).collect());
    }

    fn mends(machine: &Machine) -> bool {
        conditions::observe(machine, &[])
            .iter()
            .any(|condition| condition.name == "NetworkMended" && condition.is_concern)
    }

    /// Which services were told to end, to start anew.
    fn ended(system: &FakeSystem) -> usize {
        system.calls().iter().filter(|call| matches!(call, Call::Kill(..))).count()
    }

    #[test]
    fn the_network_is_that_of_the_console_until_another_manifest_comes() {
        let system = Arc::new(FakeSystem::new());
        let (mut machine, mut runner) = running(&system);
        let mended = machine.config.paths.mended();
        types(&mut machine, &mut runner, "\n2\npod1\n");
        assert_eq!((&machine.form, ended(&system)), (&Form::Menu, 0));
        types(&mut machine, &mut runner, "2\neth0\n10.0.0.7/24\n10.0.0.1\n\n");
        let told = system.text(&mended);
        let keys: Vec<String> = manifest::diff(MANIFEST, &told).into_iter().map(|change| change.key).collect();
        assert!(
            keys.iter().all(|key| key.starts_with("network.interfaces[0].")) && told.contains("10.0.0.7/24"),
            "{told}"
        );
        assert_eq!(system.text("/run/keelson/manifest.toml"), MANIFEST);
        assert!(mends(&machine));
        // The machine's service has it, and no other one starts anew.
        assert_eq!(ended(&system), 1);

        renew::take(&mut machine, &mut runner, accepted(MANIFEST), None);
        assert!(!system.exists(&mended) && !mends(&machine));
    }

    #[test]
    fn a_manifest_that_nobody_keeps_gives_the_network_of_the_console_back() {
        let system = Arc::new(FakeSystem::new());
        let (mut machine, mut runner) = running(&system);
        types(&mut machine, &mut runner, "\n2\neth0\n10.0.0.7/24\n\n\n");
        let told = system.text(machine.config.paths.mended());
        let tried = MANIFEST.replace("10.0.0.2", "10.0.0.9");
        renew::take(&mut machine, &mut runner, accepted(&tried), Some(Duration::from_secs(60)));
        assert!(machine.mended.is_none() && machine.accepted.as_ref().unwrap().text == tried);
        system.set_uptime(system.uptime() + Duration::from_secs(61));
        renew::tick(&mut machine, &mut runner);
        assert_eq!(system.text(machine.config.paths.mended()), told);
        assert!(mends(&machine) && machine.accepted.as_ref().unwrap().text == MANIFEST);
    }

    #[test]
    fn what_was_set_may_become_the_manifest() {
        let system = Arc::new(FakeSystem::new());
        let (mut machine, mut runner) = running(&system);
        types(&mut machine, &mut runner, "\n2\neth0\n10.0.0.7/24\n\n\n");
        let same = MANIFEST.replace("10.0.0.2", "10.0.0.7");
        renew::take(&mut machine, &mut runner, accepted(&same), None);
        assert_eq!(system.text("/run/keelson/manifest.toml"), same);
        assert!(!mends(&machine) && !system.exists(&machine.config.paths.mended()));
    }

    #[test]
    fn the_status_has_no_secrets_and_tells_what_is_unmet() {
        let system = Arc::new(FakeSystem::new());
        let (mut machine, runner) = running(&system);
        system.file(
            "/run/keelson/network.json",
            r#"{"dnsServers": ["10.0.0.9"], "interfaces": [{"name": "eth0",
            "addresses": ["10.0.0.2/24"], "waitsFor": "a cable"}]}"#,
        );
        system.file("/run/keelson/conditions/node", "NodeNotReady: it starts\nwait\n");
        let text = status(&mut machine, &runner);
        for part in [
            "running, not ready",
            "manifest: it",
            "unmet: NodeNotReady",
            "what helps: wait",
            "eth0: up, 02:00:00:00:00:0a, 10.0.0.2/24; waits for a cable",
            "DNS servers: 10.0.0.9",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("pod1") && !text.contains("6b65656c"), "{text}");
    }

    #[test]
    fn a_line_that_sends_back_what_it_gets_is_not_talked_to_for_ever() {
        let system = Arc::new(FakeSystem::new());
        let (mut machine, mut runner) = running(&system);
        types(&mut machine, &mut runner, "[ 1.00] x\n[ 1.00] y\n[ 1.00] z\n[ 1.00] x\n");
        assert_eq!(machine.form, Form::Closed);
        types(&mut machine, &mut runner, "\n");
        assert_eq!(machine.form, Form::Closed, "it listens again only after a while");
        system.set_uptime(system.uptime() + DEAF);
        types(&mut machine, &mut runner, "\n");
        assert_eq!(machine.form, Form::Menu);
    }

    #[test]
    fn one_program_at_a_time_runs_for_whoever_is_at_the_console() {
        let system = Arc::new(FakeSystem::new());
        let (mut machine, mut runner) = running(&system);
        machine.config.support = vec!["/bin/support".to_owned(), "--stick".to_owned()];
        machine.config.network_test = vec!["/bin/check".to_owned()];
        let spawned = || {
            let calls = system.calls();
            let words = calls.iter().filter_map(|call| match call {
                Call::Spawn(spawn) => Some(spawn.argv.join(" ")),
                _ => None,
            });
            words
                .filter(|words| words.starts_with("/bin/support") || words.starts_with("/bin/check"))
                .collect::<Vec<_>>()
        };
        types(&mut machine, &mut runner, "\n6\ndns a.example\n6\n");
        assert_eq!(spawned(), ["/bin/support --stick"]);
        // It has longer than a test.
        assert_eq!(runner.errand_left(machine.system.uptime()), Some(SUPPORT));
        let pid =
            100 + u32::try_from(system.calls().iter().filter(|call| matches!(call, Call::Spawn(_))).count()).unwrap();
        system.end(pid, sys::Ended::Code(1));
        runner.reap(&mut machine);
        types(&mut machine, &mut runner, "dns a.example\n");
        assert_eq!(spawned(), ["/bin/support --stick", "/bin/check dns -- a.example"]);
    }

    #[test]
    fn the_form_of_somebody_who_left_is_closed() {
        let system = Arc::new(FakeSystem::new());
        let (mut machine, mut runner) = running(&system);
        types(&mut machine, &mut runner, "\n");
        tick(&mut machine);
        assert_eq!(machine.form, Form::Menu);
        system.set_uptime(system.uptime() + AWAY);
        tick(&mut machine);
        assert_eq!(machine.form, Form::Closed);
    }
}
