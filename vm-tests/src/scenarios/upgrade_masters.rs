//! Three masters that are updated one at a time while somebody writes and somebody reads: nothing that was acknowledged
//! is lost, and the API is away for no longer than a client takes to ask the next master.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::Outcome;
use super::scene::Scene;
use super::upgrade::{check_all, upgrade};
use crate::flash::Medium;
use crate::observe::Api;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// How long a client waits for one master before it asks the next one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two requests of a client: the machines' processors are emulated, and have other work.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that clients may be without an answer. A master that goes down hands leadership of etcd over first; under
/// emulation an election by time-out, and a client that waits for two masters in turn, are within this.
const AWAY: Duration = Duration::from_secs(30);

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    scene.flash(Medium::Disk)?;
    let api = scene.up().await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(Masters::of(scene)?, is_over.clone()));
    let reader = tokio::spawn(read(Masters::of(scene)?, is_over.clone()));
    let updated = upgrade(scene, &master, ("0.7.0", ""), &["--all"]).await;
    is_over.store(true, Ordering::Relaxed);
    let (acknowledged, written) = writer.await.context("the writer failed")??;
    let read = reader.await.context("the reader failed")??;
    let version = updated?;
    scene.say(&format!("writes: {written}; reads: {read}"));
    check_all(scene, &api, &master, &version).await?;
    let list = api.get(CONFIG_MAPS).await?;
    let items = list["items"].as_array().context("a list without items")?;
    let present: BTreeSet<&str> = items.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !present.contains(name.as_str())).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
    for (who, away) in [("the writer", written.longest), ("the reader", read.longest)] {
        ensure!(away <= AWAY, "{who} was without an answer for {:.1} s", away.as_secs_f64());
    }
    scene.say(&format!("all {} acknowledged writes are there", acknowledged.len()));
    Ok(Outcome::Passed)
}

/// A client that knows all masters and goes on to the next when one does not answer.
struct Masters {
    apis: Vec<Api>,
    current: usize,
    times: Times,
}

/// How a client fared.
struct Times {
    last: Instant,
    longest: Duration,
    answers: usize,
    failures: usize,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let longest = self.longest.as_secs_f64();
        write!(f, "{} answers, {} failures, at most {longest:.1} s between answers", self.answers, self.failures)
    }
}

impl Masters {
    fn of(scene: &Scene) -> Result<Self> {
        let folder = &scene.cluster.folder;
        let path = |index| if index == 0 { folder.kubeconfig() } else { folder.kubeconfig_of(index) };
        let apis = (0..scene.cluster.apis().count()).map(|index| Api::new(&path(index))).collect::<Result<_>>()?;
        let times = Times { last: Instant::now(), longest: Duration::ZERO, answers: 0, failures: 0 };
        Ok(Self { apis, current: 0, times })
    }

    /// The answer of the master that answered last, or none, after which the next one is asked.
    async fn ask(&mut self, method: Method, path: &str, body: Option<&Value>) -> Option<Value> {
        tokio::time::sleep(PAUSE).await;
        let answer = timeout(PATIENCE, self.apis[self.current].send(method, path, body)).await;
        let now = Instant::now();
        match answer {
            Ok(Ok((StatusCode::OK | StatusCode::CREATED, body))) => {
                self.times.longest = self.times.longest.max(now - self.times.last);
                self.times.last = now;
                self.times.answers += 1;
                serde_json::from_slice(&body).ok()
            }
            _ => {
                self.times.failures += 1;
                self.current = (self.current + 1) % self.apis.len();
                None
            }
        }
    }
}

/// Creates one object after the other; gives the names that were acknowledged. One without an answer may be there or not.
async fn write(mut masters: Masters, is_over: Arc<AtomicBool>) -> Result<(Vec<String>, Times)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("rolling-{number}");
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        if masters.ask(Method::POST, CONFIG_MAPS, Some(&object)).await.is_some() {
            acknowledged.push(name);
        }
    }
    Ok((acknowledged, masters.times))
}

/// Counts the objects again and again: whichever master answers, there never are fewer than before. The list has one
/// object and tells how many follow; whole lists would cost the emulated machines more than what is tried here.
async fn read(mut masters: Masters, is_over: Arc<AtomicBool>) -> Result<Times> {
    let mut most = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        let path = format!("{CONFIG_MAPS}?limit=1");
        let Some(list) = masters.ask(Method::GET, &path, None).await else { continue };
        let listed = list["items"].as_array().map_or(0, Vec::len);
        let count = listed as u64 + list["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
        ensure!(count >= most, "there were {most} objects, and then {count}");
        most = count;
    }
    Ok(masters.times)
}
