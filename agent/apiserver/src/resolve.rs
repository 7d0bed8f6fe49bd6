//! From a Service to an address that answers for it, from the cache alone.
//!
//! This server dials endpoints itself, so that it needs no service proxy on its machine.

use api::core::v1::{Endpoints, Service};
use api::discovery::v1::EndpointSlice;
use rand::seq::IndexedRandom as _;

use crate::cache::Cache;

/// Addresses and ports behind the port of a service; `None` where the service has no endpoints at all.
pub fn endpoints(cache: &Cache, (namespace, name): (&str, &str), port: &str) -> Option<Vec<(String, u16)>> {
    let slices = cache.known("discovery.k8s.io", "endpointslices");
    let prefix = format!("{namespace}/");
    let mut found: Option<Vec<(String, u16)>> = None;
    for (_, object) in slices.snapshot().iter().filter(|(key, _)| key.starts_with(&prefix)) {
        if object.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let Ok(slice) = api::envelope::decode_message::<EndpointSlice>(&object.data) else { continue };
        let all = found.get_or_insert_default();
        let Some(number) = slice.ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port) else { continue };
        let number = number.port.and_then(|p| u16::try_from(p).ok()).unwrap_or_default();
        let ready = slice.endpoints.iter().filter(|e| e.conditions.ready.unwrap_or(true));
        all.extend(ready.filter_map(|e| e.addresses.first()).map(|a| (a.clone(), number)));
    }
    if found.is_some() {
        return found;
    }
    let object = cache.known("", "endpoints").get(namespace, name)?;
    let endpoints: Endpoints = api::envelope::decode_message(&object.data).ok()?;
    if endpoints.subsets.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for subset in &endpoints.subsets {
        let Some(number) = subset.ports.iter().find(|p| p.name == port) else { continue };
        let number = u16::try_from(number.port).unwrap_or_default();
        all.extend(subset.addresses.iter().map(|a| (a.ip.clone(), number)));
    }
    Some(all)
}

/// An address for the port of a service, by chance. Errors are texts for messages.
pub fn service(cache: &Cache, (namespace, name): (&str, &str), port: i32) -> Result<(String, u16), String> {
    let object = cache.known("", "services").get(namespace, name);
    let object = object.ok_or_else(|| format!("service {name:?} not found"))?;
    let service: Service = api::envelope::decode_message(&object.data).map_err(|e| e.to_string())?;
    if service.spec.r#type == "ExternalName" {
        return Ok((service.spec.external_name, u16::try_from(port).unwrap_or_default()));
    }
    let own = service.spec.ports.iter().find(|p| p.port == port);
    let own = own.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let found = endpoints(cache, (namespace, name), &own.name).unwrap_or_default();
    found.choose(&mut rand::rng()).cloned().ok_or_else(|| format!("no endpoints available for service {name:?}"))
}
