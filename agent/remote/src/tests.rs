//! Servers as they are found, on the loopback interface.

mod download;
mod others;
mod outbound;
mod registry;
mod store;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;

use crate::{Access, Download, Error, Outbound, Peer, Source, Trust};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// A name that only the proxy of the tests finds.
const FAR: &str = "far.example.com";

/// What a server was asked.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    /// Scheme and authority, where a proxy is asked.
    whole: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Where the part that is asked for begins.
    fn from(&self) -> Option<usize> {
        self.header("range").strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A server, and what it was asked so far.
struct Server {
    url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Whom to trust for it, if it speaks TLS.
    ca: Vec<u8>,
}

impl Server {
    /// One without TLS.
    async fn plain(answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static) -> Self {
        Self::start(None, answer).await
    }

    /// One with TLS, whose certificate signs itself.
    async fn secure(answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static) -> Self {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned(), FAR.to_owned()]).unwrap();
        Self::start(Some(own), answer).await
    }

    async fn start(
        own: Option<rcgen::CertifiedKey<rcgen::KeyPair>>,
        answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if own.is_some() { "https" } else { "http" };
        let port = listener.local_addr().unwrap().port();
        let url = format!("{scheme}://localhost:{port}/").parse().unwrap();
        let ca = own.as_ref().map(|own| own.cert.pem().into_bytes()).unwrap_or_default();
        let acceptor = own.map(|own| {
            let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.unwrap().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
            TlsAcceptor::from(Arc::new(config.unwrap()))
        });
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                drop(tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, answer, seen).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, answer, seen).await;
                            }
                        }
                    }
                }));
            }
        }));
        Self { url, asked, ca }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn source(&self, path: &str) -> Source {
        let trust = if self.ca.is_empty() { Trust::Host } else { Trust::These(self.ca.clone()) };
        let url = self.url.join(path).unwrap();
        let peer = peer(trust, Access::Nobody);
        Source { url, peer, limit: 1 << 20, bytes: None, sha256: None }
    }
}

async fn serve<S>(
    stream: S,
    answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static,
    seen: Arc<Mutex<Vec<Asked>>>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin,
{
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (answer, seen) = (answer.clone(), seen.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let path = head.uri.path_and_query().unwrap().to_string();
            let whole = head.uri.to_string().strip_suffix(&path).unwrap().to_owned();
            let asked = Asked { method: head.method, whole, path, headers: head.headers, body };
            seen.lock().unwrap().push(asked.clone());
            Ok::<_, Infallible>(answer(&asked))
        }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

fn say(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

/// An answer whose connection breaks after its body, short of what it promised.
fn break_off(status: StatusCode, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let parts = stream::iter([Ok(Frame::data(Bytes::from(body))), Err(io::Error::other("it breaks"))]);
    // What is there goes out before the end is known.
    let parts = parts.then(async |part| {
        tokio::task::yield_now().await;
        part
    });
    say(status, headers, "").map(|_| StreamBody::new(parts.boxed()).boxed_unsync())
}

/// All of a file.
async fn fetch(source: Source) -> Result<Vec<u8>, Error> {
    let mut download = Download::new(source);
    let mut content = Vec::new();
    while let Some(part) = download.next().await? {
        content.extend_from_slice(&part);
    }
    assert_eq!(download.at(), content.len() as u64);
    Ok(content)
}

/// A server of which this is known.
fn peer(trust: Trust, access: Access) -> Peer {
    Outbound::default().peer(trust, access)
}

fn sha256(content: &[u8]) -> String {
    stdx::hex(ring::digest::digest(&ring::digest::SHA256, content).as_ref())
}
