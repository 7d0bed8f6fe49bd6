//! Name servers and host names as the C library reads them.

use std::net::IpAddr;

use machine_api::NetworkStatus;

/// The C library takes no more.
const SERVERS: usize = 3;

/// The text of `resolv.conf`. Behind the cache of this machine stand those that it asks: where it is not there, or has no
/// answer, they are asked in its place.
pub(crate) fn resolv_conf(cache: Option<IpAddr>, network: &NetworkStatus) -> String {
    let mut text = String::new();
    if !network.search_domains.is_empty() {
        text += &format!("search {}\n", network.search_domains.join(" "));
    }
    let cache = cache.filter(|cache| !asked(&network.dns_servers, *cache).is_empty());
    let servers = network.dns_servers.iter().copied().filter(|server| Some(*server) != cache);
    for server in cache.into_iter().chain(servers).take(SERVERS) {
        text += &format!("nameserver {server}\n");
    }
    text
}

/// Whom the cache asks: as many as would be asked without it, and never itself.
pub(crate) fn asked(servers: &[IpAddr], cache: IpAddr) -> Vec<IpAddr> {
    servers.iter().copied().filter(|server| *server != cache).take(SERVERS).collect()
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
    use super::*;

    fn network(servers: &[&str]) -> NetworkStatus {
        NetworkStatus {
            dns_servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            search_domains: vec!["example.com".into()],
            ..NetworkStatus::default()
        }
    }

    #[test]
    fn files_are_as_the_c_library_reads_them() {
        let text = resolv_conf(None, &network(&["1.1.1.1", "8.8.8.8", "9.9.9.9", "4.4.4.4"]));
        assert_eq!(text, "search example.com\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver 9.9.9.9\n");
        assert!(hosts("m1", &["10.0.0.2".parse().unwrap()]).ends_with("10.0.0.2 m1\n"));
    }

    #[test]
    fn the_cache_is_asked_first_and_never_asks_itself() {
        let cache = "127.0.0.53".parse().unwrap();
        let four = network(&["1.1.1.1", "8.8.8.8", "9.9.9.9", "4.4.4.4"]);
        let text = resolv_conf(Some(cache), &four);
        assert_eq!(text, "search example.com\nnameserver 127.0.0.53\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n");
        assert_eq!(asked(&four.dns_servers, cache), four.dns_servers[..3]);
        let own = network(&["127.0.0.53", "1.1.1.1"]);
        assert_eq!(resolv_conf(Some(cache), &own), "search example.com\nnameserver 127.0.0.53\nnameserver 1.1.1.1\n");
        assert_eq!(asked(&own.dns_servers, cache), own.dns_servers[1..]);
        // Before there is a network, and where there is nobody, nothing pretends to answer.
        assert_eq!(resolv_conf(Some(cache), &network(&[])), "search example.com\n");
    }
}
