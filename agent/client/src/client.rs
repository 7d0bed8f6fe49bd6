//! The client: one method per verb.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::Resource;
use bytes::Bytes;
use futures::Stream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tower::{Service, ServiceExt};

use crate::auth::Authorization;
use crate::codec::{self, JSON, PROTOBUF, PROTOBUF_WATCH};
use crate::config::{Config, Identity};
use crate::error::{BoxError, ConfigError, Error, Result};
use crate::params::{DeleteOptions, ListParams, Patch, WatchParams};
use crate::path::ObjectPath;
use crate::transport::{RequestBody, ResponseBody, Transport};
use crate::watch::{self, WatchEvent};

/// In-process calls have no configuration to take a deadline from.
const IN_PROCESS_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is sent again when the server asks for that.
const MAX_RETRIES: u32 = 5;
/// A server that wants a longer pause gets its Status reported instead.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// A handle on an API server; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    headers: HeaderMap,
}

struct Shared {
    /// Replaced as a whole when a certificate is renewed.
    link: RwLock<Arc<Link>>,
    config: Option<Config>,
    origin: Origin,
    timeout: Duration,
}

struct Link {
    transport: Transport,
    authorization: Authorization,
}

/// Scheme, authority and path prefix that requests get; empty in-process.
#[derive(Default)]
struct Origin(String);

impl Client {
    /// A client of the server that `config` names. Nothing is dialled yet.
    ///
    /// # Errors
    /// When certificates, keys or tokens in `config` cannot be used.
    pub fn new(config: Config) -> Result<Self> {
        let link =
            Link { transport: Transport::connect(&config)?, authorization: Authorization::try_new(&config.identity)? };
        let origin = Origin(config.server.to_string().trim_end_matches('/').to_owned());
        let headers = HeaderMap::from_iter([(USER_AGENT, user_agent(&config.component)?)]);
        let timeout = config.timeout;
        let shared = Shared { link: RwLock::new(Arc::new(link)), config: Some(config), origin, timeout };
        Ok(Self { shared: Arc::new(shared), headers })
    }

    /// A client of a server in this process. Requests have only a path and a query; who is asking is up to the
    /// service.
    #[must_use]
    pub fn from_service<S, B>(service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let link = Link { transport: Transport::from_service(service), authorization: Authorization::None };
        let shared = Shared {
            link: RwLock::new(Arc::new(link)),
            config: None,
            origin: Origin::default(),
            timeout: IN_PROCESS_TIMEOUT,
        };
        Self { shared: Arc::new(shared), headers: HeaderMap::new() }
    }

    /// The same connections under another component name.
    ///
    /// # Errors
    /// When the name does not fit in a header.
    pub fn with_component(&self, component: &str) -> Result<Self> {
        let mut headers = self.headers.clone();
        headers.insert(USER_AGENT, user_agent(component)?);
        Ok(Self { shared: self.shared.clone(), headers })
    }

    /// The same connections with a header on every request, such as `Impersonate-User`.
    #[must_use]
    pub fn with_header(&self, name: HeaderName, value: HeaderValue) -> Self {
        let mut headers = self.headers.clone();
        headers.append(name, value);
        Self { shared: self.shared.clone(), headers }
    }

    /// Takes a renewed identity and the authorities that servers are known by from now on into use, for all clones.
    /// Requests and watches under way end on the old connections.
    ///
    /// # Errors
    /// When they cannot be used; the old ones stay in force then. In-process clients have none to replace.
    pub fn renew(&self, ca_pem: Vec<u8>, identity: Identity) -> Result<()> {
        let Some(config) = &self.shared.config else {
            return Err(ConfigError::Unsupported("an identity of an in-process client").into());
        };
        let config = Config { identity, ca_pem: Some(ca_pem), ..config.clone() };
        let link =
            Link { transport: Transport::connect(&config)?, authorization: Authorization::try_new(&config.identity)? };
        *self.shared.link.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(link);
        Ok(())
    }

    /// One object.
    ///
    /// # Errors
    /// [`Error`]; `is_not_found` when it is not there.
    pub async fn get<K: Resource>(&self, namespace: Option<&str>, name: &str) -> Result<K> {
        let path = ObjectPath::object(K::KIND, namespace, name);
        self.typed(K::KIND.kind, Method::GET, path.as_str(), Payload::None).await
    }

    /// All objects that match, of one namespace or of the cluster; one page when `params.limit` is set.
    ///
    /// # Errors
    /// [`Error`]; `is_gone` when the continue token is too old.
    pub async fn list<K: Resource>(&self, namespace: Option<&str>, params: &ListParams) -> Result<K::List> {
        let path = ObjectPath::collection(K::KIND, namespace);
        let uri = format!("{}{}", path.as_str(), params.query().as_str());
        self.typed(K::KIND.kind, Method::GET, &uri, Payload::None).await
    }

    /// Changes from `params.resource_version` on. The stream ends when the server ends the watch (start again from
    /// the last version seen) and after its first error.
    ///
    /// # Errors
    /// [`Error`], before or in the stream; `is_gone` when the version is too old.
    pub async fn watch<K: Resource>(
        &self,
        namespace: Option<&str>,
        params: &WatchParams,
    ) -> Result<impl Stream<Item = Result<WatchEvent<K>>> + Send + Unpin + 'static + use<K>> {
        let path = ObjectPath::collection(K::KIND, namespace);
        let uri = format!("{}{}", path.as_str(), params.query().as_str());
        self.watch_at(&uri, PROTOBUF_WATCH, watch::Shape { name: K::KIND.kind, metadata: K::metadata }).await
    }

    pub(crate) async fn watch_at<M: Message + Default + 'static>(
        &self,
        uri: &str,
        accept: &'static str,
        shape: watch::Shape<M>,
    ) -> Result<impl Stream<Item = Result<WatchEvent<M>>> + Send + Unpin + 'static + use<M>> {
        let request = Outgoing { method: Method::GET, uri, payload: Payload::None, accept };
        let name = request.to_string();
        let http = self.prepare(&request)?;
        let link = self.link();
        let opened = async {
            let http = self.authorize(&link, http).await?;
            let (service, lane) = link.transport.watches.take();
            let answer = service.oneshot(http.map(Full::new)).await;
            let response = answer.map_err(|source| Error::Transport { request: name.clone(), source })?;
            if !response.status().is_success() {
                return Ok(Err(collect(&name, response).await?));
            }
            Ok(Ok((response, lane)))
        };
        // The deadline is for the head: the body of a watch has no end.
        match self.deadline(&name, opened).await? {
            Err(refused) => Err(refused.into_error()),
            Ok((response, lane)) if codec::is_protobuf(response.headers()) => {
                Ok(watch::events(name, response.into_body(), lane, shape))
            }
            Ok((response, _)) => {
                let seen = codec::content_type(response.headers()).to_owned();
                Err(crate::error::DecodeError::ContentType(seen).into())
            }
        }
    }

    /// Creates `object` in its namespace, as the server then has it.
    ///
    /// # Errors
    /// [`Error`]; `is_already_exists` when the name is taken.
    pub async fn create<K: Resource>(&self, object: &K) -> Result<K> {
        let path = ObjectPath::collection(K::KIND, Some(&object.metadata().namespace));
        self.typed(K::KIND.kind, Method::POST, path.as_str(), Payload::object(object)).await
    }

    /// Replaces an object. With a resource version in it, only that version.
    ///
    /// # Errors
    /// [`Error`]; `is_conflict` when somebody else was faster.
    pub async fn update<K: Resource>(&self, object: &K) -> Result<K> {
        self.typed(K::KIND.kind, Method::PUT, own_path(object).as_str(), Payload::object(object)).await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// [`Error`]; `is_conflict` when somebody else was faster.
    pub async fn update_status<K: Resource>(&self, object: &K) -> Result<K> {
        self.update_subresource(object, "status").await
    }

    /// Replaces what a subresource covers, such as `status`, `approval` or `finalize`.
    ///
    /// # Errors
    /// [`Error`]; `is_conflict` when somebody else was faster.
    pub async fn update_subresource<K: Resource>(&self, object: &K, subresource: &str) -> Result<K> {
        let path = own_path(object).child(subresource);
        self.typed(K::KIND.kind, Method::PUT, path.as_str(), Payload::object(object)).await
    }

    /// Changes a part of an object or of a subresource.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn patch<K: Resource>(
        &self,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        patch: &Patch,
    ) -> Result<K> {
        let mut path = ObjectPath::object(K::KIND, namespace, name);
        if let Some(subresource) = subresource {
            path = path.child(subresource);
        }
        let uri = format!("{}{}", path.as_str(), patch.query().as_str());
        let payload = Payload::Json { content_type: patch.content_type(), body: json_bytes(patch.value()) };
        self.typed(K::KIND.kind, Method::PATCH, &uri, payload).await
    }

    /// Deletes an object. It may stay for a while: finalizers and grace periods.
    ///
    /// # Errors
    /// [`Error`]; `is_not_found` when it is not there.
    pub async fn delete<K: Resource>(
        &self,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<()> {
        let path = ObjectPath::object(K::KIND, namespace, name);
        self.delete_at(path.as_str(), options).await
    }

    /// Deletes all objects that match.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_collection<K: Resource>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<()> {
        let path = ObjectPath::collection(K::KIND, namespace);
        self.delete_at(&format!("{}{}", path.as_str(), params.query().as_str()), options).await
    }

    /// Posts to a subresource: a Binding, an Eviction, a TokenRequest.
    ///
    /// # Errors
    /// [`Error`].
    #[allow(clippy::too_many_arguments, reason = "path and typed body; a struct for one call would say no more")]
    pub async fn create_subresource<K: Resource, B: Message, R: Message + Default>(
        &self,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        (api_version, kind): (&str, &str),
        body: &B,
    ) -> Result<R> {
        let path = ObjectPath::object(K::KIND, namespace, name).child(subresource);
        let payload = Payload::Protobuf(api::envelope::encode_as(api_version, kind, body).into());
        self.typed(K::KIND.kind, Method::POST, path.as_str(), payload).await
    }

    /// Posts a review, which is answered and not kept: a SubjectAccessReview, a TokenReview. `kind` is its row, such as
    /// of `api::kind_by_resource`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn review<B: Message + Default>(&self, kind: &'static api::Kind, review: &B) -> Result<B> {
        let path = ObjectPath::collection(kind, None);
        let payload = Payload::Protobuf(api::envelope::encode_as(&kind.api_version(), kind.kind, review).into());
        self.typed(kind.kind, Method::POST, path.as_str(), payload).await
    }

    /// Sends any request; its URI has a path and a query only. Headers that are not set get the client's own. There
    /// is no deadline, and an answer of any code is an answer.
    ///
    /// # Errors
    /// Only [`Error::Transport`] and [`Error::Config`].
    pub async fn raw(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>> {
        let (parts, body) = request.into_parts();
        let outgoing =
            Outgoing { method: parts.method, uri: &parts.uri.to_string(), payload: Payload::None, accept: PROTOBUF };
        let name = outgoing.to_string();
        let mut http = self.prepare(&outgoing)?;
        http.headers_mut().remove(ACCEPT);
        for (header, value) in &parts.headers {
            http.headers_mut().insert(header, value.clone());
        }
        *http.body_mut() = body;
        let link = self.link();
        let http = self.authorize(&link, http).await?;
        let answer = link.transport.requests.clone().oneshot(http.map(Full::new)).await;
        answer.map_err(|source| Error::Transport { request: name, source })
    }

    pub(crate) async fn delete_at(&self, uri: &str, options: &DeleteOptions) -> Result<()> {
        let payload = match options.body() {
            None => Payload::None,
            Some(body) => Payload::Json { content_type: JSON, body: json_bytes(&body) },
        };
        self.send(Outgoing { method: Method::DELETE, uri, payload, accept: codec::EITHER }).await.map(drop)
    }

    pub(crate) async fn typed<M: Message + Default>(
        &self,
        what: &'static str,
        method: Method,
        uri: &str,
        payload: Payload,
    ) -> Result<M> {
        let answer = self.send(Outgoing { method, uri, payload, accept: PROTOBUF }).await?;
        Ok(codec::message(what, &answer.headers, &answer.body)?)
    }

    /// Sends a request, again where the server asks for that, and reads the whole answer.
    pub(crate) async fn send(&self, outgoing: Outgoing<'_>) -> Result<Answer> {
        let name = outgoing.to_string();
        let work = async {
            let mut retries = 0;
            loop {
                let link = self.link();
                let http = self.authorize(&link, self.prepare(&outgoing)?).await?;
                let sent = link.transport.requests.clone().oneshot(http.map(Full::new)).await;
                let response = sent.map_err(|source| Error::Transport { request: name.clone(), source })?;
                let answer = collect(&name, response).await?;
                if answer.code.is_success() {
                    return Ok(answer);
                }
                match answer.retry_after() {
                    Some(pause) if retries < MAX_RETRIES && pause <= MAX_RETRY_AFTER => {
                        retries += 1;
                        tokio::time::sleep(pause).await;
                    }
                    Some(_) | None => return Err(answer.into_error()),
                }
            }
        };
        self.deadline(&name, work).await
    }

    async fn deadline<T>(&self, request: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let after = self.shared.timeout;
        match tokio::time::timeout(after, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Error::Timeout { request: request.to_owned(), after }),
        }
    }

    fn link(&self) -> Arc<Link> {
        self.shared.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn prepare(&self, outgoing: &Outgoing<'_>) -> Result<Request<Bytes>> {
        let uri: Uri = self.shared.origin.join(outgoing.uri)?;
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(ACCEPT, HeaderValue::from_static(outgoing.accept));
        match &outgoing.payload {
            Payload::None => {}
            Payload::Protobuf(body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
                *request.body_mut() = body.clone();
            }
            Payload::Json { content_type, body } => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                *request.body_mut() = body.clone();
            }
        }
        Ok(request)
    }

    async fn authorize(&self, link: &Link, mut request: Request<Bytes>) -> Result<Request<Bytes>> {
        if !request.headers().contains_key(AUTHORIZATION)
            && let Some(value) = link.authorization.header().await?
        {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

impl Origin {
    fn join(&self, path: &str) -> Result<Uri> {
        let whole = format!("{}{path}", self.0);
        whole.parse().map_err(|source| ConfigError::Server { server: whole, source }.into())
    }
}

/// A request before it has a server.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) uri: &'a str,
    pub(crate) payload: Payload,
    /// What the answer may be.
    pub(crate) accept: &'static str,
}

impl std::fmt::Display for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.uri)
    }
}

pub(crate) enum Payload {
    None,
    Protobuf(Bytes),
    Json { content_type: &'static str, body: Bytes },
}

impl Payload {
    fn object<K: Resource>(object: &K) -> Self {
        Self::Protobuf(api::envelope::encode(K::KIND, object).into())
    }
}

pub(crate) struct Answer {
    code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    fn retry_after(&self) -> Option<Duration> {
        let asked = self.code == StatusCode::TOO_MANY_REQUESTS || self.code.is_server_error();
        let value = self.headers.get(RETRY_AFTER).filter(|_| asked)?;
        value.to_str().ok()?.parse().ok().map(Duration::from_secs)
    }

    fn into_error(self) -> Error {
        Error::Api(Box::new(codec::status(self.code, &self.headers, &self.body)))
    }
}

async fn collect(request: &str, response: Response<ResponseBody>) -> Result<Answer> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|source| Error::Transport { request: request.to_owned(), source })?;
    Ok(Answer { code: parts.status, headers: parts.headers, body: body.to_bytes() })
}

fn own_path<K: Resource>(object: &K) -> ObjectPath {
    let metadata = object.metadata();
    ObjectPath::object(K::KIND, Some(&metadata.namespace), &metadata.name)
}

fn json_bytes(value: &serde_json::Value) -> Bytes {
    value.to_string().into()
}

fn user_agent(component: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(&format!("keelson/{} ({component})", env!("CARGO_PKG_VERSION")))
        .map_err(|_invalid| ConfigError::Header("component name").into())
}
