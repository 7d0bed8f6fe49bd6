//! `keelson debug`: a container on a machine to look around in, with a terminal, for a while.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::stream;
use machine_api::{DebugInput, DebugOutput, DebugRequest, TerminalSize};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::target::{Target, next};
use crate::process;

/// What an image gets to come, and the machine to answer, beside the time of the container.
const MARGIN: Duration = Duration::from_secs(900);
/// How much of what is typed, or pasted, waits for the line.
const QUEUE_LEN: usize = 16;

/// What to look around with.
#[derive(Args)]
pub(crate) struct Options {
    /// The image: one that the machine has, or that its registries have.
    #[arg(long, default_value = "docker.io/library/busybox:latest")]
    image: String,
    /// The container ends after this time, at most 4h; or when this command does.
    #[arg(long, default_value = "30m0s", value_name = "TIME", value_parser = super::apiserver::duration)]
    time: Duration,
    /// The container sees the machine's processes and its root, at /host, and may do everything. Without, it shares the
    /// machine's network and nothing else.
    #[arg(long)]
    host: bool,
    /// What runs in it; what the image says, without.
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let asked = DebugRequest {
        image: options.image.clone(),
        command: options.command.clone(),
        seconds: options.time.as_secs(),
        host: options.host,
    };
    process::ask(options.time.saturating_add(MARGIN), async {
        eprintln!("{} on the machine, for {} s; its end is `exit`", asked.image, asked.seconds);
        let resized = signal(SignalKind::window_change()).context("listening for the terminal's size")?;
        let first = DebugInput { request: Some(asked), size: size(), ..DebugInput::default() };
        // What is typed before there is a terminal is for it, too.
        let input = stream::unfold((Some(first), read_input(), resized), |(first, mut typed, mut resized)| async {
            let input = match first {
                Some(first) => first,
                None => tokio::select! {
                    Some(typed) = typed.recv() => DebugInput { input: typed.into(), ..DebugInput::default() },
                    Some(()) = resized.recv() => DebugInput { size: size(), ..DebugInput::default() },
                },
            };
            Some((input, (None, typed, resized)))
        });
        let output = options.target.ask(async |machine| machine.debug(input).await).await?;
        let raw = Raw::enter()?;
        let ended = show(output).await;
        drop(raw);
        ended
    })
}

/// Prints what the terminal shows, until its end.
async fn show(mut output: Streaming<DebugOutput>) -> Result<()> {
    let mut out = std::io::stdout();
    while let Some(shown) = next(&mut output).await? {
        if let Some(failure) = shown.failure {
            bail!("{failure}");
        }
        out.write_all(&shown.output).and_then(|()| out.flush()).context("printing")?;
    }
    Ok(())
}

fn size() -> Option<TerminalSize> {
    let (width, height) = terminal_size::terminal_size()?;
    Some(TerminalSize { width: width.0.into(), height: height.0.into() })
}

/// What is typed, as it comes. Nothing ends the read of a terminal, so that a thread has to do it that ends with us.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, typed) = mpsc::channel(QUEUE_LEN);
    drop(std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    }));
    typed
}

/// While it lives, the terminal hands every key on and shows none by itself.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Result<Self> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(&input).context("asking the terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&input, SetArg::TCSANOW, &raw).context("setting the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            tcsetattr(std::io::stdin(), SetArg::TCSANOW, before).ok();
        }
    }
}
