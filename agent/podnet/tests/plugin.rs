//! The plugin against the real kernel, in network namespaces of the test's own. Needs root; says so and passes
//! without.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use netlink::{Netlink, Protocol, Route, Veth, netns};
use podnet::cni::{self, Outcome};

struct Pod {
    namespace: OwnedFd,
    name: &'static str,
}

impl Pod {
    fn new(name: &'static str) -> Self {
        Self { namespace: netns::create().unwrap(), name }
    }
}

struct Node {
    namespace: OwnedFd,
    state: tempfile::TempDir,
    range: &'static str,
}

impl Node {
    fn new(range: &'static str) -> Self {
        let node = Self { namespace: netns::create().unwrap(), state: tempfile::tempdir().unwrap(), range };
        node.within(|| {
            for file in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                std::fs::write(Path::new("/proc/sys").join(file), "1").unwrap();
            }
        });
        node
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(self.namespace.as_fd(), work).unwrap()
    }

    fn call(&self, command: &str, pod: &Pod, ports: &str) -> Outcome {
        let env = BTreeMap::from([
            ("CNI_COMMAND".to_owned(), command.to_owned()),
            ("CNI_CONTAINERID".to_owned(), pod.name.to_owned()),
            ("CNI_IFNAME".to_owned(), "eth0".to_owned()),
            ("CNI_NETNS".to_owned(), format!("/proc/self/fd/{}", pod.namespace.as_raw_fd())),
        ]);
        let input = format!(
            r#"{{"cniVersion":"1.0.0","name":"keelson","type":"keelson-cni","podCIDRs":[{}],"mtu":1400,
                "stateDir":"{}","runtimeConfig":{{"portMappings":[{ports}]}}}}"#,
            self.range,
            self.state.path().display()
        );
        self.within(|| cni::main(&env, input.as_bytes()))
    }

    fn add(&self, pod: &Pod, ports: &str) -> Vec<IpAddr> {
        let outcome = self.call("ADD", pod, ports);
        assert_eq!(outcome.code, 0, "{}", outcome.output);
        let result: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
        let ips = result["ips"].as_array().unwrap().iter();
        ips.map(|ip| ip["address"].as_str().unwrap().split_once('/').unwrap().0.parse().unwrap()).collect()
    }
}

fn is_root() -> bool {
    match netns::create() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED: needs root to make network namespaces: {error}");
            false
        }
    }
}

/// Connects from one namespace to a listener in another and sends a word back; returns the caller's address as seen.
fn talk(from: &OwnedFd, to: &OwnedFd, listen: SocketAddr, dial: SocketAddr) -> SocketAddr {
    let listener = netns::within(to.as_fd(), || TcpListener::bind(listen).unwrap()).unwrap();
    let connect = || TcpStream::connect_timeout(&dial, Duration::from_secs(2)).unwrap();
    let mut client = netns::within(from.as_fd(), connect).unwrap();
    let (mut server, seen) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    drop(server);
    let mut text = String::new();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    seen
}

#[test]
fn pods_of_one_node_have_unique_addresses_and_reach_each_other_and_the_node() {
    if !is_root() {
        return;
    }
    let node = Node::new(r#""10.244.1.0/24","fd00:244:1::/64""#);
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let (at_a, at_b) = (node.add(&a, ""), node.add(&b, ""));
    assert_eq!(at_a.len(), 2);
    assert!(at_a.iter().all(|address| !at_b.contains(address)));
    for (ip_a, ip_b) in at_a.iter().zip(&at_b) {
        let server = SocketAddr::new(*ip_b, 8080);
        assert_eq!(talk(&a.namespace, &b.namespace, server, server).ip(), *ip_a);
        let own = SocketAddr::new(*ip_a, 8081);
        talk(&a.namespace, &a.namespace, own, own);
    }
    let on_loopback: SocketAddr = "127.0.0.1:80".parse().unwrap();
    talk(&a.namespace, &a.namespace, on_loopback, on_loopback);

    assert_eq!(node.call("CHECK", &a, "").code, 0);
    assert_eq!(node.call("DEL", &a, ""), Outcome { output: String::new(), code: 0 });
    assert_eq!(node.call("DEL", &a, "").code, 0);
    let gone = node.call("CHECK", &a, "");
    assert_eq!(gone.code, 1);
    assert!(gone.output.contains("sandbox a is not attached"), "{}", gone.output);
    // The freed address is not reused at once, but nothing of it is left.
    let c = Pod::new("c");
    assert!(!node.add(&c, "").contains(&at_a[0]));
    // A pod that is attached again is attached once.
    node.add(&c, "");
    assert_eq!(
        std::fs::read_dir(node.state.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "json"))
            .count(),
        2
    );
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_a_node_port_leads_to_its_pod() {
    if !is_root() {
        return;
    }
    let (left, right) = (Node::new(r#""10.244.1.0/24""#), Node::new(r#""10.244.2.0/24""#));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(connect(&left, &right));
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let ports = r#"{"hostPort":8888,"containerPort":80,"protocol":"tcp"},
        {"HostPort":8889,"ContainerPort":80,"Protocol":"tcp","HostIP":"127.0.0.1"}"#;
    let (at_a, at_b) = (left.add(&a, "")[0], right.add(&b, ports)[0]);
    let server = SocketAddr::new(at_b, 80);
    assert_eq!(talk(&a.namespace, &b.namespace, server, server).ip(), at_a);

    let node_port: SocketAddr = "172.30.0.2:8888".parse().unwrap();
    assert_eq!(talk(&left.namespace, &b.namespace, server, node_port).ip(), "172.30.0.1".parse::<IpAddr>().unwrap());
    talk(&a.namespace, &b.namespace, server, node_port);
    talk(&right.namespace, &b.namespace, server, node_port);
    // By way of the node's port to itself.
    talk(&b.namespace, &b.namespace, server, node_port);
    talk(&right.namespace, &b.namespace, server, "127.0.0.1:8888".parse().unwrap());
    talk(&right.namespace, &b.namespace, server, "127.0.0.1:8889".parse().unwrap());

    assert_eq!(right.call("DEL", &b, ports).code, 0);
    let refused = left.within(|| TcpStream::connect_timeout(&node_port, Duration::from_secs(2)));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

async fn connect(left: &Node, right: &Node) {
    let near = Netlink::connect_in(left.namespace.as_fd()).unwrap();
    let far = Netlink::connect_in(right.namespace.as_fd()).unwrap();
    let veth =
        Veth { name: "eth0", peer: "eth0", peer_namespace: Some(right.namespace.as_fd()), mtu: None, peer_mac: None };
    near.create_veth(&veth).await.unwrap();
    for (kernel, own, other, range) in [
        (&near, "172.30.0.1/24", "172.30.0.2", "10.244.2.0/24"),
        (&far, "172.30.0.2/24", "172.30.0.1", "10.244.1.0/24"),
    ] {
        let lo = kernel.require_link("lo").await.unwrap();
        kernel.set_up(lo.index).await.unwrap();
        let link = kernel.require_link("eth0").await.unwrap();
        kernel.add_address(link.index, own.parse().unwrap()).await.unwrap();
        kernel.set_up(link.index).await.unwrap();
        let route = Route::via(range.parse().unwrap(), other.parse().unwrap(), Protocol::Static);
        kernel.replace_route(&route).await.unwrap();
    }
}

#[test]
fn requests_that_make_no_sense_are_refused_in_the_specifications_words() {
    let outcome = cni::main(&BTreeMap::new(), b"{}");
    assert_eq!(outcome.code, 1);
    let error: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!(
        (error["code"].as_u64(), error["msg"].as_str()),
        (Some(4), Some("environment variable CNI_COMMAND is missing or invalid"))
    );
    let env = BTreeMap::from([("CNI_COMMAND".to_owned(), "STATUS".to_owned())]);
    let outcome = cni::main(&env, br#"{"cniVersion":"1.1.0","type":"keelson-cni"}"#);
    assert!(outcome.output.contains("the network configuration lacks podCIDRs"), "{}", outcome.output);
    let env = BTreeMap::from([("CNI_COMMAND".to_owned(), "VERSION".to_owned())]);
    let outcome = cni::main(&env, br#"{"cniVersion":"1.0.0"}"#);
    assert_eq!(outcome.code, 0);
    assert!(outcome.output.contains(r#""supportedVersions":["0.3.0""#), "{}", outcome.output);
}
