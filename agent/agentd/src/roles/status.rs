//! `keelson status`: what a machine says of itself.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use machine_api::{MachineStatus, Shown, Stage};

use super::target::Target;
use super::token::Output;
use crate::process;

const WITHIN: Duration = Duration::from_secs(10);
/// The machine answered, and it is not ready.
const NOT_READY: u8 = 2;

/// Which machine, and how to tell. Ends with 0 if the machine is ready, with 2 if it is not.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// How to tell.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let status = process::ask(WITHIN, options.target.ask(async |machine| machine.get_status(()).await))?;
    options.output.show(&status, render)?;
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) })
}

/// `keelson crash`
pub(crate) fn crash(target: &Target) -> Result<()> {
    target.tell(WITHIN, async |machine| machine.get_crash(()).await)
}

fn render(status: &MachineStatus) -> String {
    let stage = match status.stage() {
        Stage::Booting => "booting",
        Stage::Maintenance => "in maintenance",
        Stage::Running => "running",
        Stage::Stopping => "stopping",
    };
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut lines = vec![format!("{}: {stage}, {ready}, up {:.0} s", status.hostname, status.uptime_seconds)];
    lines.extend(status.manifest_source.iter().map(|source| format!("manifest: {source}")));
    lines.extend(status.manifest_pending.iter().map(|pending| format!("manifest: {pending}")));
    lines.extend(status.manifest_tried_until.map(|until| {
        let left = until - status.uptime_seconds;
        format!("manifest: the one before is back in {left:.0} s unless this one is kept (keelson apply --keep)")
    }));
    let (slot, version) = (status.slot.as_deref().unwrap_or_default(), status.version.as_deref());
    lines.extend(version.map(|version| format!("system: version {version} in slot {slot}")));
    lines.extend(status.secure_boot.map(|is_on| {
        let what =
            if is_on { "starts only what is signed (Secure Boot)" } else { "starts anything: Secure Boot is off" };
        format!("firmware: {what}")
    }));
    lines.extend(status.volumes.iter().map(machine_api::VolumeStatus::describe));
    lines.extend(status.crash.iter().map(|crash| format!("the start before this one: {crash} (keelson crash)")));
    lines.extend(status.update.iter().map(|update| format!("last {update}")));
    lines.extend(status.virtual_address.iter().map(|address| address.describe(status.uptime_seconds)));
    if status.conditions.is_empty() {
        // An agent of before conditions had names.
        lines.extend(status.unmet.iter().map(|unmet| format!("unmet: {unmet}")));
    }
    let now = status.uptime_seconds;
    lines.extend(status.conditions.iter().map(|condition| format!("unmet: {}", condition.describe(now))));
    if !status.services.is_empty() {
        lines.push(String::new());
        lines.push(status.text().trim_end().to_owned());
    }
    lines.extend(status.diagnostics.iter().map(|text| format!("\nthe manifest that was offered last:\n{text}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_is_unmet() {
        let status: MachineStatus = serde_json::from_value(serde_json::json!({
            "stage": "running", "hostname": "m1", "uptimeSeconds": 12.4, "secureBoot": true, "unmet": ["etcd is starting"],
            "conditions": [{"name": "ServiceNotReady", "subject": "etcd", "sinceSeconds": 2.0, "why": "etcd is starting",
                            "fix": "keelson logs etcd"}],
            "services": [{"name": "etcd", "state": "starting", "pid": 7, "restarts": 1, "why": "waits for its peers"}],
        }))
        .unwrap();
        let text = render(&status);
        assert!(text.starts_with("m1: running, not ready, up 12 s\nfirmware: starts only what is signed"), "{text}");
        assert!(text.contains("\nunmet: ServiceNotReady etcd, for 10s: "), "{text}");
        assert!(text.contains("what helps: keelson logs etcd\n"), "{text}");
        assert!(text.contains("waits for its peers"), "{text}");
    }
}
