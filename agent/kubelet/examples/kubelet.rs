//! A kubelet alone, with those of upstream's flags and configuration fields that a trial among upstream's components
//! needs. The binary of the project takes all of them.
#![allow(clippy::unwrap_used, reason = "a trial ends with the first thing that is wrong")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let flags: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.trim_start_matches("--").split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run(flags));
}

async fn run(flags: BTreeMap<String, String>) {
    let file: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&flags["config"]).unwrap()).unwrap();
    let text = |name: &str| file[name].as_str().map(str::to_owned);
    let ips: Vec<IpAddr> =
        flags.get("node-ip").iter().flat_map(|l| l.split(',')).map(|ip| ip.parse().unwrap()).collect();
    let socket = text("containerRuntimeEndpoint").unwrap_or_default();
    let mut config = kubelet::Config::new(
        &flags["hostname-override"],
        ips.clone(),
        PathBuf::from(socket.trim_start_matches("unix://")),
    );
    config.cluster_dns =
        file["clusterDNS"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
    config.cluster_domain = text("clusterDomain").unwrap_or_default();
    config.static_pod_dir = text("staticPodPath").map(PathBuf::from);
    config.pressure = kubelet::Pressure { disk_bytes: 1 << 30, disk_percent: 0, ..kubelet::Pressure::default() };
    let certificate = kubelet::ServingCertificate {
        cert_pem: std::fs::read(text("tlsCertFile").unwrap()).unwrap(),
        key_pem: std::fs::read(text("tlsPrivateKeyFile").unwrap()).unwrap(),
    };
    let (_keep, certificate) = tokio::sync::watch::channel(certificate);
    let ca = file["authentication"]["x509"]["clientCAFile"].as_str().unwrap();
    config.server = Some(kubelet::ServerConfig {
        listen: (ips[0], 10250).into(),
        certificate,
        client_ca_pem: Some(std::fs::read(ca).unwrap()),
        healthz: Some(([127, 0, 0, 1], 10248).into()),
    });
    let access = client::Config::from_kubeconfig(flags["kubeconfig"].as_ref()).unwrap().with_component("kubelet");
    let client = client::Client::new(access).unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let trigger = shutdown.clone();
    tokio::spawn(async move {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        term.recv().await;
        trigger.trigger();
    });
    if let Err(error) = kubelet::run(config, client, shutdown).await {
        tracing::error!(error = %stdx::chain(&error), "kubelet ended");
    }
}
