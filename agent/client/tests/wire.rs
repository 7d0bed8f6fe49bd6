//! The client against real sockets: TLS, both versions of HTTP, errors, retries, deadlines.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::Resource;
use api::core::v1::{ConfigMap, ConfigMapList};
use api::meta::v1::Status;
use bytes::Bytes;
use client::{Client, Config, DeleteOptions, Error, Identity, ListParams, Patch, WatchEvent, WatchParams};
use futures::StreamExt;
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

type Body = UnsyncBoxBody<Bytes, Infallible>;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }
}

/// A server with these protocols in its hello; it wants a client certificate of `authority`.
async fn serve(authority: &Authority, protocols: &[&str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let (cert, key) = authority.issue("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority.pem()).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let seen = count.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let known = stream.get_ref().1.peer_certificates().is_some();
                let service = hyper::service::service_fn(move |request| answer(request, known, seen.clone()));
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, count)
}

async fn answer(request: Request<Incoming>, known: bool, seen: Arc<AtomicUsize>) -> Result<Response<Body>, Infallible> {
    let number = seen.fetch_add(1, Ordering::SeqCst);
    let http2 = request.version() == Version::HTTP_2;
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut map = ConfigMap::default();
    for (key, value) in [
        ("http2", http2.to_string()),
        ("certificate", known.to_string()),
        ("authorization", header("authorization").unwrap_or_default()),
        ("agent", header("user-agent").unwrap_or_default()),
        ("line", format!("{} {}", request.method(), request.uri())),
    ] {
        map.data.insert(key.to_owned(), value);
    }
    let path = request.uri().path().to_owned();
    let response = Response::builder().header("content-type", "application/vnd.kubernetes.protobuf");
    let whole = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).boxed_unsync();
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        return Ok(response.body(endless(&map)).unwrap());
    }
    Ok(match path.rsplit('/').next().unwrap() {
        "busy" if number < 2 => response.status(429).header("retry-after", "0").body(whole(vec![])).unwrap(),
        "missing" => {
            let status = Status { code: 404, reason: "NotFound".to_owned(), ..Status::default() };
            response.status(404).body(whole(api::envelope::encode_as("v1", "Status", &status))).unwrap()
        }
        "html" => Response::builder().header("content-type", "text/html").body(whole(b"<p>".to_vec())).unwrap(),
        "silent" => std::future::pending().await,
        "configmaps" => {
            let list = ConfigMapList { items: vec![map.clone(), map], ..ConfigMapList::default() };
            response.body(whole(api::envelope::encode_as("v1", "ConfigMapList", &list))).unwrap()
        }
        _ => response.body(whole(api::envelope::encode(ConfigMap::KIND, &map))).unwrap(),
    })
}

fn endless(map: &ConfigMap) -> Body {
    let raw = Some(api::envelope::encode(ConfigMap::KIND, map));
    let event = api::meta::v1::WatchEvent { r#type: "ADDED".to_owned(), object: api::runtime::RawExtension { raw } };
    let bytes = event.encode_to_vec();
    let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(bytes);
    let first = futures::stream::iter([Ok(http_body::Frame::data(Bytes::from(frame)))]);
    StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync()
}

fn config(address: SocketAddr, authority: &Authority) -> Config {
    let mut config = Config::new(format!("https://{address}").parse().unwrap()).with_component("test");
    config.ca_pem = Some(authority.pem());
    config
}

async fn get(client: &Client, name: &str) -> Result<ConfigMap, Error> {
    client.get(Some("default"), name).await
}

#[tokio::test]
async fn http_2_and_1_are_chosen_by_the_server() {
    let authority = Authority::new();
    for (protocols, http2) in [(&["h2", "http/1.1"][..], "true"), (&["http/1.1"], "false"), (&[], "false")] {
        let (address, _) = serve(&authority, protocols).await;
        let client = Client::new(config(address, &authority)).unwrap();
        let map = get(&client, "a").await.unwrap();
        assert_eq!(map.data["http2"], http2, "{protocols:?}");
        assert_eq!(map.data["agent"], format!("keelson/{} (test)", env!("CARGO_PKG_VERSION")));
    }
}

#[tokio::test]
async fn certificates_tokens_and_renewed_token_files_tell_who_asks() {
    let authority = Authority::new();
    let (address, _) = serve(&authority, &["h2"]).await;
    let base = config(address, &authority);
    let (cert, key) = authority.issue("me", ExtendedKeyUsagePurpose::ClientAuth);
    let certificate = Identity::Certificate { cert_pem: cert.into_bytes(), key_pem: key.into_bytes() };
    let client = Client::new(base.clone()).unwrap();
    assert_eq!(get(&client, "a").await.unwrap().data["certificate"], "false");
    client.renew(authority.pem(), certificate.clone()).unwrap();
    assert_eq!(get(&client, "a").await.unwrap().data["certificate"], "true");
    client.renew(Authority::new().pem(), certificate.clone()).unwrap();
    assert!(matches!(get(&client, "a").await, Err(Error::Transport { .. })));
    client.renew([Authority::new().pem(), authority.pem()].concat(), certificate).unwrap();
    assert!(get(&client, "a").await.is_ok());
    let client = Client::new(Config { identity: Identity::Token("t".to_owned()), ..base.clone() }).unwrap();
    assert_eq!(get(&client, "a").await.unwrap().data["authorization"], "Bearer t");
    let file = std::env::temp_dir().join(format!("token-{}", std::process::id()));
    std::fs::write(&file, "first\n").unwrap();
    let client = Client::new(Config { identity: Identity::TokenFile(file.clone()), ..base }).unwrap();
    assert_eq!(get(&client, "a").await.unwrap().data["authorization"], "Bearer first");
    std::fs::write(&file, "second\n").unwrap();
    assert_eq!(get(&client, "a").await.unwrap().data["authorization"], "Bearer first");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(get(&client, "a").await.unwrap().data["authorization"], "Bearer second");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_unless_that_is_wanted() {
    let authority = Authority::new();
    let (address, _) = serve(&authority, &[]).await;
    let stranger = config(address, &Authority::new());
    assert!(matches!(get(&Client::new(stranger.clone()).unwrap(), "a").await, Err(Error::Transport { .. })));
    let trusting = Client::new(Config { insecure_skip_tls_verify: true, ..stranger }).unwrap();
    assert!(get(&trusting, "a").await.is_ok());
    let nobody = Config { ca_pem: None, ..config(address, &authority) };
    assert!(matches!(Client::new(nobody), Err(Error::Config(client::ConfigError::NoAuthority))));
}

#[tokio::test]
async fn verbs_have_their_paths() {
    let authority = Authority::new();
    let (address, _) = serve(&authority, &["h2"]).await;
    let client = Client::new(config(address, &authority)).unwrap();
    let mut map = ConfigMap::default();
    map.metadata.name = "x".to_owned();
    map.metadata.namespace = "ns".to_owned();
    let line = |map: ConfigMap| map.data["line"].split_once("/api").unwrap().1.to_owned();
    assert_eq!(line(client.update(&map).await.unwrap()), "/v1/namespaces/ns/configmaps/x");
    assert_eq!(line(client.update_status(&map).await.unwrap()), "/v1/namespaces/ns/configmaps/x/status");
    let patch = Patch::Apply { field_manager: "m".to_owned(), force: true, value: serde_json::json!({}) };
    let patched: ConfigMap = client.patch(Some("ns"), "x", None, &patch).await.unwrap();
    assert_eq!(line(patched), "/v1/namespaces/ns/configmaps/x?fieldManager=m&force=true");
    client.delete::<ConfigMap>(Some("ns"), "x", &DeleteOptions::default()).await.unwrap();
    let list = client.list::<ConfigMap>(None, &ListParams::labels("a in (b,c)")).await.unwrap();
    assert_eq!(line(list.items[1].clone()), "/v1/configmaps?labelSelector=a%20in%20%28b%2Cc%29");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let authority = Authority::new();
    let (address, count) = serve(&authority, &["h2"]).await;
    let client = Client::new(Config { timeout: Duration::from_millis(300), ..config(address, &authority) }).unwrap();
    assert!(get(&client, "busy").await.is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert!(get(&client, "missing").await.unwrap_err().is_not_found());
    assert!(matches!(get(&client, "html").await, Err(Error::Decode(client::DecodeError::ContentType(_)))));
    assert!(matches!(get(&client, "silent").await, Err(Error::Timeout { .. })));
}

#[tokio::test]
async fn more_watches_than_a_connection_has_streams_do_not_starve_requests() {
    let authority = Authority::new();
    let (address, _) = serve(&authority, &["h2"]).await;
    let client = Client::new(config(address, &authority)).unwrap();
    let mut watches = Vec::new();
    for _ in 0..250 {
        let mut watch = client.watch::<ConfigMap>(None, &WatchParams::default()).await.unwrap();
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
        watches.push(watch);
    }
    assert!(get(&client, "a").await.is_ok());
}
