//! `keelson get`, `logs`, `dmesg`, `events`, `boot-report` and `service`: what a machine shows of itself.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use http::Method;
use machine_api::{LogLine, View, time_of};

use super::target::Target;
use super::token::Output;
use crate::process;

const WITHIN: Duration = Duration::from_secs(60);
/// A log of many megabytes over a slow line.
const LOG_WITHIN: Duration = Duration::from_secs(3600);
/// Somebody who follows a log ends it by hand.
const FOLLOW_WITHIN: Duration = Duration::from_secs(366 * 24 * 3600);
/// The first process's own log, and the kernel's.
const INIT: &str = "init";
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
    show(&options.what, view, &options.asked)
}

/// `keelson boot-report`
pub(crate) fn boot_report(asked: &Asked) -> Result<()> {
    show("boots", View::Boots, asked)
}

/// `keelson manifest show`
pub(crate) fn manifest(target: &Target) -> Result<()> {
    target.tell(WITHIN, Method::GET, "/manifest", Bytes::new())
}

fn show(name: &str, view: View, asked: &Asked) -> Result<()> {
    let answer = process::ask(WITHIN, asked.target.ask(Method::GET, &format!("/{name}"), Bytes::new()))?;
    match asked.output {
        Output::Json => println!("{}", String::from_utf8_lossy(&answer).trim_end()),
        Output::Text => print!("{}", view.render(&answer).context("reading the machine's answer")?),
    }
    Ok(())
}

pub(crate) fn logs(options: &Logs) -> Result<()> {
    let part = &options.part;
    let Some(pod) = &options.pod else { return print_log(options.service.as_deref().unwrap_or_default(), part) };
    let container = options.container.as_ref().map(|name| format!("&container={name}")).unwrap_or_default();
    let previous = if options.previous { "&previous" } else { "" };
    let words = format!("{pod}{}", options.container.as_deref().unwrap_or_default());
    if !words.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/')) {
        anyhow::bail!("{words:?} is no name of a pod, or of a container");
    }
    stream(&format!("/pods/logs?pod={pod}{container}{previous}{}", part.query()), part)
}

/// `keelson events`
pub(crate) fn events(part: &Part) -> Result<()> {
    print_log(INIT, part)
}

/// `keelson dmesg`
pub(crate) fn dmesg(part: &Part) -> Result<()> {
    print_log(KERNEL, part)
}

fn print_log(service: &str, part: &Part) -> Result<()> {
    if !service.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        anyhow::bail!("{service:?} is no name of a service");
    }
    stream(&format!("/logs?service={service}{}", part.query()), part)
}

/// Prints the lines that a call answers, as they come.
fn stream(path: &str, part: &Part) -> Result<()> {
    let within = if part.follow { FOLLOW_WITHIN } else { LOG_WITHIN };
    process::ask(within, async {
        let mut body = part.asked.target.download(path).await?;
        let (mut out, mut left) = (std::io::stdout().lock(), Vec::new());
        while let Some(bytes) = body.next().await? {
            left.extend_from_slice(&bytes);
            let whole = left.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            for line in left.drain(..whole).collect::<Vec<u8>>().split_inclusive(|byte| *byte == b'\n') {
                let text = match part.asked.output {
                    Output::Json => String::from_utf8_lossy(line).into_owned(),
                    Output::Text => render(serde_json::from_slice(line).context("reading the machine's answer")?),
                };
                // Whoever reads has heard enough.
                if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    })
}

impl Part {
    fn query(&self) -> String {
        let since = self.since.map(|since| format!("&since={}", since.as_secs())).unwrap_or_default();
        let tail = self.tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
        format!("{since}{tail}{}", if self.follow { "&follow" } else { "" })
    }
}

fn render(line: LogLine) -> String {
    // Control characters of a service must not steer the reader's terminal.
    let text: String = line.text.chars().map(|it| if it.is_control() && it != '\t' { '.' } else { it }).collect();
    if line.time == 0.0 { format!("{text}\n") } else { format!("{} {text}\n", time_of(line.time)) }
}

pub(crate) fn service(command: &Service) -> Result<()> {
    let Service::Restart { name, target } = command;
    target.tell(WITHIN, Method::POST, &format!("/services/restart?name={name}"), Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_their_time_and_steer_no_terminal() {
        let line = LogLine { time: 1_790_000_000.25, uptime: 3.0, text: "a\u{1b}[2J\tb".to_owned() };
        assert_eq!(render(line), "2026-09-21T14:13:20.250Z a.[2J\tb\n");
        assert_eq!(render(LogLine { text: "x".to_owned(), ..LogLine::default() }), "x\n");
    }
}
