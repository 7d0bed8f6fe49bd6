//! The proxy subresource of pods, services and nodes.
//!
//! A name may say more than the object: `[SCHEME:]NAME[:PORT]`. What follows `/proxy` is the path on the other side.

use std::net::IpAddr;
use std::sync::Arc;

use api::core::v1::{Pod, Service};
use egress::Selection;
use http::header::{HOST, LOCATION};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use rand::seq::IndexedRandom as _;

use super::{kubelet, links, tunnel};
use crate::answer::{self, Body};
use crate::app::{App, Call};
use crate::backend::{self, Target, Trust};
use crate::request::Query;
use crate::status::{Failure, Result};

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

/// `asked` is what admission made of what the client asks for, if that is something else.
pub(super) async fn serve(
    call: &Call,
    asked: Option<&Query>,
    (mut parts, body): (Parts, Body),
) -> Result<Response<Body>> {
    let what = call.kind.singular;
    let address = Address::parse(&call.info.name)
        .ok_or_else(|| Failure::bad_request(format!("invalid {what} request {:?}", call.info.name)))?;
    let place = match call.kind.plural {
        "pods" => pod(call, &address).await?,
        "services" => service(call, &address).await?,
        _ => node(call, &address).await?,
    };
    let (root, rest) = split_path(parts.uri.path(), call.kind.namespaced);
    if rest.is_empty()
        && matches!(parts.method, Method::GET | Method::HEAD)
        && !parts.headers.contains_key(http::header::UPGRADE)
    {
        return Ok(redirect_to_root(&parts));
    }
    let root = root.to_owned();
    let led = asked.and_then(|asked| led_to(asked, &call.info.rest));
    let rest = led.as_deref().unwrap_or(if rest.is_empty() { "/" } else { rest });
    let uri = parts.uri.query().map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"));
    let uri: Uri = uri.parse().map_err(|e| Failure::bad_request(format!("the path cannot be asked for: {e}")))?;
    let target = target(&call.app, &place)?;
    let headers = &mut parts.headers;
    tunnel::hide_credentials(headers);
    let host = headers.get(HOST).cloned();
    headers.extend(host.map(|h| (http::HeaderName::from_static("x-forwarded-host"), h)));
    answer::set(headers, "x-forwarded-uri", &format!("{root}{rest}"));
    answer::set(headers, "x-forwarded-proto", if call.app.config.tls.is_some() { "https" } else { "http" });
    let client_host = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let response = tunnel::forward(&target, uri, parts, body)
        .await
        .map_err(|e| Failure::unavailable(format!("error trying to reach service: {e}")))?;
    let hosts = [Some(target.authority()), client_host].into_iter().flatten().collect();
    Ok(links::rewrite(response, links::Place { root, hosts }))
}

/// Where admission leads a connection to, if not where the client wants it to.
fn led_to(asked: &Query, rest: &str) -> Option<String> {
    let path = asked.get("path").trim_start_matches('/');
    (path != rest.trim_start_matches('/')).then(|| format!("/{path}"))
}

/// The path up to `/proxy`, and what follows.
fn split_path(path: &str, namespaced: bool) -> (&str, &str) {
    let segments = if namespaced { 7 } else { 5 };
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

/// Pages refer to each other relative to their folder, so the root needs its slash.
fn redirect_to_root(parts: &Parts) -> Response<Body> {
    let query = parts.uri.query().map_or_else(String::new, |q| format!("?{q}"));
    let mut response = answer::bytes(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", "");
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    answer::set(response.headers_mut(), LOCATION, &format!("{}/{query}", parts.uri.path()));
    response
}

fn target(app: &Arc<App>, place: &Place) -> Result<Target> {
    let host = place.host.clone();
    let tls = if place.is_kubelet {
        Some((kubelet::tls(app)?, host.clone()))
    } else if place.scheme == "https" {
        let config = backend::client_config(Trust::Anyone, None).map_err(Failure::internal)?;
        Some((config, host.clone()))
    } else {
        None
    };
    Ok(Target { host, port: place.port, tls, proxy: app.config.egress.proxy(Selection::Cluster) })
}

/// Only addresses that a pod can have are asked: not this machine itself.
fn check_address(host: &str) -> Result<()> {
    let refused = || Failure::bad_request("address not allowed");
    let address: IpAddr = host.parse().map_err(|_| refused())?;
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || local {
        return Err(refused());
    }
    Ok(())
}

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
    check_address(&host)?;
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
    let found = crate::resolve::endpoints(&call.app.cache, (call.namespace(), address.name), &port);
    let none = |name: &str| Failure::unavailable(format!("no endpoints available for service {name:?}"));
    let found = match found {
        Some(found) => found,
        None if call.app.cache.known("", "endpoints").get(call.namespace(), address.name).is_some() => {
            return Err(none(address.name));
        }
        None => {
            // Upstream looks for the Endpoints, and names what was asked for.
            return Err(Failure::not_found(crate::app::resource_subject(call.kind), address.name));
        }
    };
    let (host, port) = found.choose(&mut rand::rng()).cloned().ok_or_else(|| none(&call.info.name))?;
    check_address(&host)?;
    Ok(Place { scheme: scheme_of(address), host, port, is_kubelet: false })
}

async fn node(call: &Call, address: &Address<'_>) -> Result<Place> {
    call.app.cache.fresh().await?;
    let (host, kubelet_port) = kubelet::address_of(call, address.name)?;
    let asked = if address.port.is_empty() { None } else { Some(port_number(address.port)?) };
    match asked {
        Some(port) if port != kubelet_port => {
            check_address(&host)?;
            Ok(Place { scheme: scheme_of(address), host, port, is_kubelet: false })
        }
        _ => Ok(Place { scheme: "https", host, port: kubelet_port, is_kubelet: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_where_admission_leads_it() {
        let led = |path: &str| led_to(&Query::of_pairs([("path", path.to_owned())]), "a/b");
        assert_eq!((led("/a/b"), led("/c"), led("")), (None, Some("/c".to_owned()), Some("/".to_owned())));
    }

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
        let path = "/api/v1/namespaces/n/pods/p/proxy/a//b/";
        assert_eq!(split_path(path, true), ("/api/v1/namespaces/n/pods/p/proxy", "/a//b/"));
        assert_eq!(split_path("/api/v1/nodes/n/proxy", false), ("/api/v1/nodes/n/proxy", ""));
    }

    #[test]
    fn this_machine_is_not_a_pod() {
        for refused in ["127.0.0.1", "::1", "169.254.1.1", "0.0.0.0", ""] {
            assert!(check_address(refused).is_err(), "{refused}");
        }
        assert!(check_address("10.244.0.3").is_ok());
    }
}
