//! Runs a client on a link: socket, clock, and the memory of leases.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use sys::{Linux, System};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::chance;
use crate::dhcp::Report;
use crate::dhcp6::client::{Action, Client};
use crate::dhcp6::lease::Lease6;
use crate::dhcp6::message::Reply;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All servers and relays on a link.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const DATAGRAM_BYTES: usize = 2048;

/// Which link, and who asks.
#[derive(Clone, Debug)]
pub(crate) struct Dhcp6Config {
    /// The link's number.
    pub(crate) link: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its Ethernet address.
    pub(crate) mac: [u8; 6],
    /// Where the lease is remembered.
    pub(crate) memory: PathBuf,
}

/// Runs until dropped. The state goes out through `report`; whoever receives it gives the link its addresses.
///
/// # Errors
/// When the link cannot be listened on.
pub(crate) async fn run(config: Dhcp6Config, report: Report) -> io::Result<()> {
    let socket = open(&config)?;
    let start = Instant::now();
    let mut client = Client::new(config.mac, remembered(&config), Duration::ZERO);
    let mut buffer = vec![0_u8; DATAGRAM_BYTES];
    loop {
        let actions = tokio::select! {
            () = tokio::time::sleep_until(start + client.deadline()) => client.tick(start.elapsed(), chance::number()),
            received = socket.recv_from(&mut buffer) => {
                let (length, _from) = received?;
                let reply = Reply::decode(&buffer[..length], config.mac);
                reply.map(|reply| client.receive(&reply, start.elapsed())).unwrap_or_default()
            }
        };
        for action in actions {
            apply(&config, &socket, action, &report).await;
        }
        report.wait(client.describe());
    }
}

fn open(config: &Dhcp6Config) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    // Each link has a socket of its own on the same port.
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(config.name.as_bytes()))?;
    socket.set_multicast_if_v6(config.link)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, config.link).into())?;
    UdpSocket::from_std(socket.into())
}

async fn apply(config: &Dhcp6Config, socket: &UdpSocket, action: Action, report: &Report) {
    match action {
        Action::Send(query) => {
            let servers = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, config.link);
            // What is not sent is sent again later. A link that is new has no address of its own for some seconds.
            if let Err(error) = socket.send_to(&query.encode(), servers).await {
                tracing::debug!(link = config.name, %error, "DHCPv6 message not sent");
            }
        }
        Action::Use(lease) => {
            let text = serde_json::to_vec(&*lease).unwrap_or_default();
            if let Err(error) = Linux.replace(&config.memory, &text, 0o644) {
                tracing::warn!(error = %stdx::chain(&error), "the lease is not remembered");
            }
            report.decide(Some(lease.lent()));
        }
        Action::Drop => {
            Linux.remove_file(&config.memory).ok();
            report.decide(None);
        }
    }
}

fn remembered(config: &Dhcp6Config) -> Option<Lease6> {
    serde_json::from_slice(&Linux.read(&config.memory).ok()?).ok()
}
