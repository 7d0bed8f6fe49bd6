//! Our server and upstream's on one etcd: each reads what the other wrote, and both do their part of what servers do
//! together. These want a folder with upstream's `kube-apiserver` (v1.36) and an `etcd`, named by an environment variable:
//!
//! ```text
//! KEELSON_TEST_UPSTREAM=FOLDER cargo test -p apiserver --test mixed -- --ignored
//! ```
#![allow(clippy::unwrap_used)]

mod objects;
mod pair;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests do more with it")]
mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use futures::future::join_all;
use http::{Method, StatusCode};
use pair::{ADVERTISED, Pair, Side};
use serde_json::{Value, json};
use store::Store as _;
use support::JSON;
use support::golden::{self, Sample};

/// Kinds that the servers do not show alike: upstream's completes what it stored of a claim whenever it reads it, ours when
/// it writes it.
const UNLIKE: [&str; 1] = ["persistentvolumeclaims"];
/// Kinds of which there can be no second object under another name, and so none is made here.
const FIXED: [&str; 3] = ["apiservices", "customresourcedefinitions", "ipaddresses"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants upstream's server in KEELSON_TEST_UPSTREAM"]
async fn objects_of_every_kind_are_written_read_and_watched_by_both() {
    let pair = Pair::start().await;
    for (path, body) in [
        ("/api/v1/namespaces", json!({"metadata": {"name": golden::NAMESPACE}})),
        ("/api/v1/namespaces/golden/serviceaccounts", json!({"metadata": {"name": "default"}})),
    ] {
        pair.done(Side::Ours, Method::POST, path, (JSON, &body)).await.unwrap();
    }
    let mut samples = golden::samples();
    for (side, plural) in [(Side::Ours, "ours"), (Side::Upstream, "theirs")] {
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        pair.done(side, Method::POST, definitions, (JSON, &objects::definition(plural))).await.unwrap();
        let custom = objects::custom(plural);
        pair.until_both(&custom.collection, |code, _| code == StatusCode::OK).await;
        samples.insert(0, custom);
    }
    let mut wrong = Vec::new();
    let (mut kinds, mut unlike) = (BTreeSet::new(), BTreeSet::new());
    for sample in &samples {
        match both_ways(&pair, sample).await {
            Ok(true) => drop(kinds.insert(sample.plural.as_str())),
            Ok(false) => {}
            Err(_) if UNLIKE.contains(&sample.plural.as_str()) => drop(unlike.insert(sample.plural.as_str())),
            Err(why) => wrong.push(format!("{} ({}): {why}", sample.collection, sample.name)),
        }
    }
    let without: BTreeSet<_> = samples.iter().map(|sample| sample.plural.as_str()).collect();
    let without: Vec<_> = without.difference(&kinds).filter(|plural| !unlike.contains(*plural)).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}\nnone made: {without:?}", wrong.len(), samples.len(), wrong.join("\n"));
    assert!(without.iter().all(|plural| FIXED.contains(plural)), "{without:?}");
    assert!(UNLIKE.iter().all(|plural| unlike.contains(plural)), "mended: {UNLIKE:?}");
}

/// Lets each server begin with an object of its own, and the other go on. Says whether such objects could be made.
async fn both_ways(pair: &Pair, sample: &Sample) -> Result<bool, String> {
    let since = pair.revision(&sample.collection).await;
    let watch = |side| pair.watch(side, &sample.collection, &since);
    let (mut ours, mut upstream) = (watch(Side::Ours).await, watch(Side::Upstream).await);
    let names = [format!("{}-one", sample.name), format!("{}-two", sample.name)];
    let first = pair.life(sample, &names[0], Side::Ours).await?;
    let second = pair.life(sample, &names[1], Side::Upstream).await?;
    let masked = [(&names[0], &first), (&names[1], &second)].map(|(name, made)| objects::masked(&made.1, name));
    if first.0 != second.0 || masked[0] != masked[1] {
        return Err(format!(
            "made by ours, {}\n{}\nmade by upstream's, {}\n{}",
            first.0, masked[0], second.0, masked[1]
        ));
    }
    if first.0 != StatusCode::CREATED {
        return Ok(false);
    }
    let mut lives = Vec::new();
    for name in names {
        let is_gone = pair.is_gone(&format!("{}/{name}", sample.collection)).await;
        lives.push((name, is_gone));
    }
    let (ours, upstream) = (ours.lives(&lives).await, upstream.lives(&lives).await);
    if ours != upstream {
        return Err(format!("watched at ours\n{}\nwatched at upstream's\n{}", ours.join("\n"), upstream.join("\n")));
    }
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants upstream's server in KEELSON_TEST_UPSTREAM"]
async fn addresses_ports_and_tokens_are_given_out_by_both() {
    const SERVICES: usize = 60;
    let pair = &Pair::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |n: usize| {
        json!({
            "metadata": {"name": format!("s{n}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]},
        })
    };
    let side = |n: usize| if n.is_multiple_of(2) { Side::Ours } else { Side::Upstream };
    let make = |n| async move { pair.done(side(n), Method::POST, services, (JSON, &service(n))).await.unwrap() };
    let made = join_all((0..SERVICES).map(make)).await;
    let distinct =
        |pointer: &str| made.iter().map(|s| s.pointer(pointer).unwrap().to_string()).collect::<BTreeSet<_>>();
    let (addresses, ports) = (distinct("/spec/clusterIP"), distinct("/spec/ports/0/nodePort"));
    assert_eq!((addresses.len(), ports.len()), (SERVICES, SERVICES), "{addresses:?} {ports:?}");
    for (n, given) in made.iter().enumerate().take(2) {
        // What one gave out, the other does not give again, until it is free.
        let mut taken = service(SERVICES + n);
        taken["spec"]["clusterIP"] = given["spec"]["clusterIP"].clone();
        let (code, refusal) = pair.ask(side(n + 1), Method::POST, services, (JSON, &taken)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refusal}");
        assert!(refusal.contains("provided IP is already allocated"), "{refusal}");
        pair.done(side(n + 1), Method::DELETE, &format!("{services}/s{n}"), (JSON, &json!({}))).await.unwrap();
        let again = pair.done(side(n + 1), Method::POST, services, (JSON, &taken)).await.unwrap();
        assert_eq!(again["spec"]["clusterIP"], taken["spec"]["clusterIP"]);
    }
    let account = json!({"metadata": {"name": "somebody"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    pair.done(Side::Ours, Method::POST, accounts, (JSON, &account)).await.unwrap();
    for (issuer, other) in [(Side::Ours, Side::Upstream), (Side::Upstream, Side::Ours)] {
        let request = (JSON, &json!({"spec": {}}));
        let token = pair.done(issuer, Method::POST, &format!("{accounts}/somebody/token"), request).await.unwrap();
        let review = json!({"spec": {"token": token["status"]["token"]}});
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review = pair.done(other, Method::POST, reviews, (JSON, &review)).await.unwrap();
        assert_eq!(
            review["status"]["user"]["username"], "system:serviceaccount:default:somebody",
            "{issuer:?}: {review}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants upstream's server in KEELSON_TEST_UPSTREAM"]
async fn both_stand_behind_the_kubernetes_service_and_have_leases() {
    let pair = Pair::start().await;
    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let has = |wanted: &[Ipv4Addr], found: Vec<&Value>| {
        let found: BTreeSet<_> = found.into_iter().filter_map(Value::as_str).map(str::to_owned).collect();
        found == wanted.iter().map(Ipv4Addr::to_string).collect()
    };
    let all_of = |list: &'_ Value| list.as_array().cloned().unwrap_or_default();
    let in_endpoints = |wanted: &'static [Ipv4Addr]| {
        move |_: StatusCode, object: &Value| {
            has(wanted, all_of(&object["subsets"][0]["addresses"]).iter().map(|a| &a["ip"]).collect())
        }
    };
    let in_slice = |wanted: &'static [Ipv4Addr]| {
        move |_: StatusCode, object: &Value| {
            has(wanted, all_of(&object["endpoints"]).iter().map(|e| &e["addresses"][0]).collect())
        }
    };
    pair.until_both(endpoints, in_endpoints(&ADVERTISED)).await;
    pair.until_both(slice, in_slice(&ADVERTISED)).await;
    let keys = pair.store().await.range(store::RangeRequest::prefix("/registry/masterleases/")).await.unwrap().kvs;
    let keys: Vec<_> = keys.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
    assert_eq!(keys, ADVERTISED.map(|address| format!("/registry/masterleases/{address}")));
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases\
                  ?labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver";
    pair.until_both(leases, |_, list| list["items"].as_array().is_some_and(|leases| leases.len() == 2)).await;
    // Ours goes: upstream's says so.
    pair.stop_ours();
    let is_alone = in_endpoints(&ADVERTISED[..1]);
    pair.until(Side::Upstream, endpoints, is_alone).await;
    pair.until(Side::Upstream, slice, in_slice(&ADVERTISED[..1])).await;
    pair.until(Side::Upstream, leases, |_, list| list["items"].as_array().is_some_and(|leases| leases.len() == 1))
        .await;
}
