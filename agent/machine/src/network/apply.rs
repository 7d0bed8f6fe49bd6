//! Gives links what was decided. Everything here can be repeated.

use std::path::PathBuf;

use netlink::{Error, Netlink, Protocol, Route};
use sys::{Linux, System};

use crate::dhcp::{Lent, LentRoute};
use crate::network::leftovers::Leftover;
use crate::network::links::LinkStep;
use crate::network::plan::LinkPlan;

/// Routes of leases come after those of the manifest, and among each other in the order of the links.
const LEASE_METRIC: u32 = 1024;

/// Gives a link its fixed part. Answers what failed; the rest was done.
pub(crate) async fn apply_link(netlink: &Netlink, plan: &LinkPlan) -> Vec<Error> {
    listen_to_routers(&plan.name, plan.router_advertisements);
    let mut failures = Vec::new();
    if let Some(mtu) = plan.mtu {
        failures.extend(netlink.set_mtu(plan.link, mtu).await.err());
    }
    if let Some(wireguard) = &plan.wireguard {
        failures.extend(Netlink::set_wireguard(&plan.name, wireguard).err());
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

/// Does one thing to links.
pub(crate) async fn apply_step(netlink: &Netlink, step: &LinkStep) -> Result<(), Error> {
    match step {
        LinkStep::Create { name, made } => netlink.create_made(name, made).await,
        LinkStep::Change { link, made, .. } => netlink.change_made(*link, made).await,
        LinkStep::Remove { link, .. } => netlink.delete_link(*link).await,
        LinkStep::Attach { link, controller, must_be_off, .. } => {
            if *must_be_off {
                netlink.set_down(*link).await?;
            }
            netlink.set_controller(*link, Some(*controller)).await?;
            netlink.set_up(*link).await
        }
        LinkStep::Detach { link, .. } => netlink.set_controller(*link, None).await,
        LinkStep::Adopt { .. } | LinkStep::Blocked { .. } => Ok(()),
    }
}

/// Takes one thing back.
pub(crate) async fn apply_leftover(netlink: &Netlink, leftover: &Leftover) -> Result<(), Error> {
    match leftover {
        Leftover::Address { link, net } => netlink.delete_address(*link, *net).await,
        Leftover::Rule(rule) => netlink.delete_rule(rule).await,
        Leftover::Route(route) => netlink.delete_route(route).await,
        Leftover::Mtu { link, before } => netlink.set_mtu(*link, *before).await,
        Leftover::Lent { link, lent } => match apply_lent_end(netlink, *link, lent).await.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        },
        Leftover::Routers { link, name } => {
            listen_to_routers(name, false);
            for route in netlink.routes().await?.iter().filter(|route| route.link == Some(*link)) {
                if route.protocol == Protocol::RouterAdvertisement {
                    netlink.delete_route(route).await?;
                }
            }
            for address in netlink.addresses_of(*link).await?.iter().filter(|address| address.from_router) {
                netlink.delete_address(*link, address.net).await?;
            }
            Ok(())
        }
    }
}

/// A machine that forwards packets only listens to routers when told twice.
fn listen_to_routers(link: &str, listens: bool) {
    let value = if listens { "2" } else { "0" };
    let file = PathBuf::from("/proc/sys/net/ipv6/conf").join(link).join("accept_ra");
    if let Err(error) = Linux.write(&file, value.as_bytes()) {
        tracing::debug!(link, error = %stdx::chain(&error), "router advertisements not set");
    }
}

/// Gives a link what a server lent.
pub(crate) async fn apply_lent(netlink: &Netlink, plan: &LinkPlan, lent: &Lent) -> Vec<Error> {
    let mut failures = Vec::new();
    if let Some(mtu) = lent.mtu.filter(|_| plan.mtu.is_none()) {
        failures.extend(netlink.set_mtu(plan.link, mtu).await.err());
    }
    for address in &lent.addresses {
        failures.extend(netlink.add_address(plan.link, *address).await.err());
    }
    for route in lent_routes(plan.link, lent) {
        failures.extend(netlink.replace_route(&route).await.err());
    }
    failures
}

/// Takes back what a server lent; its routes go with the address, except those that name another source.
pub(crate) async fn apply_lent_end(netlink: &Netlink, link: u32, lent: &Lent) -> Vec<Error> {
    let mut failures = Vec::new();
    for route in lent_routes(link, lent) {
        failures.extend(netlink.delete_route(&route).await.err());
    }
    for address in &lent.addresses {
        failures.extend(netlink.delete_address(link, *address).await.err());
    }
    failures
}

fn lent_routes(link: u32, lent: &Lent) -> Vec<Route> {
    let route = |lent: &LentRoute| {
        let mut route = Route::direct(lent.to, link, Protocol::Dhcp);
        route.metric = Some(LEASE_METRIC + link);
        (route.gateway, route.source, route.onlink) = (lent.via, Some(lent.source), lent.onlink);
        route
    };
    let mut routes: Vec<Route> = lent.routes.iter().map(route).collect();
    // A gateway may be reachable only through one of the others.
    routes.sort_by_key(|route| route.gateway.is_some());
    routes
}
