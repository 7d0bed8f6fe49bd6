//! The host's firewall: what the manifest says, as one nftables table.
//!
//! ```text
//! input ─▶ always accepted ─▶ rules of the manifest ─▶ services that others need, pings ─▶ everything else
//! ```
//!
//! It sees what is for the host itself. What is for a pod, by its address, a Service, a NodePort or a host port, was
//! given its destination before and is forwarded: it does not come by here.

use ipnet::IpNet;
use machine_api::FirewallRule;
use manifest::{Cidr, FirewallAction, FirewallProtocol, Interface, InterfaceKind, Manifest, PortRange};
use nft::{Base, Chain, ChainKind, Count, Family, Hook, Table};

const TABLE: &str = "keelson-firewall";
const INPUT: &str = "input";

/// Without these the host would be cut off from what it asked for itself, from its neighbours, or from its addresses.
const ALWAYS: [&str; 6] = [
    "ct state established,related accept",
    "iifname \"lo\" accept",
    "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-router-solicit, \
     nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, \
     mld-listener-done, mld2-listener-report } accept",
    "udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
];
const PINGS: [&str; 2] = ["icmp type echo-request", "icmpv6 type echo-request"];
/// VRRP, to its group. What comes from another link has fewer hops left; it must not come in by a router.
const ELECTION_V4: &str = "ip daddr 224.0.0.18 ip protocol 112 ip ttl 255";
const ELECTION_V6: &str = "ip6 saddr fe80::/10 ip6 daddr ff02::12 meta l4proto 112 ip6 hoplimit 255";

/// A firewall: what the kernel gets, and what people see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Firewall {
    pub(crate) table: Table,
    rows: Vec<FirewallRule>,
}

impl Firewall {
    /// The rules, with what they have fitted.
    pub(crate) fn rows(&self, counted: impl Fn(&str) -> Option<Count>) -> Vec<FirewallRule> {
        let rows = self.rows.iter().enumerate().map(|(index, row)| {
            let Count { packets, bytes } = counted(&counter(index)).unwrap_or_default();
            FirewallRule { packets, bytes, ..row.clone() }
        });
        rows.collect()
    }
}

/// The firewall of a manifest, if it has one. `pods` is how the links of this machine's pods begin.
pub(crate) fn plan_firewall(manifest: &Manifest, pods: &str) -> Option<Firewall> {
    let wanted = manifest.network.firewall.as_ref()?;
    let mut plan = Plan { rules: ALWAYS.map(str::to_owned).to_vec(), rows: Vec::new() };
    if !pods.is_empty() {
        plan.rules.push(format!("iifname \"{pods}*\" accept"));
    }
    for (index, rule) in wanted.rules.iter().enumerate() {
        let mut found = Match::new(rule.protocol, &rule.ports, &rule.from);
        found.interface = rule.interface.as_ref().map(ToString::to_string);
        plan.add(&format!("rules[{index}]"), rule.action, &found);
    }
    for service in manifest::host_services(manifest.machine.role) {
        let from = wanted.callers(service.callers, &manifest.cluster.pod_cidrs);
        // A list without anybody in it accepts nobody.
        if from.as_ref().is_none_or(|from| !from.is_empty()) {
            let found = Match::new(Some(FirewallProtocol::Tcp), &[service.ports], &from.unwrap_or_default());
            plan.add(service.name, FirewallAction::Accept, &found);
        }
    }
    for (interface, port) in manifest.network.interfaces.iter().filter_map(listens) {
        let found = Match::new(Some(FirewallProtocol::Udp), &[PortRange::new(port, port)], &[]);
        plan.add(&format!("WireGuard {}", interface.id), FirewallAction::Accept, &found);
    }
    if let Some(election) = election(manifest, wanted) {
        plan.add("virtual address", FirewallAction::Accept, &election);
    }
    let exactly = PINGS.map(str::to_owned).to_vec();
    plan.add("pings", FirewallAction::Accept, &Match { exactly, ..Match::default() });
    plan.add("everything else", wanted.ingress, &Match::default());
    Some(plan.finish())
}

/// What the other masters say of the virtual address. Over IPv6 they say it from addresses that no range can name.
fn election(manifest: &Manifest, firewall: &manifest::Firewall) -> Option<Match> {
    let is_ipv4 = manifest.virtual_address()?.address.is_ipv4();
    let machines = Match::new(None, &[], &firewall.machines);
    let expression = match (is_ipv4, machines.from.is_empty()) {
        (true, true) => ELECTION_V4.to_owned(),
        (true, false) => format!("{} {ELECTION_V4}", machines.senders(true)?),
        (false, _) => ELECTION_V6.to_owned(),
    };
    Some(Match {
        exactly: vec![expression],
        from: if is_ipv4 { machines.from } else { Vec::new() },
        ..Match::default()
    })
}

/// The port of a tunnel, whose packets nobody can make who has no key.
fn listens(interface: &Interface) -> Option<(&Interface, u16)> {
    match &interface.kind {
        InterfaceKind::Wireguard(wireguard) => wireguard.listen_port.map(|port| (interface, port)),
        InterfaceKind::Card | InterfaceKind::Vlan(_) | InterfaceKind::Bond(_) | InterfaceKind::Bridge(_) => None,
    }
}

/// What packets have to be like.
#[derive(Default)]
struct Match {
    protocol: Option<FirewallProtocol>,
    /// Apart from each other, and in order.
    ports: Vec<PortRange>,
    from: Vec<IpNet>,
    interface: Option<String>,
    /// In nft's language, in place of all these.
    exactly: Vec<String>,
}

impl Match {
    fn new(protocol: Option<FirewallProtocol>, ports: &[PortRange], from: &[Cidr]) -> Self {
        let from: Vec<IpNet> = from.iter().map(|range| range.net()).collect();
        Self { protocol, ports: apart(ports), from: IpNet::aggregate(&from), ..Self::default() }
    }

    /// In nft's language: one rule for each that has to be.
    fn expressions(&self) -> Vec<String> {
        if !self.exactly.is_empty() {
            return self.exactly.clone();
        }
        let interface = self.interface.iter().map(|name| format!("iifname \"{name}\""));
        let ports = self.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let carried = match (self.protocol, ports.is_empty()) {
            (None, true) => None,
            (Some(FirewallProtocol::Icmp), _) => Some("meta l4proto { icmp, ipv6-icmp }".to_owned()),
            (None, false) => Some(format!("meta l4proto {{ tcp, udp }} th dport {{ {ports} }}")),
            (Some(protocol), true) => Some(format!("meta l4proto {protocol}")),
            (Some(protocol), false) => Some(format!("{protocol} dport {{ {ports} }}")),
        };
        let common: Vec<String> = interface.chain(carried).collect();
        let kinds = if self.from.is_empty() {
            vec![String::new()]
        } else {
            [true, false].into_iter().filter_map(|is_ipv4| self.senders(is_ipv4)).collect()
        };
        let whole = |kind: String| {
            let parts = common.iter().chain([&kind]).filter(|part| !part.is_empty());
            parts.map(String::as_str).collect::<Vec<_>>().join(" ")
        };
        kinds.into_iter().map(whole).collect()
    }

    fn senders(&self, is_ipv4: bool) -> Option<String> {
        let ranges: Vec<&IpNet> = self.from.iter().filter(|range| range.addr().is_ipv4() == is_ipv4).collect();
        let (family, ip) = if is_ipv4 { ("ipv4", "ip") } else { ("ipv6", "ip6") };
        if ranges.iter().any(|range| range.prefix_len() == 0) {
            return Some(format!("meta nfproto {family}"));
        }
        let ranges = ranges.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        (!ranges.is_empty()).then(|| format!("{ip} saddr {{ {ranges} }}"))
    }
}

/// The same ports in ranges that neither overlap nor touch: the kernel takes no others.
fn apart(ports: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut apart: Vec<PortRange> = Vec::new();
    for range in sorted {
        match apart.last_mut() {
            Some(last) if range.first() <= last.last().saturating_add(1) => {
                *last = PortRange::new(last.first(), last.last().max(range.last()));
            }
            _ => apart.push(range),
        }
    }
    apart
}

struct Plan {
    rules: Vec<String>,
    rows: Vec<FirewallRule>,
}

impl Plan {
    fn add(&mut self, name: &str, action: FirewallAction, found: &Match) {
        let verdict = match action {
            FirewallAction::Accept => "accept",
            FirewallAction::Block => "drop",
        };
        let counted = format!("counter name {} {verdict}", counter(self.rows.len()));
        let rules = found.expressions().into_iter().map(|expression| format!("{expression} {counted}"));
        self.rules.extend(rules.map(|rule| rule.trim_start().to_owned()));
        self.rows.push(FirewallRule {
            rule: name.to_owned(),
            action: action.to_string(),
            protocol: found.protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
            ports: found.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            from: found.from.iter().map(ToString::to_string).collect(),
            interface: found.interface.clone().unwrap_or_default(),
            ..FirewallRule::default()
        });
    }

    fn finish(self) -> Firewall {
        let mut table = empty();
        table.counters = (0..self.rows.len()).map(|index| counter(index).into()).collect();
        // Behind the service proxy's own chain: what has no endpoint is refused there, with an answer.
        let base = Base { kind: ChainKind::Filter, hook: Hook::Input, priority: 0 };
        table.chains.insert(INPUT.into(), Chain::base(base, self.rules));
        Firewall { table, rows: self.rows }
    }
}

/// The table, with nothing in it.
pub(crate) fn empty() -> Table {
    Table::new(Family::Inet, TABLE)
}

/// The name of the counter of the row with this number.
fn counter(index: usize) -> String {
    format!("row-{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(role: &str, firewall: &str) -> Manifest {
        let worker = "[cluster]\nendpoint = \"https://10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
                      ca-hash = \"sha256:7c2e69131a36ae2a042a339b33381c6d0d43887e2de83720eff5359e26aec866\"\n";
        let cluster = if role == "worker" { worker } else { "" };
        let text = format!(
            "version = 1\n[machine]\nhostname = \"m\"\nrole = \"{role}\"\n{cluster}[network.firewall]\n{firewall}"
        );
        manifest::parse("m.toml", &text).unwrap()
    }

    /// What stands behind what is always there.
    fn own_rules(role: &str, firewall: &str) -> Vec<String> {
        let plan = plan_firewall(&manifest(role, firewall), "kl").unwrap();
        let rules = &plan.table.chains[INPUT].rules;
        assert_eq!(rules[ALWAYS.len()], "iifname \"kl*\" accept");
        rules[ALWAYS.len() + 1..].to_vec()
    }

    #[test]
    fn a_firewall_that_blocks_lets_through_what_machines_and_cluster_need() {
        let expected = [
            "tcp dport { 50000 } counter name row-0 accept",
            "tcp dport { 10250 } counter name row-1 accept",
            "icmp type echo-request counter name row-2 accept",
            "icmpv6 type echo-request counter name row-2 accept",
            "counter name row-3 drop",
        ];
        assert_eq!(own_rules("worker", "ingress = \"block\"\n"), expected);
        let ranges = "ingress = \"block\"\nmachines = [\"10.0.0.0/24\"]\noperators = [\"10.9.0.0/24\"]\n";
        let expected = [
            "tcp dport { 50000 } ip saddr { 10.0.0.0/24, 10.9.0.0/24 } counter name row-0 accept",
            "tcp dport { 6443 } ip saddr { 10.0.0.0/24, 10.9.0.0/24, 10.244.0.0/16 } counter name row-1 accept",
            "tcp dport { 2379-2380 } ip saddr { 10.0.0.0/24 } counter name row-2 accept",
            "tcp dport { 10250 } ip saddr { 10.0.0.0/24, 10.244.0.0/16 } counter name row-3 accept",
        ];
        assert_eq!(own_rules("master", ranges)[..4], expected);
    }

    #[test]
    fn masters_with_a_virtual_address_hear_one_another() {
        let rules = |role: &str, address: &str, machines: &str| {
            let firewall = format!("ingress = \"block\"\n{machines}");
            let elected = format!("{firewall}[cluster.virtual-address]\naddress = \"{address}\"\n");
            let rules = own_rules(role, &elected);
            rules.into_iter().filter(|rule| rule.contains("112")).collect::<Vec<_>>()
        };
        let machines = "machines = [\"10.0.0.0/24\", \"fd00::/64\"]\n";
        let counted = "counter name row-4 accept";
        assert_eq!(
            rules("master", "10.0.0.5", machines),
            [format!("ip saddr {{ 10.0.0.0/24 }} ip daddr 224.0.0.18 ip protocol 112 ip ttl 255 {counted}")]
        );
        assert_eq!(
            rules("master", "10.0.0.5", ""),
            [format!("ip daddr 224.0.0.18 ip protocol 112 ip ttl 255 {counted}")]
        );
        assert_eq!(rules("master", "fd00::5", machines), [format!("{ELECTION_V6} {counted}")]);
        assert!(own_rules("master", "ingress = \"block\"\n").iter().all(|rule| !rule.contains("112")));
    }

    #[test]
    fn rules_come_first_in_their_order_and_in_the_kernels_form() {
        let rules = "ingress = \"accept\"\nrules = [\n\
            { action = \"accept\", ports = [\"80\", \"81-90\", \"85-99\"], from = [\"10.0.0.0/8\", \"fd00::/8\"] },\n\
            { action = \"block\", protocol = \"icmp\", interface = \"eth1\" },\n\
            { action = \"block\", protocol = \"udp\", from = [\"0.0.0.0/0\"] },\n]\n";
        let expected = [
            "meta l4proto { tcp, udp } th dport { 80-99 } ip saddr { 10.0.0.0/8 } counter name row-0 accept",
            "meta l4proto { tcp, udp } th dport { 80-99 } ip6 saddr { fd00::/8 } counter name row-0 accept",
            "iifname \"eth1\" meta l4proto { icmp, ipv6-icmp } counter name row-1 drop",
            "meta l4proto udp meta nfproto ipv4 counter name row-2 drop",
        ];
        let found = own_rules("single", rules);
        assert_eq!(found[..4], expected);
        assert_eq!(found.last().map(String::as_str), Some("counter name row-8 accept"));
    }

    #[test]
    fn what_was_counted_stands_at_its_rule() {
        let plan = plan_firewall(&manifest("single", "ingress = \"block\"\n"), "").unwrap();
        assert_eq!(plan.table.counters.len(), 6);
        let rows = plan.rows(|name| (name == "row-5").then_some(Count { packets: 2, bytes: 80 }));
        let seen: Vec<(&str, &str, u64)> =
            rows.iter().map(|row| (row.rule.as_str(), row.action.as_str(), row.packets)).collect();
        assert_eq!(seen[0], ("machine API", "accept", 0));
        assert_eq!(seen[5], ("everything else", "block", 2));
    }
}
