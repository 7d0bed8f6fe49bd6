//! Looking at a container from outside: HTTP, TCP, gRPC and commands, for probes and hooks.

use std::sync::Arc;
use std::time::Duration;

use api::IntOrString;
use api::core::v1::{Container, HttpGetAction};
use client::{AnyCertificate, Verifier};
use http::Uri;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The most that is read of an answer.
const MAX_BODY_BYTES: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// A target's answer to a GET.
pub(crate) struct HttpAnswer {
    pub(crate) code: u16,
    pub(crate) body: String,
    /// It sent the caller to another host.
    pub(crate) is_elsewhere: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The port number of a container that a probe or hook names.
pub(crate) fn port_number(port: &IntOrString, container: &Container) -> Result<u16, String> {
    if port.r#type == 0 {
        return u16::try_from(port.int_val).ok().filter(|p| *p > 0).ok_or_else(|| "invalid port number".to_owned());
    }
    let named = container.ports.iter().find(|p| p.name == port.str_val);
    match named {
        Some(found) => u16::try_from(found.container_port).map_err(|_range| "invalid port number".to_owned()),
        None => port.str_val.parse().map_err(|_text| format!("couldn't find port: {} in container", port.str_val)),
    }
}

/// Gets what `action` names, from `pod_ip` unless it names a host.
pub(crate) async fn http_get(
    action: &HttpGetAction,
    container: &Container,
    pod_ip: &str,
    agent: &str,
) -> Result<HttpAnswer, String> {
    let port = port_number(&action.port, container)?;
    let host = if action.host.is_empty() { pod_ip } else { &action.host };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let scheme = if action.scheme.eq_ignore_ascii_case("https") { "https" } else { "http" };
    let path = if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) };
    let mut url = format!("{scheme}://{bracketed}:{port}{path}");
    for _ in 0..MAX_REDIRECTS {
        let (answer, location) = get_once(&url, action, agent).await?;
        let Some(location) = location else { return Ok(answer) };
        let Some(next) = join_location(&url, &location) else { return Ok(answer) };
        if host_of(&next) != host_of(&url) {
            return Ok(HttpAnswer { is_elsewhere: true, ..answer });
        }
        url = next;
    }
    Err(format!("Get \"{url}\": stopped after {MAX_REDIRECTS} redirects"))
}

fn host_of(url: &str) -> String {
    url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

fn join_location(base: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let base: Uri = base.parse().ok()?;
    let separator = if location.starts_with('/') { "" } else { "/" };
    Some(format!("{}://{}{separator}{location}", base.scheme_str()?, base.authority()?))
}

async fn get_once(url: &str, action: &HttpGetAction, agent: &str) -> Result<(HttpAnswer, Option<String>), String> {
    let failed = |what: String| format!("Get \"{url}\": {what}");
    let uri: Uri = url.parse().map_err(|error| failed(format!("{error}")))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|error| failed(dial(&host, port, &error)))?;
    let stream: Box<dyn Stream> = if uri.scheme_str() == Some("https") {
        Box::new(trusting_tls(tcp, &host).await.map_err(failed)?)
    } else {
        Box::new(tcp)
    };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let request = compose(&uri, action, agent).map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error_text(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map(http_body_util::Collected::to_bytes);
        Ok::<_, String>((head, body.unwrap_or_default()))
    };
    // The answer may come with the connection's end: the exchange has the last word.
    let drive = async {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "probe connection ended");
        }
        std::future::pending::<()>().await;
    };
    let (head, body) = tokio::select! {
        answer = exchange => answer.map_err(failed)?,
        () = drive => return Err(failed("EOF".to_owned())),
    };
    let location = head.headers.get(http::header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let location = location.filter(|_| head.status.is_redirection());
    let answer = HttpAnswer {
        code: head.status.as_u16(),
        body: String::from_utf8_lossy(&body).into_owned(),
        is_elsewhere: false,
    };
    Ok((answer, location))
}

fn error_text(error: &hyper::Error) -> String {
    if error.is_incomplete_message() { "EOF".to_owned() } else { stdx::chain(error).to_string() }
}

fn dial(host: &str, port: u16, error: &std::io::Error) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let reason = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {host}:{port}: connect: {reason}")
}

fn compose(uri: &Uri, action: &HttpGetAction, agent: &str) -> Result<http::Request<Empty<Bytes>>, http::Error> {
    let mut builder = http::Request::get(uri.path_and_query().map_or("/", |p| p.as_str()));
    let has = |name: &str| action.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    if !has("host") {
        builder = builder.header(http::header::HOST, uri.authority().map_or("", |a| a.as_str()));
    }
    if !has("user-agent") {
        builder = builder.header(http::header::USER_AGENT, agent);
    }
    if !has("accept") {
        builder = builder.header(http::header::ACCEPT, "*/*");
    }
    for header in &action.http_headers {
        builder = builder.header(&header.name, &header.value);
    }
    builder.header(http::header::CONNECTION, "close").body(Empty::new())
}

/// TLS without a look at the certificate: a pod's own one says nothing to the node.
async fn trusting_tls(tcp: TcpStream, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(AnyCertificate, &provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.map_err(|error| error.to_string())
}

/// Whether a TCP connection can be made.
pub(crate) async fn tcp_connect(host: &str, port: u16) -> Result<(), String> {
    TcpStream::connect((host, port)).await.map(drop).map_err(|error| dial(host, port, &error))
}

/// Asks the gRPC health service of a pod; the error says what it answered instead of "serving".
pub(crate) async fn grpc_health(host: &str, port: u16, service: &str) -> Result<(), String> {
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| dial(host, port, &error))?;
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(tcp))
        .await
        .map_err(|error| error.to_string())?;
    let request = http::Request::post(format!(
        "http://{host_port}/grpc.health.v1.Health/Check",
        host_port = authority(host, port)
    ))
    .header(http::header::CONTENT_TYPE, "application/grpc")
    .header("te", "trailers")
    .body(Full::new(health_request(service)))
    .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let head = response.headers().get("grpc-status").cloned();
        let collected = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let trailer = collected.trailers().and_then(|t| t.get("grpc-status")).cloned();
        Ok::<_, String>((head.or(trailer), collected.to_bytes()))
    };
    tokio::pin!(connection);
    let (code, body) = tokio::select! {
        answer = exchange => answer?,
        _ended = &mut connection => return Err("connection closed".to_owned()),
    };
    let code = code.as_ref().and_then(|c| c.to_str().ok()).unwrap_or("0").to_owned();
    match code.as_str() {
        "0" if serving_status(&body) == Some(1) => Ok(()),
        "0" => {
            let status = match serving_status(&body) {
                Some(2) => "NOT_SERVING",
                Some(3) => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            Err(format!("service unhealthy (responded with \"{status}\")"))
        }
        code => Err(format!("rpc error: code = {code}")),
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A length-prefixed HealthCheckRequest.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        prost::encoding::string::encode(1, &service.to_owned(), &mut message);
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    Bytes::from(frame)
}

/// The status in a length-prefixed HealthCheckResponse.
fn serving_status(frame: &[u8]) -> Option<u8> {
    const PREFIX: usize = 5;
    let message = frame.get(PREFIX..)?;
    match message {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

/// A timeout in the words that probes use.
pub(crate) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, String>>,
    late: &str,
) -> Result<T, String> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_elapsed| Err(late.to_owned()))
}
