//! The firewall by the real program and kernel, asked from the other end of the wire. Needs root.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use netlink::{Netlink, Veth, netns};

use super::{during, in_a_namespace, manifest, ready};
use crate::network::plan_firewall;

/// Both ends are in one kernel: whoever is not blocked answers within a fraction of this.
const PATIENCE: Duration = Duration::from_millis(1500);
const FAR: &str = "10.83.0.1/24";
const HOST: &str = "[[network.interfaces]]\nname = \"eth0\"\naddresses = [\"10.83.0.2/24\"]\n";
const PORTS: [u16; 4] = [50_000, 10_250, 9100, 9101];

/// Which of the ports answer to a caller at the far end, and whether the others say nothing at all.
fn answering(far: &OwnedFd) -> Vec<u16> {
    let reach = |port: u16| match TcpStream::connect_timeout(&SocketAddr::from(([10, 83, 0, 2], port)), PATIENCE) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "port {port}: {error}");
            false
        }
    };
    netns::within(far.as_fd(), || PORTS.into_iter().filter(|port| reach(*port)).collect()).unwrap()
}

async fn scenario(run: &Path) {
    let kernel = Netlink::connect().unwrap();
    let far = netns::create().unwrap();
    let veth = Veth { name: "eth0", peer: "far0", peer_namespace: Some(far.as_fd()), mtu: None, peer_mac: None };
    kernel.create_veth(&veth).await.unwrap();
    let other = Netlink::connect_in(far.as_fd()).unwrap();
    let link = other.require_link("far0").await.unwrap().index;
    other.add_address(link, FAR.parse().unwrap()).await.unwrap();
    other.set_up(link).await.unwrap();
    let _listeners = PORTS.map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap());

    during(run, manifest(HOST), async |status| ready(status).await).await;
    assert_eq!(answering(&far), PORTS);

    let firewall = "[network.firewall]\ningress = \"block\"\nrules = [\n\
        { action = \"block\", ports = [\"9101\"], from = [\"10.83.0.0/24\"] },\n\
        { action = \"accept\", protocol = \"tcp\", ports = [\"9000-9200\"], interface = \"eth0\" },\n]\n";
    let guarded = manifest(&format!("{firewall}{HOST}"));
    during(run, guarded.clone(), async |status| ready(status).await).await;
    // It stays when the process that made it is gone.
    assert_eq!(answering(&far), [50_000, 10_250, 9100]);
    let plan = plan_firewall(&guarded.unwrap(), "kl").unwrap();
    let counted = nft::Nft::default().counters(&plan.table).await.unwrap();
    let rows = plan.rows(|name| counted.get(name).copied());
    let packets = |rule: &str| rows.iter().find(|row| row.rule == rule).unwrap().packets;
    assert!(packets("rules[0]") >= 1 && packets("rules[1]") == 1 && packets("machine API") == 1, "{rows:?}");

    // The host's own callers, and calls to others, are never cut.
    assert!(TcpStream::connect_timeout(&SocketAddr::from(([10, 83, 0, 2], 9101)), PATIENCE).is_ok());
    let away = netns::within(far.as_fd(), || TcpListener::bind("10.83.0.1:9101").unwrap()).unwrap();
    let called = std::thread::spawn(move || drop(std::io::Write::write_all(&mut away.accept().unwrap().0, b"x")));
    let mut caller = TcpStream::connect_timeout(&SocketAddr::from(([10, 83, 0, 1], 9101)), PATIENCE).unwrap();
    assert_eq!(std::io::Read::read(&mut caller, &mut [0; 1]).unwrap(), 1);
    called.join().unwrap();

    // As after a trial that nobody kept.
    during(run, manifest(HOST), async |status| ready(status).await).await;
    assert_eq!(answering(&far), PORTS);
    assert!(nft::Nft::default().counters(&plan.table).await.is_err());
}

#[test]
fn what_is_blocked_gets_no_answer_and_what_is_not_gets_one() {
    in_a_namespace(scenario);
}
