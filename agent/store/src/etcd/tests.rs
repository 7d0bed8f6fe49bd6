//! These need a real etcd, 3.5 or later, named by an environment variable.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::{Config, Etcd, Tls, Way};
use crate::{Error, Store, WatchRequest, conformance};

const BINARY: &str = "KEELSON_TEST_ETCD";

fn binary() -> PathBuf {
    std::env::var_os(BINARY).unwrap_or_else(|| panic!("{BINARY} names no etcd binary (3.5 or later)")).into()
}

/// A running etcd that ends with the test.
struct Server {
    binary: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    peer_port: u16,
    tls: Option<Certificates>,
    child: Option<Child>,
}

struct Certificates {
    ca_pem: String,
    client: (String, String),
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    fn start(binary: PathBuf, with_tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = with_tls.then(|| make_certificates(folder.path()));
        let mut server = Self { binary, folder, port: free_port(), peer_port: free_port(), tls, child: None };
        server.run();
        server
    }

    fn run(&mut self) {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (url, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer_port));
        let mut command = Command::new(&self.binary);
        command.args(["--name", "m", "--data-dir", &path("data"), "--log-level", "error"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("m={peer}")]);
        if self.tls.is_some() {
            command.args(["--cert-file", &path("server.crt"), "--key-file", &path("server.key")]);
            command.args(["--client-cert-auth", "--trusted-ca-file", &path("ca.crt")]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls.is_some() { "https" } else { "http" }, self.port)
    }

    fn config(&self) -> Config {
        let tls = self.tls.as_ref().map(|tls| Tls {
            ca_pem: tls.ca_pem.clone().into(),
            client_pem: Some((tls.client.0.clone().into(), tls.client.1.clone().into())),
        });
        Config::new(vec![self.url()], tls)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn make_certificates(folder: &Path) -> Certificates {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let leaf = |usage| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![usage];
        (leaf.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let server = leaf(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    for (name, pem) in [("ca.crt", &ca_pem), ("server.crt", &server.0), ("server.key", &server.1)] {
        std::fs::write(folder.join(name), pem).unwrap();
    }
    Certificates { ca_pem, client: leaf(rcgen::ExtendedKeyUsagePurpose::ClientAuth) }
}

/// A store whose server answers.
async fn connected(config: Config) -> Etcd {
    let store = Etcd::new(config).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = store.health().await {
        assert!(error.is_retryable() && tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store
}

#[tokio::test]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn members_are_reached_by_another_way() {
    let server = Server::start(binary(), true);
    let (port, asked) = (server.port, Arc::new(parking_lot::Mutex::new(Vec::new())));
    let seen = asked.clone();
    // The way knows where the name leads; the certificate is checked against the name all the same.
    let way = Way::new(move |host, to| {
        seen.lock().push((host, to));
        tokio::net::TcpStream::connect(("127.0.0.1", port))
    });
    let by =
        |name: &str| Config { endpoints: vec![format!("https://{name}:2")], way: Some(way.clone()), ..server.config() };
    connected(by("127.0.0.1")).await;
    assert_eq!(asked.lock().first(), Some(&("127.0.0.1".to_owned(), 2)));
    assert!(Etcd::new(by("etcd.example")).await.unwrap().health().await.is_err());
    assert_eq!(asked.lock().last(), Some(&("etcd.example".to_owned(), 2)));
}

#[tokio::test]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn etcd_with_certificates_conforms() {
    let server = Server::start(binary(), true);
    conformance::check(Arc::new(connected(server.config()).await)).await;

    let mut stranger = server.config();
    stranger.tls.as_mut().unwrap().client_pem = None;
    let stranger = Etcd::new(stranger).await.unwrap();
    assert!(stranger.current_revision().await.is_err(), "a client without a certificate is refused");
}

#[tokio::test]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn dead_member_is_passed_over() {
    let server = Server::start(binary(), false);
    connected(server.config()).await;
    let mut config = server.config();
    config.endpoints.insert(0, format!("http://127.0.0.1:{}", free_port()));
    let store = Etcd::new(config.clone()).await.unwrap();
    let written = store.create("a".into(), "1".into(), None).await.unwrap().committed();
    assert!(written.is_some(), "a write goes to the next member when nothing was sent");
    let store = Etcd::new(config).await.unwrap();
    assert!(store.get(b"a", None).await.unwrap().kv.is_some());
}

#[tokio::test]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn watch_survives_a_restart_without_losing_or_repeating_events() {
    let mut server = Server::start(binary(), false);
    let store = connected(server.config()).await;
    let mut stream = store.watch(WatchRequest { prefix: "k".into(), from_revision: 1 }).await.unwrap();
    let mut seen = Vec::new();
    for round in 0..2 {
        for n in 0..3 {
            let key = format!("k{round}{n}");
            store.create(key.into(), "1".into(), None).await.unwrap().committed().unwrap();
        }
        while seen.len() < (round + 1) * 3 {
            let batch = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap();
            seen.extend(batch.unwrap().unwrap().events.into_iter().map(|event| event.kv.key));
        }
        server.stop();
        assert!(matches!(store.get(b"k", None).await, Err(Error::Unavailable { .. })));
        server.run();
        while store.health().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(seen, ["k00", "k01", "k02", "k10", "k11", "k12"]);
}
