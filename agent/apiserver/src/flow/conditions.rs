//! Follows the objects, and tells in flow schemas whether their levels are there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use lifecycle::Shutdown;
use serde_json::{Value, json};

use super::ADJUSTMENT;
use crate::app::App;
use crate::cache::Storage;
use crate::request::Query;
use crate::start::internal_call;
use crate::status::Result;
use crate::strategy::Part;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const DANGLING: &str = "Dangling";
/// By whom conditions are owned.
const OWNER: &str = "fieldManager=api-priority-and-fairness-config-consumer-v1&force=true";
/// Writes of one object within [`WINDOW`]: servers that disagree do not fight on faster than this.
const MAX_WRITES: usize = 6;
const WINDOW: Duration = Duration::from_secs(60);

/// Keeps requests going by what is configured, until shutdown.
pub async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    if !app.flows.is_on() {
        return;
    }
    let (schemas, levels) =
        (app.cache.known(GROUP, "flowschemas"), app.cache.known(GROUP, "prioritylevelconfigurations"));
    let (mut schema_news, mut level_news) = (schemas.subscribe(), levels.subscribe());
    let mut adjust = tokio::time::interval(ADJUSTMENT);
    adjust.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut writes = Writes::default();
    loop {
        schema_news.mark_unchanged();
        level_news.mark_unchanged();
        let objects: Vec<FlowSchema> = decoded(schemas);
        app.flows.configure(&objects, &decoded::<PriorityLevelConfiguration>(levels), Instant::now());
        tell_all(app, &objects, &mut writes).await;
        loop {
            tokio::select! {
                () = schema_news.changed() => break,
                () = level_news.changed() => break,
                _ = adjust.tick() => {
                    app.flows.rebalance(Instant::now());
                    if writes.put_off {
                        break;
                    }
                }
                () = shutdown.wait() => return,
            }
        }
    }
}

fn decoded<T: prost::Message + Default>(storage: &Storage) -> Vec<T> {
    storage.snapshot().values().filter_map(|o| api::envelope::decode_message(&o.data).ok()).collect()
}

/// When conditions were written.
#[derive(Default)]
struct Writes {
    times: HashMap<String, VecDeque<Instant>>,
    /// Whether something waits for its time.
    put_off: bool,
}

impl Writes {
    fn allow(&mut self, name: &str, now: Instant) -> bool {
        self.times.retain(|_, times| {
            times.retain(|at| now.saturating_duration_since(*at) < WINDOW);
            !times.is_empty()
        });
        let times = self.times.entry(name.to_owned()).or_default();
        let allowed = times.len() < MAX_WRITES;
        if allowed {
            times.push_back(now);
        } else {
            self.put_off = true;
        }
        allowed
    }
}

async fn tell_all(app: &Arc<App>, schemas: &[FlowSchema], writes: &mut Writes) {
    let levels = app.cache.known(GROUP, "prioritylevelconfigurations");
    writes.put_off = false;
    for schema in schemas {
        let level = &schema.spec.priority_level_configuration.name;
        let condition = condition(level, levels.get("", level).is_some());
        if told(schema, &condition) || !writes.allow(&schema.metadata.name, Instant::now()) {
            continue;
        }
        if let Err(failure) = tell(app, &schema.metadata.name, &condition).await {
            tracing::warn!(%failure, name = %schema.metadata.name, "the condition of a FlowSchema could not be written");
            writes.put_off = true;
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
    let mut call = internal_call(app, kind, "", "patch").on(name).part("status");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_is_written_only_so_often() {
        let mut writes = Writes::default();
        let now = Instant::now();
        assert!((0..MAX_WRITES).all(|_| writes.allow("a", now)));
        assert!(!writes.allow("a", now) && writes.put_off && writes.allow("b", now));
        assert!(writes.allow("a", now + WINDOW));
    }
}
