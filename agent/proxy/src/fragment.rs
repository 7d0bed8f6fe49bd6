//! One Service's share of a table: map elements, and chains where maps are not enough.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nft::{Chain, Set};

use crate::service::{Endpoint, Family, PortPlan};
use crate::skeleton::names::*;
use crate::skeleton::{MASQUERADE, POOL_BITS, ip};

/// A map or set and a key in it.
pub(crate) type Place = (&'static str, Box<str>);

/// Endpoints to choose from, each at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Unique in its table; fits [`POOL_BITS`].
    pub(crate) id: u32,
    /// The order is the places'. It changes as little as possible when endpoints come and go.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) affinity_seconds: Option<u32>,
}

/// The pools of one port; a pool that the port does not use is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pools {
    pub(crate) cluster: Option<Pool>,
    pub(crate) local: Option<Pool>,
}

/// What one Service puts into one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) elements: BTreeMap<Place, Box<str>>,
    pub(crate) chains: BTreeMap<Box<str>, Chain>,
    pub(crate) sets: BTreeMap<Box<str>, Set>,
    /// The numbers of endpoints that it needs shared chains for.
    pub(crate) counts: Vec<usize>,
}

/// The shared chain that chooses among `count` endpoints.
pub(crate) fn choice_name(count: usize) -> String {
    format!("choose-{count}")
}

/// The rules of such a chain. The pool's number is in the packet's mark; the place is passed on by the priority, the
/// one other field that a map can be looked up by and that means nothing yet for a packet that is not routed.
pub(crate) fn choice(family: Family, count: usize) -> Chain {
    let ip = ip(family);
    Chain::new([
        format!("meta priority set numgen random mod {count}"),
        format!(
            "meta l4proto {{ tcp, udp, sctp }} dnat {ip} to meta mark and {POOL_BITS:#x} . meta priority map @{ENDPOINTS}"
        ),
    ])
}

impl Pool {
    fn goto(&self) -> String {
        match self.affinity_seconds {
            Some(_) => format!("goto pool-{}", self.id),
            None => format!("goto {}", choice_name(self.endpoints.len())),
        }
    }

    fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

impl Pools {
    pub(crate) fn each(&self) -> impl Iterator<Item = &Pool> {
        self.cluster.iter().chain(&self.local)
    }
}

impl Fragment {
    /// Puts in what one port needs.
    pub(crate) fn add(&mut self, port: &PortPlan, pools: &Pools) {
        for pool in pools.each().filter(|pool| !pool.is_empty()) {
            self.pool(port, pool);
        }
        self.put(CLUSTER_IPS, port.cluster_address.to_string(), "");
        let internal = if port.is_internal_local { &pools.local } else { &pools.cluster };
        let refusal = if port.has_endpoints() { "drop".to_owned() } else { format!("goto {REJECT}") };
        let key = target(port.cluster_address, port);
        match internal.as_ref().filter(|pool| !pool.is_empty()) {
            Some(pool) => {
                self.put(SERVICE_IDS, key.clone(), pool.id.to_string());
                self.put(SERVICE_IPS, key, pool.goto());
            }
            None => self.put(NO_ENDPOINT_IPS, key, refusal.clone()),
        }
        if port.has_external() {
            self.external(port, pools, &refusal);
        }
    }

    fn external(&mut self, port: &PortPlan, pools: &Pools, refusal: &str) {
        let cluster = pools.cluster.as_ref().filter(|pool| !pool.is_empty());
        let local = pools.local.as_ref().filter(|pool| !pool.is_empty());
        let way = match (port.is_external_local, cluster, local) {
            (false, Some(pool), _) => Some((pool.goto(), Some(pool.id | MASQUERADE))),
            (false, None, _) | (true, None, None) => None,
            (true, _, _) => {
                let name = format!("external-{}", pools.each().map(|pool| pool.id).min().unwrap_or_default());
                self.chains.insert(name.as_str().into(), external_local(port.family, cluster, local));
                Some((format!("goto {name}"), None))
            }
        };
        let is_refused = way.is_none() || (port.is_external_local && local.is_none());
        let mut at = |places: (&'static str, &'static str, &'static str), key: String| {
            if let Some((goto, id)) = &way {
                if let Some(id) = id {
                    self.put(places.1, key.clone(), format!("{id:#x}"));
                }
                self.put(places.0, key.clone(), goto.clone());
            }
            if is_refused {
                self.put(places.2, key, refusal);
            }
        };
        for address in port.external_addresses.iter().chain(&port.balancer_addresses) {
            at((SERVICE_IPS, SERVICE_IDS, NO_ENDPOINT_IPS), target(*address, port));
        }
        if let Some(number) = port.node_port {
            let key = format!("{} . {number}", port.protocol.name());
            at((NODE_PORTS, NODE_PORT_IDS, NO_ENDPOINT_NODE_PORTS), key);
        }
        if !port.source_ranges.is_empty() && !port.balancer_addresses.is_empty() {
            let name = format!("firewall-{}", pools.each().map(|pool| pool.id).min().unwrap_or_default());
            for address in &port.balancer_addresses {
                self.put(FIREWALL_IPS, target(*address, port), format!("goto {name}"));
            }
            self.chains.insert(name.into(), firewall(port));
        }
    }

    fn pool(&mut self, port: &PortPlan, pool: &Pool) {
        for endpoint in pool.endpoints.iter().filter(|endpoint| endpoint.is_local) {
            self.put(HAIRPIN, format!("{0} . {0}", endpoint.address), "");
        }
        match pool.affinity_seconds {
            Some(seconds) => self.sticky_pool(port, pool, seconds),
            None => {
                self.counts.push(pool.endpoints.len());
                for (place, endpoint) in pool.endpoints.iter().enumerate() {
                    let key = format!("{} . {:x}:{:x}", pool.id, place >> 16, place & 0xffff);
                    self.put(ENDPOINTS, key, format!("{} . {}", endpoint.address, endpoint.port));
                }
            }
        }
    }

    /// Senders are remembered per endpoint, in sets that packets fill.
    fn sticky_pool(&mut self, port: &PortPlan, pool: &Pool, seconds: u32) {
        let ip = ip(port.family);
        let mut rules = Vec::with_capacity(pool.endpoints.len() + 1);
        let mut choices = Vec::with_capacity(pool.endpoints.len());
        for (place, endpoint) in pool.endpoints.iter().enumerate() {
            let suffix = format!("{}-{}-{}", pool.id, endpoint.address.to_string().replace(':', "_"), endpoint.port);
            let (chain, set) = (format!("endpoint-{suffix}"), format!("affinity-{seconds}-{suffix}"));
            rules.push(format!("{ip} saddr @{set} goto {chain}"));
            choices.push(format!("{place} : goto {chain}"));
            let target = match endpoint.address {
                IpAddr::V4(address) => format!("{address}:{}", endpoint.port),
                IpAddr::V6(address) => format!("[{address}]:{}", endpoint.port),
            };
            let remember = format!("update @{set} {{ {ip} saddr }}");
            let translate = format!("meta l4proto {} dnat {ip} to {target}", port.protocol.name());
            self.chains.insert(chain.into(), Chain::new([remember, translate]));
            self.sets.insert(set.into(), affinity_set(port.family, seconds));
        }
        rules.push(format!("numgen random mod {} vmap {{ {} }}", choices.len(), choices.join(", ")));
        self.chains.insert(format!("pool-{}", pool.id).into(), Chain::new(rules));
    }

    fn put(&mut self, container: &'static str, key: impl Into<Box<str>>, value: impl Into<Box<str>>) {
        self.elements.insert((container, key.into()), value.into());
    }
}

fn target(address: IpAddr, port: &PortPlan) -> String {
    format!("{address} . {} . {}", port.protocol.name(), port.port)
}

fn affinity_set(family: Family, seconds: u32) -> Set {
    let mut set = Set::new(match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    });
    set.flags = vec!["dynamic", "timeout"];
    set.properties = vec![format!("timeout {seconds}s")];
    set
}

/// Who is inside takes the short way to all endpoints; who is outside only gets to those of this node, under his own
/// address.
fn external_local(family: Family, cluster: Option<&Pool>, local: Option<&Pool>) -> Chain {
    let mut rules = Vec::new();
    if let Some(pool) = cluster {
        let (mark, goto) = (pool.id, pool.goto());
        let ip = ip(family);
        rules.push(format!("{ip} saddr @{CLUSTER_CIDRS} meta mark set {mark:#x} {goto}"));
        rules.push(format!("fib saddr type local meta mark set {:#x} {goto}", mark | MASQUERADE));
    }
    if let Some(pool) = local {
        rules.push(format!("meta mark set {:#x} {}", pool.id, pool.goto()));
    }
    Chain::new(rules)
}

fn firewall(port: &PortPlan) -> Chain {
    let ip = ip(port.family);
    let mut rules: Vec<String> =
        port.source_ranges.iter().map(|range| format!("{ip} saddr {} return", range.trunc())).collect();
    // A node that holds the balancer's address sends from it.
    rules.extend(port.balancer_addresses.iter().map(|address| format!("{ip} saddr {address} return")));
    rules.push("drop".to_owned());
    Chain::new(rules)
}
