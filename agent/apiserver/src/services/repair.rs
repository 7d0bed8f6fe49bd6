//! Services and the objects that stand for their addresses, brought together again.
//!
//! They are two writes, and a server may end between them. An address whose Service never came, or has gone, is given
//! back; one that a Service has and nobody holds is taken for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use api::core::v1::Service;
use api::networking::v1::IpAddress;
use lifecycle::Shutdown;

use super::{MANAGER, MANAGER_LABEL, NO_ADDRESS, forget, take};
use crate::app::{App, now};
use crate::start::internal_call;

/// How often it is looked, as upstream does.
const PERIOD: Duration = Duration::from_secs(3 * 60);
/// An address waits so long for its Service, which is written after it. As upstream does.
const GRACE_SECONDS: i64 = 60;

/// What is to be done about addresses.
#[derive(Debug, Default, PartialEq)]
struct Plan<'a> {
    give_back: Vec<&'a str>,
    take: Vec<(&'a Service, &'a str)>,
}

/// Looks again and again until shutdown.
pub async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => repair(app).await,
            () = shutdown.wait() => return,
        }
    }
}

/// Looks once. What fails is tried again the next time.
pub(super) async fn repair(app: &Arc<App>) {
    let addresses: Vec<IpAddress> = all(app, "networking.k8s.io", "ipaddresses");
    let services: Vec<Service> = all(app, "", "services");
    let plan = plan(&addresses, &services, now());
    for address in plan.give_back {
        tracing::info!(address, "no Service has this address: it is given back");
        forget(app, address).await;
    }
    for (service, address) in plan.take {
        let (Ok(parsed), call) = (address.parse(), internal_call(app, Service::KIND, "", "update")) else { continue };
        match take(&call, service, parsed).await {
            Ok(()) => tracing::info!(address, service = service.metadata.name, "nobody held this address: it is taken"),
            Err(failure) => {
                tracing::warn!(address, service = service.metadata.name, %failure, "an address is not held")
            }
        }
    }
}

fn all<M: prost::Message + Default>(app: &App, group: &str, plural: &str) -> Vec<M> {
    let storage = app.cache.known(group, plural);
    storage.snapshot().values().filter_map(|object| api::envelope::decode_message(&object.data).ok()).collect()
}

fn plan<'a>(addresses: &'a [IpAddress], services: &'a [Service], now: i64) -> Plan<'a> {
    let mut users: HashMap<&str, HashSet<(&str, &str)>> = HashMap::new();
    for service in services {
        for address in service.spec.cluster_ips.iter().filter(|address| *address != NO_ADDRESS) {
            users.entry(address).or_default().insert((&service.metadata.namespace, &service.metadata.name));
        }
    }
    let is_orphan = |address: &&IpAddress| {
        let Some(parent) = &address.spec.parent_ref else { return false };
        let meta = &address.metadata;
        let is_ours = meta.labels.get(MANAGER_LABEL).is_some_and(|manager| manager == MANAGER);
        let is_old = meta.creation_timestamp.unix().is_none_or(|made| now - made >= GRACE_SECONDS);
        let used = users.get(meta.name.as_str());
        let is_used = used.is_some_and(|users| users.contains(&(parent.namespace.as_str(), parent.name.as_str())));
        is_ours && is_old && parent.resource == "services" && !is_used
    };
    let held: HashSet<&str> = addresses.iter().map(|address| address.metadata.name.as_str()).collect();
    let wanted =
        services.iter().flat_map(|service| service.spec.cluster_ips.iter().map(move |ip| (service, ip.as_str())));
    Plan {
        give_back: addresses.iter().filter(is_orphan).map(|address| address.metadata.name.as_str()).collect(),
        take: wanted.filter(|(_, address)| *address != NO_ADDRESS && !held.contains(address)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use api::meta::v1::{ObjectMeta, Time};
    use api::networking::v1::ParentReference;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn address(name: &str, service: &str, age: i64) -> IpAddress {
        let labels = [(MANAGER_LABEL.to_owned(), MANAGER.to_owned())].into();
        let creation_timestamp = Time::from_unix(NOW - age);
        let metadata = ObjectMeta { name: name.to_owned(), labels, creation_timestamp, ..ObjectMeta::default() };
        let (namespace, name) = ("default".to_owned(), service.to_owned());
        let parent = ParentReference { resource: "services".to_owned(), namespace, name, ..ParentReference::default() };
        let mut address = IpAddress { metadata, ..IpAddress::default() };
        address.spec.parent_ref = Some(parent);
        address
    }

    fn service(name: &str, addresses: &[&str]) -> Service {
        let mut service = Service::default();
        (service.metadata.namespace, service.metadata.name) = ("default".to_owned(), name.to_owned());
        service.spec.cluster_ips = addresses.iter().map(|address| (*address).to_owned()).collect();
        service
    }

    #[test]
    fn what_a_server_left_half_done_is_finished() {
        let mut foreign = address("10.96.0.7", "gone", 600);
        foreign.metadata.labels.clear();
        let addresses = [
            address("10.96.0.1", "web", 600),
            address("10.96.0.2", "gone", 600),
            address("10.96.0.3", "coming", 5),
            address("10.96.0.4", "other", 600),
            foreign,
        ];
        let services =
            [service("web", &["10.96.0.1"]), service("api", &["10.96.0.4", "10.96.0.9"]), service("none", &["None"])];
        let plan = plan(&addresses, &services, NOW);
        assert_eq!(plan.give_back, ["10.96.0.2", "10.96.0.4"]);
        assert_eq!(plan.take, [(&services[1], "10.96.0.9")]);
    }
}
