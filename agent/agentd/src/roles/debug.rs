//! `keelson debug`: a container on a machine to look around in, with a terminal, for a while.
//!
//! The terminal is the container runtime's own, in the form in which Kubernetes' clients speak to it: a websocket whose
//! messages begin with the number of a channel.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use clap::Args;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use machine_api::DebugRequest;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::target::Target;
use crate::process;

/// What an image gets to come, and the machine to answer, beside the time of the container.
const MARGIN: Duration = Duration::from_secs(900);
const PROTOCOL: &str = "v4.channel.k8s.io";
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const END: u8 = 3;
const SIZE: u8 = 4;
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
    let spec = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&asked).context("writing the request")?);
    process::ask(options.time.saturating_add(MARGIN), async {
        eprintln!("{} on the machine, for {} s; its end is `exit`", asked.image, asked.seconds);
        let mut terminal = open(&options.target, &format!("/debug?spec={spec}")).await?;
        let raw = Raw::enter()?;
        let ended = talk(&mut terminal).await;
        drop(raw);
        ended
    })
}

/// A websocket to the terminal.
async fn open(target: &Target, path: &str) -> Result<WebSocketStream<TokioIo<Upgraded>>> {
    let key = generate_key();
    let words = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL),
        (header::SEC_WEBSOCKET_KEY, key.as_str()),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in words {
        headers.insert(name, HeaderValue::from_str(value).context("making a request")?);
    }
    let (head, stream) = target.upgrade(path, headers).await?;
    let has = |name, wanted: &str| head.get(name).is_some_and(|value| value.as_bytes() == wanted.as_bytes());
    if !has(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
        || !has(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
    {
        bail!("the machine's answer is none of a terminal");
    }
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Client, None).await)
}

/// Passes on what is typed and printed, until the end.
async fn talk(terminal: &mut WebSocketStream<TokioIo<Upgraded>>) -> Result<()> {
    let mut resized = signal(SignalKind::window_change()).context("listening for the terminal's size")?;
    let mut typed = read_input();
    let mut out = std::io::stdout();
    send_size(terminal).await?;
    loop {
        tokio::select! {
            message = terminal.next() => {
                let Some(message) = message else { return Ok(()) };
                match message.context("reading from the terminal")? {
                    Message::Binary(bytes) => match bytes.split_first() {
                        Some((&(OUTPUT | ERRORS), text)) => {
                            out.write_all(text).and_then(|()| out.flush()).context("printing")?;
                        }
                        Some((&END, status)) => return ended(status),
                        _ => {}
                    },
                    Message::Close(_) => return Ok(()),
                    _ => {}
                }
            }
            Some(input) = typed.recv() => send(terminal, INPUT, &input).await?,
            Some(()) = resized.recv() => send_size(terminal).await?,
        }
    }
}

/// How a command ended, in Kubernetes' words.
fn ended(status: &[u8]) -> Result<()> {
    let status: serde_json::Value = serde_json::from_slice(status).unwrap_or_default();
    if status["status"] == "Failure" {
        bail!("{}", status["message"].as_str().unwrap_or("the command failed"));
    }
    Ok(())
}

async fn send(terminal: &mut WebSocketStream<TokioIo<Upgraded>>, channel: u8, bytes: &[u8]) -> Result<()> {
    let message = [&[channel], bytes].concat();
    terminal.send(Message::Binary(Bytes::from(message))).await.context("writing to the terminal")
}

async fn send_size(terminal: &mut WebSocketStream<TokioIo<Upgraded>>) -> Result<()> {
    let Some((width, height)) = terminal_size::terminal_size() else { return Ok(()) };
    send(terminal, SIZE, json!({"Width": width.0, "Height": height.0}).to_string().as_bytes()).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_a_failure_if_the_command_says_so() {
        assert!(ended(br#"{"status":"Success"}"#).is_ok() && ended(b"").is_ok());
        let failure = br#"{"status":"Failure","message":"command terminated with exit code 3"}"#;
        assert!(ended(failure).unwrap_err().to_string().contains("exit code 3"));
    }
}
