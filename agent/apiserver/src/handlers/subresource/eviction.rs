//! Eviction: a deletion that respects disruption budgets.

use api::labels::Selector;
use api::policy::v1::PodDisruptionBudget;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{decode_as, done};
use crate::answer::Body;
use crate::app::{Call, now_text};
use crate::cache::Object;
use crate::codec;
use crate::handlers::delete::{DeleteOptions, remove};
use crate::handlers::{read, write::modify_tree};
use crate::request::Query;
use crate::start::internal_call;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

const EVICTION: &str = "k8s.io.api.policy.v1.Eviction";

pub(super) async fn evict(call: &Call, body: &[u8]) -> Result<Response<Body>> {
    let mut eviction = decode_as(call, body, EVICTION)?;
    crate::admission::admit_message(call, &mut eviction).await?;
    let name = tree::text(&eviction, "/metadata/name");
    if name != call.info.name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    crate::admission::check_message(call, &eviction).await?;
    let options = &eviction["deleteOptions"];
    let text = |pointer: &str| tree::at(options, pointer).and_then(Value::as_str).map(str::to_owned);
    let delete = DeleteOptions {
        dry_run: call.is_dry_run()? || !tree::list(options, "/dryRun").is_empty(),
        grace: options["gracePeriodSeconds"].as_i64(),
        propagation: text("/propagationPolicy").unwrap_or_default(),
        uid: text("/preconditions/uid"),
        version: text("/preconditions/resourceVersion"),
        cascades: false,
    };
    let pod = read::current(call).await?;
    let value = codec::to_value(call.storage()?, call.kind, &pod)?;
    if counts(&value) {
        spend(call, &pod, (&value, delete.dry_run)).await?;
    }
    let delete = mark(call, &value, delete).await?;
    remove(call, &call.info.name, &delete).await?;
    done(call)
}

/// Writes on the pod why it goes, so that its Job can tell a disruption from a failure. A pod that goes already, or
/// that the preconditions do not mean, stays as it is.
async fn mark(call: &Call, pod: &Value, mut delete: DeleteOptions) -> Result<DeleteOptions> {
    let is_meant =
        |wanted: &Option<String>, pointer: &str| wanted.as_deref().is_none_or(|w| w == tree::text(pod, pointer));
    let meant = is_meant(&delete.uid, "/metadata/uid") && is_meant(&delete.version, "/metadata/resourceVersion");
    if !meant || delete.dry_run || tree::has(pod, "/metadata/deletionTimestamp") {
        return Ok(delete);
    }
    let marked = modify_tree(call, Part::Internal, |old| Ok(disrupted(old))).await?;
    if delete.version.is_some() {
        delete.version = Some(marked.object.revision.to_string());
    }
    Ok(delete)
}

/// The pod with the condition that says who disrupts it.
fn disrupted(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let conditions = tree::list_at(&mut pod["status"], "conditions");
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": now_text(),
    }));
    pod
}

/// Whether a budget speaks of the pod: those that are over, or have not begun, disrupt nobody.
fn counts(pod: &Value) -> bool {
    let phase = tree::text(pod, "/status/phase");
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !tree::has(pod, "/metadata/deletionTimestamp")
}

fn is_ready(pod: &Value) -> bool {
    tree::list(pod, "/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Takes the pod out of the budget that covers it, if one does.
async fn spend(call: &Call, pod: &Object, (value, dry_run): (&Value, bool)) -> Result<()> {
    let storage = call.app.cache.known("policy", "poddisruptionbudgets");
    let prefix = format!("{}/", call.namespace());
    let mut found: Vec<(String, PodDisruptionBudget)> = Vec::new();
    for (_, object) in storage.snapshot().iter().filter(|(k, _)| k.starts_with(&prefix)) {
        let budget: PodDisruptionBudget = api::envelope::decode_message(&object.data).map_err(Failure::internal)?;
        let selector = Selector::from_object(budget.spec.selector.as_ref()).map_err(Failure::internal)?;
        if selector.matches_with(|key| pod.label(key)) {
            found.push((object.name().to_owned(), budget));
        }
    }
    match found.as_slice() {
        [] => Ok(()),
        [(name, budget)] => {
            let healthy_enough = budget.status.current_healthy >= budget.status.desired_healthy
                && budget.status.desired_healthy > 0
                || budget.spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
            if !is_ready(value) && healthy_enough { Ok(()) } else { spend_one(call, name, dry_run).await }
        }
        _ => Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
    }
}

async fn spend_one(call: &Call, name: &str, dry_run: bool) -> Result<()> {
    let kind = api::kind_by_name("policy/v1", "PodDisruptionBudget").ok_or_else(Failure::no_such_path)?;
    let mut on_budget = internal_call(&call.app, kind, call.namespace(), "update").on(name);
    on_budget.query = if dry_run { Query::parse("dryRun=All") } else { call.query.clone() };
    let pod = call.info.name.as_str();
    modify_tree(&on_budget, Part::Status, |old| {
        let number = |key: &str| old["status"][key].as_i64().unwrap_or(0);
        let refuse = |text: String, seconds: u32| {
            let main = "Cannot evict pod as it would violate the pod's disruption budget.";
            Err(Failure::too_many_requests(main, seconds).with_cause("DisruptionBudget", &text))
        };
        let generation = tree::integer(old, "/metadata/generation").unwrap_or(0);
        if number("observedGeneration") < generation {
            return refuse(format!("The disruption budget {name} is still being processed by the server."), 10);
        }
        if number("disruptionsAllowed") <= 0 {
            let (needed, healthy) = (number("desiredHealthy"), number("currentHealthy"));
            let unsynced = condition(old).filter(|c| c["status"] == "False" && c["reason"] == "SyncFailed");
            return refuse(match unsynced {
                Some(condition) => {
                    let why = tree::text(condition, "/message");
                    format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}")
                }
                None if healthy <= needed => {
                    format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently")
                }
                None => format!("The disruption budget {name} does not allow evicting pods currently"),
            }, 0);
        }
        let mut new = old.clone();
        let left = number("disruptionsAllowed") - 1;
        new["status"]["disruptionsAllowed"] = left.into();
        tree::object_at(&mut new["status"], "disruptedPods").insert(pod.to_owned(), now_text().into());
        tell_allowed(&mut new, left);
        Ok(new)
    })
    .await
    .map(|_| ())
}

const ALLOWED: &str = "DisruptionAllowed";

fn condition(budget: &Value) -> Option<&Value> {
    tree::list(budget, "/status/conditions").iter().find(|condition| condition["type"] == ALLOWED)
}

/// Writes down whether another pod may go.
fn tell_allowed(budget: &mut Value, left: i64) {
    let (status, reason) = if left > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let since = condition(budget).filter(|condition| condition["status"] == status);
    let since = since.map_or_else(|| now_text().into(), |condition| condition["lastTransitionTime"].clone());
    let told = json!({
        "type": ALLOWED, "status": status, "reason": reason, "message": "", "lastTransitionTime": since,
        "observedGeneration": budget["status"]["observedGeneration"],
    });
    let conditions = tree::list_at(&mut budget["status"], "conditions");
    match conditions.iter_mut().find(|condition| condition["type"] == ALLOWED) {
        Some(condition) => *condition = told,
        None => conditions.push(told),
    }
}
