//! Rules of the name servers of `[network]`: nobody is asked in plain text by accident, and each domain by one way.

use std::collections::BTreeMap;

use super::Rules;
use crate::words::{NameServer, PemCertificates};

/// No more are asked, as by the C library.
const SERVERS: usize = 3;
const DOMAINS: &str = "network.dns-domains";

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(network) = &rules.parts.network else { return };
    servers(rules, "network.dns-servers", &network.dns_servers);
    authority(rules, "network.dns-ca", network.dns_ca.as_ref(), &network.dns_servers);
    if network.needs_resolver() && !network.dns_cache && rules.has("network.dns-cache") {
        let reason = "without the machine's own resolver nobody is asked by TLS, at another port or by domain";
        rules.error("network.dns-cache", reason).expected("`true`, or addresses alone in `network.dns-servers`");
    }
    // Tables that could not be read are missing from the list, so that positions are only right without them.
    if rules.has(&format!("{DOMAINS}[{}]", network.dns_domains.len())) {
        return;
    }
    let mut known = BTreeMap::new();
    for (index, table) in network.dns_domains.iter().enumerate() {
        let at = format!("{DOMAINS}[{index}]");
        servers(rules, &format!("{at}.servers"), &table.servers);
        authority(rules, &format!("{at}.ca"), table.ca.as_ref(), &table.servers);
        for (list, what) in [("servers", "is asked"), ("domains", "is meant")] {
            let list = format!("{at}.{list}");
            let is_empty = rules.has(&list) && !rules.has(&format!("{list}[0]"));
            if is_empty {
                rules.error(&list, format!("the list is empty: nobody {what}")).expected("one at least");
            }
        }
        for (nth, domain) in table.domains.iter().enumerate() {
            if let Some(earlier) = known.insert(domain, index) {
                let reason = format!("`{domain}` is given twice, the first time in `{DOMAINS}[{earlier}]`");
                rules.error(&format!("{at}.domains[{nth}]"), reason).expected("one table per domain");
            }
        }
    }
}

fn servers(rules: &mut Rules<'_>, at: &str, servers: &[NameServer]) {
    if servers.len() > SERVERS {
        let reason = format!("{} DNS servers are given, only {SERVERS} are asked", servers.len());
        rules.warning(at, reason);
    }
    // One that could not be read may be what makes the others wrong.
    if rules.has(&format!("{at}[{}]", servers.len())) || servers.iter().all(|server| server.tls_name.is_none()) {
        return;
    }
    for (index, server) in servers.iter().enumerate().filter(|(_, server)| server.tls_name.is_none()) {
        let reason = format!("`{server}` would be asked in plain text when those by TLS do not answer");
        let finding = rules.error(&format!("{at}[{index}]"), reason);
        finding.expected(format!("`{server}#NAME` with the name in its certificate, or a name behind none of them"));
    }
}

fn authority(rules: &mut Rules<'_>, at: &str, ca: Option<&PemCertificates>, servers: &[NameServer]) {
    if ca.is_some() && servers.iter().all(|server| server.tls_name.is_none()) {
        rules.error(at, "none of the servers is asked by TLS").expected("`ADDRESS#NAME` for a server, or no CA");
    }
}
