//! The machine that a command is for: the one that it runs on, or another one over the network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::core::v1::Node;
use bytes::Bytes;
use clap::Args;
use client::Client;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;

use crate::paths;

/// More than any machine has to say.
const ANSWER_BYTES: usize = 4 << 20;
const PORT: u16 = 50_000;

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

/// An answer as it comes.
pub(crate) struct Download(Body);

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

impl Download {
    /// The next part; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame.context("reading the machine's answer")?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Target {
    /// The machine of a node of the same cluster, reached in the same way.
    pub(crate) fn at(&self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), found: Arc::default(), ..self.clone() }
    }

    /// Asks the machine for something and returns what it answers.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let response = self.send(new(method, path, body)?).await?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        Ok((code, body.map_err(|error| anyhow::anyhow!("reading the machine's answer: {error}"))?.to_bytes()))
    }

    /// Asks for something large.
    pub(crate) async fn download(&self, path: &str) -> Result<Download> {
        self.stream(Method::GET, path, Bytes::new()).await
    }

    /// Asks for something whose answer comes bit by bit.
    pub(crate) async fn stream(&self, method: Method, path: &str, body: Bytes) -> Result<Download> {
        let response = self.send(new(method, path, body)?).await?;
        let code = response.status();
        let mut body = Download(response.into_body());
        if code.is_success() {
            return Ok(body);
        }
        let reason = body.next().await?.unwrap_or_default();
        bail!("the machine answered {code}: {}", String::from_utf8_lossy(&reason).trim_end());
    }

    /// Asks for a connection that speaks something else from then on; answers the head of the answer, and the connection.
    pub(crate) async fn upgrade(&self, path: &str, headers: HeaderMap) -> Result<(HeaderMap, Upgraded)> {
        let mut request = Request::get(path).body(Bytes::new()).context("making a request")?;
        *request.headers_mut() = headers;
        let mut response = self.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let stream = hyper::upgrade::on(&mut response).await.context("speaking to the machine")?;
            return Ok((response.headers().clone(), stream));
        }
        let code = response.status();
        let reason = Download(response.into_body()).next().await?.unwrap_or_default();
        bail!("the machine answered {code}: {}", String::from_utf8_lossy(&reason).trim_end());
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>> {
        let endpoint = self.endpoint.as_deref().map(address).transpose()?;
        let Some(kubeconfig) = &self.kubeconfig else {
            return self.send_plainly(endpoint, request).await;
        };
        let mut config =
            client::Config::from_kubeconfig(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        let server = |address: &str| format!("https://{address}").parse().context("the machine's address");
        config.tls_server_name = None;
        let address = match (self.address_of_node().await?, endpoint) {
            (None, None) => {
                bail!("--kubeconfig is for a machine of a cluster: --endpoint names it, or --node does");
            }
            (None, Some(endpoint)) => {
                config.tls_server_name.clone_from(&self.server_name);
                endpoint
            }
            (Some(node), None) => node,
            (Some(node), Some(endpoint)) => {
                let tls_server_name = self.server_name.clone();
                config.through = Some(client::Through { server: server(&endpoint)?, tls_server_name });
                node
            }
        };
        config.server = server(&address)?;
        let client = Client::new(config.with_component("machine")).context("making a client")?;
        let response = client.raw(request).await.with_context(|| format!("asking {address}"))?;
        Ok(response.map(|body| body.map_err(anyhow::Error::from_boxed).boxed_unsync()))
    }

    /// Asks the machine that this runs on, or one in maintenance.
    async fn send_plainly(&self, endpoint: Option<String>, request: Request<Bytes>) -> Result<Response<Body>> {
        let Some(address) = endpoint else {
            let socket = &self.socket;
            let stream = UnixStream::connect(socket).await.with_context(|| {
                format!("asking {}: is this a machine of Keelson's? --endpoint names another one", socket.display())
            })?;
            return plain(stream, request).await;
        };
        let stream = TcpStream::connect(&address).await.with_context(|| format!("asking {address}"))?;
        plain(stream, request)
            .await
            .with_context(|| format!("{address}: without --kubeconfig only a machine in maintenance answers"))
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

    /// The same, where anything but success is an error.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let (code, body) = self.call(method, path, body).await?;
        if !code.is_success() {
            bail!("the machine answered {code}: {}", String::from_utf8_lossy(&body).trim_end());
        }
        Ok(body)
    }

    /// The same within a time, for a person at a terminal.
    pub(crate) fn tell(&self, within: Duration, method: Method, path: &str, body: Bytes) -> Result<()> {
        let answer = crate::process::ask(within, self.ask(method, path, body))?;
        println!("{}", String::from_utf8_lossy(&answer).trim_end());
        Ok(())
    }
}

fn new(method: Method, path: &str, body: Bytes) -> Result<Request<Bytes>> {
    Request::builder().method(method).uri(path).body(body).context("making a request")
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

async fn plain<S>(stream: S, mut request: Request<Bytes>) -> Result<Response<Body>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("speaking HTTP to the machine")?;
    // It ends with the answer, or with the command.
    drop(tokio::spawn(connection.with_upgrades()));
    request.headers_mut().insert(http::header::HOST, HeaderValue::from_static("machine"));
    let response = sender.send_request(request.map(Full::new)).await.context("asking the machine")?;
    Ok(response.map(|body| body.map_err(anyhow::Error::from).boxed_unsync()))
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
