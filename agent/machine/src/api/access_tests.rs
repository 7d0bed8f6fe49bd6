//! Every call of the service description, by callers without, with wrong, with lesser and with enough credentials.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pki::{Authority, Key, Leaf, San, Usage, os_random};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use http::Request;
use machine_api::CALLS;

use super::*;

/// A certificate and its key, as PEM.
struct Pair(String, String);

fn issue(authority: &Authority, group: Option<&str>, usage: Usage) -> Pair {
    let key = Key::generate(&mut os_random).unwrap();
    let leaf = Leaf {
        common_name: "caller".to_owned(),
        organization: group.map(str::to_owned),
        sans: BTreeSet::from([San::Ip("127.0.0.1".parse().unwrap())]),
        usages: [Usage::DigitalSignature, usage].into(),
        life: Duration::from_secs(3600),
    };
    let certificate = authority.issue(&leaf, &key, SystemTime::now(), &mut os_random).unwrap();
    Pair(certificate, key.to_pem().unwrap())
}

fn authority(name: &str) -> Authority {
    Authority::generate(name, SystemTime::now(), &mut os_random).unwrap()
}

/// A machine that answers, and whoever signs its callers' certificates.
async fn machine(folder: &Path, shutdown: &Shutdown) -> (SocketAddr, Authority) {
    let ca = authority("kubernetes");
    (machine_of(&ca, folder, None, shutdown).await, ca)
}

/// One that forwards callers to this port of others, if it does.
async fn machine_of(ca: &Authority, folder: &Path, forwards_to: Option<u16>, shutdown: &Shutdown) -> SocketAddr {
    let Pair(certificate, key) = issue(ca, None, Usage::ServerAuth);
    for (name, text) in [("ca.crt", ca.pem()), ("apiserver.crt", &certificate), ("apiserver.key", &key)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    std::fs::write(folder.join("status.json"), "{}").unwrap();
    let config = Config {
        run: folder.to_owned(),
        pki: folder.to_owned(),
        crash: folder.join("crash.log"),
        logs: folder.to_owned(),
        boots: folder.join("boots.json"),
        containerd: folder.join("containerd.sock"),
        forwards_to,
        ..Config::new(None, SystemTime::UNIX_EPOCH)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(serve_known(listener, Server::alone(&config), shutdown.clone())));
    address
}

/// The status of the answer; the reason why there is none, for callers that the handshake turns away.
async fn call(address: SocketAddr, ca: &Authority, pair: Option<&Pair>, request: &str) -> Result<u16, String> {
    let answer = exchange(address, ca, pair, request).await?;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| text.into_owned())
}

/// The whole answer.
async fn exchange(address: SocketAddr, ca: &Authority, pair: Option<&Pair>, request: &str) -> Result<Vec<u8>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match pair {
        None => config.with_no_client_auth(),
        Some(Pair(certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut answer = Vec::new();
    let exchange = async {
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    // A connection that is closed without farewell may have brought an answer all the same.
    let ended = exchange.await;
    if answer.is_empty() { Err(format!("{ended:?}")) } else { Ok(answer) }
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn every_call_is_refused_to_all_but_its_roles() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let (address, ca) = machine(folder.path(), &shutdown).await;
    let foreign = issue(&authority("kubernetes"), Some(Role::Admin.group()), Usage::ClientAuth);
    let server = issue(&ca, Some(Role::Admin.group()), Usage::ServerAuth);
    let nobody = [None, Some("system:nodes"), Some("keelson:admin"), Some("system:masters ")];
    let nobody = nobody.map(|group| issue(&ca, group, Usage::ClientAuth));
    let known = Role::ALL.map(|role| (role, issue(&ca, Some(role.group()), Usage::ClientAuth)));
    for listed in CALLS {
        let what = request(listed.method, listed.path);
        for (pair, why) in [(None, "no certificate"), (Some(&foreign), "another CA"), (Some(&server), "a server's")] {
            let answer = call(address, &ca, pair, &what).await;
            assert!(answer.is_err(), "{} with {why}: {answer:?}", listed.path);
        }
        for pair in &nobody {
            assert_eq!(call(address, &ca, Some(pair), &what).await, Ok(403), "{}", listed.path);
        }
        for (role, pair) in &known {
            let answer = call(address, &ca, Some(pair), &what).await.unwrap();
            assert_eq!(answer == 403, !role.may(listed.needs), "{} {}: {answer}", role.as_str(), listed.path);
        }
        assert!(known.iter().any(|(role, _)| !role.may(listed.needs)), "{} is for everybody", listed.path);
    }
    let admin = &known[0].1;
    for (method, path, status) in
        [("DELETE", "/status", 405), ("DELETE", "/manifest", 405), ("PUT", "/etcd/status/", 404)]
    {
        assert_eq!(call(address, &ca, Some(admin), &request(method, path)).await, Ok(status), "{method} {path}");
    }
    shutdown.trigger();
}

/// What a machine answers to `GET /status` that is reached through another one.
async fn status_through(near: SocketAddr, far: SocketAddr, ca: &Authority, pair: &Pair) -> Result<u16, String> {
    let server = |address: SocketAddr| format!("https://{address}").parse::<http::Uri>().unwrap();
    let mut config = client::Config::new(server(far));
    config.ca_pem = Some(ca.pem().as_bytes().to_vec());
    let Pair(certificate, key) = pair;
    config.identity =
        client::Identity::Certificate { cert_pem: certificate.clone().into(), key_pem: key.clone().into() };
    config.through = Some(client::Through { server: server(near), tls_server_name: None });
    let request = Request::get("/status").body(Bytes::new()).unwrap();
    let answer = client::Client::new(config).unwrap().raw(request).await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| stdx::chain(&error).to_string())
}

#[tokio::test]
async fn a_master_forwards_and_the_other_machine_decides() {
    let shutdown = Shutdown::new();
    let ca = authority("kubernetes");
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let far = machine_of(&ca, folders[0].path(), None, &shutdown).await;
    let near = machine_of(&ca, folders[1].path(), Some(far.port()), &shutdown).await;
    let worker = machine_of(&ca, folders[2].path(), None, &shutdown).await;
    let reader = issue(&ca, Some(Role::Reader.group()), Usage::ClientAuth);
    let backup = issue(&ca, Some(Role::Backup.group()), Usage::ClientAuth);
    let nobody = issue(&ca, None, Usage::ClientAuth);

    assert_eq!(status_through(near, far, &ca, &reader).await, Ok(200));
    assert_eq!(status_through(near, far, &ca, &backup).await, Ok(403), "the other machine's answer");
    let refused = async |near, far, pair| status_through(near, far, &ca, pair).await.unwrap_err();
    let why = refused(near, far, &nobody).await;
    assert!(why.contains("403") && why.contains("needs a role"), "{why}");
    let why = refused(near, worker, &reader).await;
    assert!(why.contains("is forwarded to"), "{why}");
    let why = refused(worker, far, &reader).await;
    assert!(why.contains("no master"), "{why}");
    shutdown.trigger();
}

#[tokio::test]
async fn a_capture_does_not_see_itself() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let (address, ca) = machine(folder.path(), &shutdown).await;
    let admin = issue(&ca, Some(Role::Admin.group()), Usage::ClientAuth);
    let filter = format!("tcp port {}", address.port());
    let body = format!(r#"{{"interface":"lo","filter":"{filter}","seconds":1}}"#);
    let head = format!("POST /capture HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {}", body.len());
    let answer = exchange(address, &ca, Some(&admin), &format!("{head}\r\n\r\n{body}")).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    if text.starts_with("HTTP/1.1 500") {
        println!("SKIPPED: {text}");
        return;
    }
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("application/x-pcapng"), "{text}");
    assert!(text.contains(&filter) && text.contains("its time is over"), "{text}");
    // What was accepted, as the last block counts it: nothing, although this answer went by.
    let accepted = [6_u16.to_ne_bytes(), 8_u16.to_ne_bytes()].concat();
    let place = answer.windows(4).rposition(|bytes| bytes == accepted).unwrap() + 4;
    assert_eq!(answer[place..place + 8], [0; 8]);
    shutdown.trigger();
}
