//! What other servers serve, as rows for this one's discovery.

use std::collections::HashMap;
use std::time::Duration;

use api::{Kind, Subresource};
use http::header::{ACCEPT, HOST};
use http::{HeaderName, Request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;

use super::Remote;
use crate::answer::{self, BodyError};
use crate::backend::Target;
use crate::handlers::read_body;
use crate::tree;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for the resource list of a group version. Errors are texts for messages.
pub(super) async fn resources(target: &Target, remote: &Remote) -> Result<Value, String> {
    let mut request = Request::new(answer::full(""));
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    *request.uri_mut() = path.parse().map_err(|_| format!("{path:?} is no path"))?;
    let headers = request.headers_mut();
    answer::set(headers, HOST, &target.tls.as_ref().map_or_else(|| target.authority(), |(_, name)| name.clone()));
    answer::set(headers, ACCEPT, "application/json");
    answer::set(headers, HeaderName::from_static("x-remote-user"), "system:kube-aggregator");
    answer::set(headers, HeaderName::from_static("x-remote-group"), "system:masters");
    let exchange = async {
        let response = target.send(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let body = read_body(response.into_body().map_err(BodyError::new).boxed_unsync()).await;
        let body = body.map_err(|e| e.to_string())?;
        if !status.is_success() {
            return Err(format!("bad status from {path}: {}", status.as_u16()));
        }
        serde_json::from_slice(&body).map_err(|e| e.to_string())
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

/// Rows made before, by what they were made of. They live as long as the process.
#[derive(Default)]
pub(super) struct Rows(Mutex<HashMap<String, &'static Kind>>);

fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn kept_list(value: &Value) -> &'static [&'static str] {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    Box::leak(texts.map(kept).collect::<Vec<_>>().into_boxed_slice())
}

impl Rows {
    /// The rows of a resource list.
    pub(super) fn of(&self, remote: &Remote, list: &Value) -> Vec<&'static Kind> {
        let all = tree::list(list, "/resources");
        let name = |r: &Value| tree::text(r, "/name").to_owned();
        let mut rows = Vec::new();
        for resource in all.iter().filter(|r| !name(r).contains('/')) {
            let prefix = format!("{}/", name(resource));
            let below: Vec<&Value> = all.iter().filter(|r| name(r).starts_with(&prefix)).collect();
            let key = format!("{}/{} {resource} {below:?}", remote.group, remote.version);
            let mut kept = self.0.lock();
            rows.push(*kept.entry(key).or_insert_with(|| make(remote, resource, &below)));
        }
        rows
    }

    /// The row of a group version whose server is away: there is something, but nobody knows what.
    pub(super) fn away(&self, remote: &Remote) -> &'static Kind {
        let key = format!("{}/{}", remote.group, remote.version);
        let mut kept = self.0.lock();
        kept.entry(key).or_insert_with(|| make(remote, &Value::Null, &[]))
    }
}

fn make(remote: &Remote, resource: &Value, below: &[&Value]) -> &'static Kind {
    let text = |value: &Value, key: &str| kept(value[key].as_str().unwrap_or_default());
    let subresource = |value: &&Value| Subresource {
        name: kept(tree::text(value, "/name").split_once('/').map_or("", |(_, name)| name)),
        group: text(value, "group"),
        version: text(value, "version"),
        kind: text(value, "kind"),
        accepted: &[],
        verbs: kept_list(&value["verbs"]),
    };
    let subresources: Vec<Subresource> = below.iter().map(subresource).collect();
    Box::leak(Box::new(Kind {
        group: kept(&remote.group),
        version: kept(&remote.version),
        kind: text(resource, "kind"),
        plural: text(resource, "name"),
        singular: text(resource, "singularName"),
        short_names: kept_list(&resource["shortNames"]),
        categories: kept_list(&resource["categories"]),
        namespaced: resource["namespaced"] == true,
        verbs: kept_list(&resource["verbs"]),
        storage_version: "",
        storage_version_hash: text(resource, "storageVersionHash"),
        etcd_prefix: "",
        stored_as_json: true,
        message: crate::custom::message(),
        shown: crate::custom::message(),
        list_message: None,
        subresources: Box::leak(subresources.into_boxed_slice()),
        by_default: true,
        gate: "",
        priority: &[],
        deprecation: "",
    }))
}
