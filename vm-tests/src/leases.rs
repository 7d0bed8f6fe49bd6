//! A DHCP server in the network of virtual machines: that of QEMU's user network, on the switch, without a machine.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use images::tools::command;

use crate::cluster::Cluster;
use crate::plan::gateway;

const NAME: &str = "leases";
/// Where nobody asks, and the server would.
const DNS: u8 = 3;

/// Starts a server that has given no leases yet, the first of which will be this address.
///
/// # Errors
/// It does not start.
pub(crate) fn start(cluster: &mut Cluster, first: Ipv4Addr) -> Result<()> {
    let host = gateway();
    let [a, b, c, _] = host.octets();
    let own = Ipv4Addr::new(a, b, c, DNS);
    let mut qemu = command("qemu-system-x86_64");
    qemu.args(["-machine", "none", "-nodefaults", "-display", "none"]);
    let user = format!("user,id=user,net={host}/24,host={host},dns={own},dhcpstart={first}");
    qemu.args(["-netdev", &user, "-netdev", "hubport,id=one,hubid=0,netdev=user"]);
    let switch = cluster.switch_socket()?;
    let stream = format!("stream,id=switch,addr.type=unix,addr.path={}", switch.display());
    qemu.args(["-netdev", &stream, "-netdev", "hubport,id=other,hubid=0,netdev=switch"]);
    cluster.start_helper(NAME, qemu)
}

/// Ends it, and all leases with it.
///
/// # Errors
/// There is none, or it does not end.
pub(crate) async fn end(cluster: &mut Cluster) -> Result<()> {
    let servers: Vec<_> = cluster.state.helpers.iter().filter(|helper| helper.name == NAME).cloned().collect();
    ensure!(!servers.is_empty(), "nothing gives leases");
    for server in servers {
        server.end().await?;
    }
    Ok(())
}
