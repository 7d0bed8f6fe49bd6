//! Whom we believe, and as whom we are believed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use client::{AnyCertificate, Verifier};
use http::header::{AUTHORIZATION, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use crate::connection::{Body, exchange};
use crate::error::Error;
use crate::outbound::Peer;
use crate::registry;
use crate::shown;
use crate::sign::{self, Signer};

const AGENT: &str = concat!("keelson/", env!("CARGO_PKG_VERSION"));
/// A server has this long to begin its answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Between two parts of one.
pub(crate) const PART: Duration = Duration::from_secs(30);
/// A server may send us on so often.
const REDIRECTS: usize = 5;
/// How much of a refusal is told.
const REASON_BYTES: usize = 4 << 10;
const REASON_CHARS: usize = 300;

/// Whose certificates are believed.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Those of the authorities that the host trusts.
    #[default]
    Host,
    /// Those of these authorities, in PEM.
    These(Vec<u8>),
    /// Anybody's.
    Anybody,
}

impl Trust {
    pub(crate) fn tls(&self) -> Result<ClientConfig, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::Authorities(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?;
        let builder = match self {
            Self::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(AnyCertificate, &provider)))
            }
            Self::Host => {
                let pem = client::host_authorities();
                let pem = pem.ok_or_else(|| wrong(&"this host has no authorities that it trusts"))?;
                builder.with_root_certificates(roots(&pem)?)
            }
            Self::These(pem) => builder.with_root_certificates(roots(pem)?),
        };
        let mut tls = builder.with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(tls)
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let mut roots = RootCertStore::empty();
    let (good, _bad) =
        roots.add_parsable_certificates(certificates.map_err(|error| Error::Authorities(error.to_string()))?);
    if good == 0 { Err(Error::Authorities("there is no certificate among them".to_owned())) } else { Ok(roots) }
}

/// A key of an S3 store.
#[derive(Clone)]
pub struct S3Key {
    /// Its public name.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Where the store is, in its own words.
    pub region: String,
}

impl std::fmt::Debug for S3Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Key").field("region", &self.region).finish_non_exhaustive()
    }
}

/// As whom a server is asked.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// As nobody in particular.
    #[default]
    Nobody,
    /// With the token that a registry gives to whoever asks for one, with a user and a password or without.
    Registry(Option<HeaderValue>),
    /// With this `Authorization`.
    Header(HeaderValue),
    /// With signatures by a key.
    S3(S3Key),
}

impl Access {
    /// Whoever has a user name and a password.
    #[must_use]
    pub fn basic(user: &str, password: &str) -> Option<Self> {
        basic(user, password).map(Self::Header)
    }

    /// Whoever has a token.
    #[must_use]
    pub fn bearer(token: &str) -> Option<Self> {
        bearer(token).map(Self::Header)
    }
}

pub(crate) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    use base64::Engine as _;
    secret(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
}

pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What is asked of a server.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: HeaderMap,
    /// SHA-256 of the body, in hexadecimal digits.
    pub(crate) digest: &'a str,
    /// How long the answer may take to begin.
    pub(crate) within: Duration,
}

impl<'a> Ask<'a> {
    /// Asks for something, without a body.
    pub(crate) fn new(method: Method, url: &'a Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), digest: sign::EMPTY, within: ANSWER }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(value)
            .map_err(|_bad| Error::Address { text: shown(self.url), reason: format!("{name} cannot be {value:?}") })?;
        self.headers.insert(name, value);
        Ok(self)
    }
}

/// As whom a single question is asked.
#[derive(Clone, Copy)]
enum As<'a> {
    /// As whom the server knows us.
    Own,
    /// As nobody: it is another server.
    Stranger,
    /// Whoever this says.
    Known(&'a HeaderValue),
}

/// A way to servers, and what was learned on it.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    peer: Peer,
    token: Option<HeaderValue>,
}

impl Way {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, token: None }
    }

    /// Asks for a file or a document; follows the server where it sends us, and proves who we are where it wants that.
    pub(crate) async fn get(&mut self, ask: Ask<'_>) -> Result<Response<Incoming>, Error> {
        let mut url = ask.url.clone();
        let mut has_token = false;
        let mut redirects = 0;
        loop {
            let is_own = url.origin() == ask.url.origin();
            let next = Ask { url: &url, headers: ask.headers.clone(), ..Ask::new(ask.method.clone(), &url) };
            let answer = self.once(next, empty(), if is_own { As::Own } else { As::Stranger }).await?;
            match (answer.status(), &self.peer.access) {
                (StatusCode::UNAUTHORIZED, Access::Registry(login)) if is_own && !has_token => {
                    self.token = Some(self.prove(&url, answer.headers(), login.as_ref()).await?);
                    has_token = true;
                }
                (status, _) if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
                    redirects += 1;
                    url = redirected(&url, &answer, redirects)?;
                }
                _ => return refused(&url, answer).await,
            }
        }
    }

    /// Asks for something that is done where it is asked for.
    pub(crate) async fn ask(&self, ask: Ask<'_>, body: Body) -> Result<Response<Incoming>, Error> {
        let url = ask.url.clone();
        let answer = self.once(ask, body, As::Own).await?;
        refused(&url, answer).await
    }

    async fn once(&self, ask: Ask<'_>, body: Body, whoever: As<'_>) -> Result<Response<Incoming>, Error> {
        let Ask { method, url, headers, digest, within } = ask;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let bad = |reason: String| Error::Address { text: shown(url), reason };
        *request.uri_mut() = url[url::Position::BeforePath..url::Position::AfterQuery]
            .parse()
            .map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let host = HeaderValue::from_str(host).map_err(|error| bad(error.to_string()))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let authorization = match (whoever, &self.peer.access) {
            (As::Stranger, _) | (As::Own, Access::Nobody) => None,
            (As::Known(value), _) | (As::Own, Access::Header(value)) => Some(value.clone()),
            (As::Own, Access::Registry(_)) => self.token.clone(),
            (As::Own, Access::S3(key)) => {
                let signer = Signer { key, now: SystemTime::now(), digest };
                signer.sign(&mut request, url).map_err(|error| bad(error.to_string()))?;
                None
            }
        };
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        // Who keeps a registry's blobs or gives its tokens is often of the same house.
        let other = if matches!(whoever, As::Own) { None } else { self.peer.outbound.own_trust(url) };
        exchange(url, other.as_ref().unwrap_or(&self.peer.trust), &self.peer.outbound, request, within).await
    }

    /// What proves to a registry who we are, as its challenge says: a password, or a token from where it sends us.
    async fn prove(&self, url: &Url, headers: &HeaderMap, login: Option<&HeaderValue>) -> Result<HeaderValue, Error> {
        let wrong = |reason: &str| Error::Answer { url: shown(url), reason: reason.to_owned() };
        let mut challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let Some(from) = challenges.find_map(registry::token_address) else {
            return login
                .cloned()
                .ok_or_else(|| wrong("it wants a password, and this machine has none that may go there"));
        };
        if url.scheme() == "https" && from.scheme() != "https" {
            return Err(wrong("it sends us for a token to where there is no TLS"));
        }
        let answer = self.once(Ask::new(Method::GET, &from), empty(), login.map_or(As::Stranger, As::Known)).await?;
        let body = document(&from, refused(&from, answer).await?, REASON_BYTES * 16).await?;
        let token =
            registry::parse_token(&body).ok_or_else(|| wrong("it sends us for a token to where there is none"))?;
        bearer(&token).ok_or_else(|| wrong("its token has characters that no token has"))
    }
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn redirected(url: &Url, answer: &Response<Incoming>, redirects: usize) -> Result<Url, Error> {
    let stays = |reason| Error::Elsewhere { url: shown(url), reason };
    if redirects > REDIRECTS {
        return Err(stays("and again, more often than is followed"));
    }
    let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
    let to = to.and_then(|to| url.join(to).ok()).ok_or_else(|| stays("and does not say where"))?;
    match (url.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        ("https", "http") => Err(stays("to where there is no TLS")),
        _ => Err(stays("to where there is no HTTP")),
    }
}

/// The answer, if it is none that refuses.
async fn refused(url: &Url, answer: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = Limited::new(answer.into_body(), REASON_BYTES).collect();
    let body = tokio::time::timeout(PART, body).await.ok().and_then(Result::ok);
    let text = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(REASON_CHARS).collect();
    Err(Error::Refused { url: shown(url), status, reason: text })
}

/// All of an answer that is not to be long.
pub(crate) async fn document(url: &Url, answer: Response<Incoming>, limit: usize) -> Result<Bytes, Error> {
    match tokio::time::timeout(PART, Limited::new(answer.into_body(), limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(match error.downcast::<hyper::Error>() {
            Ok(source) => Error::Broken { url: shown(url), source: *source },
            Err(_too_long) => Error::TooLarge { url: shown(url), limit: limit as u64 },
        }),
        Err(_elapsed) => Err(Error::Silent { url: shown(url), seconds: PART.as_secs() }),
    }
}
