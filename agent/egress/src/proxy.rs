//! A proxy, and a dial by way of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use client::{Io, Way};
use futures::future::BoxFuture;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::counts::{Counts, Spoken, Stage};
use crate::error::{Error, network_text, tls_text};
use crate::{grpc, http_connect};

/// How long a proxy may take to be connected to, and how long to answer, as upstream's default client waits.
pub(crate) const STAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a proxy is spoken with.
#[derive(Clone)]
pub(crate) enum Plan {
    /// `CONNECT` over TCP, and TLS where it is secured.
    Connect { host: String, port: u16, secured: Option<Secured> },
    /// `CONNECT` over a socket of this machine.
    ConnectBySocket { socket: String },
    /// Packets by gRPC over a socket of this machine.
    Grpc { socket: String },
}

/// TLS with a proxy.
#[derive(Clone)]
pub(crate) struct Secured {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl Plan {
    /// Protocol and transport, as metrics name them.
    fn spoken(&self) -> Spoken {
        match self {
            Self::Connect { .. } => ("http_connect", "tcp"),
            Self::ConnectBySocket { .. } => ("http_connect", "uds"),
            Self::Grpc { .. } => ("grpc", "uds"),
        }
    }

    /// Where the proxy is.
    fn place(&self) -> String {
        match self {
            Self::Connect { host, port, .. } => authority(host, *port),
            Self::ConnectBySocket { socket } | Self::Grpc { socket } => socket.clone(),
        }
    }
}

/// `host:port`, brackets around IPv6 addresses.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A dial that goes on. If it is dropped before its end it has failed, whoever gave it up.
struct Dial<'a> {
    counts: &'a Counts,
    spoken: Spoken,
    /// Where it is; none once it has succeeded.
    stage: Option<Stage>,
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        if let Some(stage) = self.stage {
            self.counts.failed(self.spoken, stage);
        }
    }
}

/// A proxy that leads to a part of the network.
pub struct Proxy {
    plan: Plan,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Proxy").field(&self.plan.spoken()).field(&self.plan.place()).finish()
    }
}

impl Proxy {
    pub(crate) fn new(plan: Plan, counts: Arc<Counts>) -> Self {
        Self { plan, counts }
    }

    /// A connection's bytes with who answers at a host's port; the proxy finds the host.
    ///
    /// # Errors
    /// When the proxy is not there, or does not lead there.
    pub async fn dial(&self, host: &str, port: u16) -> Result<Box<dyn Io>, Error> {
        let mut dial = Dial { counts: &self.counts, spoken: self.plan.spoken(), stage: Some(Stage::Connect) };
        let start = Instant::now();
        self.counts.started(dial.spoken);
        let stream = self.attempt(&authority(host, port), &mut dial.stage).await?;
        dial.stage = None;
        self.counts.succeeded(dial.spoken, start.elapsed());
        Ok(stream)
    }

    async fn attempt(&self, address: &str, stage: &mut Option<Stage>) -> Result<Box<dyn Io>, Error> {
        match &self.plan {
            Plan::Connect { .. } | Plan::ConnectBySocket { .. } => {
                let stream = self.reach().await?;
                *stage = Some(Stage::Proxy);
                http_connect::tunnel(stream, &self.plan.place(), address).await
            }
            Plan::Grpc { socket } => {
                let channel = grpc::connect(socket).await?;
                *stage = Some(Stage::Proxy);
                grpc::dial(channel, address, &self.counts).await
            }
        }
    }

    /// A connection with a proxy that speaks HTTP.
    async fn reach(&self) -> Result<Box<dyn Io>, Error> {
        match &self.plan {
            Plan::Connect { host, port, secured } => {
                let place = (host.as_str(), *port);
                let connected = in_time(async {
                    let stream = TcpStream::connect(place).await?;
                    stream.set_nodelay(true)?;
                    Ok(stream)
                });
                let failed = |error| connecting("tcp", &authority(host, *port), &error);
                let stream = connected.await.map_err(failed)?;
                let Some(Secured { config, name }) = secured else { return Ok(Box::new(stream)) };
                let secured = in_time(TlsConnector::from(config.clone()).connect(name.clone(), stream)).await;
                Ok(Box::new(secured.map_err(|error| Error::Tls(tls_text(&error)))?))
            }
            Plan::ConnectBySocket { socket } | Plan::Grpc { socket } => Ok(Box::new(unix(socket).await?)),
        }
    }
}

impl Way for Proxy {
    fn reach<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move { self.dial(host, port).await.map_err(io::Error::other) })
    }
}

/// A connection with a socket of this machine; with `@` in front it lies in no folder.
pub(crate) async fn unix(socket: &str) -> Result<UnixStream, Error> {
    in_time(UnixStream::connect(&*stdx::socket_path(socket))).await.map_err(|error| connecting("unix", socket, &error))
}

fn connecting(network: &'static str, proxy: &str, error: &io::Error) -> Error {
    Error::Connect { network, proxy: proxy.to_owned(), why: network_text(error) }
}

/// One stage, which may take so long and no longer.
pub(crate) async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STAGE_TIMEOUT, work).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}
