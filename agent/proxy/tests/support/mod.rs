//! Services and slices in few words.

use api::core::v1::{ClientIpConfig, LoadBalancerIngress, Service, ServicePort, SessionAffinityConfig};
use api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

/// A Service of the given type with one TCP port 80 called `web`.
pub fn service(name: &str, kind: &str, addresses: &[&str]) -> Service {
    let mut service = Service::default();
    service.metadata.namespace = "default".into();
    service.metadata.name = name.into();
    service.spec.r#type = kind.into();
    service.spec.cluster_ip = addresses.first().copied().unwrap_or_default().into();
    service.spec.cluster_ips = addresses.iter().map(|text| (*text).to_owned()).collect();
    service.spec.ports =
        vec![ServicePort { name: "web".into(), protocol: "TCP".into(), port: 80, ..Default::default() }];
    service
}

pub fn sticky(mut service: Service, seconds: i32) -> Service {
    service.spec.session_affinity = "ClientIP".into();
    let client_ip = Some(ClientIpConfig { timeout_seconds: Some(seconds) });
    service.spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
    service
}

pub fn balanced(mut service: Service, address: &str) -> Service {
    let ingress = LoadBalancerIngress { ip: address.into(), ..Default::default() };
    service.status.load_balancer.ingress = vec![ingress];
    service
}

/// A slice with port `web` at 8080; endpoints are `ADDRESS[@NODE][!ready|!terminating]`.
pub fn slice(kind: &str, endpoints: &[&str]) -> Box<EndpointSlice> {
    let mut slice = EndpointSlice { address_type: kind.into(), ..Default::default() };
    slice.ports = vec![EndpointPort {
        name: Some("web".into()),
        port: Some(8080),
        protocol: Some("TCP".into()),
        ..Default::default()
    }];
    slice.endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
    Box::new(slice)
}

fn endpoint(text: &str) -> Endpoint {
    let (text, state) = text.split_once('!').unwrap_or((text, ""));
    let (address, node) = text.split_once('@').unwrap_or((text, "elsewhere"));
    let mut endpoint = Endpoint { addresses: vec![address.into()], node_name: Some(node.into()), ..Default::default() };
    endpoint.conditions.ready = Some(state.is_empty());
    endpoint.conditions.serving = Some(state != "ready");
    endpoint.conditions.terminating = Some(state == "terminating");
    endpoint
}
