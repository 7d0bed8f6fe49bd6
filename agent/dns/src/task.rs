//! The running DNS: watches, addresses and the server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use api::meta::v1::ObjectMeta;
use client::Client;
use ipnet::IpNet;
use lifecycle::{Shutdown, Tasks};
use netlink::Netlink;
use reconcile::{Reflector, ReflectorConfig};
use sys::{Linux, System};

use crate::config::{Config, Upstreams};
use crate::directory::{BY_ADDRESS, BY_SERVICE, Caches, service_addresses, slice_addresses, slice_service};
use crate::server::{Server, ServerError, View};

/// How often what is counted is written down; monitoring asks less often.
const COUNTED: Duration = Duration::from_secs(10);
/// For watches to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the cluster's DNS could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node could not take the DNS address.
    #[error("cannot take address {address} for DNS")]
    Address {
        /// The address.
        address: IpAddr,
        /// Why it failed.
        source: netlink::Error,
    },
    /// The sockets.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// A cache of what other resolvers say, at an address of the loopback link, for a machine's own look-ups.
///
/// # Errors
/// The loopback link cannot be set up, or somebody has the address.
pub async fn cache(address: SocketAddr, upstreams: Upstreams) -> Result<Server, Error> {
    let failed = |source| Error::Address { address: address.ip(), source };
    loopback(&Netlink::connect().map_err(failed)?).await.map_err(failed)?;
    Ok(Server::cache(address, upstreams).await?)
}

/// Answers until `shutdown`; the addresses stay, for whoever is next.
pub async fn run(config: Config, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    hold(&config.hold_addresses).await?;
    let project = |service: &mut Service| service.metadata = slim(&mut service.metadata);
    let services = Reflector::new(client.clone(), ReflectorConfig { project, ..Default::default() })
        .add_index(BY_ADDRESS, service_addresses);
    let project = |slice: &mut EndpointSlice| {
        slice.metadata = slim(&mut slice.metadata);
        for endpoint in &mut slice.endpoints {
            endpoint.target_ref = None;
        }
    };
    let slices = Reflector::new(client, ReflectorConfig { project, ..Default::default() })
        .add_index(BY_SERVICE, slice_service)
        .add_index(BY_ADDRESS, slice_addresses);
    let directory = Caches { services: services.cache(), slices: slices.cache() };
    let server = Server::bind(&config, Box::new(directory)).await?;
    tracing::info!(addresses = ?server.addresses(), domain = config.domain, "answering DNS");
    let tasks = Tasks::new();
    let stop = shutdown.child();
    tasks.spawn("watch services", services.run(stop.clone()));
    tasks.spawn("watch endpoint slices", slices.run(stop.clone()));
    if let Some(path) = config.metrics.clone() {
        tasks.spawn("write down what is counted", write_metrics(path, server.view(), stop.clone()));
    }
    server.serve(shutdown).await;
    stop.trigger();
    tasks.drain(DRAIN).await;
    Ok(())
}

/// Writes down what is counted, again and again.
async fn write_metrics(path: PathBuf, view: View, shutdown: Shutdown) {
    while tokio::time::timeout(COUNTED, shutdown.wait()).await.is_err() {
        if let Err(error) = Linux.replace(&path, view.metrics().as_bytes(), 0o644) {
            tracing::debug!(error = %stdx::chain(&error), "what is counted was not written down");
        }
    }
}

/// The few fields of metadata that names depend on.
fn slim(metadata: &mut ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        namespace: std::mem::take(&mut metadata.namespace),
        name: std::mem::take(&mut metadata.name),
        labels: std::mem::take(&mut metadata.labels),
        uid: std::mem::take(&mut metadata.uid),
        resource_version: std::mem::take(&mut metadata.resource_version),
        ..Default::default()
    }
}

/// Gives the addresses to the loopback link: queries from this machine's pods end here, and no other machine hears.
async fn hold(addresses: &[IpAddr]) -> Result<(), Error> {
    for address in addresses {
        let failed = |source| Error::Address { address: *address, source };
        let kernel = Netlink::connect().map_err(failed)?;
        let loopback = loopback(&kernel).await.map_err(failed)?;
        kernel.add_host_address(loopback, IpNet::from(*address)).await.map_err(failed)?;
    }
    Ok(())
}

/// The loopback link, set up: without that its addresses are nobody's.
async fn loopback(kernel: &Netlink) -> netlink::Result<u32> {
    let loopback = kernel.require_link("lo").await?;
    kernel.set_up(loopback.index).await?;
    Ok(loopback.index)
}
