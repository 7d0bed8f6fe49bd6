//! Does what the [`crate::form`] decides.

use std::path::Path;

use machine_api::{NetworkStatus, Stage};
use supervisor::Event;

use crate::form::{Answer, Form};
use crate::machine::Machine;
use crate::runner::Runner;

/// Said to whoever stands at the console.
pub(crate) const HINT: &str = "Enter opens a form for the network and the manifest";

/// Takes lines that were typed at the console of a machine that has no usable manifest.
pub(crate) fn take(machine: &mut Machine, runner: &mut Runner, lines: Vec<String>) {
    if machine.stage != Stage::Maintenance {
        machine.form = Form::default();
        return;
    }
    let interfaces = interfaces(machine);
    let shown = describe(machine, &interfaces);
    for line in lines {
        let mut form = std::mem::take(&mut machine.form);
        let answer = form.take(&line, &interfaces, &shown);
        machine.form = form;
        // What is typed next may be a secret, and consoles are recorded.
        sys::show_typed(machine.form != Form::Passphrase).ok();
        match answer {
            // Not into the log: what is typed may come back in it.
            Answer::Show(text) => machine.show(&text),
            Answer::Network(text) => {
                machine.publish(&machine.config.paths.mended(), text.as_bytes(), 0o600);
                machine
                    .say("the network was set at the console, until there is a manifest or the machine starts again");
                restart(machine, runner);
            }
            Answer::Unlock(text) => {
                // As if it had been handed in.
                let file = machine.config.paths.inbox().join("unlock");
                machine.publish(&file, text.as_bytes(), 0o600);
            }
            Answer::Take(text, warnings) => {
                machine.show(&warnings);
                machine.say("a manifest was pasted at the console");
                // As if it had been handed in: there is one way for that.
                let file = machine.config.paths.inbox().join("manifest.toml");
                machine.publish(&file, text.as_bytes(), 0o600);
            }
        }
    }
}

/// All that runs without a manifest is there to get one, by way of the network.
fn restart(machine: &mut Machine, runner: &mut Runner) {
    for service in runner.supervisor().status() {
        runner.step(machine, Event::Restart { name: service.name });
    }
}

fn interfaces(machine: &Machine) -> Vec<String> {
    machine.system.list(Path::new("/sys/class/net")).unwrap_or_default()
}

/// The interfaces as the kernel and the network's own service have them, a line each.
fn describe(machine: &Machine, interfaces: &[String]) -> String {
    let status = machine.system.read(&machine.config.paths.run.join("network.json")).unwrap_or_default();
    let status: NetworkStatus = serde_json::from_slice(&status).unwrap_or_default();
    let line = |name: &String| {
        let fact = |file: &str| {
            let text = machine.system.read(&Path::new("/sys/class/net").join(name).join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        let own = status.interfaces.iter().find(|interface| interface.name == *name);
        let (addresses, waits) = own.map(|own| (own.addresses.join(", "), own.waits_for.clone())).unwrap_or_default();
        let waits = if waits.is_empty() { waits } else { format!("; waits for {waits}") };
        format!("{name}: {}, {}, {addresses}{waits}", fact("operstate"), fact("address"))
    };
    let servers: Vec<String> = status.dns_servers.iter().map(ToString::to_string).collect();
    let lines = interfaces.iter().map(line).chain([format!("DNS servers: {}", servers.join(", "))]);
    lines.collect::<Vec<_>>().join("\n")
}
