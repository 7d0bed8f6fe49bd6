//! The cluster's CA, by its hash: read without verification, compared with the pin, read again with verification.

use api::core::v1::ConfigMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Identity};
use serde::Deserialize;

use crate::config::Config;
use crate::error::Error;
use manifest::CaHash;

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

/// Finds the CA with this hash. Nothing secret is sent.
pub(crate) async fn discover(config: &Config, hash: CaHash) -> Result<String, Error> {
    let found = read(config, None).await?;
    let pem = pinned(&found, hash).ok_or(Error::ForeignCluster(hash))?;
    // Whoever sent the CA must also hold a certificate of it, and say the same again.
    let again = read(config, Some(&pem)).await?;
    if pinned(&again, hash).as_ref() == Some(&pem) { Ok(pem) } else { Err(Error::ForeignCluster(hash)) }
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

/// The certificate with this hash among several.
fn pinned(bundle: &str, hash: CaHash) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let certificates = bundle.split_inclusive(END).filter(|text| text.ends_with(END));
    let mut matching = certificates.filter(|pem| pki::ca_hash(pem).is_ok_and(|found| found == hash));
    matching.next().map(|pem| format!("{}\n", pem.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_certificate_is_taken() {
        let own = pki::Authority::derive("kubernetes", &[1; 32]).unwrap();
        let other = pki::Authority::derive("kubernetes", &[2; 32]).unwrap();
        let bundle = format!("{}{}", other.pem(), own.pem());
        let info = parse(&pki::cluster_info("https://10.0.0.1:6443", &bundle)).unwrap();
        let found = pinned(&info, own.hash()).unwrap();
        assert_eq!(pki::ca_hash(&found).unwrap(), own.hash());
        assert_eq!(pinned(other.pem(), own.hash()), None);
        assert_eq!(parse("x: 1"), None);
    }
}
