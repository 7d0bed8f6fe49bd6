//! One server: asked for its keys, and for a secret.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tang::{Advertisement, Binding, MOST_BYTES, Secret, Server};
use tokio::net::TcpStream;

/// For one question and its answer, the way there included.
const WITHIN: Duration = Duration::from_secs(10);
const PORT: u16 = 80;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Its address is none.
    #[error("its address is not one of a web server")]
    Address,
    /// Nobody is there, or nobody answers.
    #[error("it did not answer within {} s", WITHIN.as_secs())]
    Late,
    /// It cannot be reached.
    #[error("it cannot be reached")]
    Connect(#[source] io::Error),
    /// The answer broke off.
    #[error("its answer broke off")]
    Broken(#[source] hyper::Error),
    /// The answer is too long, or broke off.
    #[error("its answer was not read: {0}")]
    Body(String),
    /// It does not have the key any more.
    #[error("it does not know the key that was agreed on with it any more")]
    Forgotten,
    /// It refuses.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// What it says makes no sense, or is not to be trusted.
    #[error(transparent)]
    Protocol(#[from] tang::Error),
    /// What it gave back is something else.
    #[error("it does not give back what was sealed for it")]
    Unproved,
}

impl Failure {
    /// Whether it is another server than the one that is known, or has other keys.
    pub(super) fn is_other_server(&self) -> bool {
        matches!(self, Self::Protocol(tang::Error::Unpinned { .. }))
    }
}

/// A new secret, which the server has given back once.
pub(super) async fn bind(server: &Server) -> Result<(Binding, Secret), Failure> {
    let said = ask(&server.url, (Method::GET, "/adv"), Vec::new()).await?;
    let said = Advertisement::read(&said, &server.thumbprints)?;
    let (binding, secret) = Binding::seal(&server.url, &said)?;
    if recover(&binding).await? == secret { Ok((binding, secret)) } else { Err(Failure::Unproved) }
}

/// What is sealed for a server.
pub(super) async fn recover(binding: &Binding) -> Result<Secret, Failure> {
    let (recovery, path, body) = binding.ask()?;
    let answer = ask(binding.url(), (Method::POST, &path), body).await.map_err(|failure| match failure {
        Failure::Refused(StatusCode::NOT_FOUND) => Failure::Forgotten,
        other => other,
    })?;
    Ok(recovery.finish(&answer)?)
}

async fn ask(url: &str, (method, path): (Method, &str), body: Vec<u8>) -> Result<Bytes, Failure> {
    let uri: Uri = format!("{url}{path}").parse().map_err(|_no_address| Failure::Address)?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or(Failure::Address)?;
    let request = Request::builder()
        .method(method)
        .uri(uri.path())
        .header(header::HOST, uri.authority().map(ToString::to_string).unwrap_or_default())
        .header(header::CONTENT_TYPE, "application/jwk+json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_no_address| Failure::Address)?;
    let to = (host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(PORT));
    tokio::time::timeout(WITHIN, exchange(to, request)).await.unwrap_or(Err(Failure::Late))
}

async fn exchange(to: (String, u16), request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
    let stream = TcpStream::connect(to).await.map_err(Failure::Connect)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Failure::Broken)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(Failure::Broken)?;
        if answer.status() != StatusCode::OK {
            return Err(Failure::Refused(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| Failure::Body(error.to_string()))
    };
    tokio::pin!(answered);
    // Whichever ends first: the connection goes on for as long as the answer is read, and no longer.
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(Failure::Broken(error)),
        },
    }
}
