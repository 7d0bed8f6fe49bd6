//! Name servers that are asked by TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use machine_api::{NameServer, NameServerTls, NameServers};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The name that good certificates are for.
pub(crate) const NAME: &str = "ns.example.com";

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }
}

/// What a server does with its connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Answers.
    Answers,
    /// Takes connections, and says nothing, not even TLS.
    SaysNothing,
    /// Takes questions, and answers none.
    AnswersNothing,
    /// Closes each connection after its first answer.
    ClosesAfterAnswer,
    /// Answers the first question of the first connection, and closes it when there is another.
    ClosesAtSecondQuestion,
    /// Answers two questions at once, the later first.
    AnswersInPairs,
}

/// A server, and what it has seen.
pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    ca: String,
    connections: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    in_the_clear: Arc<AtomicUsize>,
}

impl TlsServer {
    /// One with a certificate for [`NAME`], signed by an authority of its own.
    pub(crate) async fn start(conduct: Conduct, address: [u8; 4]) -> Self {
        Self::with(conduct, address, &Authority::new(), |_| {}).await
    }

    pub(crate) async fn with(
        conduct: Conduct,
        said: [u8; 4],
        authority: &Authority,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let [connections, asked, in_the_clear] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        // Whoever asked without TLS would ask here.
        let clear = UdpSocket::bind(address).await.unwrap();
        let counted = in_the_clear.clone();
        tokio::spawn(async move {
            while clear.recv_from(&mut [0; 4096]).await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let seen = (connections.clone(), asked.clone(), in_the_clear.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = seen.0.fetch_add(1, Ordering::Relaxed);
                let (acceptor, asked, in_the_clear) = (acceptor.clone(), seen.1.clone(), seen.2.clone());
                tokio::spawn(async move {
                    let mut first = [0];
                    // The first byte of a TLS handshake.
                    if stream.peek(&mut first).await.is_ok_and(|length| length == 1) && first != [0x16] {
                        in_the_clear.fetch_add(1, Ordering::Relaxed);
                    }
                    serve(stream, acceptor, (conduct, number), said, &asked).await;
                });
            }
        });
        Self { address, ca: authority.pem.clone(), connections, asked, in_the_clear }
    }

    /// As it is named in a manifest, with its CA.
    pub(crate) fn named(&self, name: &str) -> NameServer {
        let tls = NameServerTls { name: name.to_owned(), ca: Some(self.ca.clone()) };
        NameServer { address: self.address, tls: Some(tls) }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn in_the_clear(&self) -> usize {
        self.in_the_clear.load(Ordering::Relaxed)
    }
}

/// These, asked about all names.
pub(crate) fn all_by_tls(servers: &[NameServer]) -> NameServers {
    NameServers { domains: Vec::new(), servers: servers.to_vec() }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    (conduct, number): (Conduct, usize),
    said: [u8; 4],
    asked: &AtomicUsize,
) {
    if conduct == Conduct::SaysNothing {
        return std::future::pending().await;
    }
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut kept = Vec::new();
    let mut answered = 0;
    while let Some(question) = question(&mut stream).await {
        asked.fetch_add(1, Ordering::Relaxed);
        kept.push(super::answer(&question, ResponseCode::NoError, said));
        match conduct {
            Conduct::AnswersNothing => continue,
            Conduct::AnswersInPairs if kept.len() < 2 => continue,
            Conduct::ClosesAtSecondQuestion if number == 0 && answered == 1 => return,
            _ => {}
        }
        while let Some(answer) = kept.pop() {
            let bytes = answer.to_vec().unwrap();
            let length = u16::try_from(bytes.len()).unwrap();
            stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).await.unwrap();
            answered += 1;
        }
        if conduct == Conduct::ClosesAfterAnswer {
            stream.shutdown().await.unwrap();
            return;
        }
    }
}

async fn question(stream: &mut TlsStream<TcpStream>) -> Option<Message> {
    let length = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.ok()?;
    assert_eq!(bytes.len() % 128, 0, "whoever watches learns the length of the name");
    Some(Message::from_vec(&bytes).unwrap())
}
