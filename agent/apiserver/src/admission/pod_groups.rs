//! What comes with PodGroups: they stay as long as pods need them, their workload is there, and jobs that are
//! scheduled all at once keep their size.

use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

const GROUP: &str = "scheduling.k8s.io";
const PROTECTION: &str = "scheduling.k8s.io/podgroup-protection";
const FEATURE: &str = "GenericWorkload";

fn is_on(call: &Call, feature: &str) -> bool {
    call.app.config.features.is_on(feature)
}

/// PodGroupProtection: a group goes when no pod needs it any more.
pub(super) fn protect(call: &Call, group: &mut Value) {
    if is_on(call, FEATURE) {
        super::storage::protect(group, PROTECTION);
    }
}

/// The tree of an object that is known by now.
fn find(call: &Call, plural: &str, name: &str) -> Result<Option<Value>> {
    let storage = call.app.cache.known(GROUP, plural);
    let object = storage.get(call.namespace(), name);
    object.map(|object| codec::to_value(storage, storage.kind, &object)).transpose()
}

/// PodGroupWorkloadExists and JobValidation.
pub(super) async fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    match (call.kind.group, call.kind.plural, operation) {
        (GROUP, "podgroups", Operation::Create) if is_on(call, FEATURE) => has_template(call, new).await,
        ("batch", "jobs", Operation::Update(Part::Main)) if is_on(call, FEATURE) => keeps_size(call, new, old),
        _ => Ok(()),
    }
}

/// The template that a group is made of has to be there.
async fn has_template(call: &Call, group: &Value) -> Result<()> {
    let at = |field: &str| tree::text(group, &format!("/spec/podGroupTemplateRef/workload/{field}")).to_owned();
    let (name, template) = (at("workloadName"), at("podGroupTemplateName"));
    if !tree::has(group, "/spec/podGroupTemplateRef/workload") {
        return Ok(());
    }
    let mut workload = find(call, "workloads", &name)?;
    if workload.is_none() {
        // The cache may be a moment behind the workload's creation.
        call.app.cache.fresh().await?;
        workload = find(call, "workloads", &name)?;
    }
    let refuse = |why: String| {
        Err(Failure::forbidden(call.subject(), tree::name_given(group), &format!("PodGroup rejected: {why}")))
    };
    let Some(workload) = workload else { return refuse(format!("Workload {name:?} not found")) };
    if tree::has(&workload, "/metadata/deletionTimestamp") {
        return refuse(format!("Workload {name:?} is being deleted"));
    }
    let templates = tree::list(&workload, "/spec/podGroupTemplates");
    match templates.iter().any(|known| known["name"] == template) {
        true => Ok(()),
        false => refuse(format!("PodGroupTemplate {template:?} not found in Workload {name:?}")),
    }
}

/// Jobs whose pods are scheduled all at once stay as many.
fn keeps_size(call: &Call, new: &Value, old: Option<&Value>) -> Result<()> {
    let size = |job: &Value| tree::integer(job, "/spec/parallelism");
    let Some(old) = old.filter(|old| size(old) != size(new)) else { return Ok(()) };
    let Some(group) = gang_of(call, old)? else { return Ok(()) };
    let why = format!("cannot change parallelism for a Job referencing gang-scheduled PodGroup {group:?}");
    Err(Failure::forbidden(call.subject(), tree::name_given(new), &why))
}

/// The group that pods of a job are scheduled with, if it takes them all at once.
fn gang_of(call: &Call, job: &Value) -> Result<Option<String>> {
    let is_gang = |group: &Value| tree::has(group, "/spec/schedulingPolicy/gang");
    let named = tree::text(job, "/spec/template/spec/schedulingGroup/podGroupName");
    if !named.is_empty() {
        return Ok(find(call, "podgroups", named)?.filter(is_gang).map(|_| named.to_owned()));
    }
    let storage = call.app.cache.known(GROUP, "podgroups");
    for object in storage.snapshot().values().filter(|object| object.namespace() == call.namespace()) {
        let group = codec::to_value(storage, storage.kind, object)?;
        let mut owners = tree::list(&group, "/metadata/ownerReferences").iter();
        let is_own = owners.any(|owner| owner["controller"] == true && owner["uid"] == job["metadata"]["uid"]);
        if is_own && is_gang(&group) {
            return Ok(Some(object.name().to_owned()));
        }
    }
    Ok(None)
}
