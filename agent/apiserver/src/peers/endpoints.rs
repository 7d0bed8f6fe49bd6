//! Addresses of all servers: each holds a key that goes away by itself, and all keep the endpoints of the Service
//! `kubernetes` like the keys that are there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use bytes::Bytes;
use lifecycle::Shutdown;
use serde_json::{Value, json};
use store::{RangeRequest, WriteResult};

use super::change;
use crate::app::App;
use crate::cache::store_failure;
use crate::codec;
use crate::config::EndpointReconciler;
use crate::start::make;
use crate::status::{Failure, Result};

/// Where the keys lie.
const PREFIX: &str = "/registry/masterleases/";
/// How long a key lives.
const LIFE: Duration = Duration::from_secs(15);
/// How often it is renewed.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a server that ends tries to take its address back.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Attempts at a key that somebody else writes too.
const ATTEMPTS: usize = 5;

const NAME: &str = "kubernetes";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Whether this server tells its address at all.
fn is_told(app: &App) -> bool {
    // No pod reaches a loopback address, and no endpoint may be one.
    app.config.endpoint_reconciler == EndpointReconciler::Lease && !app.config.advertise.is_loopback()
}

/// Keeps this server's address, until shutdown.
pub(super) async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    if !is_told(app) {
        tracing::info!(address = %app.config.advertise, "the Service kubernetes gets no endpoint of this server");
        return;
    }
    let mut times = tokio::time::interval(INTERVAL);
    times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = times.tick() => {}
            () = shutdown.wait() => break,
        }
        let renewed = async {
            hold(app).await?;
            publish(app, Reason::Renewed).await
        };
        if let Err(failure) = renewed.await {
            tracing::warn!(%failure, "the address of this server could not be told");
        }
    }
    let left = tokio::time::timeout(LEAVE_TIMEOUT, leave(app, Reason::Left)).await;
    match left {
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => tracing::warn!(%failure, "the address of this server could not be taken back"),
        Err(_elapsed) => tracing::warn!("the address of this server was not taken back in time"),
    }
}

/// Takes back what a server at this address left behind when it ended without doing so.
///
/// # Errors
/// When the store does not answer.
pub async fn withdraw(app: &Arc<App>) -> Result<()> {
    if is_told(app) && leave(app, Reason::Renewed).await? {
        tracing::info!(address = %app.config.advertise, "the server before this one did not take its address back");
    }
    Ok(())
}

fn key(app: &App) -> Bytes {
    format!("{PREFIX}{}", app.config.advertise).into()
}

/// Makes this server's key live on.
async fn hold(app: &App) -> Result<()> {
    let store = app.cache.store();
    let mut current = store.get(&key(app), None).await.map_err(store_failure)?.kv;
    for _ in 0..ATTEMPTS {
        let old: Option<Endpoints> = current.as_ref().and_then(|kv| api::envelope::decode_message(&kv.value).ok());
        let value = api::envelope::encode_as("v1", "Endpoints", &lease(old.unwrap_or_default(), app.config.advertise));
        let expected = current.map_or(0, |kv| kv.mod_revision);
        match store.update(key(app), value.into(), expected, Some(LIFE)).await.map_err(store_failure)? {
            WriteResult::Committed { .. } => return Ok(()),
            WriteResult::Conflict { current: other, .. } => current = other,
        }
    }
    Err(Failure::internal("somebody else keeps writing the key of this server's address"))
}

/// A key's value; the generation grows so that each is another.
fn lease(mut old: Endpoints, address: IpAddr) -> Endpoints {
    let address = EndpointAddress { ip: address.to_string(), ..EndpointAddress::default() };
    old.subsets = vec![EndpointSubset { addresses: vec![address], ..EndpointSubset::default() }];
    let metadata = &mut old.metadata;
    metadata.generation += 1;
    old
}

/// Removes this server's key, and its address from the endpoints. False if there was no key.
async fn leave(app: &Arc<App>, reason: Reason) -> Result<bool> {
    let store = app.cache.store();
    let mut current = store.get(&key(app), None).await.map_err(store_failure)?.kv;
    for _ in 0..ATTEMPTS {
        let Some(kv) = current else { return Ok(false) };
        match store.delete(key(app), kv.mod_revision).await.map_err(store_failure)? {
            WriteResult::Committed { .. } => {
                // Without any server there is nothing to be told, but of one that leaves.
                if reason == Reason::Left || !addresses(app).await?.is_empty() {
                    publish(app, Reason::Left).await?;
                }
                return Ok(true);
            }
            WriteResult::Conflict { current: other, .. } => current = other,
        }
    }
    Err(Failure::internal("somebody else keeps writing the key of this server's address"))
}

/// Addresses of all servers, in order.
async fn addresses(app: &App) -> Result<Vec<String>> {
    let page = app.cache.store().range(RangeRequest::prefix(PREFIX)).await.map_err(store_failure)?;
    let address = |kv: store::KeyValue| {
        let lease: Endpoints = api::envelope::decode_message(&kv.value).ok()?;
        let first = lease.subsets.into_iter().next()?.addresses.into_iter().next()?;
        Some(first.ip).filter(|ip| !ip.is_empty())
    };
    let mut addresses: Vec<String> = page.kvs.into_iter().filter_map(address).collect();
    addresses.sort();
    Ok(addresses)
}

/// Why endpoints are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// This server is there.
    Renewed,
    /// It is not any more. Now ports are put right too, and no address at all is believed.
    Left,
}

async fn publish(app: &Arc<App>, reason: Reason) -> Result<()> {
    let addresses = addresses(app).await?;
    if reason == Reason::Renewed && addresses.is_empty() {
        return Err(Failure::internal("the store lists no server although this one was just added"));
    }
    let port = app.config.bind.port();
    let changed = change(app, ("v1", "Endpoints"), ("default", NAME), |old| mend(old, &addresses, port, reason)).await;
    let endpoints = match changed {
        Ok(changed) => {
            codec::to_value(app.cache.known("", "endpoints"), app.cache.known("", "endpoints").kind, &changed.object)?
        }
        Err(failure) if failure.code() == http::StatusCode::NOT_FOUND => {
            if reason == Reason::Left {
                return Ok(());
            }
            let mut new = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": NAME}});
            mend(&mut new, &addresses, port, reason);
            make(app, "default", new.clone()).await?;
            new
        }
        Err(failure) => return Err(failure),
    };
    publish_slice(app, &endpoints).await
}

/// Puts endpoints right, and leaves what is right as it is: others may have written it in another order.
fn mend(endpoints: &mut Value, addresses: &[String], port: u16, reason: Reason) {
    endpoints["metadata"]["labels"][SKIP_MIRROR] = "true".into();
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subsets = endpoints["subsets"].as_array().filter(|s| s.len() == 1);
    let has_form = subsets.is_some();
    let shown = |subset: &Value| {
        let shown = subset["addresses"].as_array().into_iter().flatten();
        let mut shown: Vec<String> = shown.filter_map(|a| a["ip"].as_str()).map(str::to_owned).collect();
        shown.sort();
        shown
    };
    if !has_form {
        endpoints["subsets"] = json!([{"ports": ports}]);
    }
    let subset = &mut endpoints["subsets"][0];
    if shown(subset) != addresses {
        let ports = subset["ports"].take();
        *subset =
            json!({"addresses": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(), "ports": ports});
    }
    if reason == Reason::Left && subset["ports"] != ports {
        subset["ports"] = ports;
    }
    if addresses.is_empty()
        && let Some(object) = endpoints.as_object_mut()
    {
        object.remove("subsets");
    }
}

/// The slice that says the same as endpoints.
fn slice_of(endpoints: &Value) -> Value {
    let subset = &endpoints["subsets"][0];
    let addresses: Vec<&str> =
        subset["addresses"].as_array().into_iter().flatten().filter_map(|a| a["ip"].as_str()).collect();
    let is_v6 = |ip: &&str| ip.contains(':');
    let all_v6 = !addresses.is_empty() && addresses.iter().all(is_v6);
    let ready = |ip: &str| json!({"addresses": [ip], "conditions": {"ready": true}});
    let ports = subset["ports"].as_array().into_iter().flatten();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": NAME, "labels": {SERVICE_NAME: NAME}},
        "addressType": if all_v6 { "IPv6" } else { "IPv4" },
        "endpoints": addresses.iter().filter(|ip| is_v6(ip) == all_v6).map(|ip| ready(ip)).collect::<Vec<_>>(),
        "ports": ports.map(|p| json!({"name": p["name"], "port": p["port"], "protocol": p["protocol"]})).collect::<Vec<_>>(),
    })
}

async fn publish_slice(app: &Arc<App>, endpoints: &Value) -> Result<()> {
    let wanted = slice_of(endpoints);
    let kind = ("discovery.k8s.io/v1", "EndpointSlice");
    let storage = app.cache.known("discovery.k8s.io", "endpointslices");
    if let Some(object) = storage.get("default", NAME)
        && codec::to_value(storage, storage.kind, &object)?["addressType"] != wanted["addressType"]
    {
        // The family of a slice never changes.
        let key = storage.store_key("default", NAME);
        app.cache.store().delete(key.into(), object.revision).await.map_err(store_failure)?;
        app.cache.fresh().await?;
    }
    let changed = change(app, kind, ("default", NAME), |old| {
        for part in ["endpoints", "ports"] {
            old[part] = wanted[part].clone();
        }
        old["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
    });
    match changed.await {
        Err(failure) if failure.code() == http::StatusCode::NOT_FOUND => make(app, "default", wanted).await,
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|a| (*a).to_owned()).collect()
    }

    #[test]
    fn a_key_is_what_upstream_writes() {
        let mut old = Endpoints::default();
        old.metadata.generation = i64::from(b'b') - 1;
        let lease = lease(old, IpAddr::from([192, 0, 2, 10]));
        let bytes = api::envelope::encode_as("v1", "Endpoints", &lease);
        let upstream =
            b"k8s\x00\n\x0f\n\x02v1\x12\tEndpoints\x12$\n\x10\n\x00\x12\x00\x1a\x00\"\x00*\x002\x008bB\x00\x12\
                         \x10\n\x0e\n\n192.0.2.10\x1a\x00\x1a\x00\"\x00";
        assert_eq!(bytes, upstream);
    }

    #[test]
    fn endpoints_follow_the_keys() {
        let mut endpoints = json!({"metadata": {"name": NAME}});
        mend(&mut endpoints, &list(&["192.0.2.1"]), 6443, Reason::Renewed);
        let port = json!([{"name": "https", "port": 6443, "protocol": "TCP"}]);
        assert_eq!(endpoints["subsets"], json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": port}]));
        assert_eq!(endpoints["metadata"]["labels"][SKIP_MIRROR], "true");
        mend(&mut endpoints, &list(&["192.0.2.1", "192.0.2.2"]), 7443, Reason::Renewed);
        assert_eq!(endpoints["subsets"][0]["ports"], port, "another server's ports are left");
        mend(&mut endpoints, &list(&["192.0.2.2"]), 7443, Reason::Left);
        assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "192.0.2.2"}]));
        assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 7443);
        mend(&mut endpoints, &[], 7443, Reason::Left);
        assert_eq!(endpoints.get("subsets"), None);
    }

    #[test]
    fn what_is_right_in_another_order_stays() {
        let mut endpoints = json!({
            "metadata": {"name": NAME, "labels": {SKIP_MIRROR: "true"}},
            "subsets": [{"addresses": [{"ip": "192.0.2.2"}, {"ip": "192.0.2.1"}], "ports": []}],
        });
        let before = endpoints.clone();
        mend(&mut endpoints, &list(&["192.0.2.1", "192.0.2.2"]), 6443, Reason::Renewed);
        assert_eq!(endpoints, before);
    }

    #[test]
    fn a_slice_has_the_addresses_of_one_family() {
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "2001:db8::1"}, {"ip": "192.0.2.1"}]}]});
        let slice = slice_of(&endpoints);
        assert_eq!((&slice["addressType"], slice["endpoints"].as_array().unwrap().len()), (&json!("IPv4"), 1));
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "2001:db8::1"}]}]});
        assert_eq!(slice_of(&endpoints)["addressType"], "IPv6");
    }
}
