//! What roles that run alone ask of the machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Addresses that nobody has: asked for the way there, the kernel tells its own address.
const ELSEWHERE: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const DISCARD: u16 = 9;

/// The host name.
pub(crate) fn name() -> Result<String> {
    let name = nix::unistd::gethostname().context("reading the host name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// The address of the default route, IPv4 before IPv6.
pub(crate) fn address() -> Result<IpAddr> {
    address_of(true).or_else(|_| address_of(false))
}

/// The address of the default route of one family.
pub(crate) fn address_of(is_ipv4: bool) -> Result<IpAddr> {
    let (from, to): (IpAddr, IpAddr) = if is_ipv4 {
        (Ipv4Addr::UNSPECIFIED.into(), ELSEWHERE.0.into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), ELSEWHERE.1.into())
    };
    // Connecting a datagram socket sends nothing.
    let socket = UdpSocket::bind((from, 0)).context("making a socket")?;
    socket.connect((to, DISCARD)).context("there is no default route")?;
    let found = socket.local_addr().context("asking for the socket's address")?.ip();
    ensure!(!found.is_loopback() && !found.is_unspecified(), "the default route has no address of its own");
    Ok(found)
}

/// Whether swap is in use.
pub(crate) fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// Whether control groups are those of version 1.
pub(crate) fn has_cgroup_v1() -> bool {
    let root = Path::new("/sys/fs/cgroup");
    root.exists() && !root.join("cgroup.controllers").exists()
}

/// Tells the kernel how readily it may end this process when memory runs out. Not every user may.
pub(crate) fn set_oom_score(score: i32) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(%error, score, "oom_score_adj stays as it is");
    }
}
