//! A registry whose blobs are elsewhere, and which wants a token of whoever asks.

use super::*;
use crate::registry::{Place, Reference, UPDATE_TYPE, resolve};

const UPDATE: &[u8] = b"KEELSON-UPDATE 1\n...";
/// What standard tools write beside it.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn manifest(kind: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"{kind}",
            "config":{{"mediaType":"{EMPTY}","digest":"sha256:{}","size":2}},
            "layers":[{{"mediaType":"{kind}","digest":"sha256:{}","size":{},
                        "annotations":{{"org.opencontainers.image.title":"keelson.update"}}}}]}}"#,
        sha256(b"{}"),
        sha256(UPDATE),
        UPDATE.len()
    )
}

/// The registry, and the server of its blobs.
async fn registry() -> (Server, Server) {
    let blobs = Server::plain(|_| say(StatusCode::OK, &[], UPDATE)).await;
    let to = blobs.url.join("blob").unwrap().to_string();
    let server = Server::plain(move |asked| {
        let here = format!("http://{}", asked.header("host"));
        if asked.path.starts_with("/token?") {
            let good = asked.path == "/token?service=r&scope=repository%3Aos%2Fkeelson%3Apull";
            return say(StatusCode::OK, &[], if good { r#"{"token":"t0ken"}"# } else { "{}" });
        }
        if asked.header("authorization") != "Bearer t0ken" {
            let scope = "scope=\"repository:os/keelson:pull\"";
            let challenge = format!("Bearer realm=\"{here}/token\",service=\"r\",{scope}");
            return say(StatusCode::UNAUTHORIZED, &[("www-authenticate", &challenge)], "");
        }
        match asked.path.split('?').next().unwrap_or_default() {
            "/v2/os/keelson/manifests/other" => say(StatusCode::OK, &[], manifest("text/plain")),
            path if path.starts_with("/v2/os/keelson/manifests/") && !path.ends_with("/gone") => {
                say(StatusCode::OK, &[], manifest(UPDATE_TYPE))
            }
            path if path == format!("/v2/os/keelson/blobs/sha256:{}", sha256(UPDATE)) => {
                say(StatusCode::TEMPORARY_REDIRECT, &[("location", &to)], "")
            }
            _ => say(StatusCode::NOT_FOUND, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        }
    })
    .await;
    (server, blobs)
}

fn place(server: &Server) -> Place {
    Place { url: server.url.clone(), peer: peer(Trust::Host, Access::Registry(None)), is_mirror: true }
}

#[tokio::test]
async fn an_update_comes_out_of_a_registry_with_a_token() {
    let (server, blobs) = registry().await;
    let reference: Reference = "oci://r.example.com/os/keelson:0.2.0".parse().unwrap();
    let found = resolve(&reference, &[place(&server)], 1000).await.unwrap();
    let pinned = format!("{reference}@sha256:{}", sha256(manifest(UPDATE_TYPE).as_bytes()));
    assert_eq!(found.reference.to_string(), pinned);
    assert!(!found.is_proved, "anybody may have changed a tag's manifest on the way");
    assert_eq!(fetch(found.source).await.unwrap(), UPDATE);
    assert_eq!(blobs.asked()[0].header("authorization"), "");
    assert!(server.asked()[0].path.ends_with("manifests/0.2.0?ns=r.example.com"), "{:?}", server.asked()[0]);

    let found = resolve(&pinned.parse().unwrap(), &[place(&server)], 1000).await.unwrap();
    assert!(found.is_proved);
    assert_eq!(fetch(found.source).await.unwrap(), UPDATE);
}

#[tokio::test]
async fn what_a_registry_does_not_have_is_told() {
    let (server, _blobs) = registry().await;
    let wrong = "0".repeat(64);
    for (name, limit, why) in [
        ("keelson:gone".to_owned(), 1000, "404 Not Found"),
        ("keelson:other".to_owned(), 1000, "no layer of the type"),
        ("keelson:0.2.0".to_owned(), 5, "larger than the 5 bytes"),
        (format!("keelson@sha256:{wrong}"), 1000, "has the SHA-256"),
        ("private:1".to_owned(), 1000, "404"),
    ] {
        let reference: Reference = format!("r.example.com/os/{name}").parse().unwrap();
        let error = resolve(&reference, &[place(&server)], limit).await.unwrap_err();
        let error = stdx::chain(&error).to_string();
        assert!(error.contains(why), "{name}: {error}");
    }
}

#[tokio::test]
async fn the_next_place_is_asked_where_one_fails() {
    let (server, _blobs) = registry().await;
    let closed =
        Server::plain(|_| say(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic realm=\"x\"")], "")).await;
    let reference: Reference = "r.example.com/os/keelson:1".parse().unwrap();
    resolve(&reference, &[place(&closed), place(&server)], 1000).await.unwrap();
    let error = resolve(&reference, &[place(&closed)], 1000).await.unwrap_err();
    assert!(stdx::chain(&error).to_string().contains("wants a password"), "{error}");
}
