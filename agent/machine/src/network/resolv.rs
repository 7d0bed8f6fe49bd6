//! Name servers and host names as the C library reads them.

use std::net::{IpAddr, SocketAddr};

use machine_api::{NameServers, NetworkStatus};

/// The C library takes no more.
const SERVERS: usize = 3;

/// The text of `resolv.conf` with these servers.
pub(crate) fn resolv_conf(servers: &[IpAddr], network: &NetworkStatus) -> String {
    let mut text = String::new();
    if !network.search_domains.is_empty() {
        text += &format!("search {}\n", network.search_domains.join(" "));
    }
    for server in servers.iter().take(SERVERS) {
        text += &format!("nameserver {server}\n");
    }
    text
}

/// Whom programs of this machine ask. Behind its cache stand those that it asks: where it is not there, or has no
/// answer, they are asked in its place. Where the C library could not ask them as they are to be asked, nobody is.
pub(crate) fn own(cache: Option<IpAddr>, network: &NetworkStatus) -> Vec<IpAddr> {
    if !network.has_usual_name_servers() {
        return cache.into_iter().collect();
    }
    let servers: Vec<_> = network.dns_servers.iter().copied().filter(|server| Some(*server) != cache).collect();
    cache.filter(|_| !servers.is_empty()).into_iter().chain(servers).collect()
}

/// Whom those ask who have another loopback link, as pods do, and cannot reach the cache: the same servers, or the
/// cluster's DNS where that alone can ask them.
pub(crate) fn of_others(cluster: Option<IpAddr>, network: &NetworkStatus) -> Vec<IpAddr> {
    if network.has_usual_name_servers() { network.dns_servers.clone() } else { cluster.into_iter().collect() }
}

/// Whom the cache asks: as many as would be asked without it, and never itself.
pub(crate) fn asked(mut groups: Vec<NameServers>, cache: Option<SocketAddr>) -> Vec<NameServers> {
    for group in &mut groups {
        group.servers.retain(|server| Some(server.address) != cache);
        group.servers.truncate(SERVERS);
    }
    groups
}

/// The text of `hosts`: the machine knows its own name.
pub(crate) fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for address in addresses {
        text += &format!("{address} {hostname}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use machine_api::{NameServer, NameServerTls};

    use super::*;

    fn network(servers: &[&str]) -> NetworkStatus {
        let addresses: Vec<IpAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        let all = addresses.iter().map(|address| SocketAddr::new(*address, 53)).collect::<Vec<_>>();
        NetworkStatus {
            dns_servers: addresses,
            name_servers: vec![all.into()],
            search_domains: vec!["example.com".into()],
            ..NetworkStatus::default()
        }
    }

    #[test]
    fn files_are_as_the_c_library_reads_them() {
        let four = network(&["1.1.1.1", "8.8.8.8", "9.9.9.9", "4.4.4.4"]);
        let text = resolv_conf(&own(None, &four), &four);
        assert_eq!(text, "search example.com\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver 9.9.9.9\n");
        assert_eq!(resolv_conf(&of_others(None, &four), &four), text);
        assert!(hosts("m1", &["10.0.0.2".parse().unwrap()]).ends_with("10.0.0.2 m1\n"));
    }

    #[test]
    fn the_cache_is_asked_first_and_never_asks_itself() {
        let cache = Some("127.0.0.53".parse().unwrap());
        let address = Some("127.0.0.53:53".parse().unwrap());
        let four = network(&["1.1.1.1", "8.8.8.8", "9.9.9.9", "4.4.4.4"]);
        let text = resolv_conf(&own(cache, &four), &four);
        assert_eq!(text, "search example.com\nnameserver 127.0.0.53\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n");
        assert_eq!(asked(four.name_servers.clone(), address)[0].servers, four.name_servers[0].servers[..3]);
        let with_itself = network(&["127.0.0.53", "1.1.1.1"]);
        let text = resolv_conf(&own(cache, &with_itself), &with_itself);
        assert_eq!(text, "search example.com\nnameserver 127.0.0.53\nnameserver 1.1.1.1\n");
        assert_eq!(
            asked(with_itself.name_servers.clone(), address)[0].servers,
            with_itself.name_servers[0].servers[1..]
        );
        // Before there is a network, and where there is nobody, nothing pretends to answer.
        assert_eq!(resolv_conf(&own(cache, &network(&[])), &network(&[])), "search example.com\n");
    }

    #[test]
    fn nobody_is_asked_in_another_way_than_the_resolver_asks() {
        let (cache, cluster) = ("127.0.0.53".parse().unwrap(), "10.96.0.10".parse().unwrap());
        let mut by_tls = network(&["9.9.9.9"]);
        by_tls.name_servers[0].servers = vec![NameServer {
            address: "9.9.9.9:853".parse().unwrap(),
            tls: Some(NameServerTls { name: "dns.quad9.net".to_owned(), ca: None }),
        }];
        let mut by_domain = network(&["1.1.1.1"]);
        let other = NameServers::from(vec!["10.0.0.53:53".parse().unwrap()]);
        by_domain.name_servers.push(NameServers { domains: vec!["corp.example".to_owned()], ..other });
        let mut by_port = network(&["1.1.1.1"]);
        by_port.name_servers[0].servers[0].address.set_port(5353);
        for network in [by_tls, by_domain, by_port] {
            assert_eq!(own(Some(cache), &network), [cache]);
            assert!(own(None, &network).is_empty());
            assert_eq!(of_others(Some(cluster), &network), [cluster]);
        }
    }
}
