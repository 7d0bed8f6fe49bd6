//! `keelson get`, `logs`, `dmesg`, `boot-report` and `service`: what a machine shows of itself.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use machine_api::{LogLine, LogLines, LogPart, LogRequest, PodLogRequest, RestartServiceRequest, Shown, View, time_of};
use tonic::{Response, Status, Streaming};

use super::target::{Machine, Target, next};
use super::token::Output;
use crate::process;

const WITHIN: Duration = Duration::from_secs(60);
/// A log of many megabytes over a slow line.
const LOG_WITHIN: Duration = Duration::from_secs(3600);
/// Somebody who follows a log ends it by hand.
const FOLLOW_WITHIN: Duration = Duration::from_secs(366 * 24 * 3600);
/// The kernel's own log.
const KERNEL: &str = "kernel";

/// What to look at.
#[derive(Args)]
pub(crate) struct Get {
    /// What.
    #[arg(value_parser = PossibleValuesParser::new(View::ALL.map(|(name, _)| name)))]
    what: String,
    #[command(flatten)]
    asked: Asked,
}

/// Which machine, and how to tell.
#[derive(Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    pub(super) target: Target,
    /// How to tell.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

/// Whose log, and how much of it.
#[derive(Args)]
pub(crate) struct Logs {
    /// A service of `keelson get services`; `init` for what the first process says, `kernel` for the kernel.
    #[arg(required_unless_present = "pod", conflicts_with = "pod")]
    service: Option<String>,
    /// The log of a pod, as the machine has it: also while there is no API server.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Option<String>,
    /// The container, of a pod that has several.
    #[arg(long, short, requires = "pod")]
    container: Option<String>,
    /// What the container printed before it was started the last time.
    #[arg(long, requires = "pod")]
    previous: bool,
    #[command(flatten)]
    part: Part,
}

/// How much of a log.
#[derive(Args)]
pub(crate) struct Part {
    /// Go on with what is printed from now on.
    #[arg(long, short)]
    follow: bool,
    /// Only what was printed within this time, such as 90s, 10m or 2h.
    #[arg(long, value_parser = super::apiserver::duration)]
    since: Option<Duration>,
    /// Only so many of the last lines.
    #[arg(long)]
    tail: Option<u32>,
    #[command(flatten)]
    asked: Asked,
}

/// What to do with a service.
#[derive(Subcommand)]
pub(crate) enum Service {
    /// Ends a service, and starts it again.
    Restart {
        /// Its name.
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn get(options: &Get) -> Result<()> {
    let view = View::of_name(&options.what).context("there is nothing of this name to look at")?;
    show(view, &options.asked)
}

/// `keelson boot-report`
pub(crate) fn boot_report(asked: &Asked) -> Result<()> {
    show(View::Boots, asked)
}

/// `keelson manifest explain --origin`
pub(crate) fn origins(asked: &Asked, key: Option<&str>) -> Result<()> {
    let mut set = process::ask(WITHIN, asked.target.ask(async |machine| machine.list_keys(()).await))?;
    let is_asked = |path: &str| {
        let rest = key.map_or(Some(""), |key| path.strip_prefix(key));
        rest.is_some_and(|rest| key.is_none() || rest.is_empty() || rest.starts_with(['.', '[']))
    };
    set.items.retain(|item| is_asked(&item.key));
    if let (Some(key), true) = (key, set.items.is_empty()) {
        anyhow::bail!("nobody set {key} on this machine: what holds by itself tells `keelson manifest explain {key}`");
    }
    asked.output.show(&set, Shown::text)
}

/// `keelson manifest show`
pub(crate) fn manifest(target: &Target) -> Result<()> {
    target.tell(WITHIN, async |machine| machine.get_manifest(()).await)
}

pub(super) fn show(view: View, asked: &Asked) -> Result<()> {
    match view {
        View::Services => asked.show(async |it| it.get_status(()).await),
        View::Processes => asked.show(async |it| it.list_processes(()).await),
        View::ControlGroups => asked.show(async |it| it.list_control_groups(()).await),
        View::Disks => asked.show(async |it| it.list_disks(()).await),
        View::Mounts => asked.show(async |it| it.list_mounts(()).await),
        View::Interfaces => asked.show(async |it| it.list_interfaces(()).await),
        View::Routes => asked.show(async |it| it.list_routes(()).await),
        View::Firewall => asked.show(async |it| it.list_firewall_rules(()).await),
        View::Connections => asked.show(async |it| it.list_connections(()).await),
        View::Time => asked.show(async |it| it.get_time(()).await),
        View::Certificates => asked.show(async |it| it.list_certificates(()).await),
        View::Images => asked.show(async |it| it.list_images(()).await),
        View::Pods => asked.show(async |it| it.list_pods(()).await),
        View::Containers => asked.show(async |it| it.list_containers(()).await),
        View::Boots => asked.show(async |it| it.get_boots(()).await),
        View::Manifest => asked.show(async |it| it.list_keys(()).await),
        View::Extensions => asked.show(async |it| it.list_extensions(()).await),
    }
}

impl Asked {
    fn show<T: Shown>(&self, call: impl AsyncFnOnce(&mut Machine) -> Result<Response<T>, Status>) -> Result<()> {
        let answer = process::ask(WITHIN, self.target.ask(call))?;
        self.output.show(&answer, T::text)
    }
}

pub(crate) fn logs(options: &Logs) -> Result<()> {
    let part = &options.part;
    let Some(pod) = &options.pod else { return print_log(options.service.as_deref().unwrap_or_default(), part) };
    let (namespace, pod) = pod.split_once('/').context("--pod is like NAMESPACE/NAME")?;
    let wanted = PodLogRequest {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: options.container.clone().unwrap_or_default(),
        previous: options.previous,
        part: Some(part.wanted()),
    };
    part.stream(async |machine| machine.read_pod_log(wanted).await, |lines| part.render(lines))
}

/// `keelson dmesg`
pub(crate) fn dmesg(part: &Part) -> Result<()> {
    print_log(KERNEL, part)
}

fn print_log(service: &str, part: &Part) -> Result<()> {
    if !service.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        anyhow::bail!("{service:?} is no name of a service");
    }
    let wanted = LogRequest { service: service.to_owned(), part: Some(part.wanted()) };
    part.stream(async |machine| machine.read_log(wanted).await, |lines| part.render(lines))
}

impl Part {
    pub(super) fn wanted(&self) -> LogPart {
        LogPart { tail: self.tail, since_seconds: self.since.map(|since| since.as_secs()), follow: self.follow }
    }

    pub(super) fn output(&self) -> Output {
        self.asked.output
    }

    /// Prints what a call answers, as it comes; `text` writes each message.
    pub(super) fn stream<M>(
        &self,
        call: impl AsyncFnOnce(&mut Machine) -> Result<Response<Streaming<M>>, Status>,
        text: impl Fn(M) -> Result<String>,
    ) -> Result<()> {
        let within = if self.follow { FOLLOW_WITHIN } else { LOG_WITHIN };
        process::ask(within, async {
            let mut answer = self.asked.target.ask(call).await?;
            let mut out = std::io::stdout().lock();
            while let Some(message) = next(&mut answer).await? {
                // Whoever reads has heard enough.
                if out.write_all(text(message)?.as_bytes()).and_then(|()| out.flush()).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    fn render(&self, LogLines { lines }: LogLines) -> Result<String> {
        let line = |line: LogLine| match self.output() {
            Output::Json => serde_json::to_string(&line).map(|text| text + "\n").context("writing a line"),
            Output::Text => Ok(render(&line)),
        };
        lines.into_iter().map(line).collect()
    }
}

fn render(line: &LogLine) -> String {
    let text = shown(&line.text);
    if line.time == 0.0 { format!("{text}\n") } else { format!("{} {text}\n", time_of(line.time)) }
}

/// Control characters of a service must not steer the reader's terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|it| if it.is_control() && !matches!(it, '\t' | '\n') { '.' } else { it }).collect()
}

pub(crate) fn service(command: &Service) -> Result<()> {
    let Service::Restart { name, target } = command;
    let wanted = RestartServiceRequest { name: name.clone() };
    target.tell(WITHIN, async |machine| machine.restart_service(wanted).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_their_time_and_steer_no_terminal() {
        let line = LogLine { time: 1_790_000_000.25, uptime: 3.0, text: "a\u{1b}[2J\tb".to_owned() };
        assert_eq!(render(&line), "2026-09-21T14:13:20.250Z a.[2J\tb\n");
        assert_eq!(render(&LogLine { text: "x".to_owned(), ..LogLine::default() }), "x\n");
    }
}
