//! Checks of the network, as the machine sees it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use machine_api::check_request::What;
use machine_api::{CheckRequest, CheckResult, RouteStatus};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::Status;

use super::refusal::bad;
use crate::views;

/// What takes longer does not work.
const WITHIN: Duration = Duration::from_secs(5);
/// Names are no longer.
const NAME_BYTES: usize = 253;

/// Answers a check.
pub(super) async fn answer(asked: CheckRequest) -> Result<CheckResult, Status> {
    let wanted = parse(asked.what).map_err(bad)?;
    let started = Instant::now();
    let found = match tokio::time::timeout(WITHIN, check(&wanted)).await {
        Ok(found) => found,
        Err(_elapsed) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    };
    let millis = started.elapsed().as_secs_f64() * 1000.0;
    Ok(CheckResult { works: found.is_ok(), found: found.unwrap_or_else(|reason| vec![reason]), millis })
}

/// What is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// Whether a name has addresses.
    Dns(Target),
    /// Which way leads to an address.
    Route(IpAddr),
    /// Whether a port takes connections.
    Port(Target),
}

/// A host, and a port where one is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
}

fn parse(what: Option<What>) -> Result<Wanted, String> {
    match what.ok_or("what to check: dns, route or port")? {
        What::Dns(name) => Ok(Wanted::Dns(Target { host: host(name)?, port: 0 })),
        What::Route(address) => match address.parse() {
            Ok(address) => Ok(Wanted::Route(address)),
            Err(_not) => Err(format!("{address:?} is no address")),
        },
        What::Port(asked) => {
            let port = u16::try_from(asked.port).ok().filter(|port| *port > 0);
            let port = port.ok_or_else(|| format!("{} is no port", asked.port))?;
            Ok(Wanted::Port(Target { host: host(asked.host)?, port }))
        }
    }
}

fn host(text: String) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'_');
    if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(is_good) {
        return Err(format!("{text:?} is neither a name nor an address"));
    }
    Ok(text)
}

async fn check(wanted: &Wanted) -> Result<Vec<String>, String> {
    match wanted {
        Wanted::Dns(target) => {
            let addresses = resolve(target).await?;
            Ok(addresses.iter().map(|address| format!("{} is {}", target.host, address.ip())).collect())
        }
        Wanted::Port(target) => {
            let mut failures = Vec::new();
            for address in resolve(target).await? {
                match TcpStream::connect(address).await {
                    Ok(_stream) => return Ok(vec![format!("{address} takes connections")]),
                    Err(error) => failures.push(format!("{address}: {error}")),
                }
            }
            Err(failures.join("; "))
        }
        Wanted::Route(address) => route(*address).await,
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| format!("{}: {error}", target.host))?.collect();
    if found.is_empty() { Err(format!("{} has no address", target.host)) } else { Ok(found) }
}

async fn route(address: IpAddr) -> Result<Vec<String>, String> {
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
            let gateway: IpAddr = route.gateway.as_ref()?.parse().ok()?;
            (gateway.is_ipv4() == address.is_ipv4()).then_some(0)
        }
        text => text.parse::<IpNet>().ok().filter(|net| net.contains(&address)).map(|net| net.prefix_len()),
    };
    let leading = routes.iter().filter_map(|route| Some((net(route)?, route)));
    leading.max_by_key(|(length, route)| (*length, std::cmp::Reverse(route.metric))).map(|(_, route)| route)
}

fn describe(route: &RouteStatus) -> String {
    let via = route.gateway.as_ref().map(|gateway| format!(" by {gateway}")).unwrap_or_default();
    format!("the route is {} over {}{via}, made by {}", route.destination, route.interface, route.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_addresses_and_ports_are_checked() {
        let target = |host: &str, port| Target { host: host.to_owned(), port };
        let port = |host: &str, port| What::Port(machine_api::check_request::Port { host: host.to_owned(), port });
        let dns = |name: &str| What::Dns(name.to_owned());
        assert_eq!(parse(Some(dns("example.com"))), Ok(Wanted::Dns(target("example.com", 0))));
        assert_eq!(parse(Some(port("fd00::1", 6443))), Ok(Wanted::Port(target("fd00::1", 6443))));
        let route = What::Route("example.com".to_owned());
        for bad in [None, Some(dns("")), Some(dns("a/b")), Some(port("a", 0)), Some(port("a", 70_000)), Some(route)] {
            assert!(parse(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_route_and_then_the_lowest_metric_leads() {
        let route = |destination: &str, gateway: &str, metric| RouteStatus {
            destination: destination.to_owned(),
            gateway: (!gateway.is_empty()).then(|| gateway.to_owned()),
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
        let port = listener.local_addr().unwrap().port();
        let wanted = Wanted::Port(Target { host: "127.0.0.1".to_owned(), port });
        assert!(check(&wanted).await.unwrap()[0].ends_with("takes connections"));
        drop(listener);
        assert!(check(&wanted).await.unwrap_err().contains("refused"));
    }
}
