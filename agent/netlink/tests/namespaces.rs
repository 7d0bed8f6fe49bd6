//! Against the real kernel, in network namespaces of the test's own. Needs root; says so and passes without.
#![allow(clippy::unwrap_used)]

use std::os::fd::AsFd;

use ipnet::IpNet;
use netlink::{Error, LinkKind, Netlink, Protocol, Route, Rule, Veth, Vxlan, netns};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn namespace() -> Option<std::os::fd::OwnedFd> {
    match netns::create() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            eprintln!("SKIPPED: needs root to make network namespaces: {error}");
            None
        }
    }
}

#[tokio::test]
async fn a_pair_across_two_namespaces_carries_packets() {
    let (Some(left), Some(right)) = (namespace(), namespace()) else { return };
    let near = Netlink::connect_in(left.as_fd()).unwrap();
    let far = Netlink::connect_in(right.as_fd()).unwrap();
    let veth = Veth {
        name: "left0",
        peer: "right0",
        peer_namespace: Some(right.as_fd()),
        mtu: Some(1400),
        peer_mac: Some([2, 0, 0, 0, 0, 9]),
    };
    let link = near.create_veth(&veth).await.unwrap();
    assert_eq!((link.kind, link.mtu, link.up), (LinkKind::Veth, 1400, false));
    assert!(near.create_veth(&veth).await.unwrap_err().is_exists());
    let peer = far.require_link("right0").await.unwrap();
    assert_eq!((peer.mac, peer.mtu), (Some([2, 0, 0, 0, 0, 9]), 1400));

    for (kernel, link, address) in [(&near, &link, "10.9.0.1/24"), (&far, &peer, "10.9.0.2/24")] {
        kernel.add_address(link.index, net(address)).await.unwrap();
        kernel.add_address(link.index, net(address)).await.unwrap();
        kernel.set_up(link.index).await.unwrap();
    }
    let found = near.addresses_of(link.index).await.unwrap();
    assert!(found.iter().any(|address| address.net == net("10.9.0.1/24") && address.global));

    let listener = netns::within(right.as_fd(), || std::net::TcpListener::bind("10.9.0.2:7000").unwrap()).unwrap();
    let client = netns::within(left.as_fd(), || std::net::TcpStream::connect("10.9.0.2:7000")).unwrap().unwrap();
    let (_stream, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());

    near.delete_address(link.index, net("10.9.0.1/24")).await.unwrap();
    near.delete_address(link.index, net("10.9.0.1/24")).await.unwrap();
    near.delete_link(link.index).await.unwrap();
    near.delete_link(link.index).await.unwrap();
    assert!(far.link("right0").await.unwrap().is_none());
}

#[tokio::test]
async fn routes_are_replaced_found_by_their_protocol_and_deleted() {
    let Some(namespace) = namespace() else { return };
    let kernel = Netlink::connect_in(namespace.as_fd()).unwrap();
    let link = kernel.create_bridge("dummy0").await.unwrap();
    kernel.add_address(link.index, net("10.9.1.1/24")).await.unwrap();
    kernel.add_address(link.index, net("fd00:9::1/64")).await.unwrap();
    kernel.set_up(link.index).await.unwrap();

    let ours = Protocol::Number(77);
    let mut route = Route::via(net("10.244.3.0/24"), "10.9.1.7".parse().unwrap(), ours);
    kernel.replace_route(&route).await.unwrap();
    route.gateway = Some("10.9.1.8".parse().unwrap());
    kernel.replace_route(&route).await.unwrap();
    let six = Route::direct(net("fd00:244::/64"), link.index, ours);
    kernel.replace_route(&six).await.unwrap();
    let mut default =
        Route::via(Route::everywhere("10.9.1.9".parse().unwrap()), "10.9.1.9".parse().unwrap(), Protocol::Dhcp);
    default.metric = Some(100);
    kernel.replace_route(&default).await.unwrap();

    let all = kernel.routes().await.unwrap();
    let mine: Vec<_> = all.iter().filter(|route| route.protocol == ours).collect();
    assert_eq!(mine.len(), 2);
    assert_eq!((mine[0].destination, mine[0].gateway), (route.destination, route.gateway));
    assert_eq!((mine[1].destination, mine[1].link), (six.destination, six.link));
    assert!(all.iter().any(|route| route.protocol == Protocol::Dhcp && route.destination.prefix_len() == 0));

    for route in [&route, &six, &default] {
        kernel.delete_route(route).await.unwrap();
        kernel.delete_route(route).await.unwrap();
    }
    assert!(kernel.routes().await.unwrap().iter().all(|route| route.protocol == Protocol::Kernel));
    let bad = Route::via(net("10.244.4.0/24"), "192.0.2.1".parse().unwrap(), ours);
    let error = kernel.replace_route(&bad).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn rules_choose_tables_and_are_added_and_deleted_once() {
    let Some(namespace) = namespace() else { return };
    let kernel = Netlink::connect_in(namespace.as_fd()).unwrap();
    let link = kernel.create_bridge("br0").await.unwrap();
    kernel.add_address(link.index, net("10.9.4.1/24")).await.unwrap();
    kernel.set_up(link.index).await.unwrap();
    let before = kernel.rules().await.unwrap();
    let main = kernel.routes().await.unwrap();
    for (table, priority) in [(100, 50), (70_000, 51)] {
        let mut route = Route::via(net("10.60.0.0/16"), "10.9.4.7".parse().unwrap(), Protocol::Static);
        route.table = Some(table);
        kernel.replace_route(&route).await.unwrap();
        let found = kernel.routes_of(Some(table)).await.unwrap();
        assert_eq!(
            found.iter().map(|it| (it.destination, it.gateway)).collect::<Vec<_>>(),
            [(route.destination, route.gateway)]
        );
        let from = Some(net("10.9.4.0/24"));
        let rule = Rule { is_ipv4: true, priority, from, to: None, mark: None, incoming: None, table };
        kernel.add_rule(&rule).await.unwrap();
        kernel.add_rule(&rule).await.unwrap();
        assert_eq!(kernel.rules().await.unwrap().iter().filter(|it| **it == rule).count(), 1);
        kernel.delete_rule(&rule).await.unwrap();
        kernel.delete_rule(&rule).await.unwrap();
        kernel.delete_route(&route).await.unwrap();
    }
    let incoming = Some("br0".to_owned());
    let six = Rule {
        is_ipv4: false,
        priority: 52,
        from: None,
        to: Some(net("fd00::/8")),
        mark: Some(7),
        incoming,
        table: 254,
    };
    kernel.add_rule(&six).await.unwrap();
    assert!(kernel.rules().await.unwrap().contains(&six));
    kernel.delete_rule(&six).await.unwrap();
    assert_eq!(kernel.rules().await.unwrap(), before);
    assert_eq!(kernel.routes().await.unwrap(), main);
}

#[tokio::test]
async fn bridges_tunnels_and_neighbours() {
    let (Some(home), Some(pod)) = (namespace(), namespace()) else { return };
    let kernel = Netlink::connect_in(home.as_fd()).unwrap();
    let bridge = kernel.create_bridge("br0").await.unwrap();
    assert_eq!(kernel.create_bridge("br0").await.unwrap().index, bridge.index);
    let veth = Veth { name: "port0", peer: "eth0", peer_namespace: Some(pod.as_fd()), mtu: None, peer_mac: None };
    let port = kernel.create_veth(&veth).await.unwrap();
    kernel.set_controller(port.index, Some(bridge.index)).await.unwrap();
    kernel.set_hairpin(port.index, true).await.unwrap();
    assert_eq!(kernel.require_link("port0").await.unwrap().controller, Some(bridge.index));
    kernel.replace_neighbour(bridge.index, "10.9.2.2".parse().unwrap(), [2, 0, 0, 0, 0, 1]).await.unwrap();
    kernel.delete_neighbour(bridge.index, "10.9.2.2".parse().unwrap()).await.unwrap();
    let dummy = kernel.create_bridge("dummy0").await.unwrap();
    let local = "10.9.3.1".parse().unwrap();
    match kernel
        .create_vxlan(&Vxlan { name: "vx0", id: 1, port: 4789, local, below: dummy.index, mtu: Some(1450) })
        .await
    {
        Ok(link) => {
            assert_eq!((link.kind, link.mtu), (LinkKind::Vxlan, 1450));
            kernel.replace_forwarding(link.index, [2, 0, 0, 0, 0, 7], "10.9.3.2".parse().unwrap()).await.unwrap();
        }
        Err(error) => eprintln!("SKIPPED tunnel: this kernel has none: {error}"),
    }
    let peer = Netlink::connect_in(pod.as_fd()).unwrap();
    let eth0 = peer.require_link("eth0").await.unwrap();
    peer.set_name(eth0.index, "eth9").await.unwrap();
    peer.move_to(eth0.index, home.as_fd()).await.unwrap();
    assert!(peer.link("eth9").await.unwrap().is_none());
    assert!(kernel.link("eth9").await.unwrap().is_some());
    let lo = kernel.require_link("lo").await.unwrap();
    kernel.add_host_address(lo.index, net("10.96.0.10/32")).await.unwrap();
    assert!(kernel.addresses_of(lo.index).await.unwrap().iter().any(|a| !a.global && a.net == net("10.96.0.10/32")));
}
