//! Servers that others made, where environment variables name them.

use super::*;
use crate::access::S3Key;
use crate::outbound::{Known, Login};
use crate::registry::{Place, Reference, resolve};
use crate::store::Store;

/// `ENDPOINT REGION BUCKET ACCESS-KEY SECRET-KEY`, of a bucket that is empty.
const S3: &str = "KEELSON_TEST_S3";
/// `http://HOST:PORT REFERENCE SHA-256`, of an update that was pushed by standard tools.
const REGISTRY: &str = "KEELSON_TEST_REGISTRY";

/// `https://HOST:PORT REFERENCE SHA-256 USER PASSWORD CA-FILE`, of a registry that knows this user only.
const PRIVATE_REGISTRY: &str = "KEELSON_TEST_PRIVATE_REGISTRY";

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
        |key| Store::s3(endpoint, (bucket, "a cluster"), true, peer(Trust::Host, Access::S3(key))).unwrap().below("m1");
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
    let place = Place { url: url.parse().unwrap(), peer: peer(Trust::Host, Access::Registry(None)), is_mirror: true };
    let found = resolve(&reference, std::slice::from_ref(&place), 1 << 30).await.unwrap();
    assert_eq!(found.source.sha256.as_ref(), Some(wanted));
    let content = fetch(found.source).await.unwrap();
    assert_eq!(sha256(&content), *wanted);
    let again = resolve(&found.reference, &[place], 1 << 30).await.unwrap();
    assert!(again.is_proved);
}

#[tokio::test]
async fn another_private_registry_knows_us_by_a_password() {
    let Some(words) = words(PRIVATE_REGISTRY) else { return };
    let [url, reference, wanted, user, password, ca] = words.as_slice() else { panic!("{words:?}") };
    let reference: Reference = reference.parse().unwrap();
    let url: Url = url.parse().unwrap();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let ask = async |login, trust| {
        let outbound = Outbound::new([(host.clone(), Known { login, trust })], None).unwrap();
        let place = Place { peer: outbound.registry(&url, None), url: url.clone(), is_mirror: true };
        resolve(&reference, &[place], 1 << 30).await
    };
    let trust = || Some(Trust::These(std::fs::read(ca).unwrap()));
    let found = ask(Login::user(user, password), trust()).await.unwrap();
    assert!(found.is_proved);
    assert_eq!(sha256(&fetch(found.source).await.unwrap()), *wanted);
    for (login, trust, why) in [
        (None, trust(), "wants a password"),
        (Login::user(user, "wrong"), trust(), "401"),
        (Login::user(user, password), None, "speak TLS"),
    ] {
        let error = ask(login, trust).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
