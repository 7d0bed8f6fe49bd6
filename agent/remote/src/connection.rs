//! One connection per request: TCP, TLS where the address says so, HTTP/1.1.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::access::{Trust, empty};
use crate::error::Error;
use crate::outbound::{Outbound, Proxy};
use crate::shown;

/// For the connection, TLS included.
const CONNECT: Duration = Duration::from_secs(15);
/// The same by way of a proxy, which has to connect, too.
const CONNECT_BY_PROXY: Duration = Duration::from_secs(30);

/// What is sent.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Sends a request and waits for the head of the answer, for so long. Whoever drops the answer ends the connection.
pub(crate) async fn exchange(
    url: &Url,
    trust: &Trust,
    outbound: &Outbound,
    mut request: Request<Body>,
    within: Duration,
) -> Result<Response<Incoming>, Error> {
    let to = server(url)?;
    let name = format!("{}:{}", to.0, to.1);
    let proxy = outbound.proxy(url);
    let asked = proxy.filter(|_| url.scheme() != "https");
    if let Some(proxy) = asked {
        // What needs no secrecy is asked of the proxy itself.
        let whole = url[..url::Position::AfterQuery].parse();
        let bad = |error: http::uri::InvalidUri| Error::Address { text: shown(url), reason: error.to_string() };
        *request.uri_mut() = whole.map_err(bad)?;
        authorize(request.headers_mut(), proxy);
    }
    let limit = if proxy.is_some() { CONNECT_BY_PROXY } else { CONNECT };
    let late = io::Error::new(io::ErrorKind::TimedOut, format!("not within {} s", limit.as_secs()));
    let stream = tokio::time::timeout(limit, connect(url, trust, outbound, to)).await;
    let stream = stream.unwrap_or(Err(Error::Connect { server: name.clone(), source: late }))?;
    let broken = |source| Error::Broken { url: shown(url), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the answer's body, or when that is dropped.
    drop(tokio::spawn(connection));
    let answer = match tokio::time::timeout(within, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(broken)?,
        Err(_elapsed) => return Err(Error::Silent { url: shown(url), seconds: within.as_secs() }),
    };
    match asked.filter(|_| answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED) {
        Some(proxy) => Err(Error::Proxy { proxy: proxy.name(), server: name, status: answer.status() }),
        None => Ok(answer),
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

/// A connection on which the server is asked: with it, or with the proxy that leads there.
async fn connect(url: &Url, trust: &Trust, outbound: &Outbound, to: (String, u16)) -> Result<Box<dyn Io>, Error> {
    let is_secret = url.scheme() == "https";
    let stream = match outbound.proxy(url) {
        None => reach(&to, format!("{}:{}", to.0, to.1)).await?,
        Some(proxy) => {
            let near = server(&proxy.url)?;
            let mut stream = reach(&near, proxy.name()).await?;
            if proxy.url.scheme() == "https" {
                stream = secure(stream, &outbound.trust(&proxy.url), (near.0, proxy.name())).await?;
            }
            if is_secret { tunnel(stream, proxy, url).await? } else { stream }
        }
    };
    let name = format!("{}:{}", to.0, to.1);
    if is_secret { secure(stream, trust, (to.0, name)).await } else { Ok(stream) }
}

async fn reach((host, port): &(String, u16), server: String) -> Result<Box<dyn Io>, Error> {
    let stream = TcpStream::connect((host.as_str(), *port)).await;
    stream.map(|stream| Box::new(stream) as _).map_err(|source| Error::Connect { server, source })
}

/// TLS with whoever proves to be this host.
async fn secure(stream: Box<dyn Io>, trust: &Trust, (host, server): (String, String)) -> Result<Box<dyn Io>, Error> {
    let name = ServerName::try_from(host)
        .map_err(|error| Error::Address { text: server.clone(), reason: error.to_string() })?;
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

/// A way through the proxy that it cannot look into.
async fn tunnel(stream: Box<dyn Io>, proxy: &Proxy, url: &Url) -> Result<Box<dyn Io>, Error> {
    let bad = |reason: String| Error::Address { text: shown(url), reason };
    let port = url.port_or_known_default().unwrap_or_default();
    let server = format!("{}:{port}", url.host_str().unwrap_or_default());
    let mut request = Request::new(empty());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = server.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
    let host = HeaderValue::from_str(&server).map_err(|error| bad(error.to_string()))?;
    request.headers_mut().insert(HOST, host);
    authorize(request.headers_mut(), proxy);
    let broken = |source| Error::Broken { url: proxy.name(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends when the way is given up.
    drop(tokio::spawn(connection.with_upgrades()));
    let answer = sender.send_request(request).await.map_err(broken)?;
    if !answer.status().is_success() {
        return Err(Error::Proxy { proxy: proxy.name(), server, status: answer.status() });
    }
    Ok(Box::new(TokioIo::new(hyper::upgrade::on(answer).await.map_err(broken)?)))
}

fn authorize(headers: &mut HeaderMap, proxy: &Proxy) {
    if let Some(value) = &proxy.authorization {
        headers.insert(PROXY_AUTHORIZATION, value.clone());
    }
}
