//! OwnerReferencesPermissionEnforcement: an object that goes with another one goes by its owner's deletion, and may
//! hold that up. So whoever says what an object belongs to needs the rights for both.

use serde_json::Value;

use super::{Operation, is_on};
use crate::app::Call;
use crate::auth::authz::{Attributes, Decision};
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

/// Refuses owners that the user may not name.
pub(super) fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    // What is written of a pod's status cannot change its owners, and old kubelets send half of them.
    let is_pod_status = operation == Operation::Update(Part::Status) && call.kind.plural == "pods";
    let is_own = operation == Operation::Update(Part::Internal);
    if !is_on(call, "OwnerReferencesPermissionEnforcement") || is_pod_status || is_own {
        return Ok(());
    }
    let (owners, before) = (of(new), old.map_or(&[][..], of));
    let is_kept = owners.len() == before.len() && owners.iter().zip(before).all(|(new, old)| tree::same(new, old));
    if is_kept {
        return Ok(());
    }
    let refuse = |why: String| Err(Failure::forbidden(call.subject(), tree::name_given(new), &why));
    if operation != Operation::Create
        && let Err(why) = may(call, &deletion(call))
    {
        return refuse(format!("cannot set an ownerRef on a resource you can't delete: {why}"));
    }
    let blocking: Vec<&Value> = newly_blocking(owners, before).collect();
    if blocking.is_empty() || may(call, &finalizers(call, ("*", "*", "*"), "*")).is_ok() {
        return Ok(());
    }
    for owner in blocking {
        if let Err(why) = may_hold_up(call, owner) {
            return refuse(why);
        }
    }
    Ok(())
}

fn of(object: &Value) -> &[Value] {
    tree::list(object, "/metadata/ownerReferences")
}

/// Owners whose deletion is to wait for this object, and was not before.
fn newly_blocking<'a>(owners: &'a [Value], before: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    let blocks = |owner: &Value| owner["blockOwnerDeletion"] == true;
    let did = move |owner: &Value| {
        // Of two with one identity the last one counts.
        before.iter().rfind(|old| old["uid"] == owner["uid"]).is_some_and(blocks)
    };
    owners.iter().filter(move |owner| blocks(owner) && !did(owner))
}

fn may_hold_up(call: &Call, owner: &Value) -> std::result::Result<(), String> {
    let [api_version, kind, name] = ["/apiVersion", "/kind", "/name"].map(|pointer| tree::text(owner, pointer));
    let no_mapping = |why: String| {
        let what = format!("cannot find RESTMapping for APIVersion {api_version} Kind {kind}");
        format!("cannot set blockOwnerDeletion in this case because {what}: {why}")
    };
    if api_version.matches('/').count() > 1 {
        return Err(no_mapping(format!("unexpected GroupVersion string: {api_version}")));
    }
    let kinds = call.app.kinds();
    let mut rows = kinds.iter().filter(|row| row.kind == kind && row.api_version() == api_version).peekable();
    if rows.peek().is_none() {
        return Err(no_mapping(format!("no matches for kind {kind:?} in version {api_version:?}")));
    }
    for row in rows {
        let namespace = if row.namespaced { call.namespace() } else { "" };
        let asked = Attributes { namespace, ..finalizers(call, (row.group, row.version, row.plural), name) };
        may(call, &asked).map_err(|why| {
            let what = "an ownerReference refers to a resource you can't set finalizers on";
            format!("cannot set blockOwnerDeletion if {what}: {why}")
        })?;
    }
    Ok(())
}

fn deletion(call: &Call) -> Attributes<'_> {
    Attributes {
        namespace: call.namespace(),
        version: call.kind.version,
        subresource: &call.info.subresource,
        name: &call.info.name,
        ..Attributes::resource(&call.user, "delete", call.kind.group, call.kind.plural)
    }
}

fn finalizers<'a>(
    call: &'a Call,
    (group, version, plural): (&'a str, &'a str, &'a str),
    name: &'a str,
) -> Attributes<'a> {
    Attributes { version, name, subresource: "finalizers", ..Attributes::resource(&call.user, "update", group, plural) }
}

/// Whether something is allowed, or why not, as upstream prints that.
fn may(call: &Call, asked: &Attributes<'_>) -> std::result::Result<(), String> {
    match call.app.access.decide(asked) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(format!("{reason}, <nil>")),
        Decision::Failed { why, reason, .. } => Err(format!("{reason}, {why}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_blocks_anew_is_asked_about() {
        let owner = |uid: &str, blocks: bool| json!({"uid": uid, "blockOwnerDeletion": blocks});
        let (owners, before) =
            ([owner("a", true), owner("b", true), owner("c", false)], [owner("a", true), owner("b", false)]);
        let found: Vec<&str> = newly_blocking(&owners, &before).filter_map(|one| one["uid"].as_str()).collect();
        assert_eq!(found, ["b"]);
        assert_eq!(newly_blocking(&owners, &[]).count(), 2);
    }
}
