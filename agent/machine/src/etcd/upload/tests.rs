//! A web server that takes files as a store, and what is decided about any.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use remote::Peer;
use tokio::net::TcpListener;

use super::*;

fn local(names: &[&str]) -> Vec<(String, u64)> {
    names.iter().map(|name| (format!("etcd-{name}.db"), 5)).collect()
}

fn there(names: &[&str], bytes: u64) -> Vec<Stored> {
    names.iter().map(|name| Stored { name: format!("etcd-{name}.db"), bytes }).collect()
}

fn full(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("etcd-{name}.db")).collect()
}

#[test]
fn the_newest_are_sent_and_the_oldest_go() {
    let done = |local: &[(String, u64)], stored: &[Stored], keep| {
        let Plan { put, delete } = plan(local, stored, keep);
        (put, delete)
    };
    assert_eq!(done(&local(&["3", "4"]), &there(&["1", "2"], 5), 3), (full(&["4", "3"]), full(&["1"])));
    assert_eq!(done(&local(&["3", "4"]), &there(&["1", "2", "3", "4"], 5), 9), (vec![], vec![]));
    // One that was cut short is sent again, and one that would go at once is not sent.
    assert_eq!(done(&local(&["3"]), &there(&["3"], 4), 3), (full(&["3"]), vec![]));
    assert_eq!(done(&local(&["1"]), &there(&["2", "3"], 5), 2), (vec![], vec![]));
    // Somebody else's stay.
    let foreign = [Stored { name: "notes.txt".to_owned(), bytes: 1 }];
    assert_eq!(done(&[], &foreign, 1), (vec![], vec![]));
}

proptest! {
    #[test]
    fn no_more_than_may_be_are_left_and_never_fewer_than_could(
        here in prop::collection::btree_set(0_u8..30, 0..10),
        stored in prop::collection::btree_set(0_u8..30, 0..20),
        keep in 1_usize..10,
    ) {
        let name = |number: &u8| format!("etcd-{number:02}.db");
        let here: Vec<(String, u64)> = here.iter().map(|number| (name(number), 5)).collect();
        let stored: Vec<Stored> = stored.iter().map(|number| Stored { name: name(number), bytes: 5 }).collect();
        let todo = plan(&here, &stored, keep);
        let mut after: BTreeSet<String> = stored.iter().map(|stored| stored.name.clone()).collect();
        let all: BTreeSet<String> = after.iter().cloned().chain(here.iter().map(|(name, _)| name.clone())).collect();
        after.extend(todo.put.iter().cloned());
        after.retain(|name| !todo.delete.contains(name));
        let newest: BTreeSet<String> = all.into_iter().rev().take(keep).collect();
        prop_assert_eq!(after, newest);
        prop_assert!(todo.put.iter().all(|name| !stored.iter().any(|stored| stored.name == *name)));
    }
}

type Files = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// A server that takes files while it is `open`; answers its address.
async fn server(files: Files, open: Arc<Mutex<bool>>) -> url::Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (files, open) = (files.clone(), open.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (files, open) = (files.clone(), open.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let (status, body) = match head.method {
                        _ if !*open.lock().unwrap() => (StatusCode::SERVICE_UNAVAILABLE, Bytes::from("closed")),
                        Method::PUT => {
                            files.lock().unwrap().insert(head.uri.path().to_owned(), body);
                            (StatusCode::CREATED, Bytes::new())
                        }
                        _ => match files.lock().unwrap().get(head.uri.path()) {
                            Some(body) => (StatusCode::OK, body.clone()),
                            None => (StatusCode::NOT_FOUND, Bytes::new()),
                        },
                    };
                    let mut answer = Response::new(Full::new(body));
                    *answer.status_mut() = status;
                    Ok::<_, Infallible>(answer)
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            drop(tokio::spawn(async move { http.serve_connection(TokioIo::new(stream), service).await }));
        }
    }));
    format!("http://{address}/etcd").parse().unwrap()
}

fn condition(run: &Path) -> String {
    std::fs::read_to_string(run.join(CONDITION)).unwrap_or_default()
}

/// Waits until a condition is told that `is_it`.
async fn told(run: &Path, is_it: impl Fn(&str) -> bool) -> String {
    let waiting = async {
        loop {
            let told = condition(run);
            if run.join(CONDITION).exists() && is_it(&told) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap()
}

#[tokio::test]
async fn a_store_that_is_down_is_a_concern_until_it_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    std::fs::create_dir(run.join("conditions")).unwrap();
    let (files, open) = (Files::default(), Arc::new(Mutex::new(false)));
    let url = server(files.clone(), open.clone()).await;
    let store = Store::folder(url, Peer::default()).below("m1");
    let kept = Kept { store, bucket: None, keep: 9 };
    let snapshots =
        Snapshots { interval: Duration::from_secs(3600), keep: 3, folder: run.to_owned(), kept: Some(kept.clone()) };
    for name in full(&["1", "2"]) {
        std::fs::write(run.join(name), "snapshot").unwrap();
    }
    let etcd = Etcd::of_nothing(run);
    let own = (etcd.clone(), snapshots.clone(), kept.clone());
    let task = tokio::spawn(async move { own.0.keep_elsewhere(&own.1, &own.2).await });
    let text = told(run, |text| !text.is_empty()).await;
    let lack = Condition::parse("", &text).unwrap();
    assert_eq!(lack.name, "EtcdSnapshotNotStored");
    assert!(lack.why.contains("503") && !lack.fix.is_empty(), "{lack:?}");
    assert!(files.lock().unwrap().is_empty());
    task.abort();

    // The next process, or the next try.
    *open.lock().unwrap() = true;
    let own = (etcd.clone(), snapshots, kept);
    let task = tokio::spawn(async move { own.0.keep_elsewhere(&own.1, &own.2).await });
    told(run, str::is_empty).await;
    let there = || files.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(there(), ["/etcd/m1/etcd-1.db", "/etcd/m1/etcd-2.db"]);
    // Another one is taken.
    std::fs::write(run.join("etcd-3.db"), "another").unwrap();
    etcd.taken.notify_one();
    let waiting = async {
        while there().len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
    assert_eq!(files.lock().unwrap()["/etcd/m1/etcd-3.db"], "another");
    task.abort();
}
