//! The network against the real kernel, with a DHCP server on the other end of the wire. Needs root.

mod firewall;
mod links;
mod router;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use lifecycle::Shutdown;
use machine_api::NetworkStatus;
use manifest::Manifest;
use netlink::{Made, Netlink, Protocol, Route, Veth, netns};
use sys::PacketSocket;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::dhcp::{Kind, reply, wait_on, wrap_for_client};
use crate::dhcp6;
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
    let (servers, asked) = tokio::sync::watch::channel(Vec::new());
    let names = crate::config::Names { address: "127.0.0.53:53".parse().unwrap(), servers };
    let config = NetworkConfig { manifest: None, run: run.to_owned(), pods: String::new(), names: Some(names) };
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
    let read = |name: &str| std::fs::read_to_string(run.join(name)).unwrap();
    assert_eq!(read("resolv.conf"), "nameserver 127.0.0.53\nnameserver 10.77.0.53\n");
    // Pods have another loopback link.
    assert_eq!(read("resolv.servers.conf"), "nameserver 10.77.0.53\n");
    assert_eq!(*asked.borrow(), [vec!["10.77.0.53:53".parse().unwrap()].into()]);
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

    // Where the manifest's name servers are asked by TLS, the server's is not asked, and nobody by the C library.
    let by_tls = "[network]\ndns-servers = [\"192.0.2.9#ns.example.com\"]\n[[network.dns-domains]]\n\
                  domains = [\"corp.example\"]\nservers = [\"10.77.0.54\"]\n\
                  [[network.interfaces]]\nname = \"eth0\"\ndhcp = \"ipv4\"\n";
    let seen = during(run, manifest(by_tls), async |status| ready(status).await).await;
    let told: Vec<Vec<String>> =
        seen.name_servers.iter().map(|it| it.servers.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(told, [["192.0.2.9:853 (ns.example.com)"], ["10.77.0.54:53"]]);
    assert_eq!(
        (&*seen.name_servers[1].domains[0], seen.ntp_servers.as_slice()),
        ("corp.example", &["10.77.0.123".to_owned()][..])
    );
    assert_eq!(read("resolv.conf"), "");
    assert_eq!(read("resolv.servers.conf"), "nameserver 10.96.0.10\n");

    // Under a manifest without DHCP nothing of the lease stays.
    let fixed = "[[network.interfaces]]\nname = \"eth0\"\naddresses = [\"10.77.0.50/24\"]\n";
    let up = during(run, manifest(fixed), async |status| ready(status).await).await;
    assert_eq!(up.primary.unwrap().to_string(), "10.77.0.50");
    assert_eq!(global_addresses(&kernel, "eth0").await, ["10.77.0.50/24"]);
    assert!(!kernel.routes().await.unwrap().iter().any(|route| route.destination.prefix_len() == 0));
    serving.abort();
}

fn manifest(network: &str) -> Option<Manifest> {
    let head = "version = 1\n[machine]\nhostname = \"m\"\nrole = \"single\"\n";
    Some(manifest::parse("test", &format!("{head}{network}")).unwrap())
}

async fn global_addresses(kernel: &Netlink, name: &str) -> Vec<String> {
    let link = kernel.require_link(name).await.unwrap();
    let all = kernel.addresses_of(link.index).await.unwrap();
    let mut own: Vec<String> = all.iter().filter(|it| it.global).map(|it| it.net.to_string()).collect();
    own.sort();
    own
}

/// Another manifest, and back to the first, on a link that others gave something, too.
async fn live_scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    let veth = Veth { name: "far0", peer: "eth0", peer_namespace: None, mtu: None, peer_mac: None };
    kernel.set_up(kernel.create_veth(&veth).await.unwrap().index).await.unwrap();
    let first = "[[network.interfaces]]\nname = \"eth0\"\nmtu = 1400\naddresses = [\"10.79.0.2/24\", \"10.79.0.3/24\"]\n\
                 routes = [{ to = \"10.9.0.0/16\", via = \"10.79.0.1\" }, { to = \"10.8.0.0/16\", via = \"10.79.0.1\" },\n\
                 { to = \"default\", via = \"10.79.0.1\", table = 100 }]\n\
                 [[network.rules]]\npriority = 50\nfrom = \"10.79.0.3/32\"\ntable = 100\n";
    let observe = async || {
        let routes = kernel.routes().await.unwrap();
        let mut routes: Vec<String> = routes
            .iter()
            .filter(|route| route.protocol != Protocol::Kernel)
            .map(|route| route.destination.to_string())
            .collect();
        routes.sort();
        let rules = kernel.rules().await.unwrap().iter().filter(|rule| rule.table == 100).count();
        let chosen = kernel.routes_of(Some(100)).await.unwrap().len();
        let mtu = kernel.require_link("eth0").await.unwrap().mtu;
        (global_addresses(&kernel, "eth0").await, routes, mtu, (rules, chosen))
    };
    during(run, manifest(first), async |status| ready(status).await).await;
    let link = kernel.require_link("eth0").await.unwrap().index;
    kernel.add_address(link, "10.99.0.1/24".parse().unwrap()).await.unwrap();
    let foreign = Route::direct("10.98.0.0/16".parse().unwrap(), link, Protocol::Number(77));
    kernel.replace_route(&foreign).await.unwrap();
    let before = observe().await;
    assert_eq!(before.0, ["10.79.0.2/24", "10.79.0.3/24", "10.99.0.1/24"]);
    assert_eq!(
        (before.1.as_slice(), before.2),
        (["10.8.0.0/16", "10.9.0.0/16", "10.98.0.0/16"].map(String::from).as_slice(), 1400)
    );

    // The kernel takes 10.79.0.3 away with 10.79.0.2, whose network it is in.
    let fewer = "[[network.interfaces]]\nname = \"eth0\"\naddresses = [\"10.79.0.3/24\"]\n\
                 routes = [{ to = \"10.8.0.0/16\", via = \"10.79.0.1\" }]\n";
    during(run, manifest(fewer), async |status| ready(status).await).await;
    assert_eq!(before.3, (1, 1));
    let (addresses, routes, mtu, chosen) = observe().await;
    assert_eq!(chosen, (0, 0));
    assert_eq!(addresses, ["10.79.0.3/24", "10.99.0.1/24"]);
    assert_eq!((routes.as_slice(), mtu), (["10.8.0.0/16", "10.98.0.0/16"].map(String::from).as_slice(), 1500));

    // As after a trial that nobody kept.
    during(run, manifest(first), async |status| ready(status).await).await;
    assert_eq!(observe().await, before);
}

#[test]
fn another_manifest_changes_what_the_first_one_set_and_nothing_else() {
    in_a_namespace(live_scenario);
}

fn in_a_namespace(scenario: impl AsyncFnOnce(&Path) + Send) {
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

#[test]
fn a_card_gets_its_address_from_a_server_and_keeps_it_over_a_restart() {
    in_a_namespace(scenario);
}

/// A bridge of two pairs' ends, and afterwards a card with an address of its own.
async fn bridge_scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    for (name, peer) in [("far0", "eth0"), ("far1", "eth1")] {
        let veth = Veth { name, peer, peer_namespace: None, mtu: None, peer_mac: None };
        let far = kernel.create_veth(&veth).await.unwrap();
        kernel.set_up(far.index).await.unwrap();
    }
    let bridged = "[[network.interfaces]]\nname = \"br0\"\naddresses = [\"10.78.0.1/24\"]\n\
                   bridge = { members = [\"eth0\", \"eth1\"], stp = true }\n\
                   [[network.interfaces]]\nname = \"eth0\"\n[[network.interfaces]]\nname = \"eth1\"\nmtu = 1400\nrequired = false\n";
    let up = during(run, manifest(bridged), async |status| ready(status).await).await;
    assert_eq!(up.primary.unwrap().to_string(), "10.78.0.1");
    let bridge = kernel.require_link("br0").await.unwrap();
    assert_eq!((bridge.made, bridge.up), (Some(Made::Bridge { stp: true }), true));
    for name in ["eth0", "eth1"] {
        let member = kernel.require_link(name).await.unwrap();
        assert_eq!((member.controller, member.up), (Some(bridge.index), true), "{name}");
    }

    // Nothing is made twice, and settings change in place.
    std::fs::create_dir(run.join("inbox")).unwrap();
    let changed = bridged.replace(", stp = true", "").replace("\"eth0\", \"eth1\"", "\"eth0\"");
    during(run, manifest(&changed), async |status| ready(status).await).await;
    let again = kernel.require_link("br0").await.unwrap();
    assert_eq!((again.index, again.made), (bridge.index, Some(Made::Bridge { stp: false })));
    assert_eq!(kernel.require_link("eth0").await.unwrap().controller, Some(bridge.index));
    assert_eq!(kernel.require_link("eth1").await.unwrap().controller, None);
    assert!(!run.join("inbox/restart").exists());

    // Somebody else's bridge stays when ours goes.
    kernel.create_bridge("other").await.unwrap();
    let plain = "[[network.interfaces]]\nname = \"eth0\"\naddresses = [\"10.78.1.1/24\"]\n";
    let up = during(run, manifest(plain), async |status| ready(status).await).await;
    assert_eq!(up.primary.unwrap().to_string(), "10.78.1.1");
    assert_eq!(std::fs::read_to_string(run.join("inbox/restart")).unwrap(), "node");
    assert!(kernel.link("br0").await.unwrap().is_none() && kernel.link("other").await.unwrap().is_some());
}

/// Runs the network for as long as `look` takes, as one process of the role would.
async fn during<T>(
    run: &Path,
    manifest: Option<Manifest>,
    look: impl AsyncFnOnce(watch::Receiver<NetworkStatus>) -> T,
) -> T {
    let (network, status) =
        Network::connect(NetworkConfig { manifest, run: run.to_owned(), pods: "kl".to_owned(), names: None }).unwrap();
    let shutdown = Shutdown::new();
    let task = tokio::spawn(network.run(shutdown.clone()));
    let seen = look(status).await;
    shutdown.trigger();
    task.await.unwrap();
    seen
}

/// The network that was set at the console, and back to that of the manifest.
async fn mended_scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    let veth = Veth { name: "far0", peer: "eth0", peer_namespace: None, mtu: None, peer_mac: None };
    kernel.set_up(kernel.create_veth(&veth).await.unwrap().index).await.unwrap();
    let with =
        |address: &str| manifest(&format!("[[network.interfaces]]\nname = \"eth0\"\naddresses = [\"{address}\"]\n"));
    let mut config = crate::Config::new(with("10.79.0.2/24"), std::time::UNIX_EPOCH);
    config.mended = with("10.79.0.7/24");
    for wanted in ["10.79.0.7/24", "10.79.0.2/24"] {
        during(run, config.networking().cloned(), async |status| drop(ready(status).await)).await;
        assert_eq!(global_addresses(&kernel, "eth0").await, [wanted]);
        config.mended = None;
    }
}

#[test]
fn the_network_of_the_console_counts_before_the_manifests() {
    in_a_namespace(mended_scenario);
}

#[test]
fn a_bridge_is_made_changed_and_removed_as_the_manifest_says() {
    in_a_namespace(bridge_scenario);
}

/// Answers every DHCPv6 question with the same address.
async fn serve6(link: u32) {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
    socket.set_only_v6(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 547, 0, 0).into()).unwrap();
    socket.join_multicast_v6(&"ff02::1:2".parse().unwrap(), link).unwrap();
    let socket = UdpSocket::from_std(socket.into()).unwrap();
    let mut buffer = [0_u8; 2048];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        assert!(length > 4);
        let transaction = u32::from_be_bytes([0, buffer[1], buffer[2], buffer[3]]);
        let kind = if buffer[0] == 1 { dhcp6::Kind::Advertise } else { dhcp6::Kind::Reply };
        let server: Ipv6Addr = "fd00:77::53".parse().unwrap();
        let extra: [(u16, &[u8]); 2] = [(7, &[255]), (23, &server.octets())];
        let lent = [("fd00:77::9".parse().unwrap(), 600)];
        // The kernel may still check the server's own address; the client asks again.
        drop(socket.send_to(&dhcp6::reply(kind, transaction, &lent, &extra), client).await);
    }
}

/// An address of a DHCPv6 server, and what becomes of it when the manifest does not want it any more.
async fn dhcp6_scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    let veth = Veth { name: "server0", peer: "eth0", peer_namespace: None, mtu: None, peer_mac: Some(CLIENT_MAC) };
    let server = kernel.create_veth(&veth).await.unwrap();
    kernel.set_up(server.index).await.unwrap();
    let serving = tokio::spawn(serve6(server.index));
    let asks = "[[network.interfaces]]\nname = \"eth0\"\ndhcp = \"ipv6\"\n";
    let up = during(run, manifest(asks), async |status| ready(status).await).await;
    assert_eq!(up.primary.unwrap().to_string(), "fd00:77::9");
    assert_eq!(up.dns_servers, ["fd00:77::53".parse::<IpAddr>().unwrap()]);
    assert_eq!(global_addresses(&kernel, "eth0").await, ["fd00:77::9/128"]);

    // Another process keeps it, and one with another manifest takes it back.
    serving.abort();
    let again = during(run, manifest(asks), async |status| ready(status).await).await;
    assert_eq!(again.primary, up.primary);
    let fixed = "[[network.interfaces]]\nname = \"eth0\"\naddresses = [\"fd00:77::50/64\"]\n";
    during(run, manifest(fixed), async |status| ready(status).await).await;
    assert_eq!(global_addresses(&kernel, "eth0").await, ["fd00:77::50/64"]);
}

#[test]
fn a_card_gets_its_address_from_a_server_of_ipv6() {
    in_a_namespace(dhcp6_scenario);
}
