//! The network against the real kernel, with a DHCP server on the other end of the wire. Needs root.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use lifecycle::Shutdown;
use machine_api::NetworkStatus;
use netlink::{Netlink, Veth, netns};
use sys::PacketSocket;
use tokio::sync::watch;

use crate::dhcp::{Kind, reply, wait_on, wrap_for_client};
use crate::network::{Network, NetworkConfig};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Answers every question with the same address, until dropped.
async fn serve(link: u32) {
    let socket = wait_on(PacketSocket::open(link, 0x0800).unwrap()).unwrap();
    loop {
        let mut ready = socket.readable().await.unwrap();
        let mut buffer = [0_u8; 2048];
        let received: io::Result<usize> = match ready.try_io(|socket| socket.get_ref().receive(&mut buffer)) {
            Ok(received) => received,
            Err(_would_block) => continue,
        };
        // IPv4 and UDP headers, then the message; the kind is the first option.
        let message = &buffer[28..received.unwrap()];
        let transaction = u32::from_be_bytes(message[4..8].try_into().unwrap());
        let kind = if message[242] == 1 { Kind::Offer } else { Kind::Ack };
        let extra: [(u8, &[u8]); 6] = [
            (1, &[255, 255, 255, 0]),
            (3, &SERVER.octets()),
            (6, &[10, 77, 0, 53]),
            (26, &[5, 0]),
            (42, &[10, 77, 0, 123]),
            (54, &SERVER.octets()),
        ];
        let frame = wrap_for_client(SERVER, &reply(kind, transaction, [10, 77, 0, 9], &extra));
        socket.get_ref().send(&frame, [0xff; 6]).unwrap();
    }
}

async fn ready(mut status: watch::Receiver<NetworkStatus>) -> NetworkStatus {
    let wanted = status.wait_for(|status| status.ready && status.primary.is_some());
    tokio::time::timeout(Duration::from_secs(20), wanted).await.unwrap().unwrap().clone()
}

async fn scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    let veth = Veth { name: "server0", peer: "eth0", peer_namespace: None, mtu: None, peer_mac: Some(CLIENT_MAC) };
    let server = kernel.create_veth(&veth).await.unwrap();
    kernel.set_up(server.index).await.unwrap();
    let serving = tokio::spawn(serve(server.index));
    let config = NetworkConfig { manifest: None, run: run.to_owned() };
    let (network, status) = Network::connect(config.clone()).unwrap();
    let shutdown = Shutdown::new();
    let task = tokio::spawn(network.run(shutdown.clone()));
    let up = ready(status).await;
    assert_eq!(up.primary.unwrap().to_string(), "10.77.0.9");
    assert_eq!(up.ntp_servers, ["10.77.0.123"]);
    let link = kernel.require_link("eth0").await.unwrap();
    assert_eq!((link.up, link.mtu), (true, 1280));
    let routes = kernel.routes().await.unwrap();
    assert!(routes.iter().any(|route| route.destination.prefix_len() == 0 && route.gateway == Some(SERVER.into())));
    assert_eq!(std::fs::read_to_string(run.join("resolv.conf")).unwrap(), "nameserver 10.77.0.53\n");
    assert!(std::fs::read_to_string(run.join("hosts")).unwrap().contains("10.77.0.9 keelson"));
    shutdown.trigger();
    task.await.unwrap();

    // Started again, it asks for the address it had, and the network was there all the time.
    assert!(!kernel.addresses_of(link.index).await.unwrap().is_empty());
    assert!(run.join("lease-eth0.json").exists());
    let (network, status) = Network::connect(config).unwrap();
    let again = Shutdown::new();
    let task = tokio::spawn(network.run(again.clone()));
    assert_eq!(ready(status).await.primary, up.primary);
    again.trigger();
    task.await.unwrap();
    serving.abort();
}

#[test]
fn a_card_gets_its_address_from_a_server_and_keeps_it_over_a_restart() {
    let Ok(namespace) = netns::create() else {
        eprintln!("SKIPPED: needs root to make network namespaces");
        return;
    };
    let run = tempfile::tempdir().unwrap();
    netns::within(namespace.as_fd(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(scenario(run.path()));
    })
    .unwrap();
}
