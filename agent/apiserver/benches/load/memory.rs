//! What is in memory: of a server that does nothing, of lists under way, of pods and definitions.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};

use crate::Result;
use crate::figures::{Figure, Form, Found};
use crate::options::Options;
use crate::subject::Subject;
use crate::wire::{JSON, Write, drain, many, object, open, read, write};
use crate::work::NAMESPACE;

/// Lists under way at a time.
const AT_ONCE: u8 = 8;
/// Ours keeps what it wrote for readers to come, in so many bytes at most, for a minute; then it gives the memory back.
const FORGETTING: Duration = Duration::from_secs(100);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Time between two looks at definitions, and how long they may take to be served.
const LOOK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(600);

/// Of a server that was just started, and of definitions that it is given.
#[allow(clippy::cast_precision_loss, reason = "there are not that many")]
pub(crate) async fn definitions(options: &Options, subject: &Subject) -> Result<Vec<Found>> {
    subject.settled().await?;
    let mut found = vec![Found::new(Figure::Idle, subject.share()? / 1024.0)];
    if options.wants(Figure::Definition) {
        let before = subject.own()?;
        many(0..options.definitions, async |n| {
            let path = DEFINITIONS.to_owned();
            write(&subject.client, Write { method: Method::POST, kind: JSON, path, body: definition(n) }).await
        })
        .await?;
        served(subject, options.definitions).await?;
        subject.settled().await?;
        found.push(Found::new(Figure::Definition, (subject.own()? - before) / options.definitions as f64));
    }
    found.retain(|found| options.wants(found.figure));
    Ok(found)
}

/// Waits until as many definitions are served.
async fn served(subject: &Subject, count: usize) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let list = object(&subject.client, DEFINITIONS).await?;
        let is_established = |item: &&Value| {
            let conditions = item["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
        };
        let established = list["items"].as_array().into_iter().flatten().filter(is_established).count();
        if established == count {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{established} of {count} definitions are served").into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Kilobytes that each of the pods takes beyond its stored bytes, once the answers to who made them are forgotten.
#[allow(clippy::cast_precision_loss, reason = "there are not that many")]
pub(crate) async fn beyond_bytes(subject: &Subject, before: f64, pods: usize) -> Result<f64> {
    tokio::time::sleep(FORGETTING).await;
    subject.settled().await?;
    let stored = subject.stored(&format!("/registry/pods/{NAMESPACE}/")).await?;
    Ok((subject.own()? - before - stored) / pods as f64)
}

/// Kilobytes that each of several lists takes at most, of which nobody reads more than the beginning at first.
pub(crate) async fn of_lists(subject: &Subject, form: Form) -> Result<f64> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    read(&subject.client, &path, form.accept()).await?;
    subject.settled().await?;
    let before = subject.forget_peak()?;
    let clients: Vec<_> = (0..AT_ONCE).map(|_| subject.connect()).collect();
    let lists = try_join_all(clients.iter().map(|client| open(client, &path, form.accept()))).await?;
    subject.settled().await?;
    try_join_all(lists.into_iter().map(drain)).await?;
    Ok((subject.peak()? - before) / f64::from(AT_ONCE))
}

/// A definition of usual size.
fn definition(n: usize) -> Value {
    let text = |about: &str| json!({"type": "string", "maxLength": 253, "description": about});
    let section = |section: usize| {
        let field =
            |n: usize| (format!("setting{n}"), text(&format!("What setting {n} of section {section} is about.")));
        let fields: serde_json::Map<String, Value> = (0..8).map(field).collect();
        (format!("section{section}"), json!({"type": "object", "properties": fields, "required": ["setting0"]}))
    };
    let sections: serde_json::Map<String, Value> = (0..5).map(section).collect();
    let condition = json!({
        "type": "object", "required": ["type", "status"],
        "properties": {"type": text("Its type."), "status": text("Its state."), "message": text("More about it.")},
    });
    let status = json!({"type": "object", "properties": {"conditions": {"type": "array", "items": condition}}});
    let schema = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": sections}, "status": status},
    });
    let (plural, group) = (format!("things{n}"), format!("group{}.example.com", n % 20));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": format!("Thing{n}")},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}
