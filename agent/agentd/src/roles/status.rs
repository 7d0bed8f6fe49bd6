//! `keelson status`: what a machine says of itself.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http::Method;
use machine_api::{MachineStatus, Stage};

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
    let body = process::ask(WITHIN, options.target.ask(Method::GET, "/status", Bytes::new()))?;
    let status: MachineStatus = serde_json::from_slice(&body).context("reading the machine's answer")?;
    match options.output {
        Output::Json => println!("{}", String::from_utf8_lossy(&body).trim_end()),
        Output::Text => print!("{}", render(&status)),
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) })
}

/// `keelson crash`
pub(crate) fn crash(target: &Target) -> Result<()> {
    target.tell(WITHIN, Method::GET, "/crash", Bytes::new())
}

fn render(status: &MachineStatus) -> String {
    let stage = match status.stage {
        Stage::Booting => "booting",
        Stage::Maintenance => "in maintenance",
        Stage::Running => "running",
        Stage::Stopping => "stopping",
    };
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut lines = vec![format!("{}: {stage}, {ready}, up {:.0} s", status.hostname, status.uptime_seconds)];
    lines.extend(status.manifest_source.iter().map(|source| format!("manifest: {source}")));
    let (slot, version) = (status.slot.as_deref().unwrap_or_default(), status.version.as_deref());
    lines.extend(version.map(|version| format!("system: version {version} in slot {slot}")));
    lines.extend(status.crash.iter().map(|crash| format!("the start before this one: {crash} (keelson crash)")));
    lines.extend(status.update.iter().map(|update| format!("last {update}")));
    lines.extend(status.unmet.iter().map(|unmet| format!("unmet: {unmet}")));
    if !status.services.is_empty() {
        lines.push(String::new());
        lines.push(format!("{:<16} {:<12} {:>8} {:>8}  WHY", "SERVICE", "STATE", "PID", "RESTARTS"));
    }
    for service in &status.services {
        let pid = service.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let why = if service.why.is_empty() { service.doing.as_deref().unwrap_or_default() } else { &service.why };
        let line = format!("{:<16} {:<12} {pid:>8} {:>8}  {why}", service.name, service.state, service.restarts);
        lines.push(line.trim_end().to_owned());
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
            "stage": "running", "hostname": "m1", "uptimeSeconds": 12.4, "unmet": ["etcd is not ready"],
            "services": [{"name": "etcd", "state": "starting", "pid": 7, "restarts": 1, "why": "waits for its peers"}],
        }))
        .unwrap();
        let text = render(&status);
        assert!(text.starts_with("m1: running, not ready, up 12 s\nunmet: etcd is not ready\n"), "{text}");
        assert!(text.contains("waits for its peers"), "{text}");
    }
}
