//! Runs a client on a link: socket, clock, and the memory of leases.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use sys::{Linux, PacketSocket, System};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::chance;
use crate::dhcp::client::{Action, Client};
use crate::dhcp::frame;
use crate::dhcp::lease::Lease;
use crate::dhcp::lent::Report;
use crate::dhcp::message::Reply;

const IPV4: u16 = 0x0800;
const EVERYBODY: [u8; 6] = [0xff; 6];
/// The largest datagram that a server sends us: we told it so.
const DATAGRAM_BYTES: usize = 2048;

/// Which link, and who asks.
#[derive(Clone, Debug)]
pub(crate) struct DhcpConfig {
    /// The link's number.
    pub(crate) link: u32,
    /// Its Ethernet address.
    pub(crate) mac: [u8; 6],
    /// The name told to the server.
    pub(crate) hostname: String,
    /// Where the lease is remembered.
    pub(crate) memory: PathBuf,
}

/// Runs until dropped. The state goes out through `report`; whoever receives it gives the link its address.
///
/// # Errors
/// When the link cannot be listened on.
pub(crate) async fn run(config: DhcpConfig, report: Report) -> Result<(), DhcpError> {
    let socket = PacketSocket::open(config.link, IPV4).map_err(DhcpError::Open)?;
    let socket = wait_on(socket).map_err(DhcpError::Wait)?;
    let start = Instant::now();
    let mut client = Client::new(config.mac, config.hostname.clone(), remembered(&config), Duration::ZERO);
    let mut buffer = vec![0_u8; DATAGRAM_BYTES];
    loop {
        let actions = tokio::select! {
            () = tokio::time::sleep_until(start + client.deadline()) => client.tick(start.elapsed(), chance::number()),
            received = receive(&socket, &mut buffer) => match received {
                Ok(length) => {
                    let reply = frame::unwrap(&buffer[..length]).and_then(Reply::decode);
                    let now = start.elapsed();
                    reply.map(|reply| client.receive(&reply, now, chance::number())).unwrap_or_default()
                }
                Err(source) => return Err(DhcpError::Receive(source)),
            },
        };
        for action in actions {
            apply(&config, &socket, action, &report);
        }
        report.wait(client.describe());
    }
}

/// Registers a socket with the runtime. The safe way to do so is deprecated, because a descriptor could be closed
/// behind the runtime's back; this socket owns its descriptor and never lets it go.
#[allow(deprecated)]
pub(crate) fn wait_on(socket: PacketSocket) -> io::Result<AsyncFd<PacketSocket>> {
    AsyncFd::new(socket)
}

/// Why a link has no DHCP.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DhcpError {
    #[error("listen for DHCP")]
    Open(#[source] sys::Error),
    #[error("wait for DHCP answers")]
    Wait(#[source] io::Error),
    #[error("receive DHCP answers")]
    Receive(#[source] io::Error),
}

async fn receive(socket: &AsyncFd<PacketSocket>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| socket.get_ref().receive(buffer)) {
            // A link that was off for a moment says so once.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NetworkDown => {}
            Ok(received) => return received,
            Err(_would_block) => {}
        }
    }
}

fn apply(config: &DhcpConfig, socket: &AsyncFd<PacketSocket>, action: Action, report: &Report) {
    match action {
        Action::Send(query, source) => send(config, socket, &query.encode(), source),
        Action::Use(lease) => {
            let text = serde_json::to_vec(&*lease).unwrap_or_default();
            if let Err(error) = Linux.replace(&config.memory, &text, 0o644) {
                tracing::warn!(error = %stdx::chain(&error), "the lease is not remembered");
            }
            report.decide(Some(lease.lent()));
        }
        Action::Drop(_lease) => {
            Linux.remove_file(&config.memory).ok();
            report.decide(None);
        }
    }
}

/// Sends without waiting. What is lost here is sent again later, like what is lost on the wire.
fn send(config: &DhcpConfig, socket: &AsyncFd<PacketSocket>, message: &[u8], source: Ipv4Addr) {
    if let Err(error) = socket.get_ref().send(&frame::wrap(source, message), EVERYBODY) {
        tracing::debug!(link = config.link, %error, "DHCP message not sent");
    }
}

fn remembered(config: &DhcpConfig) -> Option<Lease> {
    serde_json::from_slice(&Linux.read(&config.memory).ok()?).ok()
}
