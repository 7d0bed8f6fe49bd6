//! What the network looks like, for the machine's services and for people.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use machine_api::{InterfaceStatus, NameServer, NameServerTls, NameServers, NetworkStatus};
use manifest::{Host, PemCertificates};
use netlink::{Address, Route};
use sys::{Linux, System};

use super::Network;
use crate::network::resolv::{self, asked, hosts, resolv_conf};

/// Services that the first process starts anew, one a line.
const RESTART: &str = "inbox/restart";
const NODE: &str = "node";
const DNS_PORT: u16 = 53;
const STATUS: &str = "network.json";
const SERVERS: &str = "resolv.servers.conf";

impl Network {
    pub(super) async fn observe_status(&self) -> netlink::Result<NetworkStatus> {
        let mut addresses = self.netlink.addresses().await?;
        // It comes and goes: nothing here waits for it, and no service knows this machine by it.
        addresses.retain(|address| Some(address.net.addr()) != self.config.virtual_address());
        let routes = self.netlink.routes().await?;
        let states = self.leases.borrow().clone();
        let mut status = NetworkStatus::default();
        for (link, managed) in &self.managed {
            let own = addresses.iter().filter(|address| address.link == *link);
            let own: Vec<String> = own.map(|address| address.net.to_string()).collect();
            let is_configured = !managed.plan.needs_address && managed.failure.is_empty()
                || addresses.iter().any(|address| address.link == *link && address.global);
            let waiting = states.iter().filter(|((asking, _), state)| asking == link && !state.waits_for.is_empty());
            let waiting = waiting.map(|(_, state)| state.waits_for.clone()).collect::<Vec<_>>().join(", ");
            let waits_for = match (is_configured, managed.failure.as_str()) {
                (true, _) => String::new(),
                (false, "") if waiting.is_empty() => "an address".to_owned(),
                (false, "") => waiting,
                (false, failure) => failure.to_owned(),
            };
            let (name, mac) = (managed.plan.name.clone(), mac_text(managed.plan.mac));
            status.interfaces.push(InterfaceStatus { name, mac, addresses: own, waits_for });
        }
        let configured = addresses.iter().filter(|it| it.global && self.managed.contains_key(&it.link)).count();
        let mut required = self.managed.values().filter(|managed| managed.plan.required);
        let are_required_there = required
            .all(|managed| status.interfaces.iter().any(|up| up.name == managed.plan.name && up.waits_for.is_empty()));
        status.firewall_failure = self.unguarded();
        let is_guarded = status.firewall_failure.is_empty();
        status.ready = configured > 0 && self.missing.is_empty() && are_required_there && is_guarded;
        for (name, reason) in &self.missing {
            let (name, waits_for) = (name.clone(), reason.clone());
            status.interfaces.push(InterfaceStatus { name, waits_for, ..InterfaceStatus::default() });
        }
        status.primary = primary(&addresses, &routes, self.managed.keys(), true);
        status.secondary = primary(&addresses, &routes, self.managed.keys(), false);
        if status.primary.is_none() {
            status.primary = status.secondary.take();
        }
        let (dns, ntp) = self.servers();
        status.dns_servers = without_repeats(dns.iter().map(|server| server.address.ip()).collect());
        status.name_servers = self.name_servers(dns);
        status.ntp_servers = ntp;
        status.search_domains = self.search_domains();
        Ok(status)
    }

    /// Name and time servers: the manifest's, then those of leases, then those of routers. What is asked by TLS is asked
    /// by nothing else: where the manifest's name servers are, those of others are not asked.
    fn servers(&self) -> (Vec<NameServer>, Vec<String>) {
        let network = self.config.network();
        let mut dns = with_ca(&network.dns_servers, network.dns_ca.as_ref());
        let mut ntp: Vec<String> = network.ntp_servers.iter().map(ToString::to_string).collect();
        let mut named = Vec::new();
        for lent in self.managed.values().flat_map(|managed| managed.lent.values()) {
            named.extend(&lent.dns_servers);
            ntp.extend(lent.ntp_servers.iter().cloned());
        }
        named.extend(self.routers.servers());
        if network.takes_dns_servers() {
            let usual = |address| NameServer { address: SocketAddr::new(address, DNS_PORT), tls: None };
            dns.extend(named.into_iter().map(usual));
        }
        (without_repeats(dns), without_repeats(ntp))
    }

    /// These are asked about all names but those of the manifest's domains.
    fn name_servers(&self, servers: Vec<NameServer>) -> Vec<NameServers> {
        let all = NameServers { domains: Vec::new(), servers };
        let network = self.config.network();
        let of_domains = network.dns_domains.iter().map(|table| NameServers {
            domains: table.domains.iter().map(ToString::to_string).collect(),
            servers: with_ca(&table.servers, table.ca.as_ref()),
        });
        let groups = std::iter::once(all).chain(of_domains).collect();
        asked(groups, self.config.names.as_ref().map(|cache| cache.address))
    }

    /// Search domains, in the same order.
    fn search_domains(&self) -> Vec<String> {
        let network = self.config.manifest.as_ref().map(|manifest| &manifest.network);
        let own = network.into_iter().flat_map(|network| network.search_domains.iter().map(ToString::to_string));
        let lent = self.managed.values().flat_map(|managed| managed.lent.values());
        let lent = lent.flat_map(|lent| lent.domains.iter().cloned());
        without_repeats(own.chain(lent).chain(self.routers.domains()).collect())
    }

    pub(super) fn publish(&mut self, status: NetworkStatus) {
        let own: Vec<IpAddr> = status.primary.into_iter().chain(status.secondary).collect();
        let is_changed = self.status.send_if_modified(|present| {
            let is_changed = *present != status;
            present.clone_from(&status);
            is_changed
        });
        if !is_changed {
            return;
        }
        let cache = self.config.names.as_ref();
        let by_cache = resolv::own(cache.map(|cache| cache.address.ip()), &status);
        let by_pods = resolv::of_others(self.config.manifest.as_ref().map(|it| it.cluster.dns_address), &status);
        let files = [
            ("resolv.conf", resolv_conf(&by_cache, &status).into_bytes()),
            (SERVERS, resolv_conf(&by_pods, &status).into_bytes()),
            ("hosts", hosts(&self.config.hostname(), &own).into_bytes()),
            (STATUS, serde_json::to_vec_pretty(&status).unwrap_or_default()),
        ];
        for (name, content) in files {
            if let Err(error) = Linux.replace(&self.config.run.join(name), &content, 0o644) {
                tracing::warn!(error = %stdx::chain(&error), "not published");
            }
        }
        if let Some(cache) = cache {
            cache.servers.send_replace(status.name_servers.clone());
        }
        self.follow_address(&status);
    }

    /// The node looks for the machine's address when it starts, and no later.
    fn follow_address(&mut self, status: &NetworkStatus) {
        let Some(now) = status.primary.filter(|_| status.ready) else { return };
        let before = self.known.replace(now);
        let is_fixed = self.config.manifest.as_ref().is_some_and(|it| !it.kubelet.node_addresses.is_empty());
        if before.is_none_or(|before| before == now) || is_fixed {
            return;
        }
        tracing::info!(?before, %now, "the machine has another address: the node starts anew");
        if let Err(error) = Linux.replace(&self.config.run.join(RESTART), NODE.as_bytes(), 0o600) {
            tracing::warn!(error = %stdx::chain(&error), "the node does not know of it");
        }
    }
}

/// The manifest's name servers, with the CAs of those that are asked by TLS.
fn with_ca(servers: &[manifest::NameServer], ca: Option<&PemCertificates>) -> Vec<NameServer> {
    let tls = |name: &Host| NameServerTls { name: name.to_string(), ca: ca.map(|ca| ca.as_str().to_owned()) };
    let with = |it: &manifest::NameServer| NameServer { address: it.address, tls: it.tls_name.as_ref().map(tls) };
    servers.iter().map(with).collect()
}

/// What an earlier process published.
pub(super) fn published(run: &Path) -> Option<NetworkStatus> {
    serde_json::from_slice(&Linux.read(&run.join(STATUS)).ok()?).ok()
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

fn mac_text(mac: [u8; 6]) -> String {
    if mac == [0; 6] {
        return String::new();
    }
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink::Protocol;

    #[test]
    fn the_primary_address_is_that_of_the_default_route() {
        let address = |link, net: &str| Address {
            link,
            net: net.parse().unwrap(),
            global: true,
            tentative: false,
            from_router: false,
        };
        let all = [address(2, "10.0.0.2/24"), address(3, "192.168.1.2/24"), address(3, "fd00::2/64")];
        let mut route = Route::via("0.0.0.0/0".parse().unwrap(), "192.168.1.1".parse().unwrap(), Protocol::Static);
        route.link = Some(3);
        let ours = [2, 3];
        assert_eq!(primary(&all, &[route], ours.iter(), true), Some("192.168.1.2".parse().unwrap()));
        assert_eq!(primary(&all, &[], ours.iter(), true), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(primary(&all, &[], ours.iter(), false), Some("fd00::2".parse().unwrap()));
    }
}
