//! Name servers and host names as the C library reads them.

use std::net::IpAddr;

/// The C library takes no more.
const SERVERS: usize = 3;

/// The text of `resolv.conf`.
pub(crate) fn resolv_conf(servers: &[IpAddr], domains: &[String]) -> String {
    let mut text = String::new();
    if !domains.is_empty() {
        text += &format!("search {}\n", domains.join(" "));
    }
    for server in servers.iter().take(SERVERS) {
        text += &format!("nameserver {server}\n");
    }
    text
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

    #[test]
    fn files_are_as_the_c_library_reads_them() {
        let servers = ["1.1.1.1", "8.8.8.8", "9.9.9.9", "4.4.4.4"].map(|server| server.parse().unwrap());
        let text = resolv_conf(&servers, &["example.com".into()]);
        assert_eq!(text, "search example.com\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver 9.9.9.9\n");
        assert!(hosts("m1", &["10.0.0.2".parse().unwrap()]).ends_with("10.0.0.2 m1\n"));
    }
}
