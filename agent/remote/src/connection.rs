//! One connection per request: TCP, TLS where the address says so, HTTP/1.1.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::access::Trust;
use crate::error::Error;
use crate::shown;

/// For the connection, TLS included.
const CONNECT: Duration = Duration::from_secs(15);

/// What is sent.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Sends a request and waits for the head of the answer, for so long. Whoever drops the answer ends the connection.
pub(crate) async fn exchange(
    url: &Url,
    trust: &Trust,
    request: Request<Body>,
    within: Duration,
) -> Result<Response<Incoming>, Error> {
    let (host, port) = server(url)?;
    let name = format!("{host}:{port}");
    let stream = tokio::time::timeout(CONNECT, connect(url, trust, (&host, port))).await;
    let late = io::Error::new(io::ErrorKind::TimedOut, format!("not within {} s", CONNECT.as_secs()));
    let stream = stream.unwrap_or(Err(Error::Connect { server: name, source: late }))?;
    let broken = |source| Error::Broken { url: shown(url), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the answer's body, or when that is dropped.
    drop(tokio::spawn(connection));
    match tokio::time::timeout(within, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(broken),
        Err(_elapsed) => Err(Error::Silent { url: shown(url), seconds: within.as_secs() }),
    }
}

/// Host, without the brackets of an address, and port.
fn server(url: &Url) -> Result<(String, u16), Error> {
    let bad = |reason: &str| Error::Address { text: shown(url), reason: reason.to_owned() };
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(bad("it has no host")),
    };
    Ok((host, url.port_or_known_default().ok_or_else(|| bad("it has no port"))?))
}

async fn connect(url: &Url, trust: &Trust, (host, port): (&str, u16)) -> Result<Box<dyn Io>, Error> {
    let server = format!("{host}:{port}");
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|source| Error::Connect { server: server.clone(), source })?;
    if url.scheme() != "https" {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Error::Address { text: shown(url), reason: error.to_string() })?;
    let connector = TlsConnector::from(Arc::new(trust.tls()?));
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        // What rustls itself refuses will be refused again; a connection that breaks may hold the next time.
        Err(source) if source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Err(Error::Tls { server, source })
        }
        Err(source) => Err(Error::Connect { server, source }),
    }
}
