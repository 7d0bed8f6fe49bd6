//! Keeps the network as planned while links come and go and leases change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use lifecycle::Shutdown;
use machine_api::{InterfaceStatus, NetworkStatus};
use manifest::Manifest;
use netlink::{Address, Change, Changes, Link, LinkKind, Netlink, Route};
use sys::{Linux, System};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::dhcp::{self, DhcpConfig, DhcpStates, Lease};
use crate::network::apply::{apply_lease, apply_lease_end, apply_link};
use crate::network::plan::{LinkPlan, plan};
use crate::network::resolv::{hosts, resolv_conf};

/// What the network needs to know.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) run: PathBuf,
}

impl NetworkConfig {
    fn hostname(&self) -> String {
        self.manifest.as_ref().map_or_else(|| "keelson".to_owned(), |manifest| manifest.machine.hostname.to_string())
    }
}

/// A link that is ours.
struct Managed {
    plan: LinkPlan,
    dhcp: Option<JoinHandle<()>>,
    lease: Option<Lease>,
    /// What failed last, for people.
    failure: String,
}

impl Drop for Managed {
    fn drop(&mut self) {
        if let Some(dhcp) = &self.dhcp {
            dhcp.abort();
        }
    }
}

/// The network of the machine itself.
pub(crate) struct Network {
    config: NetworkConfig,
    netlink: Netlink,
    managed: BTreeMap<u32, Managed>,
    missing: Vec<String>,
    leases: Arc<watch::Sender<DhcpStates>>,
    status: watch::Sender<NetworkStatus>,
}

impl Network {
    /// Connects to the kernel. The status goes out through the receiver.
    pub(crate) fn connect(config: NetworkConfig) -> netlink::Result<(Self, watch::Receiver<NetworkStatus>)> {
        let (status, receiver) = watch::channel(NetworkStatus::default());
        let (leases, _) = watch::channel(DhcpStates::new());
        let (managed, missing) = (BTreeMap::new(), Vec::new());
        let leases = Arc::new(leases);
        Ok((Self { config, netlink: Netlink::connect()?, managed, missing, leases, status }, receiver))
    }

    /// Runs until shutdown. What was configured stays: a restart of this process must not cut the network.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut changes = match Netlink::changes() {
            Ok(changes) => Some(changes),
            Err(error) => {
                tracing::warn!(error = %stdx::chain(&error), "links that come later will not be noticed");
                None
            }
        };
        let mut leases = self.leases.subscribe();
        loop {
            self.settle().await;
            tokio::select! {
                () = shutdown.wait() => return,
                () = relevant_change(&mut changes) => {}
                changed = leases.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Brings everything to where it should be, and says how it is.
    async fn settle(&mut self) {
        match self.observe_links().await {
            Ok(links) => self.manage(&links).await,
            Err(error) => tracing::warn!(error = %stdx::chain(&error), "the network cannot be looked at"),
        }
        self.follow_leases().await;
        match self.observe_status().await {
            Ok(status) => self.publish(status),
            Err(error) => tracing::warn!(error = %stdx::chain(&error), "the network cannot be looked at"),
        }
    }

    async fn observe_links(&self) -> netlink::Result<Vec<Link>> {
        let links = self.netlink.links().await?;
        for link in links.iter().filter(|link| link.kind == LinkKind::Loopback && !link.up) {
            self.netlink.set_up(link.index).await?;
        }
        Ok(links)
    }

    async fn manage(&mut self, links: &[Link]) {
        let none = Vec::new();
        let interfaces = self.config.manifest.as_ref().map_or(&none, |manifest| &manifest.network.interfaces);
        let wanted = plan(interfaces, links);
        self.missing = wanted.missing;
        self.managed.retain(|link, _| links.iter().any(|present| present.index == *link));
        for plan in wanted.links {
            if self.managed.get(&plan.link).is_some_and(|managed| managed.plan == plan) {
                continue;
            }
            let failures = apply_link(&self.netlink, &plan).await;
            tracing::info!(link = plan.name, addresses = ?plan.addresses, dhcp = plan.dhcp4, "link configured");
            let mut managed = Managed { dhcp: None, lease: None, failure: words(&plan.name, &failures), plan };
            if managed.plan.dhcp6 {
                managed.failure += "DHCPv6 is not supported yet; router advertisements are. ";
                tracing::warn!(link = managed.plan.name, "DHCPv6 is not supported yet; router advertisements are");
            }
            if managed.plan.dhcp4 {
                managed.dhcp = Some(self.spawn_dhcp(&managed.plan));
            }
            self.managed.insert(managed.plan.link, managed);
        }
    }

    fn spawn_dhcp(&self, plan: &LinkPlan) -> JoinHandle<()> {
        let config = DhcpConfig {
            link: plan.link,
            mac: plan.mac,
            hostname: self.config.hostname(),
            memory: self.config.run.join(format!("lease-{}.json", plan.name)),
        };
        let (name, report) = (plan.name.clone(), self.leases.clone());
        tokio::spawn(async move {
            let link = config.link;
            if let Err(error) = dhcp::run(config, report.clone()).await {
                let reason = stdx::chain(&error).to_string();
                tracing::warn!(link = name, error = reason, "DHCP ended");
                report.send_modify(|states| states.entry(link).or_default().waits_for = reason);
            }
        })
    }

    async fn follow_leases(&mut self) {
        let states = self.leases.borrow().clone();
        for (link, managed) in &mut self.managed {
            let lease = states.get(link).and_then(|state| state.lease.clone());
            if lease == managed.lease {
                continue;
            }
            let mut failures = Vec::new();
            if let Some(old) = &managed.lease
                && lease.as_ref().is_none_or(|lease| lease.address != old.address)
            {
                tracing::info!(link = managed.plan.name, address = %old.address, "lease ended");
                failures.extend(apply_lease_end(&self.netlink, &managed.plan, old).await);
            }
            if let Some(lease) = &lease {
                let (address, server) = (lease.address, lease.server);
                tracing::info!(link = managed.plan.name, %address, %server, seconds = lease.seconds, "lease");
                failures.extend(apply_lease(&self.netlink, &managed.plan, lease).await);
            }
            managed.lease = lease;
            managed.failure = words(&managed.plan.name, &failures);
        }
    }

    async fn observe_status(&self) -> netlink::Result<NetworkStatus> {
        let addresses = self.netlink.addresses().await?;
        let routes = self.netlink.routes().await?;
        let states = self.leases.borrow().clone();
        let mut status = NetworkStatus::default();
        for (link, managed) in &self.managed {
            let own = addresses.iter().filter(|address| address.link == *link);
            let own: Vec<String> = own.map(|address| address.net.to_string()).collect();
            let is_configured = addresses.iter().any(|address| address.link == *link && address.global);
            let waiting = states.get(link).map(|state| state.waits_for.clone()).filter(|text| !text.is_empty());
            let waits_for = match (is_configured, managed.failure.as_str()) {
                (true, _) => String::new(),
                (false, "") => waiting.unwrap_or_else(|| "an address".to_owned()),
                (false, failure) => failure.to_owned(),
            };
            let (name, mac) = (managed.plan.name.clone(), mac_text(managed.plan.mac));
            status.interfaces.push(InterfaceStatus { name, mac, addresses: own, waits_for });
        }
        let configured = status.interfaces.iter().filter(|interface| interface.waits_for.is_empty()).count();
        let mut required = self.managed.values().filter(|managed| managed.plan.required);
        let are_required_there = required
            .all(|managed| status.interfaces.iter().any(|up| up.name == managed.plan.name && up.waits_for.is_empty()));
        status.ready = configured > 0 && self.missing.is_empty() && are_required_there;
        status.primary = primary(&addresses, &routes, self.managed.keys(), true);
        status.secondary = primary(&addresses, &routes, self.managed.keys(), false);
        if status.primary.is_none() {
            status.primary = status.secondary.take();
        }
        (status.dns_servers, status.ntp_servers) = self.servers();
        Ok(status)
    }

    /// Name and time servers: the manifest's, then those of leases.
    fn servers(&self) -> (Vec<IpAddr>, Vec<String>) {
        let network = self.config.manifest.as_ref().map(|manifest| &manifest.network);
        let mut dns = network.map(|network| network.dns_servers.clone()).unwrap_or_default();
        let mut ntp: Vec<String> =
            network.map(|network| network.ntp_servers.iter().map(ToString::to_string).collect()).unwrap_or_default();
        for lease in self.managed.values().filter_map(|managed| managed.lease.as_ref()) {
            dns.extend(lease.dns_servers.iter().map(|server| IpAddr::V4(*server)));
            ntp.extend(lease.ntp_servers.iter().map(ToString::to_string));
        }
        (without_repeats(dns), without_repeats(ntp))
    }

    fn publish(&self, status: NetworkStatus) {
        let mut domains: Vec<String> = Vec::new();
        if let Some(manifest) = &self.config.manifest {
            domains.extend(manifest.network.search_domains.iter().map(ToString::to_string));
        }
        let leases = self.managed.values().filter_map(|managed| managed.lease.as_ref());
        domains.extend(leases.filter_map(|lease| lease.domain.clone()));
        let own: Vec<IpAddr> = status.primary.into_iter().chain(status.secondary).collect();
        let is_changed = self.status.send_if_modified(|present| {
            let is_changed = *present != status;
            present.clone_from(&status);
            is_changed
        });
        if !is_changed {
            return;
        }
        let files = [
            ("resolv.conf", resolv_conf(&status.dns_servers, &without_repeats(domains)).into_bytes()),
            ("hosts", hosts(&self.config.hostname(), &own).into_bytes()),
            ("network.json", serde_json::to_vec_pretty(&status).unwrap_or_default()),
        ];
        for (name, content) in files {
            if let Err(error) = Linux.replace(&self.config.run.join(name), &content, 0o644) {
                tracing::warn!(error = %stdx::chain(&error), "not published");
            }
        }
    }

    /// What a required interface waits for, for people.
    pub(crate) fn describe(status: &NetworkStatus) -> String {
        let waiting = status.interfaces.iter().filter(|interface| !interface.waits_for.is_empty());
        let words: Vec<String> =
            waiting.map(|interface| format!("{}: {}", interface.name, interface.waits_for)).collect();
        match (words.is_empty(), status.interfaces.is_empty()) {
            (false, _) => format!("waiting for the network ({})", words.join("; ")),
            (true, true) => "waiting for a network card".to_owned(),
            (true, false) => "waiting for the network".to_owned(),
        }
    }
}

/// Returns when links or addresses change; pods' links and routes, which change all the time, do not count.
async fn relevant_change(changes: &mut Option<Changes>) {
    let Some(listening) = changes else { return std::future::pending().await };
    loop {
        match listening.next().await {
            Some(Change::Route) => {}
            Some(Change::Link(link) | Change::LinkGone(link))
                if !matches!(link.kind, LinkKind::Physical | LinkKind::Veth) => {}
            Some(Change::Link(_) | Change::LinkGone(_) | Change::Address(_)) => return,
            None => {
                *changes = None;
                return;
            }
        }
    }
}

/// The address others reach us at: of the link with the best default route, else of any link that is ours.
fn primary<'a>(
    addresses: &[Address],
    routes: &[Route],
    ours: impl Iterator<Item = &'a u32> + Clone,
    is_ipv4: bool,
) -> Option<IpAddr> {
    let defaults = routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0 && route.destination.addr().is_ipv4() == is_ipv4);
    let best = defaults.min_by_key(|route| route.metric.unwrap_or(0));
    let candidates = |link: u32| {
        let own = addresses.iter().filter(move |address| address.link == link && address.global);
        own.map(|address| address.net.addr()).find(|address| address.is_ipv4() == is_ipv4)
    };
    let by_route = best.and_then(|route| route.source.or_else(|| route.link.and_then(candidates)));
    by_route.or_else(|| ours.into_iter().find_map(|link| candidates(*link)))
}

fn without_repeats<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn words(link: &str, failures: &[netlink::Error]) -> String {
    let words: Vec<String> = failures.iter().map(|failure| stdx::chain(failure).to_string()).collect();
    for word in &words {
        tracing::warn!(link, error = word, "link not fully configured");
    }
    words.join("; ")
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink::Protocol;

    #[test]
    fn the_primary_address_is_that_of_the_default_route() {
        let address = |link, net: &str| Address { link, net: net.parse().unwrap(), global: true, tentative: false };
        let all = [address(2, "10.0.0.2/24"), address(3, "192.168.1.2/24"), address(3, "fd00::2/64")];
        let mut route = Route::via("0.0.0.0/0".parse().unwrap(), "192.168.1.1".parse().unwrap(), Protocol::Static);
        route.link = Some(3);
        let ours = [2, 3];
        assert_eq!(primary(&all, &[route], ours.iter(), true), Some("192.168.1.2".parse().unwrap()));
        assert_eq!(primary(&all, &[], ours.iter(), true), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(primary(&all, &[], ours.iter(), false), Some("fd00::2".parse().unwrap()));
    }
}
