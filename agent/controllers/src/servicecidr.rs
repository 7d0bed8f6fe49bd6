//! `service-cidr-controller`: ranges of Service addresses are ready, and stay as long as addresses come from them.

use std::net::IpAddr;
use std::sync::Arc;

use api::meta::v1::{Condition, Time};
use api::networking::v1::{IpAddress, ServiceCidr};
use client::Patch;
use ipnet::IpNet;
use reconcile::{Action, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now, subject};
use crate::error::{During, Error};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";

pub(crate) struct ServiceRanges {
    context: Context,
}

impl Controller for ServiceRanges {
    const NAME: &'static str = "service-cidr-controller";
    const WORKERS: usize = 1;
    const NEEDS: &'static [Need] = &[need::service_cidrs, need::ip_addresses];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.service_cidrs.handle(enqueue(queue));
        let (queue, ranges) = (queue.clone(), self.context.caches.service_cidrs.clone());
        reflectors.ip_addresses.handle(move |event| {
            // Only ranges that are going wait for addresses.
            if subject(event).is_some() {
                let going = ranges.list().into_iter().filter(|r| r.metadata.deletion_timestamp.is_some());
                going.for_each(|range| queue.add(Key::of(&range.metadata)));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let Some(range) = caches.service_cidrs.get("", &key.name) else { return Ok(Action::Done) };
        let held = range.metadata.finalizers.iter().any(|f| f == FINALIZER);
        if range.metadata.deletion_timestamp.is_none() {
            if !held {
                let body = serde_json::json!({"metadata": {"uid": range.metadata.uid, "finalizers": [FINALIZER]}});
                return self.patch(&key.name, body).await;
            }
            return self.tell(&range, ("True", "", "Kubernetes Service CIDR is ready")).await;
        }
        if !held {
            return Ok(Action::Done);
        }
        if is_needed(&range, &caches.service_cidrs.list(), &caches.ip_addresses.list()) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                           ServiceCIDR";
            return self.tell(&range, ("False", "Terminating", message)).await;
        }
        let gone = serde_json::json!([FINALIZER]);
        let body = serde_json::json!({"metadata": {"uid": range.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": gone}});
        self.patch(&key.name, body).await
    }
}

impl ServiceRanges {
    async fn patch(&self, name: &str, body: serde_json::Value) -> Result<Action, Error> {
        match self.context.client.patch::<ServiceCidr>(None, name, None, &Patch::Strategic(body)).await {
            Err(error) if !error.is_not_found() => Err(error).during("changing what keeps a service range"),
            _ => Ok(Action::Done),
        }
    }

    async fn tell(&self, range: &ServiceCidr, (status, reason, message): (&str, &str, &str)) -> Result<Action, Error> {
        let old = range.status.conditions.iter().find(|c| c.r#type == READY);
        if old.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
            return Ok(Action::Done);
        }
        let since =
            old.filter(|c| c.status == status).map_or_else(|| Time::from_unix(now()), |c| c.last_transition_time);
        let mut changed = range.clone();
        changed.status.conditions.retain(|c| c.r#type != READY);
        changed.status.conditions.push(Condition {
            r#type: READY.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since,
            ..Condition::default()
        });
        self.context.client.update_status(&changed).await.during("writing the status")?;
        Ok(Action::Done)
    }
}

/// Whether an address is in this range and in no other that stays.
fn is_needed(range: &ServiceCidr, ranges: &[Arc<ServiceCidr>], addresses: &[Arc<IpAddress>]) -> bool {
    let has = |range: &ServiceCidr, address: &IpAddr| {
        range.spec.cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok()).any(|net| net.contains(address))
    };
    let stays = |other: &&Arc<ServiceCidr>| {
        other.metadata.name != range.metadata.name && other.metadata.deletion_timestamp.is_none()
    };
    addresses
        .iter()
        .filter_map(|address| address.metadata.name.parse().ok())
        .any(|address| has(range, &address) && !ranges.iter().filter(stays).any(|other| has(other, &address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_needed_by_addresses_that_are_in_no_other() {
        let range = |name: &str, cidr: &str| {
            let mut range = ServiceCidr::default();
            range.metadata.name = name.to_owned();
            range.spec.cidrs = vec![cidr.to_owned()];
            Arc::new(range)
        };
        let mut address = IpAddress::default();
        address.metadata.name = "10.0.0.9".to_owned();
        let (small, large) = (range("small", "10.0.0.0/28"), range("large", "10.0.0.0/24"));
        let addresses = [Arc::new(address)];
        assert!(is_needed(&small, std::slice::from_ref(&small), &addresses));
        assert!(!is_needed(&small, &[small.clone(), large], &addresses));
        assert!(!is_needed(&range("other", "10.1.0.0/24"), &[], &addresses));
    }
}
