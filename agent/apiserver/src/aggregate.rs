//! Aggregation: group versions that other servers serve behind this one.
//!
//! ```text
//!  APIService with a Service ─▶ check: service, endpoints, discovery ─▶ Available condition
//!                                                       │
//!  request below /apis/GROUP/VERSION ─▶ who, may they ──┴─▶ that server, told who asks
//! ```
//! What other servers serve shows in this one's discovery once they have been asked. Their health is asked for from
//! time to time because nothing else would tell.

mod discover;
mod forward;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use egress::Selection;
use lifecycle::Shutdown;
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::app::{App, now_text};
use crate::backend::{self, Target, Trust};
use crate::cache::Cache;
use crate::handlers::write::modify_tree;
use crate::start::internal_call;
use crate::status::Result;
use crate::strategy::Part;
use crate::{codec, resolve, tree};

pub use forward::serve;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";

/// Time between two checks of a server.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two checks while one is not available.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// A group version that another server serves.
pub struct Remote {
    /// Name of its APIService.
    name: String,
    group: String,
    version: String,
    namespace: String,
    service: String,
    port: i32,
    bundle: Vec<u8>,
    unchecked: bool,
    /// How much its group and its version come before others.
    priority: (i64, i64),
}

/// What is known of a remote group version.
struct Known {
    remote: Arc<Remote>,
    available: bool,
    kinds: Vec<&'static Kind>,
}

/// All group versions of other servers.
#[derive(Default)]
pub struct Aggregator {
    known: RwLock<HashMap<String, Known>>,
    rows: discover::Rows,
}

impl Aggregator {
    /// The server of a group version, and whether it answers.
    #[must_use]
    pub fn find(&self, group: &str, version: &str) -> Option<(Arc<Remote>, bool)> {
        if group.is_empty() {
            return None;
        }
        let known = self.known.read();
        known.get(&format!("{version}.{group}")).map(|k| (k.remote.clone(), k.available))
    }

    /// Rows of everything that other servers serve, for discovery alone: groups and versions of a higher priority first.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static Kind> {
        let known = self.known.read();
        let mut all: Vec<&Known> = known.values().collect();
        all.sort_by(|a, b| {
            let order = |k: &Known| {
                let ((group, version), remote) = (k.remote.priority, &k.remote);
                (Reverse(group), remote.group.clone(), Reverse(version), remote.version.clone())
            };
            order(a).cmp(&order(b))
        });
        all.into_iter().flat_map(|known| known.kinds.clone()).collect()
    }

    /// `GROUP/VERSION` of what other servers serve, and when a document of theirs may have changed.
    #[must_use]
    pub fn group_versions(&self) -> Vec<String> {
        let known = self.known.read();
        let mut all: Vec<String> = known
            .values()
            .filter(|k| k.available)
            .map(|k| format!("{}/{}", k.remote.group, k.remote.version))
            .collect();
        all.sort();
        all
    }
}

impl Remote {
    fn read(value: &Value) -> Option<Self> {
        use base64::Engine as _;
        let service = tree::at(value, "/spec/service").filter(|s| s.is_object())?;
        let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
        let bundle = tree::text(value, "/spec/caBundle");
        let priority = |key: &str| value["spec"][key].as_i64().unwrap_or_default();
        Some(Self {
            name: tree::text(value, "/metadata/name").to_owned(),
            group: tree::text(value, "/spec/group").to_owned(),
            version: tree::text(value, "/spec/version").to_owned(),
            namespace: text("namespace"),
            service: text("name"),
            port: service["port"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(443),
            bundle: base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default(),
            unchecked: value["spec"]["insecureSkipTLSVerify"] == true,
            priority: (priority("groupPriorityMinimum"), priority("versionPriority")),
        })
    }

    /// Where a request goes. Errors are texts for messages.
    fn target(&self, app: &App) -> std::result::Result<Target, String> {
        let (host, port) = resolve::service(&app.cache, (&self.namespace, &self.service), self.port)?;
        let trust = if self.unchecked { Trust::Anyone } else { Trust::Roots(crate::admission::roots(&self.bundle)?) };
        let identity = match &app.config.proxy_client {
            None => None,
            Some(client) => {
                let text = |e: crate::Error| stdx::chain(&e).to_string();
                Some((
                    crate::serve::certificates(&client.certificate).map_err(text)?,
                    crate::serve::key(&client.key).map_err(text)?,
                ))
            }
        };
        let config = backend::client_config(trust, identity).map_err(|e| e.to_string())?;
        let name = format!("{}.{}.svc", self.service, self.namespace);
        let proxy = app.config.egress.proxy(Selection::Cluster);
        Ok(Target { host, port, tls: Some((config, name)), proxy })
    }
}

/// Follows APIServices until shutdown.
pub async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    let mut news = app.cache.known(GROUP, PLURAL).subscribe();
    let mut endpoints = app.cache.known("discovery.k8s.io", "endpointslices").subscribe();
    loop {
        news.mark_unchanged();
        endpoints.mark_unchanged();
        let (remotes, failing) = check_all(app).await;
        let pause = if failing { RETRY_INTERVAL } else { CHECK_INTERVAL };
        tokio::select! {
            () = news.changed() => {}
            () = endpoints.changed(), if remotes => {}
            () = tokio::time::sleep(pause), if remotes => {}
            () = shutdown.wait() => return,
        }
    }
}

/// Checks every remote. Says whether there are any, and whether one is not available.
async fn check_all(app: &Arc<App>) -> (bool, bool) {
    let storage = app.cache.known(GROUP, PLURAL);
    let mut found: HashMap<String, Known> = HashMap::new();
    for object in storage.snapshot().values() {
        let Ok(value) = codec::to_value(storage, storage.kind, object) else { continue };
        let Some(remote) = Remote::read(&value) else { continue };
        let remote = Arc::new(remote);
        let outcome = check(app, &remote).await;
        let (available, kinds) = match &outcome {
            Ok(kinds) => (true, kinds.clone()),
            Err(_) => (false, vec![app.aggregator.rows.away(&remote)]),
        };
        if let Err(failure) = tell(app, &remote.name, &outcome).await {
            tracing::warn!(%failure, name = %remote.name, "the condition of an APIService could not be written");
        }
        found.insert(remote.name.clone(), Known { remote, available, kinds });
    }
    let result = (!found.is_empty(), found.values().any(|k| !k.available));
    *app.aggregator.known.write() = found;
    result
}

/// Why a remote is not available: a reason and a text.
struct Fault(&'static str, String);

async fn check(app: &Arc<App>, remote: &Arc<Remote>) -> std::result::Result<Vec<&'static Kind>, Fault> {
    let (namespace, name) = (remote.namespace.as_str(), remote.service.as_str());
    check_service(&app.cache, (namespace, name), remote.port)?;
    let target = remote.target(app).map_err(|e| Fault("FailedDiscoveryCheck", e))?;
    let list = discover::resources(&target, remote).await.map_err(|e| {
        let url = format!("https://{}/apis/{}/{}", target.authority(), remote.group, remote.version);
        Fault("FailedDiscoveryCheck", format!("failing or missing response from {url}: {e}"))
    })?;
    Ok(app.aggregator.rows.of(remote, &list))
}

fn check_service(cache: &Cache, (namespace, name): (&str, &str), port: i32) -> std::result::Result<(), Fault> {
    let Some(object) = cache.known("", "services").get(namespace, name) else {
        return Err(Fault("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    let service: api::core::v1::Service =
        api::envelope::decode_message(&object.data).map_err(|e| Fault("ServiceAccessError", e.to_string()))?;
    if service.spec.r#type == "ExternalName" {
        return Ok(());
    }
    let Some(own) = service.spec.ports.iter().find(|p| p.port == port) else {
        let text = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(Fault("ServicePortError", text));
    };
    match resolve::endpoints(cache, (namespace, name), &own.name) {
        None => {
            let text = format!("cannot find endpointslices for service/{name} in {namespace:?}");
            Err(Fault("EndpointsNotFound", text))
        }
        Some(all) if all.is_empty() => {
            let port = &own.name;
            let text =
                format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {port:?}");
            Err(Fault("MissingEndpoints", text))
        }
        Some(_) => Ok(()),
    }
}

/// Writes the `Available` condition if it changed.
async fn tell(app: &Arc<App>, name: &str, outcome: &std::result::Result<Vec<&'static Kind>, Fault>) -> Result<()> {
    let (status, reason, text) = match outcome {
        Ok(_) => ("True", "Passed", "all checks passed"),
        Err(Fault(reason, text)) => ("False", *reason, text.as_str()),
    };
    let storage = app.cache.known(GROUP, PLURAL);
    let call = internal_call(app, storage.kind, "", "update").on(name).part("status");
    let result = modify_tree(&call, Part::Status, |old| {
        let mut new = old.clone();
        let conditions = tree::list_at(&mut new["status"], "conditions");
        let before = conditions.iter().find(|c| c["type"] == "Available").cloned().unwrap_or(Value::Null);
        let same = before["status"] == status;
        let time = if same { before["lastTransitionTime"].clone() } else { now_text().into() };
        conditions.retain(|c| c["type"] != "Available");
        conditions.push(json!({
            "type": "Available", "status": status, "lastTransitionTime": time, "reason": reason, "message": text,
        }));
        Ok(new)
    });
    match result.await {
        Err(failure) if failure.code() != http::StatusCode::NOT_FOUND => Err(failure),
        _ => Ok(()),
    }
}

/// Makes known to other servers by which certificates they recognize users and this server.
///
/// # Errors
/// When the object cannot be written.
pub async fn publish_authorities(app: &Arc<App>) -> Result<()> {
    let read = |path: &std::path::Path| std::fs::read_to_string(path).map_err(crate::status::Failure::internal);
    let mut data = serde_json::Map::new();
    if let Some(path) = app.config.tls.as_ref().and_then(|tls| tls.client_ca.as_ref()) {
        data.insert("client-ca-file".to_owned(), read(path)?.into());
    }
    if let Some(proxy) = &app.config.front_proxy {
        data.insert("requestheader-client-ca-file".to_owned(), read(&proxy.ca)?.into());
        for (key, names) in [
            ("requestheader-allowed-names", json!(proxy.allowed_names)),
            ("requestheader-extra-headers-prefix", json!(proxy.headers.extra_prefixes)),
            ("requestheader-group-headers", json!(proxy.headers.group)),
            ("requestheader-username-headers", json!(proxy.headers.username)),
        ] {
            data.insert(key.to_owned(), names.to_string().into());
        }
        // Those who read it may not know of this one.
        if !proxy.headers.uid.is_empty() {
            data.insert("requestheader-uid-headers".to_owned(), json!(proxy.headers.uid).to_string().into());
        }
    }
    if data.is_empty() {
        return Ok(());
    }
    let (namespace, name) = ("kube-system", "extension-apiserver-authentication");
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data,
    });
    crate::start::make(app, namespace, object).await?;
    let kind = app.cache.known("", "configmaps").kind;
    let call = internal_call(app, kind, namespace, "update").on(name);
    let data = Value::Object(data);
    let changed = modify_tree(&call, Part::Main, |old| {
        let mut new = old.clone();
        new["data"] = data.clone();
        Ok(new)
    });
    changed.await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery;

    #[test]
    fn what_is_away_is_there_without_resources_and_in_order() {
        let aggregator = Aggregator::default();
        for (group, version, priority) in [("a.example", "v1", 10), ("a.example", "v2", 20), ("b.example", "v1", 10)] {
            let before = if group == "b.example" { 2000 } else { 1000 };
            let service = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {"group": group, "version": version,
                "groupPriorityMinimum": before, "versionPriority": priority, "service": {"name": "s", "namespace": "n"}}});
            let remote = Arc::new(Remote::read(&service).unwrap());
            let kinds = vec![aggregator.rows.away(&remote)];
            aggregator.known.write().insert(remote.name.clone(), Known { remote, available: false, kinds });
        }
        let kinds = aggregator.kinds();
        let groups: Vec<(String, Vec<String>)> = discovery::aggregated(&kinds, false)
            .items
            .into_iter()
            .inspect(|group| assert!(group.versions.iter().all(|v| v.freshness == "Stale" && v.resources.is_empty())))
            .map(|group| (group.metadata.name, group.versions.into_iter().map(|v| v.version).collect()))
            .collect();
        let texts = |group: &str, all: &[&str]| (group.to_owned(), all.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(groups, [texts("b.example", &["v1"]), texts("a.example", &["v2", "v1"])]);
        assert!(discovery::group(&kinds, "a.example").is_some());
        assert!(discovery::resources(&kinds, ("a.example", "v1"), true).is_none());
    }
}
