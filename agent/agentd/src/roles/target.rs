//! The machine that a command is for: the one that it runs on, or another one over the network.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use api::core::v1::Node;
use clap::Args;
use client::{Client, Dialer, Io};
use futures::{StreamExt, future, stream};
use hyper_util::rt::TokioIo;
use machine_api::machine_client::MachineClient;
use machine_api::{Chunk, ForwardPart, Text};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;
use tokio_util::io::ReaderStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status, Streaming};

use crate::paths;

/// More than any machine has to say at once.
const ANSWER_BYTES: usize = 4 << 20;
const PORT: u16 = 50_000;
/// A machine that is silent for longer is asked for a sign of life, and given up after as long again.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How much of something large travels at once.
pub(crate) const PART_BYTES: usize = 256 << 10;

/// Which machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Another machine, as `HOST` or `HOST:PORT`; the machine that this runs on without.
    #[arg(long)]
    endpoint: Option<String>,
    /// An administrator's kubeconfig, for a machine of a cluster. A machine in maintenance needs none.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The name in the machine's certificate, where it is not the endpoint's host.
    #[arg(long, requires_all = ["kubeconfig", "endpoint"])]
    server_name: Option<String>,
    /// The machine of this node of the kubeconfig's cluster. With an endpoint, the master there forwards to it: for a
    /// machine that cannot be reached from here.
    #[arg(long, requires = "kubeconfig")]
    node: Option<String>,
    /// The address of that node, once it is known.
    #[arg(skip)]
    found: Arc<OnceCell<String>>,
    /// The socket of the machine that this runs on.
    #[arg(long, default_value = paths::MACHINE_SOCKET, conflicts_with_all = ["endpoint", "node"])]
    socket: PathBuf,
}

/// The calls of a machine.
pub(crate) type Machine = MachineClient<Channel>;

impl Target {
    /// The machine of a node of the same cluster, reached in the same way.
    pub(crate) fn at(&self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), found: Arc::default(), ..self.clone() }
    }

    /// Asks the machine for something.
    pub(crate) async fn ask<T, F>(&self, call: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Machine) -> Result<Response<T>, Status>,
    {
        let asked = async { call(&mut self.connect().await?).await.map_err(said) };
        match asked.await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(error) if self.kubeconfig.is_none() && error.downcast_ref::<Silence>().is_some() => {
                Err(error.context("without --kubeconfig only a machine in maintenance answers"))
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(&self) -> Result<Machine> {
        let endpoint = self.endpoint.as_deref().map(address).transpose()?;
        let Some(kubeconfig) = &self.kubeconfig else {
            return speak(self.reach_plainly(endpoint).await?).await;
        };
        let config =
            client::Config::from_kubeconfig(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        let dialer = |address: &str, name: Option<&String>| {
            let server = format!("https://{address}").parse().context("the machine's address")?;
            let config = client::Config { server, tls_server_name: name.cloned(), ..config.clone() };
            Dialer::new(&config).context("making a client")
        };
        let (address, stream) = match (self.address_of_node().await?, endpoint) {
            (None, None) => {
                bail!("--kubeconfig is for a machine of a cluster: --endpoint names it, or --node does");
            }
            (None, Some(endpoint)) => {
                let stream = dialer(&endpoint, self.server_name.as_ref())?.dial().await;
                (endpoint, stream)
            }
            (Some(node), None) => {
                let stream = dialer(&node, None)?.dial().await;
                (node, stream)
            }
            (Some(node), Some(endpoint)) => {
                let stream = dialer(&endpoint, self.server_name.as_ref())?.dial().await;
                let master = speak(stream.with_context(|| format!("asking {endpoint}"))?).await?;
                let way = forward(master, &node).await.with_context(|| format!("{endpoint} does not forward"))?;
                let stream = dialer(&node, None)?.dial_over(way).await;
                (node, stream)
            }
        };
        speak(stream.with_context(|| format!("asking {address}"))?).await
    }

    /// The machine that this runs on, or one in maintenance.
    async fn reach_plainly(&self, endpoint: Option<String>) -> Result<Box<dyn Io>> {
        let Some(address) = endpoint else {
            let socket = &self.socket;
            let stream = UnixStream::connect(socket).await.with_context(|| {
                format!("asking {}: is this a machine of Keelson's? --endpoint names another one", socket.display())
            })?;
            return Ok(Box::new(stream));
        };
        let stream = TcpStream::connect(&address).await.with_context(|| format!("asking {address}"))?;
        Ok(Box::new(stream))
    }

    /// Where the machine of the node is, if one was named.
    async fn address_of_node(&self) -> Result<Option<String>> {
        let Some(name) = &self.node else { return Ok(None) };
        let find = async || {
            let cluster = self.cluster()?.context("--node needs a kubeconfig")?;
            let node: Node = cluster.get(None, name).await.with_context(|| format!("looking for the node {name}"))?;
            let found = node.status.addresses.iter().find(|address| address.r#type == "InternalIP");
            address(&found.with_context(|| format!("the node {name} has no address"))?.address)
        };
        self.found.get_or_try_init(find).await.cloned().map(Some)
    }

    /// The cluster that the machine belongs to, where the kubeconfig leads to it.
    pub(crate) fn cluster(&self) -> Result<Option<Client>> {
        let Some(kubeconfig) = &self.kubeconfig else { return Ok(None) };
        let config =
            client::Config::from_kubeconfig(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        Client::new(config.with_component("operator")).context("making a client").map(Some)
    }

    /// The same within a time, for a person at a terminal.
    pub(crate) fn tell<F>(&self, within: Duration, call: F) -> Result<()>
    where
        F: AsyncFnOnce(&mut Machine) -> Result<Response<Text>, Status>,
    {
        let answer = crate::process::ask(within, self.ask(call))?;
        println!("{}", answer.text.trim_end());
        Ok(())
    }
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

/// Speaks gRPC over a connection.
async fn speak(stream: Box<dyn Io>) -> Result<Machine> {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::other("the connection ended"));
        async move { stream }
    });
    let endpoint = Endpoint::from_static("http://machine")
        .http2_keep_alive_interval(SIGN_OF_LIFE)
        .keep_alive_timeout(SIGN_OF_LIFE)
        .http2_adaptive_window(true);
    let channel = endpoint.connect_with_connector(connector).await.context("speaking gRPC to the machine")?;
    Ok(MachineClient::new(channel).max_decoding_message_size(ANSWER_BYTES))
}

/// Lets a master connect us with another machine.
async fn forward(mut master: Machine, target: &str) -> Result<Box<dyn Io>> {
    let (near, far) = tokio::io::duplex(PART_BYTES);
    let (from_us, mut to_us) = tokio::io::split(far);
    let first = ForwardPart { target: target.to_owned(), ..ForwardPart::default() };
    let parts = ReaderStream::with_capacity(from_us, PART_BYTES)
        .filter_map(|data| future::ready(data.ok().map(|data| ForwardPart { data, ..ForwardPart::default() })));
    let mut answers = master.forward(stream::iter([first]).chain(parts)).await.map_err(said)?.into_inner();
    drop(tokio::spawn(async move {
        // The connection with the master lives as long as this.
        let _master = master;
        while let Ok(Some(Chunk { data })) = answers.message().await {
            if to_us.write_all(&data).await.is_err() {
                return;
            }
        }
        to_us.shutdown().await.ok();
    }));
    Ok(Box::new(near))
}

/// Nothing came from the machine.
#[derive(Debug)]
struct Silence(Status);

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the machine did not answer")
    }
}

impl std::error::Error for Silence {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// What a machine said who did not do as it was asked.
fn said(status: Status) -> Error {
    if std::error::Error::source(&status).is_some() {
        return Silence(status).into();
    }
    anyhow!("the machine answered {:?}: {}", status.code(), status.message())
}

/// The next message of those that come.
pub(crate) async fn next<M>(messages: &mut Streaming<M>) -> Result<Option<M>> {
    messages.message().await.map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_ignored_is_refused() {
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            _target: Target,
        }
        let parse = |line: &str| {
            let words = std::iter::once("keelson").chain(line.split(' '));
            <Words as clap::Parser>::try_parse_from(words).map(drop).map_err(|error| error.to_string())
        };
        parse("--kubeconfig k --endpoint m1 --server-name m --node w1").unwrap();
        parse("--kubeconfig k --node w1").unwrap();
        let refused = [("--kubeconfig k --node w1 --server-name m", "--endpoint"), ("--node w1", "--kubeconfig")];
        for (line, lacks) in refused {
            let error = parse(line).unwrap_err();
            assert!(error.contains("required") && error.contains(lacks), "{line}: {error}");
        }
    }

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
}
