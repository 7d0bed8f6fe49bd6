//! What a pod's `/etc/resolv.conf` and `/etc/hosts` say. Pure.

use api::core::v1::HostAlias;
use cri::v1::DnsConfig;

use crate::pod::PodView;

/// The most search domains that are passed on.
const MAX_SEARCHES: usize = 32;
/// The most name servers that resolvers ask.
const MAX_SERVERS: usize = 3;

/// Cluster-wide names.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsInput<'a> {
    pub(crate) servers: &'a [String],
    pub(crate) domain: &'a str,
    /// The node's own resolver configuration.
    pub(crate) host: DnsConfig,
}

/// The name services that a pod uses.
pub(crate) fn pod_dns(view: &PodView, input: &DnsInput<'_>) -> DnsConfig {
    let spec = view.spec();
    let mut dns = match spec.dns_policy.as_str() {
        "None" => DnsConfig::default(),
        "Default" => input.host.clone(),
        "ClusterFirstWithHostNet" => cluster_dns(view, input),
        _ if spec.host_network => input.host.clone(),
        _ => cluster_dns(view, input),
    };
    if let Some(own) = &spec.dns_config {
        dns.servers.extend(own.nameservers.iter().cloned());
        dns.searches.extend(own.searches.iter().cloned());
        for option in &own.options {
            let text = match &option.value {
                Some(value) if !value.is_empty() => format!("{}:{value}", option.name),
                _ => option.name.clone(),
            };
            let name = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
            match dns.options.iter_mut().find(|known| name(known) == option.name) {
                Some(known) => *known = text,
                None => dns.options.push(text),
            }
        }
    }
    dedup(&mut dns.servers);
    dedup(&mut dns.searches);
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    dns
}

fn cluster_dns(view: &PodView, input: &DnsInput<'_>) -> DnsConfig {
    if input.servers.is_empty() {
        return input.host.clone();
    }
    let mut searches = Vec::new();
    if !input.domain.is_empty() {
        let domain = input.domain;
        searches.push(format!("{}.svc.{domain}", view.namespace()));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.to_owned());
    }
    searches.extend(input.host.searches.iter().cloned());
    DnsConfig { servers: input.servers.to_vec(), searches, options: vec!["ndots:5".to_owned()] }
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

/// Reads a resolver configuration.
pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                dns.searches = words.filter(|w| *w != ".").map(|w| w.trim_end_matches('.').to_owned()).collect()
            }
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

/// The pod's host name and domain.
pub(crate) fn host_and_domain(view: &PodView, cluster_domain: &str) -> (String, String) {
    let spec = view.spec();
    if let Some(name) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return (name.clone(), String::new());
    }
    let host = if spec.hostname.is_empty() { truncate_name(view.name()) } else { spec.hostname.clone() };
    let domain = if spec.subdomain.is_empty() {
        String::new()
    } else {
        format!("{}.{}.svc.{cluster_domain}", spec.subdomain, view.namespace())
    };
    (host, domain)
}

/// The name that the pod's kernel gets.
pub(crate) fn kernel_host_name(view: &PodView, cluster_domain: &str) -> String {
    let (host, domain) = host_and_domain(view, cluster_domain);
    if view.spec().set_hostname_as_fqdn == Some(true) && !domain.is_empty() { format!("{host}.{domain}") } else { host }
}

fn truncate_name(name: &str) -> String {
    const MAX: usize = 63;
    let cut = &name[..name.len().min(MAX)];
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The `/etc/hosts` of a pod with its own network.
pub(crate) fn hosts_file(ips: &[String], host: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() {
            text.push_str(&format!("{ip}\t{host}\n"));
        } else {
            text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
        }
    }
    text + &alias_lines(aliases)
}

/// The `/etc/hosts` of a pod in the node's network.
pub(crate) fn host_network_hosts_file(node: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node}") + &alias_lines(aliases)
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases.iter().map(|a| format!("{}\t{}\n", a.ip, a.hostnames.join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}
