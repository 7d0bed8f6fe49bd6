//! Gives links what was decided. Everything here can be repeated.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use netlink::{Error, Netlink, Protocol, Route};
use sys::{Linux, System};

use crate::dhcp::Lease;
use crate::network::plan::LinkPlan;

/// Routes of leases come after those of the manifest, and among each other in the order of the links.
const LEASE_METRIC: u32 = 1024;

/// Gives a link its fixed part. Answers what failed; the rest was done.
pub(crate) async fn apply_link(netlink: &Netlink, plan: &LinkPlan) -> Vec<Error> {
    apply_router_advertisements(plan);
    let mut failures = Vec::new();
    if let Some(mtu) = plan.mtu {
        failures.extend(netlink.set_mtu(plan.link, mtu).await.err());
    }
    failures.extend(netlink.set_up(plan.link).await.err());
    for address in &plan.addresses {
        failures.extend(netlink.add_address(plan.link, *address).await.err());
    }
    for route in &plan.routes {
        failures.extend(netlink.replace_route(route).await.err());
    }
    failures
}

/// A machine that forwards packets only listens to routers when told twice.
fn apply_router_advertisements(plan: &LinkPlan) {
    let value = if plan.router_advertisements { "2" } else { "0" };
    let file = PathBuf::from("/proc/sys/net/ipv6/conf").join(&plan.name).join("accept_ra");
    if let Err(error) = Linux.write(&file, value.as_bytes()) {
        tracing::debug!(link = plan.name, error = %stdx::chain(&error), "router advertisements not set");
    }
}

/// Gives a link what a server lent.
pub(crate) async fn apply_lease(netlink: &Netlink, plan: &LinkPlan, lease: &Lease) -> Vec<Error> {
    let mut failures = Vec::new();
    if let Some(mtu) = lease.mtu.filter(|_| plan.mtu.is_none()) {
        failures.extend(netlink.set_mtu(plan.link, u32::from(mtu)).await.err());
    }
    failures.extend(netlink.add_address(plan.link, IpNet::V4(lease.address)).await.err());
    for route in lease_routes(plan.link, lease) {
        failures.extend(netlink.replace_route(&route).await.err());
    }
    failures
}

/// Takes back what a server lent; its routes go with the address, except those that name another source.
pub(crate) async fn apply_lease_end(netlink: &Netlink, plan: &LinkPlan, lease: &Lease) -> Vec<Error> {
    let mut failures = Vec::new();
    for route in lease_routes(plan.link, lease) {
        failures.extend(netlink.delete_route(&route).await.err());
    }
    failures.extend(netlink.delete_address(plan.link, IpNet::V4(lease.address)).await.err());
    failures
}

fn lease_routes(link: u32, lease: &Lease) -> Vec<Route> {
    let mut routes: Vec<Route> = lease.routes.iter().map(|(to, via)| lease_route(link, lease, *to, *via)).collect();
    // A gateway may be reachable only through one of the others.
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}

fn lease_route(link: u32, lease: &Lease, to: ipnet::Ipv4Net, via: Ipv4Addr) -> Route {
    let mut route = Route::direct(IpNet::V4(to), link, Protocol::Dhcp);
    route.metric = Some(LEASE_METRIC + link);
    route.source = Some(IpAddr::V4(lease.address.addr()));
    if !via.is_unspecified() {
        route.gateway = Some(IpAddr::V4(via));
        route.onlink = !lease.address.contains(&via);
    }
    route
}
