//! Servers that others made, where environment variables name them.

use super::*;
use crate::access::S3Key;
use crate::registry::{Place, Reference, resolve};
use crate::store::Store;

/// `ENDPOINT REGION BUCKET ACCESS-KEY SECRET-KEY`, of a bucket that is empty.
const S3: &str = "KEELSON_TEST_S3";
/// `http://HOST:PORT REFERENCE SHA-256`, of an update that was pushed by standard tools.
const REGISTRY: &str = "KEELSON_TEST_REGISTRY";

fn words(name: &str) -> Option<Vec<String>> {
    let found = std::env::var(name).ok().map(|text| text.split(' ').map(str::to_owned).collect());
    if found.is_none() {
        eprintln!("SKIPPED: set {name} to run this test");
    }
    found
}

#[tokio::test]
async fn another_s3_store_believes_our_signatures() {
    let Some(words) = words(S3) else { return };
    let [endpoint, region, bucket, access_key, secret_key] = words.as_slice() else { panic!("{words:?}") };
    let key =
        |secret: &str| S3Key { access_key: access_key.clone(), secret_key: secret.to_owned(), region: region.clone() };
    let store =
        |key| Store::s3(endpoint, (bucket, "a cluster"), true, (Trust::Host, Access::S3(key))).unwrap().below("m1");
    let own = store(key(secret_key));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let content: Vec<u8> = (0..500_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    std::fs::write(&path, &content).unwrap();
    for name in ["etcd-1.db", "etcd-2+x.db"] {
        own.put(name, &path).await.unwrap();
    }
    let found = own.list(&[]).await.unwrap();
    let found: Vec<(&str, u64)> = found.iter().map(|stored| (stored.name.as_str(), stored.bytes)).collect();
    assert_eq!(found, [("etcd-1.db", 2_000_000), ("etcd-2+x.db", 2_000_000)]);
    let source = Source { sha256: Some(sha256(&content)), ..own.source("etcd-2+x.db", 4 << 20) };
    assert_eq!(fetch(source).await.unwrap(), content);
    let error = store(key("another")).list(&[]).await.unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
    for name in ["etcd-1.db", "etcd-2+x.db"] {
        own.delete(name).await.unwrap();
    }
    assert!(own.list(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn another_registry_has_what_standard_tools_pushed() {
    let Some(words) = words(REGISTRY) else { return };
    let [url, reference, wanted] = words.as_slice() else { panic!("{words:?}") };
    let reference: Reference = reference.parse().unwrap();
    let place = Place { url: url.parse().unwrap(), trust: Trust::Host, is_mirror: true };
    let found = resolve(&reference, std::slice::from_ref(&place), 1 << 30).await.unwrap();
    assert_eq!(found.source.sha256.as_ref(), Some(wanted));
    let content = fetch(found.source).await.unwrap();
    assert_eq!(sha256(&content), *wanted);
    let again = resolve(&found.reference, &[place], 1 << 30).await.unwrap();
    assert!(again.is_proved);
}
