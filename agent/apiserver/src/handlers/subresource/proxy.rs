//! The proxy subresource of pods, services and nodes.
//!
//! A name may say more than the object: `[SCHEME:]NAME[:PORT]`. What follows `/proxy` is the path on the other side.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{EndpointAddress, Endpoints, Pod, Service};
use egress::Selection;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, HOST, LOCATION,
};
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode, Uri};
use rand::RngExt as _;
use serde_json::Value;

use super::kubelet::Kubelet;
use super::{kubelet, links, stream, tunnel};
use crate::answer::{self, Body};
use crate::app::{App, Call};
use crate::backend::{self, Target, Trust};
use crate::request::{cleaned, percent_encode};
use crate::status::{Failure, Result};
use crate::tree;

/// What a name in the path says.
struct Address<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Address<'a> {
    /// Reads `[SCHEME:]NAME[:PORT]`.
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let address = match parts.as_slice() {
            [name] => Self { scheme: "", name, port: "" },
            [name, port] => Self { scheme: "", name, port },
            [scheme, name, port] => Self { scheme, name, port },
            _ => return None,
        };
        let known = matches!(address.scheme, "" | "http" | "https");
        (known && !address.name.is_empty()).then_some(address)
    }
}

/// Where to go, by which scheme.
struct Place {
    scheme: &'static str,
    host: String,
    port: u16,
    is_kubelet: bool,
}

/// `options` is what the client asks for, or what its admission made of that.
pub(super) async fn serve(call: &Call, options: &Value, (mut parts, body): (Parts, Body)) -> Result<Response<Body>> {
    let what = call.kind.singular;
    let address = Address::parse(&call.info.name)
        .ok_or_else(|| Failure::bad_request(format!("invalid {what} request {:?}", call.info.name)))?;
    let place = match call.kind.plural {
        "pods" => pod(call, &address).await?,
        "services" => service(call, &address).await?,
        _ => node(call, &address).await?,
    };
    let led = tree::text(options, "/path");
    let is_upgrade = tunnel::is_upgrade(&parts.headers);
    if led.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) && !is_upgrade {
        return Ok(redirect_to_root(&parts));
    }
    let root = root_of(parts.uri.path(), call.kind.namespaced).to_owned();
    let path = percent_encode(&clean(led), PLAIN_IN_PATHS);
    let uri = match parts.uri.query() {
        // Who wants another protocol is led to the path alone.
        Some(query) if !query.is_empty() && !is_upgrade => format!("{path}?{query}"),
        _ => path.clone(),
    };
    let uri: Uri = uri.parse().map_err(|e| Failure::bad_request(format!("the path cannot be asked for: {e}")))?;
    let target = target(&call.app, &place)?;
    let asked = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let asked = asked.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default();
    tunnel::hide_credentials(&mut parts.headers);
    tunnel::name_client(&mut parts);
    if is_upgrade {
        return tunnel::forward(&target, uri, parts, body).await.map_err(stream::unanswered);
    }
    answer::set(&mut parts.headers, "x-forwarded-uri", &format!("{root}{path}"));
    let mut response = tunnel::forward(&target, uri, parts, body)
        .await
        .map_err(|e| Failure::unavailable(format!("error trying to reach service: {e}")))?;
    for name in CROSS_ORIGIN {
        response.headers_mut().remove(name);
    }
    Ok(links::rewrite(response, links::Place { root, server: target.authority(), asked }))
}

/// Who may use an answer elsewhere is for this server to say, not for a pod.
const CROSS_ORIGIN: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// What paths hold as it is, beside letters, digits and what is plain everywhere.
const PLAIN_IN_PATHS: &[u8] = b"$&+,/:;=@";

/// The shortest path that leads to the same place; a slash at its end stays.
fn clean(path: &str) -> String {
    let cleaned = cleaned(path);
    if path.ends_with('/') && cleaned != "/" { cleaned + "/" } else { cleaned }
}

/// The path up to `/proxy`.
fn root_of(path: &str, namespaced: bool) -> &str {
    let segments = if namespaced { 7 } else { 5 };
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    path.get(..end).unwrap_or(path)
}

/// Pages refer to each other relative to their folder, so the root needs its slash.
fn redirect_to_root(parts: &Parts) -> Response<Body> {
    let query = parts.uri.query().filter(|query| !query.is_empty()).map_or_else(String::new, |q| format!("?{q}"));
    let mut response = answer::bytes(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", "");
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    answer::set(response.headers_mut(), LOCATION, &format!("{}/{query}", parts.uri.path()));
    response
}

fn target(app: &Arc<App>, place: &Place) -> Result<Target> {
    let host = place.host.clone();
    let tls = if place.is_kubelet {
        Some((kubelet::tls(app, true)?, host.clone()))
    } else if place.scheme == "https" {
        let config = backend::client_config(Trust::Anyone, None).map_err(Failure::internal)?;
        Some((config, host.clone()))
    } else {
        None
    };
    Ok(Target { host, port: place.port, tls, proxy: app.config.egress.proxy(Selection::Cluster) })
}

/// Only addresses that a pod can have are asked: not this machine itself.
fn check_address(address: IpAddr) -> Result<()> {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || local {
        return Err(not_allowed());
    }
    Ok(())
}

fn not_allowed() -> Failure {
    Failure::bad_request("address not allowed")
}

/// The same for what may be a name: none of its addresses may be this machine's.
async fn check_host(host: &str) -> Result<()> {
    if let Ok(address) = host.parse() {
        return check_address(address);
    }
    let unknown = |why: &str| Failure::bad_request(format!("lookup {host}: {why}"));
    let addresses = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, 0))).await;
    let addresses = addresses.map_err(|_elapsed| unknown("i/o timeout"))?.map_err(|_error| unknown("no such host"))?;
    addresses.into_iter().try_for_each(|address| check_address(address.ip()))
}

/// How long a name may take to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

fn scheme_of(address: &Address<'_>) -> &'static str {
    if address.scheme == "https" { "https" } else { "http" }
}

fn port_number(text: &str) -> Result<u16> {
    text.parse()
        .map_err(|_| Failure::unavailable(format!("error trying to reach service: dial tcp: unknown port tcp/{text}")))
}

async fn find<M: prost::Message + Default>(call: &Call, plural: &str, name: &str) -> Result<M> {
    call.app.cache.fresh().await?;
    let storage = call.app.cache.known("", plural);
    let subject = crate::app::resource_subject(storage.kind);
    let object = storage.get(call.namespace(), name).ok_or_else(|| Failure::not_found(subject, name))?;
    api::envelope::decode_message(&object.data).map_err(Failure::internal)
}

async fn pod(call: &Call, address: &Address<'_>) -> Result<Place> {
    let pod: Pod = find(call, "pods", address.name).await?;
    let first = pod.spec.containers.iter().flat_map(|c| &c.ports).next().map(|p| p.container_port);
    let scheme = scheme_of(address);
    let port = match (address.port, first) {
        ("", Some(port)) => u16::try_from(port).unwrap_or_default(),
        ("", None) => default_port(scheme),
        (text, _) => port_number(text)?,
    };
    let host = pod.status.pod_ips.first().map_or(pod.status.pod_ip, |ip| ip.ip.clone());
    check_address(host.parse().map_err(|_| not_allowed())?)?;
    Ok(Place { scheme, host, port, is_kubelet: false })
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// A ready endpoint of the port, by chance.
async fn service(call: &Call, address: &Address<'_>) -> Result<Place> {
    let service: Service = find(call, "services", address.name).await?;
    let mut port = address.port.to_owned();
    if let Ok(number) = port.parse::<i32>() {
        let own = service.spec.ports.iter().find(|p| p.port == number);
        let none = || Failure::unavailable(format!("no service port {number} found for service {:?}", address.name));
        port.clone_from(&own.ok_or_else(none)?.name);
    }
    let none = |name: &str| Failure::unavailable(format!("no endpoints available for service {name:?}"));
    // Upstream looks for the Endpoints, and names what was asked for.
    let endpoints = call.app.cache.known("", "endpoints").get(call.namespace(), address.name);
    let endpoints =
        endpoints.ok_or_else(|| Failure::not_found(crate::app::resource_subject(call.kind), address.name))?;
    let endpoints: Endpoints = api::envelope::decode_message(&endpoints.data).map_err(Failure::internal)?;
    if endpoints.subsets.is_empty() {
        return Err(none(address.name));
    }
    let mut found: Vec<(&EndpointAddress, u16)> = endpoints
        .subsets
        .iter()
        .filter_map(|subset| Some((subset, subset.ports.iter().find(|own| own.name == port)?)))
        .flat_map(|(subset, port)| {
            let port = u16::try_from(port.port).unwrap_or_default();
            subset.addresses.iter().map(move |address| (address, port))
        })
        .collect();
    // From one by chance on: a service may have a thousand, and each that is looked at costs reading a pod.
    let start = rand::rng().random_range(..found.len().max(1));
    found.rotate_left(start);
    let (host, port) = found.into_iter().find(|(a, _)| is_pods(call, a)).ok_or_else(|| none(&call.info.name))?;
    let host = host.ip.clone();
    check_address(host.parse().map_err(|_| not_allowed())?)?;
    Ok(Place { scheme: scheme_of(address), host, port, is_kubelet: false })
}

/// Whether an endpoint is a pod of the same namespace: whoever may write endpoints shall not reach by this server what
/// only this server reaches.
fn is_pods(call: &Call, address: &EndpointAddress) -> bool {
    let Some(target) = address.target_ref.as_ref().filter(|target| target.namespace == call.namespace()) else {
        return false;
    };
    let pod = call.app.cache.known("", "pods").get(call.namespace(), &target.name);
    let pod = pod.and_then(|pod| api::envelope::decode_message::<Pod>(&pod.data).ok());
    pod.is_some_and(|pod| pod.status.pod_ips.iter().any(|own| own.ip == address.ip))
}

async fn node(call: &Call, address: &Address<'_>) -> Result<Place> {
    call.app.cache.fresh().await?;
    let Kubelet { host, port: kubelet_port, .. } = kubelet::of_node(call, address.name)?;
    check_host(&host).await?;
    let asked = if address.port.is_empty() { None } else { Some(port_number(address.port)?) };
    match asked {
        Some(port) if port != kubelet_port => Ok(Place { scheme: scheme_of(address), host, port, is_kubelet: false }),
        _ => Ok(Place { scheme: "https", host, port: kubelet_port, is_kubelet: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_scheme_and_port() {
        let read = |text| Address::parse(text).map(|a| (a.scheme, a.name, a.port));
        assert_eq!(read("a"), Some(("", "a", "")));
        assert_eq!(read("a:80"), Some(("", "a", "80")));
        assert_eq!(read("https:a:web"), Some(("https", "a", "web")));
        assert_eq!(read("https:a:"), Some(("https", "a", "")));
        assert_eq!(read("ftp:a:1"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn the_path_is_cut_after_proxy() {
        assert_eq!(root_of("/api/v1/namespaces/n/pods/p/proxy/a//b/", true), "/api/v1/namespaces/n/pods/p/proxy");
        assert_eq!(root_of("/api/v1/nodes/n/proxy", false), "/api/v1/nodes/n/proxy");
    }

    #[test]
    fn paths_lead_nowhere_else() {
        let cases = [
            ("", "/"),
            ("/", "/"),
            ("/a//b/", "/a/b/"),
            ("/../../x/./y", "/x/y"),
            ("/x/..", "/"),
            ("/a b/é'", "/a%20b/%C3%A9%27"),
            ("/a:b@c;d", "/a:b@c;d"),
        ];
        for (path, expected) in cases {
            assert_eq!(percent_encode(&clean(path), PLAIN_IN_PATHS), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn this_machine_is_not_a_pod() {
        for refused in ["127.0.0.1", "::1", "169.254.1.1", "0.0.0.0", "localhost"] {
            assert!(check_host(refused).await.is_err(), "{refused}");
        }
        assert!(check_host("10.244.0.3").await.is_ok());
    }
}
