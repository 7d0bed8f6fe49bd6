//! A server elsewhere, as machines see one: files by HTTPS, for whoever knows a password, or by HTTP for everybody.
//!
//! It takes files by PUT and gives them by GET, also parts of them; a registry of images is such files, too. Its
//! certificate signs itself, so that nobody believes it who was not told to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// Whom it knows, as a manifest has it.
pub const USER: &str = "keelson";
/// What that user proves it with.
pub const PASSWORD: &str = "open-sesame";
/// The two in base64.
const PROOF: &str = "Basic a2VlbHNvbjpvcGVuLXNlc2FtZQ==";
const BINARY: &str = "application/octet-stream";

/// A file and its type.
type File = (Bytes, String);

#[derive(Default)]
struct Kept {
    /// Nobody has to know a password.
    is_public: bool,
    files: BTreeMap<String, File>,
    /// A file that is asked for from its beginning breaks off after so many bytes.
    cut: Option<usize>,
    /// What was asked for: method, path and where it began.
    asked: Vec<(Method, String, usize)>,
}

/// The server. It serves until the process ends.
pub struct Files {
    /// Host and port, as machines see it.
    pub authority: String,
    /// The certificate in PEM; none by HTTP.
    pub ca: String,
    kept: Arc<Mutex<Kept>>,
}

impl Files {
    /// Serves what comes to `listener`, which machines reach at `host`.
    ///
    /// # Errors
    /// There is no certificate, or no socket.
    pub fn start(listener: TcpListener, host: IpAddr) -> Result<Self> {
        let port = listener.local_addr().context("the server's address")?.port();
        let own = rcgen::generate_simple_self_signed([host.to_string()]).context("make a certificate")?;
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key)?;
        let kept = spawn(listener, Some(TlsAcceptor::from(Arc::new(config))))?;
        Ok(Self { authority: SocketAddr::new(host, port).to_string(), ca: own.cert.pem(), kept })
    }

    /// The same by HTTP, for everybody.
    ///
    /// # Errors
    /// There is no socket.
    pub fn start_public(listener: TcpListener, host: IpAddr) -> Result<Self> {
        let port = listener.local_addr().context("the server's address")?.port();
        let kept = spawn(listener, None)?;
        lock(&kept).is_public = true;
        Ok(Self { authority: SocketAddr::new(host, port).to_string(), ca: String::new(), kept })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }

    /// The address of a file.
    #[must_use]
    pub fn address(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.kept().is_public { "http" } else { "https" }, self.authority)
    }

    /// Has a file from now on; answers its address.
    pub fn have(&self, path: &str, content: impl Into<Bytes>) -> String {
        self.have_as(path, content, BINARY)
    }

    /// The same, of this type.
    pub fn have_as(&self, path: &str, content: impl Into<Bytes>, kind: &str) -> String {
        self.kept().files.insert(path.to_owned(), (content.into(), kind.to_owned()));
        self.address(path)
    }

    /// Has nothing from now on.
    pub fn lose_all(&self) {
        self.kept().files.clear();
    }

    /// Lets every file that is asked for from its beginning break off after so many bytes. The rest can be had.
    pub fn cut(&self, after: usize) {
        self.kept().cut = Some(after);
    }

    /// The paths of the files there.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.kept().files.keys().cloned().collect()
    }

    /// What was asked for by whom it knows: method, path and where it began.
    #[must_use]
    pub fn asked(&self) -> Vec<(Method, String, usize)> {
        self.kept().asked.clone()
    }

    /// What a machine's manifest has to say to be believed here, and to believe.
    #[must_use]
    pub fn manifest(&self) -> String {
        format!(
            "\n[outbound.servers.\"{}\"]\nusername = \"{USER}\"\npassword = \"{PASSWORD}\"\nca = \"\"\"\n{}\"\"\"\n",
            self.authority, self.ca
        )
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(listener: TcpListener, acceptor: Option<TlsAcceptor>) -> Result<Arc<Mutex<Kept>>> {
    listener.set_nonblocking(true).context("the server's socket")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("the server's socket")?;
    let kept = Arc::new(Mutex::new(Kept::default()));
    drop(tokio::spawn(serve(listener, acceptor, kept.clone())));
    Ok(kept)
}

async fn serve(listener: tokio::net::TcpListener, acceptor: Option<TlsAcceptor>, kept: Arc<Mutex<Kept>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, kept) = (acceptor.clone(), kept.clone());
        drop(tokio::spawn(async move {
            let Some(acceptor) = acceptor else { return talk(stream, kept).await };
            // Whoever does not believe us ends the handshake.
            if let Ok(stream) = acceptor.accept(stream).await {
                talk(stream, kept).await;
            }
        }));
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, kept: Arc<Mutex<Kept>>) {
    let service = service_fn(|request| {
        let kept = kept.clone();
        async move { Ok::<_, Infallible>(answer(request, &kept).await) }
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

async fn answer(request: Request<Incoming>, kept: &Mutex<Kept>) -> Answer {
    let (head, body) = request.into_parts();
    if !lock(kept).is_public && head.headers.get(AUTHORIZATION).is_none_or(|proof| proof != PROOF) {
        let mut refusal = say(StatusCode::UNAUTHORIZED, Bytes::new());
        refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"files\""));
        return refusal;
    }
    let path = head.uri.path().to_owned();
    let range = head.headers.get(RANGE).and_then(|range| range.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let put = if head.method == Method::PUT { body.collect().await.ok().map(|body| body.to_bytes()) } else { None };
    let mut kept = lock(kept);
    kept.asked.push((head.method.clone(), path.clone(), from.unwrap_or(0)));
    if let Some(content) = put {
        kept.files.insert(path, (content, BINARY.to_owned()));
        return say(StatusCode::CREATED, Bytes::new());
    }
    let Some((content, kind)) = kept.files.get(&path).cloned() else {
        // Whoever asks whether this is a registry is told that it is.
        let status = if path == "/v2/" { StatusCode::OK } else { StatusCode::NOT_FOUND };
        return say(status, Bytes::new());
    };
    let cut = if from.is_none() && head.method == Method::GET { kept.cut } else { None };
    give(&content, &kind, from, cut)
}

fn give(content: &Bytes, kind: &str, from: Option<usize>, cut: Option<usize>) -> Answer {
    let begin = from.unwrap_or(0).min(content.len());
    let part = content.slice(begin..);
    let length = part.len();
    let mut answer = match cut {
        Some(after) => {
            let parts = [Ok(Frame::data(part.slice(..after.min(length)))), Err(io::Error::other("cut"))];
            let parts = stream::iter(parts).then(async |part| {
                // What is there goes out before the end is known.
                tokio::task::yield_now().await;
                part
            });
            say(StatusCode::OK, Bytes::new()).map(|_| StreamBody::new(Box::pin(parts)).boxed_unsync())
        }
        None => say(if from.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK }, part),
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(kind) = HeaderValue::from_str(kind) {
        headers.insert(CONTENT_TYPE, kind);
    }
    let range = format!("bytes {begin}-{}/{}", content.len().saturating_sub(1), content.len());
    if let Some(range) = from.and_then(|_| HeaderValue::from_str(&range).ok()) {
        headers.insert(CONTENT_RANGE, range);
    }
    answer
}

fn say(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer
}
