//! Pods that are made, read, changed and listed.

use std::cell::Cell;

use client::Client;
use http::Method;
use serde_json::{Value, json};

use crate::Result;
use crate::figures::{Figure, Form, Found};
use crate::memory;
use crate::options::Options;
use crate::subject::Subject;
use crate::wire::{JSON, Write, many, read, write};

/// Where the pods are.
pub(crate) const NAMESPACE: &str = "load";
/// Where others are that come and go before anything is measured.
const WARM: &str = "warm";
const WARM_PODS: usize = 200;
/// Requests of one round.
const ROUND: usize = 500;

/// All of it but watches, with as many pods.
pub(crate) async fn pods(options: &Options, subject: &Subject, count: usize) -> Result<Vec<Found>> {
    let client = &subject.client;
    for namespace in [WARM, NAMESPACE] {
        make_namespace(client, namespace).await?;
    }
    warm(client).await?;
    subject.settled().await?;
    let before = subject.own()?;
    let create = subject.cost(0.0, async || many(0..count, async |n| make(client, NAMESPACE, n).await).await).await?;
    let mut found = vec![Found::rate(Figure::Create, create)];
    if options.wants(Figure::StoredPod) {
        found.push(Found::new(Figure::StoredPod, memory::beyond_bytes(subject, before, count).await?));
    }
    found.extend(reads_and_changes(options, subject, count).await?);
    for form in Form::ALL {
        if options.wants(Figure::ListMemory(form)) {
            found.push(Found::new(Figure::ListMemory(form), memory::of_lists(subject, form).await?));
        }
    }
    found.retain(|found| options.wants(found.figure));
    Ok(found)
}

async fn reads_and_changes(options: &Options, subject: &Subject, count: usize) -> Result<Vec<Found>> {
    let (client, seconds, lists) = (&subject.client, options.seconds, path(NAMESPACE));
    // Each change is a new one.
    let round = &Cell::new(0);
    let next = || {
        round.set(round.get() + 1);
        0..ROUND
    };
    let mut found = Vec::new();
    if options.wants(Figure::Get) {
        let get = async |n: usize| read(client, &path_of(n % count), JSON).await;
        found.push(Found::rate(Figure::Get, subject.cost(seconds, async || many(0..ROUND, &get).await).await?));
    }
    if options.wants(Figure::MergePatch) {
        let patch = async |n: usize| write(client, merging(n % count, &text(round.get(), n))).await;
        let cost = subject.cost(seconds, async || many(next(), &patch).await).await?;
        found.push(Found::rate(Figure::MergePatch, cost));
    }
    if options.wants(Figure::Apply) {
        let apply = async |n: usize| write(client, applying(n % count, &text(round.get(), n))).await;
        found.push(Found::rate(Figure::Apply, subject.cost(seconds, async || many(next(), &apply).await).await?));
    }
    for form in Form::ALL {
        if options.wants(Figure::List(form)) {
            let list = async || read(client, &lists, form.accept()).await.map(|()| count);
            found.push(Found::rate(Figure::List(form), subject.cost(seconds, list).await?));
        }
    }
    Ok(found)
}

async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    let post = |path: &str, body| Write { method: Method::POST, kind: JSON, path: path.to_owned(), body };
    write(client, post("/api/v1/namespaces", json!({"metadata": {"name": name}}))).await?;
    // Where no controller runs, nobody else makes it.
    let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
    write(client, post(&accounts, json!({"metadata": {"name": "default"}}))).await
}

/// Does everything once, so that what is made at first use does not count.
async fn warm(client: &Client) -> Result<()> {
    many(0..WARM_PODS, async |n| make(client, WARM, n).await).await?;
    let path = path(WARM);
    for form in Form::ALL {
        read(client, &path, form.accept()).await?;
    }
    many(0..WARM_PODS, async |n| {
        let path = format!("{path}/{}?gracePeriodSeconds=0", name_of(n));
        write(client, Write { method: Method::DELETE, kind: JSON, path, body: json!({}) }).await
    })
    .await?;
    Ok(())
}

async fn make(client: &Client, namespace: &str, n: usize) -> Result<()> {
    write(client, Write { method: Method::POST, kind: JSON, path: path(namespace), body: pod(n) }).await
}

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

fn path_of(n: usize) -> String {
    format!("{}/{}", path(NAMESPACE), name_of(n))
}

fn name_of(n: usize) -> String {
    format!("load-{n:05}")
}

/// What a label becomes: that there is already would be no change.
fn text(round: usize, n: usize) -> String {
    format!("{round}-{n}")
}

/// A change of one label.
pub(crate) fn merging(n: usize, text: &str) -> Write {
    let body = json!({"metadata": {"labels": {"round": text}}});
    Write { method: Method::PATCH, kind: "application/merge-patch+json", path: path_of(n), body }
}

/// A change of one label by somebody who applies the pod's labels and its image.
fn applying(n: usize, text: &str) -> Write {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name_of(n), "namespace": NAMESPACE, "labels": {"app": "value-of-app", "applied": text}},
        "spec": {"containers": [{"name": "web", "image": "example.com/web:1.2.3"}]},
    });
    let path = format!("{}?fieldManager=load&force=true", path_of(n));
    Write { method: Method::PATCH, kind: "application/apply-patch+yaml", path, body }
}

/// A pod as a Deployment would make it.
fn pod(n: usize) -> Value {
    let variable = |i| json!({"name": format!("SETTING_{i}"), "value": "a value of usual length"});
    json!({
        "metadata": {
            "name": name_of(n),
            "labels": {"app": "value-of-app", "tier": "value-of-tier", "pod-template-hash": "value-of-hash"},
        },
        "spec": {"containers": [{
            "name": "web", "image": "example.com/web:1.2.3", "env": (0..8).map(variable).collect::<Value>(),
        }]},
    })
}
