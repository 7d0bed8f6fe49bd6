//! Who makes a request, from its certificates and headers.
//!
//! The front proxy's word counts first, then the client certificate, then the bearer token. The first that knows the
//! user decides; credentials that nobody accepts are an error, and only a request without any is anonymous.

mod bootstrap_token;
mod certificate;
mod jwt;
mod remembered;
mod service_account;
mod settings;
mod token_file;
mod webhook;

use std::sync::Arc;

use api::core::v1::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use egress::{Egress, Selection};
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

pub use certificate::FrontProxy;
pub use service_account::ServiceAccounts;
pub use settings::{Anonymous, Oidc, Settings};
pub(super) use webhook::BACKOFF;
pub use webhook::TokenWebhook;

use self::certificate::Certificates;
use self::jwt::JwtAuthenticator;
use self::remembered::Remembered;
use self::token_file::TokenFile;
use self::webhook::Webhook;
use super::identity::{self, UserInfo};

/// How long the user behind a token or certificate is believed without looking again.
const REMEMBER_SECONDS: i64 = 10;

/// How a bearer token is sent by those who can set no header but the WebSocket protocol.
const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The time in seconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// An object that a token may be bound to, as far as that needs to be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its uid.
    pub uid: String,
    /// When its deletion began, in seconds since the Unix epoch.
    pub deleted_at: Option<i64>,
}

/// The objects that credentials refer to, as they are now. Answers come from memory.
pub trait Lookup: Send + Sync {
    /// A service account.
    fn service_account(&self, namespace: &str, name: &str) -> Option<Found>;
    /// A pod.
    fn pod(&self, namespace: &str, name: &str) -> Option<Found>;
    /// A node.
    fn node(&self, name: &str) -> Option<Found>;
    /// A Secret.
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>>;
    /// Whether a service account names a Secret as one of its own.
    fn is_of_account(&self, namespace: &str, account: &str, secret: &str) -> bool;
}

/// What is accepted as proof of identity.
pub struct Config {
    /// Authorities of client certificates, a PEM bundle.
    pub client_ca_pem: Option<Vec<u8>>,
    /// Whose word about users is taken.
    pub front_proxy: Option<FrontProxy>,
    /// Static tokens, lines of `token,user,uid,"group1,group2"`.
    pub token_file: Option<String>,
    /// Service account tokens.
    pub service_accounts: Option<ServiceAccounts>,
    /// Whether bootstrap tokens are accepted.
    pub bootstrap_tokens: bool,
    /// Whether a request without credentials is served, unless the settings say more.
    pub anonymous: bool,
    /// Issuers whose tokens are believed, and what is said of anonymous requests.
    pub settings: Settings,
    /// A server that knows further tokens.
    pub webhook: Option<TokenWebhook>,
    /// By which proxies it and issuers are reached.
    pub egress: Egress,
    /// The objects that credentials refer to.
    pub lookup: Arc<dyn Lookup>,
    /// The time.
    pub clock: Clock,
}

/// Why credentials cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A bundle of authorities cannot be used.
    #[error("the {what} bundle cannot be used: {reason}")]
    Authorities {
        /// Which bundle.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The static token file is malformed.
    #[error("line {line} of the token file: {reason}")]
    TokenFile {
        /// Where.
        line: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The server that knows tokens cannot be reached as it is described.
    #[error("the token webhook: {0}")]
    Webhook(String),
    /// Nobody says by which way an issuer is reached.
    #[error("{0}")]
    Issuer(String),
}

/// Why credentials were refused. For the log: the client is told no more than `Unauthorized`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// The client certificate is not what it has to be.
    #[error("the client certificate was refused: {0}")]
    Certificate(String),
    /// The token is one of ours but is not, or no longer, good.
    #[error("[invalid bearer token, {0}]")]
    Token(String),
    /// The request does not say what it has to when it carries a token.
    #[error("{0}")]
    Malformed(&'static str),
    /// Nobody knows the token.
    #[error("invalid bearer token")]
    UnknownToken,
}

/// The part of a request that says who makes it.
pub struct AuthRequest<'r> {
    /// All headers.
    pub headers: &'r HeaderMap,
    /// What the client showed on its connection, the leaf first; its key is proven.
    pub peer_certificates: &'r [CertificateDer<'static>],
    /// The path.
    pub path: &'r str,
}

/// Who was recognized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenUser {
    /// The holder, in the group of the authenticated.
    pub user: UserInfo,
    /// Of a token the audiences that were asked for and that it is meant for.
    pub audiences: Vec<String>,
    /// The Secret that the token lies in, if it lies in one.
    pub secret: Option<SecretToken>,
}

impl TokenUser {
    /// Somebody who was recognized otherwise than by a token.
    fn plain(user: UserInfo) -> Self {
        Self { user, ..Self::default() }
    }
}

/// A Secret with a token for ever, whose use is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretToken {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it was made for the account, and not by somebody who wanted it.
    pub is_generated: bool,
}

/// All authenticators of an API server.
pub struct Authenticators {
    certificates: Certificates,
    token_file: TokenFile,
    service_accounts: Option<ServiceAccounts>,
    bootstrap_tokens: bool,
    anonymous: Anonymous,
    issuers: RwLock<Arc<[JwtAuthenticator]>>,
    webhook: Option<Webhook>,
    egress: Egress,
    lookup: Arc<dyn Lookup>,
    clock: Clock,
    tokens: Remembered<TokenUser>,
}

fn issuers(settings: Vec<Arc<settings::Issuer>>, egress: &Egress) -> Result<Arc<[JwtAuthenticator]>, String> {
    settings.into_iter().map(|issuer| JwtAuthenticator::new(issuer, egress)).collect()
}

impl Authenticators {
    /// Reads the configured material.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let way = config.egress.way(Selection::ControlPlane);
        let webhook = config.webhook.as_ref().map(|settings| Webhook::new(settings, way));
        Ok(Self {
            certificates: Certificates::new(config.client_ca_pem.as_deref(), config.front_proxy)?,
            token_file: TokenFile::parse(config.token_file.as_deref().unwrap_or_default())?,
            service_accounts: config.service_accounts,
            bootstrap_tokens: config.bootstrap_tokens,
            anonymous: config.settings.anonymous.unwrap_or(Anonymous { enabled: config.anonymous, paths: Vec::new() }),
            issuers: RwLock::new(issuers(config.settings.jwt, &config.egress).map_err(ConfigError::Issuer)?),
            webhook: webhook.transpose().map_err(ConfigError::Webhook)?,
            egress: config.egress,
            lookup: config.lookup,
            clock: config.clock,
            tokens: Remembered::default(),
        })
    }

    /// Takes other issuers into force; nobody is believed by the old ones any more. What is served without credentials
    /// stays as it was when the server began.
    ///
    /// # Errors
    /// When nobody says by which way an issuer is reached; then nothing changes.
    pub fn reconfigure(&self, settings: Settings) -> Result<(), String> {
        *self.issuers.write() = issuers(settings.jwt, &self.egress)?;
        self.tokens.clear();
        Ok(())
    }

    /// Who makes a request; `None` if it shows no credentials and anonymous requests are not served.
    pub async fn authenticate(&self, request: &AuthRequest<'_>) -> Result<Option<TokenUser>, AuthnError> {
        let now = (self.clock)();
        let by_certificate = self.certificates.authenticate(request, now);
        if let Ok(Some(user)) = by_certificate {
            return Ok(Some(TokenUser::plain(authenticated(user))));
        }
        if let Some(token) = bearer_token(request.headers)? {
            // The token decides alone: whoever sends one wants to be its holder, whatever the connection says.
            return self.authenticate_token(&token, None).await.map(Some);
        }
        match by_certificate {
            Err(error) => Err(error),
            Ok(_) => {
                let anonymous = &self.anonymous;
                let is_for = anonymous.paths.is_empty() || anonymous.paths.iter().any(|path| path == request.path);
                Ok((anonymous.enabled && is_for).then(|| TokenUser::plain(UserInfo::anonymous())))
            }
        }
    }

    /// The holder of a token that is meant for one of `audiences`, or for the API server if there are none.
    pub async fn authenticate_token(&self, token: &str, audiences: Option<&[String]>) -> Result<TokenUser, AuthnError> {
        let now = (self.clock)();
        let key = remember_key(token, audiences);
        if let Some(found) = self.tokens.get(&key, now) {
            return Ok(found);
        }
        let mut found = self.check_token(token, audiences, now).await?;
        found.user = authenticated(found.user);
        self.tokens.put(key, found.clone(), now + REMEMBER_SECONDS, now);
        Ok(found)
    }

    /// The first that knows a token decides; who refuses it may be wrong about whose it is.
    async fn check_token(&self, token: &str, audiences: Option<&[String]>, now: i64) -> Result<TokenUser, AuthnError> {
        let mut refusal = None;
        if let Some(user) = self.token_file.find(token) {
            return Ok(self.for_api_server(user, audiences));
        }
        if let Some(accounts) = &self.service_accounts {
            match accounts.authenticate(token, audiences, self.lookup.as_ref(), now) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => refusal = Some(error),
            }
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::authenticate(token, self.lookup.as_ref(), now)
        {
            return Ok(self.for_api_server(user, audiences));
        }
        let issuers = self.issuers.read().clone();
        for issuer in issuers.iter() {
            match issuer.authenticate(token, now).await {
                Ok(Some(user)) => return Ok(self.for_api_server(user, audiences)),
                Ok(None) => {}
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        if let Some(webhook) = &self.webhook {
            let own = self.service_accounts.as_ref().map(|accounts| &accounts.audiences[..]).unwrap_or_default();
            match webhook.authenticate(token, audiences, own, now).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or(AuthnError::UnknownToken))
    }

    /// Tokens that name no audience are meant for the API server only.
    fn for_api_server(&self, user: UserInfo, asked: Option<&[String]>) -> TokenUser {
        let ours = self.service_accounts.as_ref().map(|accounts| &accounts.audiences[..]).unwrap_or_default();
        let asked = asked.unwrap_or(ours);
        let audiences = ours.iter().filter(|audience| asked.contains(audience)).cloned().collect();
        TokenUser { user, audiences, secret: None }
    }
}

fn authenticated(mut user: UserInfo) -> UserInfo {
    // A front proxy may say that it knows nobody.
    if user.name != identity::ANONYMOUS
        && !user.is_in(identity::AUTHENTICATED)
        && !user.is_in(identity::UNAUTHENTICATED)
    {
        user.groups.push(identity::AUTHENTICATED.to_owned());
    }
    user
}

/// A header whose token is not seen for a space too many.
pub const EXTRA_SPACE: &str =
    "the provided Authorization header contains extra space before the bearer token, and is ignored";

/// What stands behind the scheme of bearers.
fn bearer_parts(headers: &HeaderMap) -> Option<(&str, bool)> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = header.trim().splitn(3, ' ');
    let is_bearer = parts.next().unwrap_or_default().eq_ignore_ascii_case("bearer");
    let token = parts.next().filter(|_| is_bearer)?;
    Some((token, parts.next().is_some()))
}

/// Whether there is a token that is not seen because of [`EXTRA_SPACE`].
#[must_use]
pub fn has_extra_space(headers: &HeaderMap) -> bool {
    bearer_parts(headers) == Some(("", true))
}

fn bearer_token(headers: &HeaderMap) -> Result<Option<String>, AuthnError> {
    match bearer_parts(headers) {
        Some((token, _)) if !token.is_empty() => Ok(Some(token.to_owned())),
        _ => websocket_token(headers),
    }
}

/// The token among the protocols that a WebSocket's client offers. It has to offer another one, which is the one that
/// it gets.
fn websocket_token(headers: &HeaderMap) -> Result<Option<String>, AuthnError> {
    let has = |name, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Ok(None);
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut encoded = offered.iter().filter_map(|protocol| protocol.strip_prefix(WEBSOCKET_TOKEN_PREFIX));
    let Some(first) = encoded.next() else { return Ok(None) };
    if encoded.next().is_some() {
        return Err(AuthnError::Malformed("multiple base64.bearer.authorization tokens specified"));
    }
    let invalid = |_| AuthnError::Malformed("invalid base64.bearer.authorization token encoding");
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(first).map_err(invalid)?)
        .map_err(|_| AuthnError::Malformed("invalid base64.bearer.authorization token"))?;
    if !token.is_empty() && offered.len() == 1 {
        return Err(AuthnError::Malformed("missing additional subprotocol"));
    }
    Ok(Some(token).filter(|token| !token.is_empty()))
}

fn remember_key(token: &str, audiences: Option<&[String]>) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(token);
    for audience in audiences.unwrap_or_default() {
        hash.update([0]);
        hash.update(audience);
    }
    hash.update([u8::from(audiences.is_some())]);
    hash.finalize().into()
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
fn secrets_match(one: &[u8], other: &[u8]) -> bool {
    let digest = |secret| -> [u8; 32] { Sha256::digest(secret).into() };
    // Digests of unequal secrets share no more of their beginning than chance has it.
    digest(one) == digest(other)
}

#[cfg(test)]
mod tests;
