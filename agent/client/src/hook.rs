//! Another server that is asked or told something, as upstream's components describe one: by a kubeconfig whose
//! cluster is the server's whole URL.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;

use crate::client::Client;
use crate::config::Config;
use crate::error::{ConfigError, Error, Result};
use crate::transport::{ResponseBody, Way};

/// Upstream's deadline for such requests.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a document is posted before that is given up.
const TRIES: u32 = 5;
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 3 << 20;
/// Most of an answer that an error shows.
const MAX_SHOWN_CHARS: usize = 512;

/// Why a server was not asked, or did not say anything useful.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// No answer.
    #[error("the server could not be asked")]
    Ask(#[source] Error),
    /// No answer in time.
    #[error("the server did not answer within {0:?}")]
    Timeout(Duration),
    /// An answer that broke off, or was too long.
    #[error("the answer could not be read: {0}")]
    Read(String),
    /// A refusal.
    #[error("the server answered {code}: {text}")]
    Refused {
        /// The HTTP status.
        code: StatusCode,
        /// What kind of document the answer is.
        media_type: String,
        /// The beginning of the answer.
        text: String,
    },
}

impl HookError {
    /// Whether another try might go better, as upstream decides it: a server that is not there, or says that it cannot
    /// serve, is not waited for.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::Ask(error) => error.is_broken_off(),
            Self::Timeout(_) => false,
            Self::Refused { code, .. } => {
                let is_failure = code.is_server_error() && *code != StatusCode::SERVICE_UNAVAILABLE;
                is_failure || *code == StatusCode::TOO_MANY_REQUESTS
            }
        }
    }
}

/// A server that documents are posted to.
pub struct Hook {
    client: Client,
    /// The path and query, to which the deadline is added.
    target: String,
    timeout: Duration,
}

impl Hook {
    /// Reads the current context of a kubeconfig. Nothing is dialled yet.
    ///
    /// # Errors
    /// When the file, or a file it refers to, cannot be used.
    pub fn from_kubeconfig(path: &Path, component: &str) -> Result<Self> {
        Self::from_kubeconfig_by(None, path, component)
    }

    /// The same, asked by another way, or straight without one.
    ///
    /// # Errors
    /// The same.
    pub fn from_kubeconfig_by(way: Option<Arc<dyn Way>>, path: &Path, component: &str) -> Result<Self> {
        Self::new(Config::from_kubeconfig(path)?.with_component(component).with_way(way))
    }

    /// The server of a configuration.
    ///
    /// # Errors
    /// When its certificates cannot be used.
    pub fn new(mut config: Config) -> Result<Self> {
        let own = config.server.path().trim_end_matches('/').to_owned();
        let path = if own.is_empty() { "/".to_owned() } else { own };
        let query = config.server.query().map(|query| format!("{query}&")).unwrap_or_default();
        let mut parts = config.server.clone().into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let bad = |_| Error::Config(ConfigError::ServerScheme(config.server.to_string()));
        config.server = Uri::from_parts(parts).map_err(bad)?;
        let target = format!("{path}?{query}timeout=");
        Ok(Self { client: Client::new(config)?, target, timeout: TIMEOUT })
    }

    /// The same with another deadline.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Posts a JSON document, again after a pause as long as the failure looks like one that passes.
    ///
    /// # Errors
    /// When there is no answer, or it is a refusal.
    pub async fn post_patiently(
        &self,
        document: Bytes,
        backoff: &stdx::Backoff,
    ) -> std::result::Result<Bytes, HookError> {
        let mut attempt = 0;
        loop {
            match self.post(document.clone()).await {
                Err(error) if error.is_passing() && attempt + 1 < TRIES => {
                    tokio::time::sleep(backoff.base(attempt)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Posts a JSON document and reads what comes back.
    ///
    /// # Errors
    /// When there is no answer, or it is a refusal.
    pub async fn post(&self, document: impl Into<Bytes>) -> std::result::Result<Bytes, HookError> {
        let mut request = Request::new(document.into());
        *request.method_mut() = Method::POST;
        let nanos = i64::try_from(self.timeout.as_nanos()).unwrap_or(i64::MAX);
        let target = format!("{}{}", self.target, api::time::format_duration(nanos));
        *request.uri_mut() = target.parse().map_err(|_bad| HookError::Read("the URL is malformed".to_owned()))?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        let exchange = async { read_answer(self.client.raw(request).await.map_err(HookError::Ask)?).await };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(HookError::Timeout(self.timeout)))
    }
}

/// The whole body of an answer that is no refusal.
pub(crate) async fn read_answer(response: Response<ResponseBody>) -> std::result::Result<Bytes, HookError> {
    let code = response.status();
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().to_owned();
    let mut stream = response.into_body();
    let mut body = Vec::new();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| HookError::Read(error.to_string()))?;
        let data = frame.into_data().unwrap_or_default();
        if body.len() + data.len() > MAX_ANSWER_BYTES {
            return Err(HookError::Read(format!("it is larger than {MAX_ANSWER_BYTES} bytes")));
        }
        body.extend_from_slice(&data);
    }
    if code.is_success() {
        return Ok(body.into());
    }
    let text = String::from_utf8_lossy(&body).chars().take(MAX_SHOWN_CHARS).collect();
    Err(HookError::Refused { code, media_type, text })
}
