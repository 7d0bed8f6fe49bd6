//! What names are answered from.

use std::net::IpAddr;
use std::sync::Arc;

use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use reconcile::Cache;

/// Index of Services by cluster address.
pub(crate) const BY_ADDRESS: &str = "by-address";
/// Index of slices by the Service they belong to.
pub(crate) const BY_SERVICE: &str = "by-service";
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The Services and endpoints that the zone's names stand for.
pub trait Directory: Send + Sync + 'static {
    /// Whether everything is known; before, nobody is told that a name does not exist.
    fn is_complete(&self) -> bool;
    /// A Service by namespace and name.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// Whether a namespace is known to exist.
    fn has_namespace(&self, namespace: &str) -> bool;
    /// A Service's slices.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// The Service that has a cluster address.
    fn service_at(&self, address: IpAddr) -> Option<Arc<Service>>;
    /// The slices with an endpoint at an address.
    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// The watch caches.
pub(crate) struct Caches {
    pub(crate) services: Cache<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
}

impl Directory for Caches {
    fn is_complete(&self) -> bool {
        self.services.is_synced() && self.slices.is_synced()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        !self.services.list_namespace(namespace).is_empty()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &service_key(namespace, service))
    }

    fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, &address.to_string()).into_iter().next()
    }

    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, &address.to_string())
    }
}

pub(crate) fn service_key(namespace: &str, service: &str) -> String {
    format!("{namespace}/{service}")
}

/// Index keys of a Service.
pub(crate) fn service_addresses(service: &Service) -> Vec<String> {
    // Parsed, so that every way to write an address leads to the same key.
    let parsed = service.spec.cluster_ips.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    parsed.map(|address| address.to_string()).collect()
}

/// Index keys of a slice.
pub(crate) fn slice_service(slice: &EndpointSlice) -> Vec<String> {
    let name = slice.metadata.labels.get(SERVICE_LABEL);
    name.map(|name| service_key(&slice.metadata.namespace, name)).into_iter().collect()
}

/// Index keys of a slice; only headless Services' endpoints have names of their own.
pub(crate) fn slice_addresses(slice: &EndpointSlice) -> Vec<String> {
    if !slice.metadata.labels.contains_key("service.kubernetes.io/headless") {
        return Vec::new();
    }
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    addresses.filter_map(|text| text.parse::<IpAddr>().ok()).map(|address| address.to_string()).collect()
}
