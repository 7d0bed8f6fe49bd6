//! A proxy that is asked by HTTP's `CONNECT`.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::{Conduct, Places};

/// On what a proxy listens.
pub(crate) enum Listen {
    Tcp(Option<Arc<ServerConfig>>),
    #[allow(dead_code, reason = "not every test has one")]
    Socket(PathBuf),
}

/// The proxy; it ends with the test.
pub(crate) struct Connect {
    /// Its port, if it has one.
    pub(crate) port: u16,
}

impl Connect {
    pub(crate) async fn start(listen: Listen, places: Arc<Places>, conduct: Conduct) -> Self {
        match listen {
            Listen::Tcp(tls) => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = listener.local_addr().unwrap().port();
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let (places, conduct) = (places.clone(), conduct.clone());
                        match tls.clone() {
                            None => drop(tokio::spawn(serve(stream, places, conduct))),
                            Some(config) => drop(tokio::spawn(async move {
                                let stream = TlsAcceptor::from(config).accept(stream).await?;
                                serve(stream, places, conduct).await
                            })),
                        }
                    }
                });
                Self { port }
            }
            Listen::Socket(path) => {
                let listener = UnixListener::bind(path).unwrap();
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        drop(tokio::spawn(serve(stream, places.clone(), conduct.clone())));
                    }
                });
                Self { port: 0 }
            }
        }
    }
}

async fn serve<S>(mut stream: S, places: Arc<Places>, conduct: Conduct) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let name = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
    assert!(head.contains("\r\nhost: 127.0.0.1\r\n"), "{head}");
    match conduct {
        Conduct::Lead => {
            let mut far = match places.find(name).await {
                Ok(far) => far,
                Err(error) => {
                    let text = format!("HTTP/1.1 503 {error}\r\ncontent-length: 0\r\n\r\n");
                    return stream.write_all(text.as_bytes()).await;
                }
            };
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut stream, &mut far).await.map(drop)
        }
        Conduct::Refuse(answer) => stream.write_all(answer.as_bytes()).await,
        Conduct::Hang => places.leave_open(name).await,
        Conduct::End => Ok(()),
    }
}
