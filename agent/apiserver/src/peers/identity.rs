//! The Lease that shows that this server lives, and the end of those of servers that do not.

use std::sync::Arc;
use std::time::Duration;

use api::coordination::v1::Lease;
use lifecycle::Shutdown;
use serde_json::{Value, json};
use sha2::Digest as _;

use super::change;
use crate::app::{App, now};
use crate::cache::store_failure;
use crate::start::make;
use crate::status::Result;

const NAMESPACE: &str = "kube-system";
/// By this label identities are told from other leases.
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
/// How long a lease holds, and how often it is renewed.
const LIFE_SECONDS: i32 = 3600;
const INTERVAL: Duration = Duration::from_secs(10);
/// How often leases that are over are looked for.
const COLLECT_INTERVAL: Duration = Duration::from_secs(3600);
/// How long a server that ends tries to remove its lease.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// The name of a server's lease, which the same host gets again after a restart.
#[must_use]
pub fn lease_name(hostname: &str) -> String {
    let mut hash = sha2::Sha256::new();
    for part in [hostname, COMPONENT] {
        hash.update(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        hash.update(part);
    }
    format!("apiserver-{}", base32(&hash.finalize()[..16]))
}

/// Base 32 in small letters, without padding.
fn base32(bytes: &[u8]) -> String {
    let letter = |value: u32| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(value & 31) as usize]);
    let (mut out, mut held, mut bits) = (String::new(), 0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(letter(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(letter(held << (5 - bits)));
    }
    out
}

/// Keeps this server's lease until shutdown, and removes it then.
pub(super) async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    let name = lease_name(&app.config.hostname);
    let holder = format!("{name}_{}", uuid::Uuid::new_v4());
    // What a server before this one left is not this one's.
    let removed = async {
        remove(app, &name).await?;
        app.cache.fresh().await
    };
    if let Err(failure) = removed.await {
        tracing::warn!(%failure, "the lease of the server before this one could not be removed");
    }
    let mut times = tokio::time::interval(INTERVAL);
    times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut collect = tokio::time::interval(COLLECT_INTERVAL);
    loop {
        tokio::select! {
            _ = times.tick() => if let Err(failure) = renew(app, &name, &holder).await {
                tracing::warn!(%failure, "the lease of this server could not be renewed");
            },
            _ = collect.tick() => if let Err(failure) = remove_expired(app).await {
                tracing::warn!(%failure, "leases of servers that are gone could not be removed");
            },
            () = shutdown.wait() => break,
        }
    }
    match tokio::time::timeout(LEAVE_TIMEOUT, remove(app, &name)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::warn!(%failure, "the lease of this server could not be removed"),
        Err(_elapsed) => tracing::warn!("the lease of this server was not removed in time"),
    }
}

/// Writes what the lease says now.
fn fill(app: &App, lease: &mut Value, holder: &str) {
    lease["metadata"]["labels"][LABEL] = COMPONENT.into();
    lease["metadata"]["labels"]["kubernetes.io/hostname"] = app.config.hostname.as_str().into();
    if !app.config.advertise.is_loopback() {
        let address = std::net::SocketAddr::new(app.config.advertise, app.config.bind.port());
        lease["metadata"]["annotations"]["kubernetes.io/peer-advertise-address"] = address.to_string().into();
    }
    lease["spec"]["holderIdentity"] = holder.into();
    lease["spec"]["leaseDurationSeconds"] = LIFE_SECONDS.into();
    let time = jiff::Timestamp::now();
    lease["spec"]["renewTime"] = api::time::format_micros(time.as_second(), time.subsec_nanosecond()).into();
}

async fn renew(app: &Arc<App>, name: &str, holder: &str) -> Result<()> {
    let kind = ("coordination.k8s.io/v1", "Lease");
    match change(app, kind, (NAMESPACE, name), |lease| fill(app, lease, holder)).await {
        Err(failure) if failure.code() == http::StatusCode::NOT_FOUND => {
            let mut lease = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": name}, "spec": {}});
            fill(app, &mut lease, holder);
            make(app, NAMESPACE, lease).await
        }
        other => other.map(|_| ()),
    }
}

async fn remove(app: &App, name: &str) -> Result<()> {
    let storage = app.cache.known("coordination.k8s.io", "leases");
    let Some(lease) = storage.get(NAMESPACE, name) else { return Ok(()) };
    let key = storage.store_key(NAMESPACE, name);
    // Somebody else's write in between means that somebody else lives on this host.
    app.cache.store().delete(key.into(), lease.revision).await.map(|_| ()).map_err(store_failure)
}

async fn remove_expired(app: &App) -> Result<()> {
    let storage = app.cache.known("coordination.k8s.io", "leases");
    for object in storage.snapshot().values().filter(|o| o.key.starts_with("kube-system/")) {
        let Ok(lease) = api::envelope::decode_message::<Lease>(&object.data) else { continue };
        if lease.metadata.labels.get(LABEL).is_some_and(|of| of == COMPONENT) && is_expired(&lease, now()) {
            let key = storage.store_key(NAMESPACE, &lease.metadata.name);
            app.cache.store().delete(key.into(), object.revision).await.map_err(store_failure)?;
        }
    }
    Ok(())
}

fn is_expired(lease: &Lease, now: i64) -> bool {
    let renewed = lease.spec.renew_time.as_ref().and_then(|time| time.unix());
    match (renewed, lease.spec.lease_duration_seconds) {
        (Some(renewed), Some(seconds)) => renewed + i64::from(seconds) < now,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_lease_that_upstream_gives_it() {
        assert_eq!(lease_name("vm"), "apiserver-wlv32tlttr4jl3gtroqexyxapa");
    }

    #[test]
    fn leases_without_times_are_over() {
        let mut lease = Lease::default();
        assert!(is_expired(&lease, 0));
        lease.spec.renew_time = Some(api::meta::v1::MicroTime::from_unix_micros(5_000_000));
        lease.spec.lease_duration_seconds = Some(10);
        assert!(!is_expired(&lease, 15) && is_expired(&lease, 16));
    }
}
