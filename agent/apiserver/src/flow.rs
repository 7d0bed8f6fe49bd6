//! Which flow schema a request belongs to, as answers tell it.
//!
//! Requests are not queued per flow: the limits of requests in flight hold for all of them together.

use std::sync::Arc;

use api::flowcontrol::v1::{FlowSchema, NonResourcePolicyRule, ResourcePolicyRule, Subject};
use http::HeaderMap;
use lifecycle::Shutdown;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::answer;
use crate::app::App;
use crate::auth::identity;
use crate::cache::Cache;
use crate::request::{Query, RequestInfo};
use crate::start::internal_call;
use crate::status::Result;
use crate::strategy::Part;
use crate::user::User;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const DANGLING: &str = "Dangling";
/// By whom conditions are owned.
const OWNER: &str = "fieldManager=api-priority-and-fairness-config-consumer-v1&force=true";

/// Keeps telling which schemas lead to a priority level that is not there, until shutdown.
pub async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    let (schemas, levels) =
        (app.cache.known(GROUP, "flowschemas"), app.cache.known(GROUP, "prioritylevelconfigurations"));
    let (mut schema_news, mut level_news) = (schemas.subscribe(), levels.subscribe());
    loop {
        schema_news.mark_unchanged();
        level_news.mark_unchanged();
        for object in schemas.snapshot().values() {
            let Ok(schema) = api::envelope::decode_message::<FlowSchema>(&object.data) else { continue };
            let level = &schema.spec.priority_level_configuration.name;
            let condition = condition(level, levels.get("", level).is_some());
            if told(&schema, &condition) {
                continue;
            }
            if let Err(failure) = tell(app, &schema.metadata.name, &condition).await {
                tracing::warn!(%failure, name = %schema.metadata.name, "the condition of a FlowSchema could not be written");
            }
        }
        tokio::select! {
            changed = schema_news.changed() => if changed.is_err() { return },
            changed = level_news.changed() => if changed.is_err() { return },
            () = shutdown.wait() => return,
        }
    }
}

fn condition(level: &str, is_there: bool) -> Value {
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match is_there {
        true => ("False", "Found", format!("{about} and it exists")),
        false => ("True", "NotFound", format!("{about} but there is no such object")),
    };
    json!({
        "type": DANGLING, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": crate::app::now_text(),
    })
}

fn told(schema: &FlowSchema, wanted: &Value) -> bool {
    schema.status.conditions.iter().any(|c| {
        c.r#type == DANGLING
            && wanted["status"] == *c.status
            && wanted["reason"] == *c.reason
            && wanted["message"] == *c.message
    })
}

async fn tell(app: &Arc<App>, name: &str, condition: &Value) -> Result<()> {
    let kind = app.cache.known(GROUP, "flowschemas").kind;
    let mut call = internal_call(app, kind, "", "patch");
    call.info.name = name.to_owned();
    call.info.subresource = "status".to_owned();
    call.query = Query::parse(OWNER);
    let media = http::HeaderValue::from_static(crate::app::APPLY_MEDIA_TYPE);
    call.headers.insert(http::header::CONTENT_TYPE, media);
    let wanted = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name},
        "status": {"conditions": [condition]},
    });
    // Applying to what is not there would make it.
    if app.cache.known(GROUP, "flowschemas").get("", name).is_none() {
        return Ok(());
    }
    match crate::handlers::apply(&call, Part::Status, wanted.to_string().as_bytes()).await {
        Err(failure) if failure.code() != http::StatusCode::NOT_FOUND => Err(failure),
        _ => Ok(()),
    }
}

/// All flow schemas, in the order they are tried.
#[derive(Default)]
pub struct Flows {
    known: Mutex<(i64, Arc<Vec<FlowSchema>>)>,
}

/// The flow schema and the priority level of a request, by uid.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    schema: String,
    level: String,
}

impl Flow {
    /// Tells the client.
    pub fn put(&self, headers: &mut HeaderMap) {
        answer::set(headers, "X-Kubernetes-Pf-Flowschema-Uid", &self.schema);
        answer::set(headers, "X-Kubernetes-Pf-Prioritylevel-Uid", &self.level);
    }
}

impl Flows {
    /// The flow of a request; none before the first flow schemas are there.
    pub fn classify(&self, cache: &Cache, user: &User, info: &RequestInfo) -> Option<Flow> {
        let schemas = self.current(cache);
        let found = schemas.iter().find(|schema| is_match(schema, user, info));
        let found = found.or_else(|| schemas.iter().find(|s| s.metadata.name == "catch-all"))?;
        let level = cache.known(GROUP, "prioritylevelconfigurations");
        let level = level.get("", &found.spec.priority_level_configuration.name)?;
        let level: api::flowcontrol::v1::PriorityLevelConfiguration =
            api::envelope::decode_message(&level.data).ok()?;
        Some(Flow { schema: found.metadata.uid.clone(), level: level.metadata.uid })
    }

    fn current(&self, cache: &Cache) -> Arc<Vec<FlowSchema>> {
        let (objects, revision) = cache.known(GROUP, "flowschemas").snapshot_and_cursor();
        let mut known = self.known.lock();
        if known.0 != revision || known.1.len() != objects.len() {
            let decode = |object: &Arc<crate::cache::Object>| api::envelope::decode_message(&object.data).ok();
            let mut schemas: Vec<FlowSchema> = objects.values().filter_map(decode).collect();
            schemas.sort_by(|a, b| {
                let key = |s: &FlowSchema| (s.spec.matching_precedence, s.metadata.name.clone());
                key(a).cmp(&key(b))
            });
            *known = (revision, Arc::new(schemas));
        }
        known.1.clone()
    }
}

fn is_match(schema: &FlowSchema, user: &User, info: &RequestInfo) -> bool {
    schema.spec.rules.iter().any(|rule| {
        rule.subjects.iter().any(|s| is_subject(s, user))
            && if info.is_resource {
                rule.resource_rules.iter().any(|r| is_resource(r, info))
            } else {
                rule.non_resource_rules.iter().any(|r| is_path(r, info))
            }
    })
}

fn is_subject(subject: &Subject, user: &User) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|u| u.name == "*" || u.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|g| g.name == "*" || user.is_in(&g.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|a| {
            identity::split_service_account(&user.name)
                .is_some_and(|(ns, name)| a.namespace == ns && (a.name == "*" || a.name == name))
        }),
        _ => false,
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn is_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    let resource = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    let scope = if info.namespace.is_empty() { rule.cluster_scope } else { has(&rule.namespaces, &info.namespace) };
    has(&rule.verbs, info.verb) && has(&rule.api_groups, &info.group) && has(&rule.resources, &resource) && scope
}

fn is_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    let path = info.path.as_str();
    let fits = |pattern: &String| {
        pattern == "*" || pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
    };
    has(&rule.verbs, info.verb) && rule.non_resource_urls.iter().any(fits)
}
