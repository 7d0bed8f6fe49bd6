//! Name servers by router advertisements, sent from the other end of the wire. Needs root.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use machine_api::NetworkStatus;
use netlink::{Netlink, Veth, netns};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use super::{during, in_a_namespace, manifest};

const HOST: &str = "[network]\ndns-servers = [\"192.0.2.1\"]\nsearch-domains = [\"own.example\"]\n\
                    [[network.interfaces]]\nname = \"eth0\"\naddresses = [\"10.84.0.2/24\"]\n";
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Until the kernel has checked the sender's address, nothing goes out.
const AGAIN: Duration = Duration::from_millis(100);

/// An advertisement of no route, but of a server and a domain.
fn advertisement(lifetime: u32) -> Vec<u8> {
    let server: Ipv6Addr = "fd00:84::53".parse().unwrap();
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend([0; 10]);
    message.extend([&[25, 3, 0, 0][..], &lifetime.to_be_bytes(), &server.octets()].concat());
    message.extend([&[31, 3, 0, 0][..], &lifetime.to_be_bytes(), b"\x03lab\x07example\x00\x00\x00\x00"].concat());
    message
}

/// Advertises until the host knows these servers and domains.
async fn advertise_until(
    (far, link): (&Socket, u32),
    lifetime: u32,
    mut status: watch::Receiver<NetworkStatus>,
    wanted: (&[&str], &[&str]),
) {
    let servers: Vec<IpAddr> = wanted.0.iter().map(|text| text.parse().unwrap()).collect();
    let is_there = |status: &NetworkStatus| status.dns_servers == servers && status.search_domains == wanted.1;
    let advertising = async {
        loop {
            drop(far.send_to(&advertisement(lifetime), &SocketAddrV6::new(ALL_NODES, 0, 0, link).into()));
            tokio::time::sleep(AGAIN).await;
        }
    };
    let seen = async { drop(status.wait_for(is_there).await.unwrap()) };
    let both = async {
        tokio::select! {
            () = advertising => {}
            () = seen => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
}

async fn scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    let far = netns::create().unwrap();
    let veth = Veth { name: "eth0", peer: "far0", peer_namespace: Some(far.as_fd()), mtu: None, peer_mac: None };
    kernel.create_veth(&veth).await.unwrap();
    let other = Netlink::connect_in(far.as_fd()).unwrap();
    let link = other.require_link("far0").await.unwrap().index;
    other.set_up(link).await.unwrap();
    let socket =
        netns::within(far.as_fd(), || Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap()).unwrap();
    socket.set_multicast_hops_v6(255).unwrap();
    socket.set_multicast_if_v6(link).unwrap();

    let own = (&["192.0.2.1"][..], &["own.example"][..]);
    let both = (&["192.0.2.1", "fd00:84::53"][..], &["own.example", "lab.example"][..]);
    during(run, manifest(HOST), async |status| advertise_until((&socket, link), 600, status, both).await).await;
    let text = "search own.example lab.example\nnameserver 192.0.2.1\nnameserver fd00:84::53\n";
    assert_eq!(std::fs::read_to_string(run.join("resolv.conf")).unwrap(), text);

    // The next process knows it without being told again, until it is taken back.
    during(run, manifest(HOST), async |mut status| {
        let first = status.wait_for(|status| !status.dns_servers.is_empty());
        let first = tokio::time::timeout(Duration::from_secs(20), first).await.unwrap().unwrap().clone();
        assert_eq!(first.dns_servers.len(), 2);
        advertise_until((&socket, link), 0, status, own).await;
    })
    .await;

    // Where nobody listens to routers, nothing of them is left.
    during(run, manifest(HOST), async |status| advertise_until((&socket, link), 600, status, both).await).await;
    let deaf = format!("{HOST}router-advertisements = false\n");
    during(run, manifest(&deaf), async |status| advertise_until((&socket, link), 600, status, own).await).await;
}

#[test]
fn routers_name_servers_for_as_long_as_they_say() {
    in_a_namespace(scenario);
}
