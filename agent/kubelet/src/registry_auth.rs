//! Registry credentials from image pull secrets. Pure.
//!
//! A secret says for which images its credentials are; a pull may hand them to whoever has those, mirrors too, as
//! upstream does.

use std::sync::Arc;

use api::core::v1::Secret;
use cri::v1::AuthConfig;
use cri::{HUB, HUB_HOST, registry_of};
use serde_json::Value;

/// Credentials for an image, the most specific first.
pub(crate) fn credentials(image: &str, secrets: &[Arc<Secret>]) -> Vec<AuthConfig> {
    let target = qualified(image);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (server, entry) in entries(secret) {
            let place = normal_server(&server);
            if target == place || target.starts_with(&format!("{place}/")) {
                found.push((place.len(), auth(&entry)));
            }
        }
    }
    found.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Value)> {
    let (bytes, is_nested) = match secret.r#type.as_str() {
        "kubernetes.io/dockerconfigjson" => (secret.data.get(".dockerconfigjson"), true),
        "kubernetes.io/dockercfg" => (secret.data.get(".dockercfg"), false),
        _ => (None, false),
    };
    let parsed = bytes.and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok()).unwrap_or(Value::Null);
    let list = if is_nested { parsed.get("auths").cloned().unwrap_or(Value::Null) } else { parsed };
    match list {
        Value::Object(map) => map.into_iter().collect(),
        _ => Vec::new(),
    }
}

fn auth(entry: &Value) -> AuthConfig {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    AuthConfig {
        username: text("username"),
        password: text("password"),
        auth: text("auth"),
        // The runtime would take a host for a URL's, and find none.
        server_address: String::new(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    }
}

fn qualified(image: &str) -> String {
    let registry = registry_of(image);
    if image.starts_with(&format!("{registry}/")) { image.to_owned() } else { format!("{registry}/{image}") }
}

fn normal_server(server: &str) -> String {
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let server = server.trim_end_matches("/v1").trim_end_matches("/v2");
    match server {
        "index.docker.io" | HUB_HOST => HUB.to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_credentials_come_first() {
        let config = r#"{"auths":{"r.example":{"username":"a"},"r.example/team":{"username":"b"},"other":{}}}"#;
        let mut secret = Secret { r#type: "kubernetes.io/dockerconfigjson".to_owned(), ..Secret::default() };
        secret.data.insert(".dockerconfigjson".to_owned(), config.as_bytes().to_vec());
        let secrets = [Arc::new(secret)];
        let names = |image: &str| credentials(image, &secrets).into_iter().map(|a| a.username).collect::<Vec<_>>();
        assert_eq!(names("r.example/team/app:1"), ["b", "a"]);
        assert_eq!(names("r.example/x"), ["a"]);
        assert!(names("busybox").is_empty());
        // The runtime keeps those that are for another server to itself, and knows servers as hosts of URLs.
        assert!(credentials("r.example/x", &secrets).iter().all(|auth| auth.server_address.is_empty()));
    }
}
