//! The machine API, as far as it exists: the status on a local socket and, while there is no manifest, a way to hand
//! one in.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lifecycle::Shutdown;
use sys::{Linux, System};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::error::Error;

/// Nobody needs more at once.
const CONNECTIONS: usize = 16;
/// A caller has this long to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// ... and this long to say all of it.
const BODY: Duration = Duration::from_secs(30);

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// `GET /status`, for the machine's own users.
    Local,
    /// `PUT /manifest`, for whoever sets the machine up; and the status, so that they see why.
    Maintenance,
}

/// Serves the local socket until shutdown.
///
/// # Errors
/// When it cannot be listened on.
pub(crate) async fn run_local(run: PathBuf, shutdown: Shutdown) -> Result<(), Error> {
    let path = run.join("machine.sock");
    Linux.remove_file(&path).ok();
    let listener = UnixListener::bind(&path).map_err(|source| Error::ListenLocal { path, source })?;
    let (permits, run) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(run));
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                spawn_connection(stream, Offer::Local, &permits, &run);
            },
        }
    }
}

/// Takes a manifest in until shutdown.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn run_maintenance(address: SocketAddr, run: PathBuf, shutdown: Shutdown) -> Result<(), Error> {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        // A kernel without IPv6 cannot listen for both families at once.
        Err(_refused) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?
        }
        Err(source) => return Err(Error::Listen { address, source }),
    };
    tracing::info!(%address, "waiting for a manifest: PUT /manifest");
    serve_maintenance(listener, run, shutdown).await;
    Ok(())
}

async fn serve_maintenance(listener: TcpListener, run: PathBuf, shutdown: Shutdown) {
    let (permits, run) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(run));
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                spawn_connection(stream, Offer::Maintenance, &permits, &run);
            },
        }
    }
}

/// Serves one connection; if there are too many, closes it at once.
fn spawn_connection<S>(stream: S, offer: Offer, permits: &Arc<Semaphore>, run: &Arc<PathBuf>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Ok(permit) = permits.clone().try_acquire_owned() else { return };
    let run = run.clone();
    drop(tokio::spawn(async move {
        let service = service_fn(|request| {
            let run = run.clone();
            async move { Ok::<_, Infallible>(answer(offer, &run, request).await) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEADERS);
        if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "machine API connection ended");
        }
        drop(permit);
    }));
}

async fn answer(offer: Offer, run: &Path, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (offer, request.method(), request.uri().path()) {
        (_, &Method::GET, "/status") => match Linux.read(&run.join("status.json")) {
            Ok(status) => respond(StatusCode::OK, "application/json", status),
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, stdx::chain(&error).to_string()),
        },
        (Offer::Maintenance, &Method::PUT, "/manifest") => {
            let body = Limited::new(request.into_body(), manifest::MANIFEST_BYTES).collect();
            match tokio::time::timeout(BODY, body).await {
                Ok(Ok(body)) => take_manifest(run, &body.to_bytes()),
                Ok(Err(error)) => text(StatusCode::PAYLOAD_TOO_LARGE, format!("the manifest was not read: {error}\n")),
                Err(_elapsed) => text(StatusCode::REQUEST_TIMEOUT, "the manifest did not come\n".to_owned()),
            }
        }
        (Offer::Maintenance | Offer::Local, _, "/status") | (Offer::Maintenance, _, "/manifest") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "GET /status and PUT /manifest are served here\n".to_owned())
        }
        (Offer::Maintenance | Offer::Local, _, _) => text(StatusCode::NOT_FOUND, "there is nothing here\n".to_owned()),
    }
}

/// Checks a manifest and, if it is good, hands it to the first process, which decides.
fn take_manifest(run: &Path, body: &[u8]) -> Response<Full<Bytes>> {
    let Ok(content) = std::str::from_utf8(body) else {
        return text(StatusCode::UNPROCESSABLE_ENTITY, "the manifest is not UTF-8 text\n".to_owned());
    };
    let (good, findings) = manifest::check("manifest.toml", content);
    if good.is_none() {
        return text(StatusCode::UNPROCESSABLE_ENTITY, format!("{findings}\n"));
    }
    match Linux.replace(&run.join("inbox/manifest.toml"), body, 0o600) {
        Ok(()) if findings.is_empty() => text(StatusCode::ACCEPTED, "the manifest is good and taken in\n".to_owned()),
        Ok(()) => text(StatusCode::ACCEPTED, format!("{findings}\nthe manifest is taken in\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", stdx::chain(&error))),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.into_bytes())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn call(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn put(body: &str) -> String {
        let length = body.len();
        format!("PUT /manifest HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn a_manifest_is_checked_and_handed_on() {
        let run = tempfile::tempdir().unwrap();
        std::fs::create_dir(run.path().join("inbox")).unwrap();
        std::fs::write(run.path().join("status.json"), "{}").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let server = tokio::spawn(serve_maintenance(listener, run.path().to_owned(), shutdown.clone()));
        let bad = call(address, &put("version = 1\n[machine]\nhostnam = \"a\"\n")).await;
        assert!(bad.starts_with("HTTP/1.1 422") && bad.contains("hostname"), "{bad}");
        let good = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n";
        let answer = call(address, &put(good)).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert_eq!(std::fs::read_to_string(run.path().join("inbox/manifest.toml")).unwrap(), good);
        let status = call(address, "GET /status HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").await;
        assert!(status.starts_with("HTTP/1.1 200") && status.ends_with("{}"), "{status}");
        let wrong = call(address, "GET /manifest HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").await;
        assert!(wrong.starts_with("HTTP/1.1 405"), "{wrong}");
        shutdown.trigger();
        server.await.unwrap();
    }
}
