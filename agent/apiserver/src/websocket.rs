//! WebSockets that clients open to this server: to read a stream from, or as a tunnel for another protocol.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::answer::{self, Body};
use crate::backend::Duplex;
use crate::handover;
use crate::status::{Failure, Result};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const OUR_VERSION: &str = "13";
/// Bytes of the length before each binary event of a watch.
const LENGTH_BYTES: usize = 4;

/// How long a client may take to be told that its WebSocket ends.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read from the far side of a tunnel at once.
const CHUNK_BYTES: usize = 32 << 10;

/// Whether a request asks for a WebSocket.
#[must_use]
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    let has = |name: &HeaderName, word: &str| {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).any(|v| v.to_ascii_lowercase().contains(word))
    };
    has(&CONNECTION, "upgrade") && has(&UPGRADE, "websocket")
}

/// The protocols that the client offers, best first.
#[must_use]
pub fn offered(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    lists.flat_map(|l| l.split(',')).map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}

/// Takes out the headers of a handshake.
pub fn strip_handshake(headers: &mut HeaderMap) {
    for name in [KEY, PROTOCOL, VERSION, UPGRADE] {
        headers.remove(name);
    }
}

/// Bytes of the key that a handshake begins with.
const KEY_BYTES: usize = 16;

/// The answer to a handshake that no tunnel begins with.
#[must_use]
pub fn not_agreed(parts: &Parts) -> Option<Response<Body>> {
    let decoded = |key: &HeaderValue| base64::engine::general_purpose::STANDARD.decode(key.as_bytes());
    let is_key = parts.headers.get(KEY).and_then(|key| decoded(key).ok()).is_some_and(|key| key.len() == KEY_BYTES);
    let is_version = parts.headers.get(VERSION).is_some_and(|version| version == OUR_VERSION);
    let code = match () {
        () if parts.method != Method::GET => StatusCode::METHOD_NOT_ALLOWED,
        () if !is_key || !is_version => StatusCode::BAD_REQUEST,
        () => return None,
    };
    let mut response = answer::text(code, format!("{}\n", code.canonical_reason().unwrap_or_default()));
    answer::set(response.headers_mut(), VERSION, OUR_VERSION);
    Some(response)
}

/// A WebSocket that has been agreed on: the answer to send, and what becomes of the connection.
pub struct Handshake {
    /// The answer.
    pub response: Response<Body>,
    upgrade: OnUpgrade,
}

/// Agrees to a WebSocket with this protocol, which may be empty.
///
/// # Errors
/// When the connection cannot be upgraded.
pub fn accept(parts: &mut Parts, protocol: &str) -> Result<Handshake> {
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| Failure::bad_request("the connection cannot be upgraded"))?;
    let key = parts.headers.get(KEY).map(|k| derive_accept_key(k.as_bytes())).unwrap_or_default();
    let mut response = Response::new(answer::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    answer::set(headers, CONNECTION, "Upgrade");
    answer::set(headers, UPGRADE, "websocket");
    answer::set(headers, ACCEPT, &key);
    if !protocol.is_empty() {
        answer::set(headers, PROTOCOL, protocol);
    }
    Ok(Handshake { response, upgrade })
}

async fn open(upgrade: OnUpgrade) -> Option<Near> {
    match upgrade.await {
        Ok(upgraded) => Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await),
        Err(error) => {
            tracing::debug!(%error, "an upgrade did not happen");
            None
        }
    }
}

/// How the frames of a stream are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As text, as JSON watches are.
    Text,
    /// As they are, but for the length that each begins with.
    Measured,
    /// As they are.
    Binary,
    /// As text in base64.
    Base64,
}

/// What is wrong with the beginning of a watch's WebSocket, as upstream answers it.
fn refusal(parts: &Parts, offered: &[String]) -> Option<Response<Body>> {
    if let Some(refusal) = no_handshake(parts) {
        return Some(refusal);
    }
    // Browsers say where the page comes from; who says nothing is no browser, and can watch without a WebSocket.
    let is_url = |origin: &HeaderValue| origin.to_str().is_ok_and(|text| text.contains("://") || text.starts_with('/'));
    if !parts.headers.get(ORIGIN).is_some_and(is_url) {
        return Some(refused(StatusCode::FORBIDDEN, ""));
    }
    (offered.len() > 1).then(|| refused(StatusCode::BAD_REQUEST, ""))
}

fn refused(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(answer::full(text));
    *response.status_mut() = code;
    answer::set(response.headers_mut(), CONNECTION, "close");
    response
}

/// What is wrong with a handshake whoever it comes from.
pub fn no_handshake(parts: &Parts) -> Option<Response<Body>> {
    if !parts.headers.contains_key(KEY) {
        return Some(refused(StatusCode::BAD_REQUEST, "mismatch challenge/response"));
    }
    if parts.headers.get(VERSION).is_none_or(|version| version != OUR_VERSION) {
        let mut response = refused(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
        answer::set(response.headers_mut(), VERSION, OUR_VERSION);
        return Some(response);
    }
    None
}

/// Tells the events of a watch as the messages of a WebSocket, each with one event.
///
/// # Errors
/// When the connection cannot be upgraded.
pub fn watch(parts: &mut Parts, events: Response<Body>) -> Result<Response<Body>> {
    let offered = offered(&parts.headers);
    if let Some(refusal) = refusal(parts, &offered) {
        return Ok(refusal);
    }
    let media_type = events.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let framing = if media_type.starts_with(b"application/json") { Framing::Text } else { Framing::Measured };
    // Whatever the one protocol is, the client gets it.
    carry(parts, events.into_body(), (offered.first().map_or("", String::as_str), framing))
}

/// Answers a request with a body as the messages of a WebSocket.
///
/// # Errors
/// When the connection cannot be upgraded.
pub fn stream(parts: &mut Parts, body: Body) -> Result<Response<Body>> {
    if let Some(refusal) = no_handshake(parts) {
        return Ok(refusal);
    }
    let plain = Framing::Binary;
    let known = |p: &str| match p {
        "" | "binary.k8s.io" => Some(plain),
        "base64.binary.k8s.io" => Some(Framing::Base64),
        _ => None,
    };
    let offered = offered(&parts.headers);
    let chosen = if offered.is_empty() {
        (String::new(), plain)
    } else {
        let found = offered.iter().find_map(|p| known(p).map(|f| (p.clone(), f)));
        let Some(found) = found else { return Ok(refused(StatusCode::FORBIDDEN, "")) };
        found
    };
    carry(parts, body, (&chosen.0, chosen.1))
}

fn carry(parts: &mut Parts, body: Body, (protocol, framing): (&str, Framing)) -> Result<Response<Body>> {
    let Handshake { mut response, upgrade } = accept(parts, protocol)?;
    handover::serve(&mut response, async move {
        if let Some(socket) = open(upgrade).await
            && let Err(error) = send_body(socket, body, framing).await
        {
            tracing::debug!(%error, "a stream over a WebSocket ended");
        }
    });
    Ok(response)
}

async fn send_body(
    socket: WebSocketStream<TokioIo<Upgraded>>,
    mut body: Body,
    framing: Framing,
) -> std::result::Result<(), Error> {
    let (mut sink, mut source) = socket.split();
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    sink.send(message(&data, framing)).await?;
                }
                Some(Err(_)) | None => break,
            },
            // What clients say is of no interest, but that they leave is.
            said = source.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    end(&mut sink).await;
    Ok(())
}

fn message(data: &Bytes, framing: Framing) -> Message {
    match framing {
        Framing::Binary => Message::Binary(data.clone()),
        Framing::Base64 => Message::text(base64::engine::general_purpose::STANDARD.encode(data)),
        Framing::Text => Message::text(String::from_utf8_lossy(data).into_owned()),
        Framing::Measured => Message::Binary(data.slice(data.len().min(LENGTH_BYTES)..)),
    }
}

/// Carries the bytes of another connection in the messages of a WebSocket until either side ends.
pub async fn tunnel(handshake_upgrade: Tunnel, far: impl Duplex) {
    let Some(socket) = open(handshake_upgrade.0).await else { return };
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(far);
    let down = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
                        break;
                    }
                }
            }
        }
    };
    let up = async {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                // What is no bytes is not for the far side, and nothing that comes after it.
                Message::Close(_) | Message::Text(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if writer.write_all(&data).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
    end(&mut sink).await;
}

/// The client's side of a WebSocket.
pub type Near = WebSocketStream<TokioIo<Upgraded>>;

/// Ends a WebSocket; the client may have gone first.
pub async fn end(sink: &mut (impl SinkExt<Message, Error = Error> + Unpin)) {
    let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
    let ended = async {
        sink.send(Message::Close(Some(normal))).await?;
        sink.close().await
    };
    match tokio::time::timeout(END_TIMEOUT, ended).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a WebSocket was closed already"),
        Err(late) => tracing::debug!(%late, "a client does not take the end of its WebSocket"),
    }
}

/// The client's side of a tunnel that begins when the answer has been sent.
pub struct Tunnel(OnUpgrade);

impl Tunnel {
    /// The WebSocket, once the client has the answer.
    pub async fn open(self) -> Option<Near> {
        open(self.0).await
    }
}

impl Handshake {
    /// The answer, and the client's side.
    #[must_use]
    pub fn split(self) -> (Response<Body>, Tunnel) {
        (self.response, Tunnel(self.upgrade))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&str, &str)]) -> u16 {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        refusal(&parts, &offered(&parts.headers)).map_or(101, |response| response.status().as_u16())
    }

    #[test]
    fn watches_begin_as_upstreams_do() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let (version, origin) = (("sec-websocket-version", "13"), ("origin", "http://x"));
        assert_eq!(refused(&[key, version, origin]), 101);
        assert_eq!(refused(&[key, version, origin, ("sec-websocket-protocol", "any")]), 101);
        assert_eq!(refused(&[key, version, origin, ("sec-websocket-protocol", "one, two")]), 400);
        assert_eq!(refused(&[version, origin]), 400);
        assert_eq!(refused(&[key, ("sec-websocket-version", "8"), origin]), 400);
        assert_eq!(refused(&[key, version]), 403);
        assert_eq!(refused(&[key, version, ("origin", "null")]), 403);
    }

    #[test]
    fn streams_have_protocols_of_their_own() {
        let code = |headers: &[(&str, &str)]| {
            let request =
                headers.iter().fold(http::Request::builder(), |request, (name, value)| request.header(*name, *value));
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            stream(&mut parts, answer::full("")).map(|response| response.status().as_u16())
        };
        let (key, version) = (("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13"));
        assert_eq!(code(&[key, version, ("sec-websocket-protocol", "v4.channel.k8s.io")]).unwrap(), 403);
        assert_eq!(code(&[version]).unwrap(), 400);
        // Here is no connection to go on with.
        assert!(code(&[key, version, ("sec-websocket-protocol", "foo, binary.k8s.io")]).is_err());
    }

    #[test]
    fn binary_events_lose_their_length_and_texts_keep_their_end() {
        let data = Bytes::from_static(b"\0\0\0\x01k");
        assert_eq!(message(&data, Framing::Measured), Message::Binary(Bytes::from_static(b"k")));
        assert_eq!(message(&Bytes::from_static(b"ab"), Framing::Measured), Message::Binary(Bytes::new()));
        assert_eq!(message(&Bytes::from_static(b"{}\n"), Framing::Text), Message::text("{}\n"));
    }
}
