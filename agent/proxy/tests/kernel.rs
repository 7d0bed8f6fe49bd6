//! Real packets through real rules, in network namespaces of the test's own. Needs root; says so and passes without.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use netlink::{Netlink, Protocol, Route, Veth, netns};
use nft::Nft;
use proxy::{Config, Frame, Node, ServiceName, plan_service};
use support::{balanced, service, slice, sticky};

const NODE: &str = "172.30.0.1";
const TIMEOUT: Duration = Duration::from_millis(400);

/// A node with pods behind routed links and one machine outside of the cluster.
struct World {
    node: OwnedFd,
    machines: BTreeMap<&'static str, OwnedFd>,
    frame: Frame,
    runtime: tokio::runtime::Runtime,
}

const MACHINES: [(&str, &str, &str); 4] = [
    ("a", "10.244.1.2", "fd00:244::2"),
    ("b", "10.244.1.3", "fd00:244::3"),
    ("c", "10.244.1.4", "fd00:244::4"),
    ("outside", "203.0.113.9", "2001:db8::9"),
];

impl World {
    fn new() -> Option<Self> {
        let node = match netns::create() {
            Ok(node) => node,
            Err(error) => {
                eprintln!("SKIPPED: needs root to make network namespaces: {error}");
                return None;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = Config {
            node_name: "here".into(),
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            ..Config::default()
        };
        let frame = Frame::new(&config, &[NODE.parse().unwrap()]);
        let mut world = Self { node, machines: BTreeMap::new(), frame, runtime };
        world.wire();
        let script = world.frame.replace_script();
        world.apply(&script);
        Some(world)
    }

    fn wire(&mut self) {
        netns::within(self.node.as_fd(), || {
            for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
            }
        })
        .unwrap();
        for (name, v4, v6) in MACHINES {
            let machine = netns::create().unwrap();
            self.runtime.block_on(link(&self.node, &machine, name, [v4, v6]));
            self.machines.insert(name, machine);
        }
        self.runtime.block_on(async {
            let kernel = Netlink::connect_in(self.node.as_fd()).unwrap();
            let lo = kernel.require_link("lo").await.unwrap();
            kernel.set_up(lo.index).await.unwrap();
            kernel.add_address(lo.index, format!("{NODE}/32").parse().unwrap()).await.unwrap();
            kernel.add_address(lo.index, "fd00:30::1/128".parse().unwrap()).await.unwrap();
            for range in ["10.96.0.0/16", "fd00:96::/112"] {
                let route = Route::direct(range.parse().unwrap(), lo.index, Protocol::Static);
                kernel.replace_route(&route).await.unwrap();
            }
        });
    }

    fn apply(&self, script: &nft::Script) {
        netns::within(self.node.as_fd(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Nft::default().run(script)).unwrap_or_else(|error| panic!("{error}"));
        })
        .unwrap();
    }

    fn set(&mut self, service: &api::core::v1::Service, slices: &[Box<api::discovery::v1::EndpointSlice>]) {
        let node = Node { name: "here".into(), ..Node::default() };
        let name = ServiceName::new("default", service.metadata.name.as_str());
        let script = self.frame.update([(name, plan_service(service, slices, &node))]);
        self.apply(&script);
    }

    fn namespace(&self, name: &str) -> &OwnedFd {
        if name == "node" { &self.node } else { &self.machines[name] }
    }

    /// Every pod answers on 8080 with its name and the caller's address.
    fn serve(&self) {
        for (name, v4, v6) in MACHINES {
            for address in [v4, v6] {
                let address = SocketAddr::new(address.parse().unwrap(), 8080);
                let listener =
                    netns::within(self.namespace(name).as_fd(), || TcpListener::bind(address).unwrap()).unwrap();
                // Ends with the test's process.
                std::thread::spawn(move || {
                    while let Ok((mut stream, peer)) = listener.accept() {
                        stream.write_all(format!("{name} {}", peer.ip()).as_bytes()).unwrap();
                    }
                });
            }
        }
    }

    fn ask(&self, from: &str, to: &str) -> Result<(String, IpAddr), ErrorKind> {
        let to: SocketAddr = to.parse().unwrap();
        let mut stream = netns::within(self.namespace(from).as_fd(), || TcpStream::connect_timeout(&to, TIMEOUT))
            .unwrap()
            .map_err(|error| error.kind())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (name, peer) = text.split_once(' ').unwrap();
        Ok((name.to_owned(), peer.parse().unwrap()))
    }

    /// Who answers how often.
    fn survey(&self, from: &str, to: &str, times: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            *counts.entry(self.ask(from, to).unwrap_or_else(|error| panic!("{from} {to}: {error}")).0).or_default() +=
                1;
        }
        counts
    }
}

async fn link(node: &OwnedFd, machine: &OwnedFd, name: &str, addresses: [&str; 2]) {
    let near = Netlink::connect_in(node.as_fd()).unwrap();
    let far = Netlink::connect_in(machine.as_fd()).unwrap();
    let veth = Veth { name, peer: "eth0", peer_namespace: Some(machine.as_fd()), mtu: None, peer_mac: None };
    let link = near.create_veth(&veth).await.unwrap();
    near.set_up(link.index).await.unwrap();
    let lo = far.require_link("lo").await.unwrap();
    far.set_up(lo.index).await.unwrap();
    let peer = far.require_link("eth0").await.unwrap();
    for (address, gateway) in addresses.iter().zip(["169.254.1.1", "fe80::1"]) {
        let (address, gateway): (IpAddr, IpAddr) = (address.parse().unwrap(), gateway.parse().unwrap());
        far.add_address(peer.index, address.into()).await.unwrap();
        far.set_up(peer.index).await.unwrap();
        far.replace_neighbour(peer.index, gateway, link.mac.unwrap()).await.unwrap();
        let mut default = Route::via(Route::everywhere(gateway), gateway, Protocol::Static);
        (default.link, default.onlink) = (Some(peer.index), true);
        far.replace_route(&default).await.unwrap();
        near.replace_neighbour(link.index, address, peer.mac.unwrap()).await.unwrap();
        near.replace_route(&Route::direct(address.into(), link.index, Protocol::Static)).await.unwrap();
    }
}

fn pods() -> [Box<api::discovery::v1::EndpointSlice>; 2] {
    [
        slice("IPv4", &["10.244.1.2@here", "10.244.1.3@here", "10.244.1.4"]),
        slice("IPv6", &["fd00:244::2@here", "fd00:244::3@here"]),
    ]
}

#[test]
fn cluster_addresses_balance_and_refuse_as_they_should() {
    let Some(mut world) = World::new() else { return };
    world.serve();
    let web = service("web", "ClusterIP", &["10.96.0.1", "fd00:96::1"]);
    world.set(&web, &pods());

    let counts = world.survey("a", "10.96.0.1:80", 90);
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(counts.values().all(|count| *count >= 10), "{counts:?}");
    assert_eq!(world.survey("a", "[fd00:96::1]:80", 40).len(), 2);
    assert_eq!(world.survey("node", "10.96.0.1:80", 60).len(), 3);
    // A pod is seen under its own address, except by itself; who is outside is seen under the node's.
    for _ in 0..30 {
        let (name, seen) = world.ask("a", "10.96.0.1:80").unwrap();
        assert_eq!(seen.to_string() == "10.244.1.2", name != "a", "{name} {seen}");
    }
    assert_eq!(world.ask("outside", "10.96.0.1:80").unwrap().1.to_string(), NODE);

    // A port that the Service does not have, and an address that no Service has.
    for from in ["a", "node", "outside"] {
        assert_eq!(world.ask(from, "10.96.0.1:81"), Err(ErrorKind::ConnectionRefused), "{from}");
        let unused = world.ask(from, "10.96.0.2:80").unwrap_err();
        assert!(matches!(unused, ErrorKind::TimedOut | ErrorKind::PermissionDenied), "{from} {unused}");
    }

    // No endpoint, then one, then no Service.
    world.set(&web, &[slice("IPv4", &["10.244.1.2!ready"])]);
    for from in ["a", "node"] {
        assert_eq!(world.ask(from, "10.96.0.1:80"), Err(ErrorKind::ConnectionRefused), "{from}");
    }
    world.set(&web, &[slice("IPv4", &["10.244.1.4"])]);
    assert_eq!(world.survey("a", "10.96.0.1:80", 5), BTreeMap::from([("c".to_owned(), 5)]));
    world.set(&service("web", "ExternalName", &[]), &[]);
    assert_eq!(world.ask("a", "10.96.0.1:80"), Err(ErrorKind::TimedOut));
}

#[test]
fn node_ports_and_external_addresses_are_open_to_the_outside() {
    let Some(mut world) = World::new() else { return };
    world.serve();
    let mut web = balanced(service("web", "LoadBalancer", &["10.96.0.1"]), "192.0.2.7");
    web.spec.ports[0].node_port = 30080;
    web.spec.external_ips = vec!["198.51.100.1".into()];
    world.set(&web, &pods());
    for to in ["172.30.0.1:30080", "198.51.100.1:80", "192.0.2.7:80"] {
        assert_eq!(world.survey("outside", to, 60).len(), 3, "{to}");
        assert_eq!(world.ask("outside", to).unwrap().1.to_string(), NODE, "{to}");
        assert_eq!(world.survey("a", to, 60).len(), 3, "{to}");
    }
    assert_eq!(world.survey("node", "172.30.0.1:30080", 60).len(), 3);

    web.spec.load_balancer_source_ranges = vec!["198.18.0.0/15".into()];
    world.set(&web, &pods());
    assert_eq!(world.ask("outside", "192.0.2.7:80"), Err(ErrorKind::TimedOut));
    assert!(world.ask("outside", "198.51.100.1:80").is_ok());
    web.spec.load_balancer_source_ranges = vec!["198.18.0.0/15".into(), "203.0.113.0/24".into()];
    world.set(&web, &pods());
    assert!(world.ask("outside", "192.0.2.7:80").is_ok());

    // With policy Local callers keep their address and get to this node's endpoints; insiders get to all.
    web.spec.load_balancer_source_ranges = Vec::new();
    web.spec.external_traffic_policy = "Local".into();
    world.set(&web, &pods());
    let local = world.survey("outside", "172.30.0.1:30080", 40);
    assert_eq!(local.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(world.ask("outside", "192.0.2.7:80").unwrap().1.to_string(), "203.0.113.9");
    assert_eq!(world.survey("a", "192.0.2.7:80", 60).len(), 3);
    world.set(&web, &[slice("IPv4", &["10.244.1.4"])]);
    assert_eq!(world.ask("outside", "172.30.0.1:30080"), Err(ErrorKind::TimedOut));
    assert_eq!(world.ask("a", "192.0.2.7:80").unwrap().0, "c");
    world.set(&web, &[]);
    assert_eq!(world.ask("outside", "172.30.0.1:30080"), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn callers_with_session_affinity_stay_where_they_are() {
    let Some(mut world) = World::new() else { return };
    world.serve();
    let mut web = sticky(service("web", "NodePort", &["10.96.0.1", "fd00:96::1"]), 3600);
    web.spec.ports[0].node_port = 30080;
    world.set(&web, &pods());
    for from in ["a", "b", "node", "outside"] {
        assert_eq!(world.survey(from, "10.96.0.1:80", 12).len(), 1, "{from}");
    }
    assert_eq!(world.survey("b", "[fd00:96::1]:80", 12).len(), 1);
    assert_eq!(world.survey("outside", "172.30.0.1:30080", 12).len(), 1);
    // The endpoint goes, the others take over; then no affinity any more.
    let (stuck, _) = world.ask("outside", "10.96.0.1:80").unwrap();
    let rest = MACHINES.iter().filter(|(name, ..)| *name != stuck && *name != "outside");
    let rest: Vec<&str> = rest.map(|(_, address, _)| *address).collect();
    world.set(&web, &[slice("IPv4", &rest)]);
    let after = world.survey("outside", "10.96.0.1:80", 12);
    assert!(after.len() == 1 && !after.contains_key(&stuck), "{after:?}");
    web.spec.session_affinity = "None".into();
    world.set(&web, &pods());
    assert_eq!(world.survey("outside", "10.96.0.1:80", 60).len(), 3);
}
