//! An API server on memory alone, for trying it with kubectl:
//!
//! ```text
//! cargo run -p apiserver --example serve -- 127.0.0.1:8080
//! kubectl --server http://127.0.0.1:8080 get namespaces
//! ```
//!
//! With a folder as second argument it serves TLS and asks who may do what. The folder holds `server.crt`,
//! `server.key`, `ca.crt`, `sa.key`, `tokens.csv`, `admin.crt` with `admin.key` to show to kubelets, and `front-proxy.crt`
//! with `front-proxy.key` to show to aggregated servers.
//!
//! `--runtime-config=WORDS` anywhere switches group versions on and off, as it does upstream, and
//! `--feature-gates=WORDS` features.
//!
//! With the address of an etcd as third argument everything is stored there; a fourth is the address to advertise, so
//! that several servers can be tried on one etcd.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::features::Features;
use apiserver::{Authorization, Config, FrontProxy, KubeletClient, ProxyClient, Tls};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (words, arguments): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let said = |flag: &str| -> Vec<String> {
        words.iter().filter_map(|word| word.strip_prefix(flag).map(str::to_owned)).collect()
    };
    let features = Features::parse(said("--feature-gates=").iter().map(String::as_str))?;
    let mut arguments = arguments.into_iter();
    let bind = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned()).parse()?;
    let mut config = match arguments.next() {
        None => Config { authorization: Authorization::AlwaysAllow, ..Config::default() },
        Some(folder) => secure(Path::new(&folder)),
    };
    let store: Arc<dyn store::Store> = match arguments.next() {
        None => Arc::new(store::Embedded::in_memory().await?),
        Some(etcd) => Arc::new(store::Etcd::new(store::etcd::Config::new(vec![etcd], None)).await?),
    };
    if let Some(address) = arguments.next() {
        config.advertise = address.parse()?;
        config.hostname = address;
    }
    let served = apiserver::Served::try_new(&said("--runtime-config="), |gate| features.is_on(gate), true)?;
    let config = Config { bind, served, features, ..config };
    let shutdown = lifecycle::Shutdown::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(signal) => signal,
            Err(error) => return tracing::error!(%error, "signals cannot be waited for"),
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        stop.trigger();
    });
    apiserver::run(config, store, shutdown).await?;
    Ok(())
}

fn secure(folder: &Path) -> Config {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    Config {
        tls: Some(Tls {
            certificate: file("server.crt"),
            key: file("server.key"),
            client_ca: Some(file("ca.crt")),
            ..Tls::default()
        }),
        advertise: std::net::IpAddr::from([192, 0, 2, 10]),
        token_signing_key: Some(file("sa.key")),
        token_file: Some(file("tokens.csv")),
        front_proxy: Some(FrontProxy::new(file("ca.crt"), Vec::new())),
        proxy_client: Some(ProxyClient { certificate: file("front-proxy.crt"), key: file("front-proxy.key") }),
        kubelet: Some(KubeletClient::new(file("admin.crt"), file("admin.key"), None)),
        ..Config::default()
    }
}
