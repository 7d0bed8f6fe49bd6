//! Checks of the network, as the machine sees it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use ipnet::IpNet;
use machine_api::{CheckResult, Checked, RouteStatus};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{respond, text};
use crate::views;

/// What takes longer does not work.
const WITHIN: Duration = Duration::from_secs(5);
/// Names are no longer.
const NAME_BYTES: usize = 253;

/// Answers a check.
pub(super) async fn answer(what: Checked, query: Option<&str>) -> Response<Full<Bytes>> {
    let target = match parse(what, query.unwrap_or_default()) {
        Ok(target) => target,
        Err(reason) => return text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    };
    let started = Instant::now();
    let found = match tokio::time::timeout(WITHIN, check(what, &target)).await {
        Ok(found) => found,
        Err(_elapsed) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    };
    let millis = started.elapsed().as_secs_f64() * 1000.0;
    let works = found.is_ok();
    let result = CheckResult { works, found: found.unwrap_or_else(|reason| vec![reason]), millis };
    match serde_json::to_vec(&result) {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// A host, and a port where one is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
}

fn parse(what: Checked, query: &str) -> Result<Target, String> {
    let value = |name: &str| query.split('&').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let host = value("to").unwrap_or_default();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'_');
    if host.is_empty() || host.len() > NAME_BYTES || !host.bytes().all(is_good) {
        return Err(format!("{host:?} is neither a name nor an address: ?to=HOST"));
    }
    let port = value("port").unwrap_or("0");
    let port: u16 = port.parse().map_err(|_not| format!("{port:?} is no port: port=NUMBER"))?;
    match what {
        Checked::Port if port == 0 => Err("which port: port=NUMBER".to_owned()),
        Checked::Route if host.parse::<IpAddr>().is_err() => Err(format!("{host:?} is no address: ?to=ADDRESS")),
        Checked::Dns | Checked::Route | Checked::Port => Ok(Target { host: host.to_owned(), port }),
    }
}

async fn check(what: Checked, target: &Target) -> Result<Vec<String>, String> {
    match what {
        Checked::Dns => {
            let addresses = resolve(target).await?;
            Ok(addresses.iter().map(|address| format!("{} is {}", target.host, address.ip())).collect())
        }
        Checked::Port => {
            let mut failures = Vec::new();
            for address in resolve(target).await? {
                match TcpStream::connect(address).await {
                    Ok(_stream) => return Ok(vec![format!("{address} takes connections")]),
                    Err(error) => failures.push(format!("{address}: {error}")),
                }
            }
            Err(failures.join("; "))
        }
        Checked::Route => route(target).await,
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| format!("{}: {error}", target.host))?.collect();
    if found.is_empty() { Err(format!("{} has no address", target.host)) } else { Ok(found) }
}

async fn route(target: &Target) -> Result<Vec<String>, String> {
    let address: IpAddr = target.host.parse().map_err(|error| format!("{error}"))?;
    // Connecting a datagram socket sends nothing; the kernel tells the sender's address.
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    let source = source.map_err(|error| format!("there is no way to {address}: {error}"))?;
    let mut found = vec![format!("the sender's address is {}", source.ip())];
    found.extend(best(&views::routes().await?, address).map(describe));
    Ok(found)
}

/// The route of the main table that leads to an address.
fn best(routes: &[RouteStatus], address: IpAddr) -> Option<&RouteStatus> {
    let net = |route: &RouteStatus| match route.destination.as_str() {
        "default" => {
            route.gateway.map(|like| like.is_ipv4() == address.is_ipv4()).filter(|is_same| *is_same).map(|_| 0)
        }
        text => text.parse::<IpNet>().ok().filter(|net| net.contains(&address)).map(|net| net.prefix_len()),
    };
    let leading = routes.iter().filter_map(|route| Some((net(route)?, route)));
    leading.max_by_key(|(length, route)| (*length, std::cmp::Reverse(route.metric))).map(|(_, route)| route)
}

fn describe(route: &RouteStatus) -> String {
    let via = route.gateway.map(|gateway| format!(" by {gateway}")).unwrap_or_default();
    format!("the route is {} over {}{via}, made by {}", route.destination, route.interface, route.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_addresses_and_ports_are_checked() {
        let target = |host: &str, port| Target { host: host.to_owned(), port };
        assert_eq!(parse(Checked::Dns, "to=example.com"), Ok(target("example.com", 0)));
        assert_eq!(parse(Checked::Port, "to=fd00::1&port=6443"), Ok(target("fd00::1", 6443)));
        for (what, bad) in [
            (Checked::Dns, ""),
            (Checked::Dns, "to=a/b"),
            (Checked::Port, "to=a"),
            (Checked::Port, "to=a&port=70000"),
            (Checked::Route, "to=example.com"),
        ] {
            assert!(parse(what, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_route_and_then_the_lowest_metric_leads() {
        let route = |destination: &str, gateway: &str, metric| RouteStatus {
            destination: destination.to_owned(),
            gateway: gateway.parse().ok(),
            metric,
            ..RouteStatus::default()
        };
        let routes = [
            route("default", "10.0.0.1", Some(100)),
            route("default", "10.0.0.2", Some(50)),
            route("default", "fd00::1", None),
            route("10.0.0.0/8", "", None),
            route("10.0.1.0/24", "", None),
        ];
        let to = |address: &str| best(&routes, address.parse().unwrap());
        assert_eq!(to("10.0.1.9"), Some(&routes[4]));
        assert_eq!(to("192.168.0.1"), Some(&routes[1]));
        assert_eq!(to("fd01::1"), Some(&routes[2]));
        assert_eq!(best(&routes[3..], "192.168.0.1".parse().unwrap()), None);
    }

    #[tokio::test]
    async fn a_port_that_listens_works_and_one_that_does_not_tells_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        assert!(check(Checked::Port, &target).await.unwrap()[0].ends_with("takes connections"));
        drop(listener);
        assert!(check(Checked::Port, &target).await.unwrap_err().contains("refused"));
    }
}
