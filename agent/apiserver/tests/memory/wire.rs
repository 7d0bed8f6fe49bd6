//! Clients that decide for themselves when to read: bytes on a TLS connection.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

pub(crate) type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// Receive buffer of a client: what it does not read waits with the server.
const RECEIVE_BYTES: u32 = 4096;
/// Streams on one connection. Nobody reads what they are told, and a server that cannot write does not read either: there
/// must not be so many that the last ones stay unread.
pub(crate) const STREAMS: usize = 25;

static CONFIGS: LazyLock<[Arc<rustls::ClientConfig>; 2]> = LazyLock::new(|| ["http/1.1", "h2"].map(config));

fn config(protocol: &str) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(client::Verifier::new(client::AnyCertificate, &provider));
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.unwrap().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A TCP connection.
pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    socket.connect(address).await.unwrap()
}

async fn handshake(address: SocketAddr, config: &Arc<rustls::ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config.clone()).connect(name, connect(address).await).await.unwrap()
}

/// A TLS connection for HTTP/1.1.
pub(crate) async fn http1(address: SocketAddr) -> Stream {
    handshake(address, &CONFIGS[0]).await
}

/// A TLS connection for HTTP/2 with its windows wide open, so that only reading holds the server up.
pub(crate) async fn http2(address: SocketAddr) -> Stream {
    let mut stream = handshake(address, &CONFIGS[1]).await;
    let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    start.extend(frame(4, 0, 0, &[&[0, 4][..], &(16_u32 << 20).to_be_bytes()].concat()));
    start.extend(frame(8, 0, 0, &(1_u32 << 30).to_be_bytes()));
    stream.write_all(&start).await.unwrap();
    stream
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A GET as the frame that opens stream number `n`.
pub(crate) fn open(n: usize, path: &str, accept: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length < 127);
        [&[length], text.as_bytes()].concat()
    };
    // Method, scheme, path and authority by their numbers in the static table, the last by its name.
    let block =
        [vec![0x82, 0x87, 0x04], text(path), vec![0x01], text("localhost"), vec![0], text("accept"), text(accept)];
    frame(1, 0x05, u32::try_from(2 * n + 1).unwrap(), &block.concat())
}

/// A GET of HTTP/1.1.
pub(crate) fn request(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes()
}

/// Reads what comes first.
pub(crate) async fn first_bytes(stream: &mut Stream) {
    assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
}

/// An answer, read whole on a connection of its own: its code and its body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, &request(path, "connection: close\r\n")).await
}

/// The code of the answer to a POST of JSON.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> u16 {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n");
    ask(address, format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.0
}

async fn ask(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = http1(address).await;
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
