//! `keelson virtual-address`: the address of the API that one master has at a time.
//!
//! A service of its own, which needs the control plane: on the way out of the machine it ends, and with it the address
//! goes to another master, before the API server does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use client::Client;
use http_body_util::BodyExt;
use lifecycle::{Shutdown, Tasks};
use tokio::sync::watch;
use virtual_address::{Config, Readiness};

use super::control_plane;
use crate::{node, paths, process};

/// Between one question to the API server and the next.
const PAUSE: Duration = Duration::from_millis(500);
/// An API server that takes longer to say whether it is ready is not well.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Checks that fail on all masters at once, when etcd has no majority or no space. One of them is to answer all the same.
const OF_ETCD: [&str; 3] = ["etcd", "etcd-readiness", "poststarthook/storage-readiness"];
/// What it says if it is not is a list of its checks.
const ANSWER_BYTES: usize = 64 * 1024;
const DRAIN: Duration = Duration::from_secs(1);

pub(crate) fn run() -> Result<()> {
    process::run(1, |shutdown| async move {
        let manifest = node::manifest_in_force()?;
        let wanted = manifest.virtual_address().context("the manifest has no cluster.virtual-address")?;
        let config = Config {
            address: wanted.address,
            interface: wanted.interface.as_ref().map(ToString::to_string),
            router_id: wanted.router_id,
            priority: wanted.priority,
            preempt: wanted.preempt,
            run: paths::RUN.into(),
            notify_socket: Some(Path::new(paths::RUN).join("notify")),
        };
        let client = control_plane::admin("virtual-address")?;
        let (sender, readiness) = watch::channel(Readiness::NotReady("it was not asked yet".to_owned()));
        let tasks = Tasks::new();
        tasks.spawn("readiness", follow(client, sender, shutdown.clone()));
        let ended = virtual_address::run(config, readiness, shutdown.clone()).await;
        shutdown.trigger();
        for name in tasks.drain(DRAIN).await {
            tracing::warn!(name, "task did not end in time");
        }
        ended.context("electing who has the virtual address")
    })
}

/// Asks this machine's API server again and again, until shutdown.
async fn follow(client: Client, sender: watch::Sender<Readiness>, shutdown: Shutdown) {
    let asking = async {
        loop {
            let readiness = match ask(&client).await {
                // A connection that was kept may have ended between two questions: a new one decides.
                Err(_broken) => ask(&client).await.unwrap_or_else(Readiness::NotReady),
                Ok(readiness) => readiness,
            };
            sender.send_if_modified(|known| {
                let is_news = *known != readiness;
                *known = readiness;
                is_news
            });
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = shutdown.wait() => {}
        () = asking => {}
    }
}

/// What it says; in words why there is no connection to it.
async fn ask(client: &Client) -> Result<Readiness, String> {
    let request = http::Request::get("/readyz").body(Bytes::new()).map_err(|error| error.to_string())?;
    let answered = async {
        let response = client.raw(request).await.map_err(|error| stdx::chain(&error).to_string())?;
        let is_ready = response.status().is_success();
        let (mut body, mut text) = (response.into_body(), Vec::new());
        // Also of one that is ready: only a connection whose answer was read serves for the next question.
        while let Some(frame) = body.frame().await.filter(|_| text.len() < ANSWER_BYTES) {
            let data = frame.map_err(|error| error.to_string())?.into_data();
            text.extend_from_slice(&data.unwrap_or_default());
        }
        Ok(if is_ready { Readiness::Ready } else { judge(&String::from_utf8_lossy(&text)) })
    };
    let late = || Readiness::Poor(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
    tokio::time::timeout(ANSWER_WITHIN, answered).await.unwrap_or_else(|_late| Ok(late()))
}

/// What its list of checks means.
fn judge(text: &str) -> Readiness {
    let failed = text.lines().filter_map(|line| line.strip_prefix("[-]")?.split(' ').next());
    let failed: Vec<&str> = failed.collect();
    match failed.join(", ") {
        none if none.is_empty() => Readiness::NotReady("it does not say why".to_owned()),
        checks if failed.iter().all(|check| OF_ETCD.contains(check)) => Readiness::Poor(checks),
        checks => Readiness::NotReady(checks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_etcd_alone_it_is_better_than_nobody() {
        let text = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]etcd-readiness failed: reason withheld\nreadyz check failed\n";
        assert_eq!(judge(text), Readiness::Poor("etcd, etcd-readiness".to_owned()));
        let stopping = format!("{text}[-]shutdown failed: reason withheld\n");
        assert_eq!(judge(&stopping), Readiness::NotReady("etcd, etcd-readiness, shutdown".to_owned()));
        assert_eq!(judge(""), Readiness::NotReady("it does not say why".to_owned()));
    }

    #[tokio::test]
    async fn an_api_server_that_is_not_there_is_not_ready() {
        let nobody = client::Client::new(client::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let (sender, mut readiness) = watch::channel(Readiness::Ready);
        let shutdown = Shutdown::new();
        let following = tokio::spawn(follow(nobody, sender, shutdown.clone()));
        let told = readiness.wait_for(|known| matches!(known, Readiness::NotReady(_))).await.unwrap().clone();
        assert!(matches!(told, Readiness::NotReady(why) if !why.is_empty()));
        shutdown.trigger();
        following.await.unwrap();
    }
}
