//! `keelson status`: what a machine says of itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use machine_api::{MachineStatus, Stage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::token::Output;
use crate::{paths, process};

const WITHIN: Duration = Duration::from_secs(10);
/// More than any machine has to say.
const STATUS_BYTES: usize = 4 << 20;
const PORT: u16 = 50_000;
/// The machine answered, and it is not ready.
const NOT_READY: u8 = 2;

/// Which machine, and how to tell. Ends with 0 if the machine is ready, with 2 if it is not.
#[derive(Args)]
pub(crate) struct Options {
    /// A machine in maintenance, as `HOST` or `HOST:PORT`; the machine that this runs on without.
    #[arg(long)]
    endpoint: Option<String>,
    /// The socket of the machine that this runs on.
    #[arg(long, default_value = paths::MACHINE_SOCKET, conflicts_with = "endpoint")]
    socket: PathBuf,
    /// How to tell.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let body = process::ask(WITHIN, fetch(options))?;
    let status: MachineStatus = serde_json::from_slice(&body).context("reading the machine's answer")?;
    match options.output {
        Output::Json => println!("{}", String::from_utf8_lossy(&body).trim_end()),
        Output::Text => print!("{}", render(&status)),
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) })
}

async fn fetch(options: &Options) -> Result<Bytes> {
    let Some(endpoint) = &options.endpoint else {
        let socket = &options.socket;
        let stream = UnixStream::connect(socket).await.with_context(|| {
            format!("asking {}: is this a machine of Keelson's? --endpoint names another one", socket.display())
        })?;
        return get(stream).await;
    };
    let address = address(endpoint)?;
    // Only a machine in maintenance answers strangers.
    let stream = TcpStream::connect(&address)
        .await
        .with_context(|| format!("asking {address}: only a machine without a manifest answers over the network"))?;
    get(stream).await
}

fn address(endpoint: &str) -> Result<String> {
    if endpoint.contains('/') {
        bail!("--endpoint: {endpoint:?} is not like HOST or HOST:PORT");
    }
    let has_port = endpoint
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
    Ok(match (has_port, endpoint.parse::<std::net::Ipv6Addr>()) {
        (_, Ok(address)) => format!("[{address}]:{PORT}"),
        (true, Err(_)) => endpoint.to_owned(),
        (false, Err(_)) => format!("{endpoint}:{PORT}"),
    })
}

async fn get<S>(stream: S) -> Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("speaking HTTP to the machine")?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/status").header(http::header::HOST, "machine").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.context("making a request")?).await.context("asking the machine")?;
    let code = response.status();
    let body = Limited::new(response.into_body(), STATUS_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("reading the machine's answer: {error}"))?.to_bytes();
    connection.abort();
    if !code.is_success() {
        bail!("the machine answered {code}: {}", String::from_utf8_lossy(&body).trim_end());
    }
    Ok(body)
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
    fn endpoints_get_the_usual_port() {
        let table = [
            ("10.0.0.1", "10.0.0.1:50000"),
            ("m1:51000", "m1:51000"),
            ("fd00::1", "[fd00::1]:50000"),
            ("[fd00::1]:7", "[fd00::1]:7"),
        ];
        for (endpoint, wanted) in table {
            assert_eq!(address(endpoint).unwrap(), wanted);
        }
        assert!(address("http://m1").is_err());
    }

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
