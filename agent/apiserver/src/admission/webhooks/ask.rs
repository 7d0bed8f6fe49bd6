//! One question to one webhook.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use egress::Selection;
use futures::FutureExt as _;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::answer::{self, Body, BodyError};
use crate::app::App;
use crate::backend::{self, Target, Trust};
use crate::handlers::read_body;
use crate::request::cleaned;
use crate::traced;

use super::reply::{self, Answer, Expected};

/// A webhook to ask.
pub struct Client<'a> {
    /// What all requests share.
    pub app: &'a Arc<App>,
    /// Its `clientConfig`.
    pub config: &'a Value,
    /// How long it may take.
    pub seconds: u64,
}

impl Client<'_> {
    /// Sends a review. Errors are texts, since they end up in messages and nowhere else.
    pub(super) async fn ask(&self, review: &Value, expected: Expected<'_>) -> Result<Answer, String> {
        Answer::read(&self.post(review).await?, expected)
    }

    /// Sends a document and reads one back.
    pub async fn post(&self, document: &Value) -> Result<Value, String> {
        let (target, uri, url) = self.target()?;
        let url = format!("{url}?timeout={}s", self.seconds);
        let failed = |e: &dyn std::fmt::Display| format!("failed to call webhook: Post {url:?}: {e}");
        let document = Bytes::from(document.to_string());
        let place = format!("{}?timeout={}s", uri.path(), self.seconds);
        let uri = place.parse().unwrap_or(uri);
        let exchange = async {
            let send = || {
                let post = async { target.send(request(&target, uri.clone(), document.clone())).await };
                traced::inside(traces::child("HTTP POST", traces::Kind::Client), post.boxed())
            };
            let mut response = send().await.map_err(|e| failed(&e))?;
            for _ in 0..MAX_RETRIES {
                let Some(wait) = pause(response.status(), response.headers()) else { break };
                tokio::time::sleep(wait).await;
                response = send().await.map_err(|e| failed(&e))?;
            }
            let status = response.status();
            let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            let body = response.into_body().map_err(BodyError::new).boxed_unsync();
            let body = read_body(body).await.map_err(|e| failed(&e))?;
            reply::document(status, &media_type, &body).map_err(|why| format!("failed to call webhook: {why}"))
        };
        let limit = Duration::from_secs(self.seconds.clamp(1, 30));
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(failed(&"context deadline exceeded")))
    }

    /// Where the webhook is: address, path, and its URL for messages.
    fn target(&self) -> Result<(Target, Uri, String), String> {
        if let Some(url) = self.config["url"].as_str() {
            let uri: Uri = url.parse().map_err(|e| format!("parse {url:?}: {e}"))?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            // Who is named by URL runs beside this server, whoever is named by a Service in the cluster.
            let proxy = self.app.config.egress.proxy(Selection::ControlPlane);
            let port = uri.port_u16().unwrap_or(443);
            let target = Target { tls: Some((self.tls()?, host.clone())), host, port, proxy };
            let path = cleaned(uri.path());
            let server = uri.authority().map(ToString::to_string).unwrap_or_default();
            let place = path.parse().map_err(|_| format!("parse {url:?}"))?;
            return Ok((target, place, format!("https://{server}{path}")));
        }
        let service = &self.config["service"];
        let text = |key: &str| service[key].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(443);
        let path = cleaned(text("path"));
        let server = format!("{name}.{namespace}.svc");
        let url = format!("https://{server}:{port}{path}");
        let (host, target_port) = crate::resolve::service(&self.app.cache, (namespace, name), port).map_err(|e| {
            format!("failed to call webhook: Post {:?}: {e}", format!("{url}?timeout={}s", self.seconds))
        })?;
        let proxy = self.app.config.egress.proxy(Selection::Cluster);
        let target = Target { host, port: target_port, tls: Some((self.tls()?, server.clone())), proxy };
        Ok((target, path.parse().map_err(|_| format!("parse {path:?}"))?, url))
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        let bundle = self.config["caBundle"].as_str().unwrap_or_default();
        let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|e| e.to_string())?;
        backend::client_config(Trust::Roots(roots(&pem)?), None).map_err(|e| e.to_string())
    }
}

/// How often a webhook is asked again that asks for it.
const MAX_RETRIES: usize = 10;

/// How long to wait before asking again, if that is what the answer says.
fn pause(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let is_busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    let seconds = headers.get(RETRY_AFTER).filter(|_| is_busy)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

fn request(target: &Target, uri: Uri, document: Bytes) -> Request<Body> {
    let mut request = Request::new(answer::full(document));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    answer::set(headers, HOST, &target.tls.as_ref().map_or_else(|| target.authority(), |(_, name)| name.clone()));
    answer::set(headers, CONTENT_TYPE, "application/json");
    answer::set(headers, ACCEPT, "application/json, */*");
    answer::set(headers, USER_AGENT, "kube-apiserver-admission");
    traces::inject(headers);
    request
}

/// The authorities of a bundle.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate
            .map_err(|_| "unable to load root certificates: unable to parse bytes as PEM block".to_owned())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    Ok(roots)
}
