//! The cluster's CA, by its hash: read without verification, compared with the pin, read again with verification.

use api::core::v1::ConfigMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Identity};
use manifest::CaHash;
use pki::Certificate;
use serde::Deserialize;

use crate::config::Config;
use crate::error::Error;

const STEP: &str = "read the cluster's CA from the endpoint";

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(rename = "certificate-authority-data")]
    authority: String,
}

/// Finds CAs with these hashes, at least one of them. Nothing secret is sent.
pub(crate) async fn discover(config: &Config, hashes: &[CaHash]) -> Result<Vec<Certificate>, Error> {
    let foreign = || Error::ForeignCluster(hashes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "));
    let found = pinned(&read(config, None).await?, hashes);
    if found.is_empty() {
        return Err(foreign());
    }
    // Whoever sent the CAs must also hold a certificate of one of them, and say the same again.
    let again = read(config, Some(&pki::bundle(&found))).await?;
    if pinned(&again, hashes) == found { Ok(found) } else { Err(foreign()) }
}

/// A client that verifies the server with a CA, or not at all.
pub(crate) fn connect(config: &Config, ca_pem: Option<&str>, identity: Identity) -> Result<Client, Error> {
    let mut options = client::Config::new(config.server.parse().map_err(Error::Server)?).with_component("join");
    options.ca_pem = ca_pem.map(|pem| pem.as_bytes().to_vec());
    options.insecure_skip_tls_verify = ca_pem.is_none();
    options.identity = identity;
    Client::new(options).map_err(|source| Error::Api { step: "set up TLS to the endpoint", source })
}

async fn read(config: &Config, ca_pem: Option<&str>) -> Result<String, Error> {
    let client = connect(config, ca_pem, Identity::Anonymous)?;
    let map: ConfigMap =
        client.get(Some("kube-public"), "cluster-info").await.map_err(|source| Error::Api { step: STEP, source })?;
    parse(map.data.get("kubeconfig").map_or("", String::as_str)).ok_or(Error::ClusterInfo)
}

fn parse(kubeconfig: &str) -> Option<String> {
    let parsed: Kubeconfig = serde_yaml_ng::from_str(kubeconfig).ok()?;
    let data = STANDARD.decode(&parsed.clusters.first()?.cluster.authority).ok()?;
    String::from_utf8(data).ok()
}

/// The certificates with these hashes among several, in the order of the hashes.
pub(crate) fn pinned(bundle: &str, hashes: &[CaHash]) -> Vec<Certificate> {
    let all = Certificate::all_from_pem("ca", bundle).unwrap_or_default();
    hashes.iter().filter_map(|hash| all.iter().find(|one| one.pin() == *hash).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pinned_certificates_are_taken() {
        let [own, new, other] = [1, 2, 3].map(|byte| pki::Authority::derive("kubernetes", &[byte; 32]).unwrap());
        let bundle = format!("{}{}{}", other.pem(), own.pem(), new.pem());
        let info = parse(&pki::cluster_info("https://10.0.0.1:6443", &bundle)).unwrap();
        let pins = |hashes: &[CaHash]| pinned(&info, hashes).iter().map(Certificate::pin).collect::<Vec<_>>();
        assert_eq!(pins(&[own.hash()]), [own.hash()]);
        assert_eq!(pins(&[new.hash(), own.hash()]), [new.hash(), own.hash()], "first the one that issues");
        assert_eq!(pinned(other.pem(), &[own.hash(), new.hash()]), []);
        assert_eq!(pinned("no certificate", &[own.hash()]), []);
        assert_eq!(parse("x: 1"), None);
    }
}
