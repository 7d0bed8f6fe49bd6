//! Binding: a pod gets its node.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{BINDING, decode_as, done};
use crate::answer::Body;
use crate::app::{Call, now_text};
use crate::handlers::write::modify_tree;
use crate::start::internal_call;
use crate::status::{Failure, FieldError, Result, Subject};
use crate::strategy::Part;
use crate::tree;

pub(super) async fn bind(call: &Call, name: &str, body: &[u8]) -> Result<Response<Body>> {
    let mut binding = decode_as(call, body, BINDING)?;
    if call.info.subresource.is_empty() {
        // What is made at a collection gets its identity from the server.
        tree::remove(&mut binding["metadata"], "uid");
    }
    if tree::text(&binding, "/metadata/name") != name {
        return Err(Failure::bad_request("name in URL does not match name in Binding object"));
    }
    crate::admission::admit_message(call, &mut binding).await?;
    let node = tree::text(&binding, "/target/name").to_owned();
    let kind = tree::text(&binding, "/target/kind");
    check_target(kind, &node)?;
    crate::admission::check_message(call, &binding).await?;
    if name.is_empty() {
        return Err(Failure::bad_request("Name parameter required."));
    }
    let pods = api::kind_by_name("v1", "Pod").ok_or_else(Failure::no_such_path)?;
    let mut on_pod = internal_call(&call.app, pods, call.namespace(), "update").on(name);
    on_pod.query = call.query.clone();
    let labels = crate::admission::nodes::topology_of(call, &node);
    modify_tree(&on_pod, Part::Internal, |old| assigned(&on_pod, old, &binding, (&node, &labels))).await?;
    done(call)
}

/// Where to. Upstream answers with the bare errors of the fields.
fn check_target(kind: &str, node: &str) -> Result<()> {
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]).to_string());
    }
    if node.is_empty() {
        errors.push(FieldError::required("target.name", "").to_string());
    }
    let text = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        _ => format!("[{}]", errors.join(", ")),
    };
    Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text))
}

fn assigned(call: &Call, old: &Value, binding: &Value, (node, labels): (&str, &[(String, Value)])) -> Result<Value> {
    let name = call.info.name.as_str();
    let refuse = |why: &str| Err(Failure::conflict(Subject { group: "", resource: "pods/binding" }, name, why));
    if let Some(why) = unmet(binding, old) {
        let key = format!("/pods/{}/{name}", call.namespace());
        let why =
            format!("StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}");
        return Err(Failure::conflict(Subject { group: "", resource: "pods" }, name, &why));
    }
    if tree::has(old, "/metadata/deletionTimestamp") {
        return refuse(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let current = tree::text(old, "/spec/nodeName");
    if !current.is_empty() {
        return refuse(&format!("pod {name} is already assigned to node {current:?}"));
    }
    if !tree::list(old, "/spec/schedulingGates").is_empty() {
        return refuse(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let clears_nomination = call.app.config.features.is_on("ClearingNominatedNodeNameAfterBinding");
    let mut new = old.clone();
    new["spec"]["nodeName"] = node.into();
    for key in ["annotations", "labels"] {
        let given = binding["metadata"][key].as_object().cloned().unwrap_or_default();
        if !given.is_empty() {
            tree::object_at(&mut new["metadata"], key).extend(given);
        }
    }
    if !labels.is_empty() {
        tree::object_at(&mut new["metadata"], "labels").extend(labels.iter().cloned());
    }
    let condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now_text()});
    let conditions = tree::list_at(&mut new["status"], "conditions");
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(condition);
    if let Some(status) = new.get_mut("status").filter(|_| clears_nomination) {
        tree::remove(status, "nominatedNodeName");
    }
    Ok(new)
}

/// Which other pod a binding means.
fn unmet(binding: &Value, pod: &Value) -> Option<String> {
    let differs = |(what, key): (&str, &str)| {
        let (wanted, actual) = (&binding["metadata"][what], &pod["metadata"][what]);
        let (wanted, actual) = (wanted.as_str().unwrap_or_default(), actual.as_str().unwrap_or_default());
        let why = || format!("Precondition failed: {key} in precondition: {wanted}, {key} in object meta: {actual}");
        (!wanted.is_empty() && wanted != actual).then(why)
    };
    [("uid", "UID"), ("resourceVersion", "ResourceVersion")].into_iter().find_map(differs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_target_is_told_without_an_object() {
        assert!(check_target("", "n").is_ok() && check_target("Node", "n").is_ok());
        let failure = check_target("Bogus", "").unwrap_err();
        assert_eq!(
            (failure.code().as_u16(), failure.message()),
            (
                500,
                "[target.kind: Unsupported value: \"Bogus\": supported values: \"Node\", \"<empty>\", target.name: Required value]"
            )
        );
    }
}
