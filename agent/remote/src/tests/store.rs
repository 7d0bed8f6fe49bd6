//! A store as S3 is one, which believes nothing that is not signed, and a web server that takes files.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::header::AUTHORIZATION;

use super::*;
use crate::access::S3Key;
use crate::sign::Signer;
use crate::store::{Store, Stored};

const PAGE: usize = 2;

fn key() -> S3Key {
    let (access_key, secret_key) = ("AKID".to_owned(), "wJalrXUtnFEMI/K7".to_owned());
    S3Key { access_key, secret_key, region: "eu-central-1".to_owned() }
}

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Whether a request is signed: signed anew at the time that it names, it looks the same.
fn is_signed(asked: &Asked) -> bool {
    let time = asked.header("x-amz-date");
    let parts = [&time[..4], "-", &time[4..6], "-", &time[6..11], ":", &time[11..13], ":", &time[13..]];
    let (seconds, _) = api::time::parse(&parts.concat()).unwrap();
    let signed_at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
    let age = SystemTime::now().duration_since(signed_at).unwrap_or_default();
    let url: Url = format!("http://{}{}", asked.header("host"), asked.path).parse().unwrap();
    let mut again = Request::new(());
    *again.method_mut() = asked.method.clone();
    *again.headers_mut() = asked.headers.clone();
    again.headers_mut().remove(AUTHORIZATION);
    let digest = sha256(&asked.body);
    Signer { key: &key(), now: signed_at, digest: &digest }.sign(&mut again, &url).unwrap();
    age < Duration::from_secs(900)
        && asked.header("x-amz-content-sha256") == digest
        && again.headers()[AUTHORIZATION] == asked.headers[AUTHORIZATION]
}

fn list(asked: &Asked, objects: &BTreeMap<String, Bytes>) -> Answer {
    let url: Url = format!("http://s/{}", asked.path).parse().unwrap();
    let word = |name: &str| url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned());
    let (prefix, after) = (word("prefix").unwrap(), word("continuation-token").unwrap_or_default());
    let all: Vec<_> = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).collect();
    let page: String = all
        .iter()
        .take(PAGE)
        .map(|(key, body)| format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", body.len()))
        .collect();
    let next = all.get(PAGE - 1).filter(|_| all.len() > PAGE);
    let next = next.map(|(key, _)| format!("<NextContinuationToken>{key}</NextContinuationToken>")).unwrap_or_default();
    let is_truncated = !next.is_empty();
    let text = format!("<ListBucketResult>{page}<IsTruncated>{is_truncated}</IsTruncated>{next}</ListBucketResult>");
    say(StatusCode::OK, &[], text)
}

/// A store with one bucket, "backups".
async fn s3(objects: &Objects) -> Server {
    let objects = objects.clone();
    Server::plain(move |asked| {
        if !asked.headers.contains_key(AUTHORIZATION) || !is_signed(asked) {
            return say(StatusCode::FORBIDDEN, &[], "<Error><Code>SignatureDoesNotMatch</Code></Error>");
        }
        let mut objects = objects.lock().unwrap();
        let path = asked.path.split('?').next().unwrap();
        let Some(key) = path.strip_prefix("/backups") else { return say(StatusCode::NOT_FOUND, &[], "NoSuchBucket") };
        let key = key.trim_start_matches('/').replace("%20", " ").replace("%2B", "+");
        match asked.method {
            Method::GET if key.is_empty() => list(asked, &objects),
            Method::GET => match objects.get(&key) {
                Some(body) => say(StatusCode::OK, &[], body.clone()),
                None => say(StatusCode::NOT_FOUND, &[], "<Error><Code>NoSuchKey</Code></Error>"),
            },
            Method::PUT => {
                objects.insert(key, asked.body.clone());
                say(StatusCode::OK, &[], "")
            }
            Method::DELETE => {
                objects.remove(&key);
                say(StatusCode::NO_CONTENT, &[], "")
            }
            _ => say(StatusCode::METHOD_NOT_ALLOWED, &[], ""),
        }
    })
    .await
}

fn bucket(server: &Server, key: S3Key) -> Store {
    let who = peer(Trust::Host, Access::S3(key));
    Store::s3(server.url.as_str(), ("backups", "/a cluster/"), true, who).unwrap().below("m1")
}

fn names(found: &[Stored]) -> Vec<&str> {
    found.iter().map(|stored| stored.name.as_str()).collect()
}

#[tokio::test]
async fn files_go_to_a_bucket_and_come_back() {
    let objects = Objects::default();
    objects.lock().unwrap().insert("a cluster/m10/foreign".to_owned(), Bytes::new());
    let server = s3(&objects).await;
    let store = bucket(&server, key());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let content: Vec<u8> = (0..300_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    std::fs::write(&path, &content).unwrap();
    for name in ["a", "b", "c", "d", "e+1"] {
        store.put(name, &path).await.unwrap();
    }
    let found = store.list(&[]).await.unwrap();
    assert_eq!(names(&found), ["a", "b", "c", "d", "e+1"]);
    assert!(found.iter().all(|stored| stored.bytes == content.len() as u64));
    assert_eq!(fetch(store.source("e+1", 2 << 20)).await.unwrap(), content);
    let whole = store.find(Some("backups"), "s3://backups/a cluster/m1/a", 2 << 20).unwrap();
    assert_eq!(fetch(whole).await.unwrap(), content);
    assert!(
        store.find(Some("backups"), "s3://backups2/a", 1).is_none() && store.find(None, "https://x/a", 1).is_none()
    );
    store.delete("b").await.unwrap();
    assert_eq!(names(&store.list(&[]).await.unwrap()), ["a", "c", "d", "e+1"]);
    let keys: Vec<String> = objects.lock().unwrap().keys().cloned().collect();
    assert_eq!(keys[0], "a cluster/m1/a", "{keys:?}");
    let put = server.asked().into_iter().find(|asked| asked.method == Method::PUT).unwrap();
    assert_eq!(put.header("content-length"), content.len().to_string());
}

#[tokio::test]
async fn a_store_that_refuses_is_told_and_shows_no_key() {
    let server = s3(&Objects::default()).await;
    let store = bucket(&server, S3Key { secret_key: "another".to_owned(), ..key() });
    let error = store.list(&[]).await.unwrap_err();
    let text = format!("{error} {store:?}");
    assert!(text.contains("SignatureDoesNotMatch") && !text.contains("another") && !text.contains("AKID"), "{text}");
    assert!(!error.is_passing());
    let missing = bucket(&server, key()).put("a", std::path::Path::new("/nowhere/file")).await.unwrap_err();
    assert!(matches!(missing, Error::File { .. }), "{missing}");
}

#[test]
fn the_bucket_is_in_the_path_or_in_the_host() {
    let address = |endpoint: &str, in_path| {
        let who = peer(Trust::Host, Access::Nobody);
        Store::s3(endpoint, ("backups", "etcd"), in_path, who).unwrap().below("m1").source("f", 1).url.to_string()
    };
    assert_eq!(address("https://s3.example.com:9000", true), "https://s3.example.com:9000/backups/etcd/m1/f");
    assert_eq!(address("https://s3.example.com/x/", true), "https://s3.example.com/x/backups/etcd/m1/f");
    assert_eq!(address("https://s3.example.com", false), "https://backups.s3.example.com/etcd/m1/f");
    let who = peer(Trust::Host, Access::Nobody);
    assert!(Store::s3("nonsense", ("b", ""), true, who).is_err());
}

#[tokio::test]
async fn files_go_to_a_web_server() {
    let objects = Objects::default();
    let kept = objects.clone();
    let server = Server::plain(move |asked| {
        if asked.header("authorization") != "Basic dXNlcjpwYXNz" {
            return say(StatusCode::UNAUTHORIZED, &[], "who are you?");
        }
        let mut kept = kept.lock().unwrap();
        match asked.method {
            Method::PUT => {
                kept.insert(asked.path.clone(), asked.body.clone());
                say(StatusCode::CREATED, &[], "")
            }
            Method::HEAD => match kept.get(&asked.path) {
                Some(body) => say(StatusCode::OK, &[], body.clone()),
                None => say(StatusCode::NOT_FOUND, &[], ""),
            },
            _ => say(StatusCode::METHOD_NOT_ALLOWED, &[], ""),
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "content").unwrap();
    let url = server.url.join("etcd").unwrap();
    let store = Store::folder(url.clone(), peer(Trust::Host, Access::basic("user", "pass").unwrap())).below("m1");
    store.put("a.db", &path).await.unwrap();
    assert_eq!(objects.lock().unwrap()["/etcd/m1/a.db"], "content");
    let found = store.list(&["a.db".to_owned(), "b.db".to_owned()]).await.unwrap();
    assert_eq!(found, [Stored { name: "a.db".to_owned(), bytes: 7 }]);
    assert!(store.find(None, server.url.join("etcd/m1/a.db").unwrap().as_str(), 1).is_some());
    assert!(store.find(None, server.url.join("etcd/m2/a.db").unwrap().as_str(), 1).is_none());
    let stranger = Store::folder(url, peer(Trust::Host, Access::Nobody));
    assert!(stranger.put("a.db", &path).await.unwrap_err().to_string().contains("401"));
}
