//! A tunnel on a VLAN on a bond, between two namespaces. Needs root, and a kernel that has them all.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use netlink::{Bond, BondMode, Made, Netlink, Veth, netns};
use tokio::net::{TcpListener, TcpStream};

use super::{during, in_a_namespace, manifest, ready};

/// Pairs of keys, for nothing else.
const KEYS: [(&str, &str); 2] = [
    ("WGntFMYraGrVs0Y/ouTUsPzx3zn8ODToeDgRvHhoOFw=", "QEQiOEWS4t9hXniYooZqGMe58EuGcJ7Qmanyg/u1SU4="),
    ("SN2P1ADTXpTOsY1wAej+hCjFw2mwgCfjw2lCixPW0UM=", "uPEnqPTUC6c3l0QGmkmvsbwSGTxwUxnOaqemCDtP8E0="),
];
/// The key of somebody who is not there.
const THIRD: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PORT: u16 = 9000;
const PATIENCE: Duration = Duration::from_secs(30);

/// The interfaces of the first or the second end.
fn stack(end: usize) -> String {
    let (own, other) = (end + 1, 2 - end);
    format!(
        "[[network.interfaces]]\nname = \"eth0\"\n\
         [[network.interfaces]]\nname = \"bond0\"\naddresses = [\"10.85.0.{own}/24\"]\nbond.members = [\"eth0\"]\n\
         [[network.interfaces]]\nname = \"storage\"\naddresses = [\"10.86.0.{own}/24\"]\n\
         vlan = {{ link = \"bond0\", id = 100 }}\n\
         [[network.interfaces]]\nname = \"wg0\"\naddresses = [\"10.87.0.{own}/24\"]\n\
         wireguard = {{ private-key = \"{}\", listen-port = 51820, peers = [{{ public-key = \"{}\", \
         endpoint = \"10.86.0.{other}:51820\", allowed = [\"10.87.0.{other}/32\"] }}] }}\n",
        KEYS[end].0,
        KEYS[1 - end].1,
    )
}

/// Whether this kernel makes such links.
async fn can_make(kernel: &Netlink) -> bool {
    let bond = Bond { mode: BondMode::ActiveBackup, miimon: 100, lacp_rate: None, hash_policy: None };
    let mut can = true;
    for made in [Made::Wireguard, Made::Bond(bond)] {
        can &= kernel.create_made("probe0", &made).await.is_ok();
        kernel.delete_link_named("probe0").await.unwrap();
    }
    can
}

/// Whether the other end takes a connection by this network, sooner or later.
async fn reach(address: Ipv4Addr) {
    let attempts = async {
        while !matches!(
            tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(SocketAddr::from((address, PORT)))).await,
            Ok(Ok(_))
        ) {}
    };
    tokio::time::timeout(PATIENCE, attempts).await.unwrap_or_else(|_| panic!("{address} does not answer"));
}

async fn scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    if !can_make(&kernel).await {
        return eprintln!("SKIPPED: this kernel makes no tunnels or no bonds");
    }
    let far = netns::create().unwrap();
    let veth = Veth { name: "eth0", peer: "eth0", peer_namespace: Some(far.as_fd()), mtu: None, peer_mac: None };
    kernel.create_veth(&veth).await.unwrap();
    let far_run = run.join("far");
    std::fs::create_dir(&far_run).unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let other = std::thread::spawn(move || {
        netns::within(far.as_fd(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(during(&far_run, manifest(&stack(1)), async |_status| {
                let _listener = TcpListener::bind(("0.0.0.0", PORT)).await.unwrap();
                drop(ended.await);
            }));
        })
        .unwrap();
    });
    during(run, manifest(&stack(0)), async |status| {
        ready(status).await;
        for network in [85, 86, 87] {
            reach(Ipv4Addr::new(10, network, 0, 2)).await;
        }
    })
    .await;
    let tunnel = Netlink::wireguard("wg0").unwrap();
    let peer = &tunnel.peers[0];
    assert!(peer.last_handshake > 0 && peer.received > 0 && peer.sent > 0, "{tunnel:?}");
    assert_eq!((tunnel.listen_port, peer.endpoint.unwrap().to_string().as_str()), (51820, "10.86.0.2:51820"));

    // A peer that stays keeps its session when another one comes; one that is not wanted any more goes.
    let third = format!("peers = [{{ public-key = \"{THIRD}\", allowed = [\"10.87.0.3/32\"] }}, ");
    let more = stack(0).replace("peers = [", &third);
    during(run, manifest(&more), async |status| ready(status).await).await;
    let with_more = Netlink::wireguard("wg0").unwrap();
    let stayed = with_more.peers.iter().find(|it| it.public_key == peer.public_key).unwrap();
    assert_eq!((with_more.peers.len(), stayed.last_handshake), (2, peer.last_handshake));
    during(run, manifest(&stack(0)), async |status| ready(status).await).await;
    assert_eq!(Netlink::wireguard("wg0").unwrap().peers.len(), 1);

    // Nothing of it is left under a manifest without it.
    let plain = "[[network.interfaces]]\nname = \"eth0\"\naddresses = [\"10.85.0.1/24\"]\n";
    during(run, manifest(plain), async |status| ready(status).await).await;
    for name in ["bond0", "storage", "wg0"] {
        assert!(kernel.link(name).await.unwrap().is_none(), "{name}");
    }
    end.send(()).unwrap();
    other.join().unwrap();
}

#[test]
fn a_tunnel_on_a_vlan_on_a_bond_carries_connections() {
    in_a_namespace(scenario);
}
