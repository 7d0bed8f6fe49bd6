//! One question to one webhook.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::answer::{self, BodyError};
use crate::app::App;
use crate::backend::{self, Target, Trust};
use crate::handlers::read_body;
use crate::tree;

/// What a webhook said.
pub(super) struct Answer {
    pub(super) allowed: bool,
    pub(super) status: Value,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) patch: Option<json_patch::Patch>,
}

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
    pub(super) async fn ask(&self, review: &Value, uid: &str) -> Result<Answer, String> {
        let answer = self.post(review).await?;
        let response = &answer["response"];
        if !response.is_object() {
            return Err("webhook response was absent".to_owned());
        }
        let (expected, given) = ("admission.k8s.io/v1, Kind=AdmissionReview", &answer["apiVersion"]);
        if given != "admission.k8s.io/v1" || answer["kind"] != "AdmissionReview" {
            let kind = tree::text(&answer, "/kind");
            return Err(format!(
                "expected webhook response of {expected}, got {}, Kind={kind}",
                given.as_str().unwrap_or_default()
            ));
        }
        if response["uid"] != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", tree::text(response, "/uid")));
        }
        let patch = match response["patch"].as_str() {
            None | Some("") => None,
            Some(_) if response["patchType"] != "JSONPatch" => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            Some(text) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| e.to_string())?;
                Some(serde_json::from_slice(&bytes).map_err(|e| e.to_string())?)
            }
        };
        let warnings = tree::list(response, "/warnings").iter().filter_map(|w| w.as_str().map(str::to_owned));
        let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
        let annotations = annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Ok(Answer {
            allowed: response["allowed"] == true,
            status: response["status"].clone(),
            warnings: warnings.collect(),
            annotations: annotations.collect(),
            patch,
        })
    }

    /// Sends a document and reads one back.
    pub async fn post(&self, document: &Value) -> Result<Value, String> {
        let (target, uri, url) = self.target()?;
        let url = format!("{url}?timeout={}s", self.seconds);
        let failed = |e: &dyn std::fmt::Display| format!("failed to call webhook: Post {url:?}: {e}");
        let mut request = Request::new(answer::full(document.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        answer::set(headers, HOST, &target.tls.as_ref().map_or_else(|| target.authority(), |(_, name)| name.clone()));
        answer::set(headers, CONTENT_TYPE, "application/json");
        answer::set(headers, ACCEPT, "application/json, */*");
        answer::set(headers, USER_AGENT, "kube-apiserver-admission");
        let exchange = async {
            let response = target.send(request).await.map_err(|e| failed(&e))?;
            let status = response.status();
            let body = response.into_body().map_err(BodyError::new).boxed_unsync();
            let body = read_body(body).await.map_err(|e| failed(&e))?;
            if !status.is_success() {
                let text = String::from_utf8_lossy(&body).into_owned();
                return Err(format!(
                    "failed to call webhook: the server responded with the status code {}: {text}",
                    status.as_u16()
                ));
            }
            serde_json::from_slice(&body)
                .map_err(|e| format!("failed to call webhook: couldn't get version/kind; json parse error: {e}"))
        };
        let limit = Duration::from_secs(self.seconds.clamp(1, 30));
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(failed(&"context deadline exceeded")))
    }

    /// Where the webhook is: address, path, and its URL for messages.
    fn target(&self) -> Result<(Target, Uri, String), String> {
        if let Some(url) = self.config["url"].as_str() {
            let uri: Uri = url.parse().map_err(|e| format!("parse {url:?}: {e}"))?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let target = Target { tls: Some((self.tls()?, host.clone())), host, port: uri.port_u16().unwrap_or(443) };
            let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            return Ok((target, path.parse().map_err(|_| format!("parse {url:?}"))?, url.to_owned()));
        }
        let service = &self.config["service"];
        let text = |key: &str| service[key].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(443);
        let path = if text("path").is_empty() { "/" } else { text("path") };
        let server = format!("{name}.{namespace}.svc");
        let url = format!("https://{server}:{port}{path}");
        let (host, target_port) = crate::resolve::service(&self.app.cache, (namespace, name), port).map_err(|e| {
            format!("failed to call webhook: Post {:?}: {e}", format!("{url}?timeout={}s", self.seconds))
        })?;
        let target = Target { host, port: target_port, tls: Some((self.tls()?, server.clone())) };
        Ok((target, path.parse().map_err(|_| format!("parse {path:?}"))?, url))
    }

    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        let bundle = self.config["caBundle"].as_str().unwrap_or_default();
        let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|e| e.to_string())?;
        backend::client_config(Trust::Roots(roots(&pem)?), None).map_err(|e| e.to_string())
    }
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
