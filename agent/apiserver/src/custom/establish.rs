//! The life of definitions: names are accepted, versions are served, and with a definition its objects go.
//!
//! ```text
//!  made ─▶ names accepted ─▶ established ─▶ deleted: terminating ─▶ objects deleted ─▶ finalizer removed ─▶ gone
//! ```
//! One task looks at every definition that changed. Nothing here polls: it waits for news of definitions and, while
//! one is terminating, for any news.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Shutdown;
use serde_json::{Value, json};

use super::Definition;
use crate::app::{App, now_text};
use crate::codec;
use crate::handlers::delete::{DeleteOptions, remove};
use crate::handlers::write::modify_tree;
use crate::start::internal_call;
use crate::status::Result;
use crate::strategy::Part;
use crate::tree;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
/// Keeps a definition until its objects are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Begins the end of a definition: called when it is deleted.
pub fn mark_terminating(definition: &mut Value) {
    let finalizers = tree::list_at(&mut definition["metadata"], "finalizers");
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    definition["metadata"]["deletionTimestamp"] = now_text().into();
    let text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(definition, "Terminating", ("True", "InstanceDeletionPending", text));
}

/// Sets a condition; its time changes only with its status.
fn set_condition(definition: &mut Value, kind: &str, (status, reason, message): (&str, &str, &str)) {
    let conditions = tree::list_at(&mut definition["status"], "conditions");
    let mut condition = json!({
        "type": kind, "status": status, "lastTransitionTime": now_text(), "reason": reason, "message": message,
    });
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(old) => {
            if old["status"] == status {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if let Some(generation) = old.get("observedGeneration") {
                condition["observedGeneration"] = generation.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

fn is_true(definition: &Value, kind: &str) -> bool {
    tree::list(definition, "/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Follows the definitions until shutdown.
pub async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    let storage = app.cache.known(GROUP, PLURAL);
    let mut news = storage.subscribe();
    let mut any_news = app.cache.revisions();
    let mut seen: HashMap<String, Seen> = HashMap::new();
    let mut cursor = -1;
    loop {
        any_news.mark_unchanged();
        news.mark_unchanged();
        let applied = app.cache.revision();
        let mut waiting = false;
        let mut failed = false;
        if applied > 0 {
            match turn(app, &mut seen).await {
                Ok(terminating) => waiting = terminating,
                Err(failure) => {
                    tracing::warn!(%failure, "a custom resource definition could not be looked after, trying again");
                    failed = true;
                }
            }
            if cursor < 0 {
                cursor = 0;
                app.custom_ready.send_replace(true);
            }
        }
        tokio::select! {
            () = news.changed() => {}
            _ = any_news.changed(), if waiting || applied == 0 => {}
            () = tokio::time::sleep(RETRY), if failed => {}
            () = shutdown.wait() => return,
        }
    }
}

/// What is remembered of a definition.
struct Seen {
    /// The revision that was looked at last.
    revision: i64,
    group: String,
    /// The names that it has been given.
    names: Value,
    /// The revision that requests know.
    served: i64,
    /// Whether there is nothing left to do for this revision.
    done: bool,
}

/// Looks at every definition that changed. Says whether one is terminating.
async fn turn(app: &Arc<App>, seen: &mut HashMap<String, Seen>) -> Result<bool> {
    let storage = app.cache.known(GROUP, PLURAL);
    let objects = storage.snapshot();
    let gone: Vec<String> = seen.keys().filter(|name| !objects.contains_key(name.as_str())).cloned().collect();
    let mut changed = false;
    for name in gone {
        seen.remove(&name);
        changed |= app.custom.remove(&name);
    }
    let mut news = Vec::new();
    for (name, object) in &objects {
        if seen.get(&**name).is_some_and(|s| s.done && s.revision == object.revision) {
            continue;
        }
        let value = codec::to_value(storage, storage.kind, object)?;
        let group = tree::text(&value, "/spec/group").to_owned();
        let names = value["status"]["acceptedNames"].clone();
        let served = seen.get(&**name).map_or(0, |s| s.served);
        seen.insert(name.to_string(), Seen { revision: object.revision, group, names, served, done: false });
        news.push((name, object, value));
    }
    let mut terminating = false;
    for (name, object, value) in news {
        if tree::has(&value, "/metadata/deletionTimestamp") {
            terminating = true;
            clean_up(app, &value).await?;
        }
        let own = tree::text(&value, "/spec/group");
        let others = seen.iter().filter(|(other, s)| other.as_str() != &**name && s.group == own);
        let others: Vec<Value> = others.map(|(_, s)| s.names.clone()).collect();
        let wanted = with_conditions(&value, &others);
        if !tree::same(&wanted["status"], &value["status"]) {
            // The write comes back as news.
            put_status(app, name, &others).await?;
        }
        let is_news = seen.get(&**name).is_none_or(|s| s.served != object.revision);
        if is_news && is_true(&wanted, "Established") {
            serve(app, app.custom.rows.definition(&wanted, &object.data)).await?;
            changed = true;
        }
        if let Some(known) = seen.get_mut(&**name) {
            known.names = wanted["status"]["acceptedNames"].clone();
            known.served = object.revision;
            // What waits for a name, or for its objects to go, looks again at every turn.
            known.done = is_true(&wanted, "NamesAccepted") && !tree::has(&wanted, "/metadata/deletionTimestamp");
        }
    }
    if changed {
        app.openapi.set_custom(app.custom.all());
    }
    Ok(terminating)
}

/// The definition with its names accepted, or with what keeps them from being: `others` are the names in its group.
fn with_conditions(definition: &Value, others: &[Value]) -> Value {
    let mut new = definition.clone();
    let (accepted, conflict) = names(definition, others);
    new["status"]["acceptedNames"] = accepted;
    if let Some((status, reason, text)) = super::check::approved(definition) {
        set_condition(&mut new, "KubernetesAPIApprovalPolicyConformant", (status, reason, &text));
    }
    let is_established = is_true(definition, "Established");
    match conflict {
        None => {
            set_condition(&mut new, "NamesAccepted", ("True", "NoConflicts", "no conflicts found"));
            if !is_established {
                let text = "the initial names have been accepted";
                set_condition(&mut new, "Established", ("True", "InitialNamesAccepted", text));
            }
        }
        Some((reason, text)) => {
            set_condition(&mut new, "NamesAccepted", ("False", reason, &text));
            if !is_established {
                set_condition(&mut new, "Established", ("False", "NotAccepted", "not all names are accepted"));
            }
        }
    }
    super::check::note_stored_version(&mut new);
    new
}

/// The names that a definition has from now on: of those it wants every one that no other has, and the last conflict.
fn names(definition: &Value, others: &[Value]) -> (Value, Option<(&'static str, String)>) {
    let wanted = &definition["spec"]["names"];
    let own = &definition["status"]["acceptedNames"];
    let all = || others.iter().chain([own]);
    let resources = |names: &Value| -> Vec<Value> {
        let list = tree::list(names, "/shortNames").iter().cloned();
        [names["plural"].clone(), names["singular"].clone()].into_iter().chain(list).collect()
    };
    let taken: Vec<Value> = all().flat_map(resources).collect();
    let kinds: Vec<Value> = all().flat_map(|n| [n["kind"].clone(), n["listKind"].clone()]).collect();
    let mut accepted = if own.is_object() { own.clone() } else { json!({"plural": "", "kind": ""}) };
    let mut conflict = None;
    let text = |name: &Value| format!("{name} is already in use");
    let mut keep =
        |accepted: &mut Value, key: &str, refused: Vec<String>, reason: &'static str| match refused.as_slice() {
            [] if wanted[key].is_null() => tree::remove(accepted, key),
            [] => accepted[key] = wanted[key].clone(),
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        };
    let one = |key: &str, used: &[Value]| -> Vec<String> {
        let is_free = wanted[key] == own[key] || !used.contains(&wanted[key]);
        if is_free { Vec::new() } else { vec![text(&wanted[key])] }
    };
    keep(&mut accepted, "plural", one("plural", &taken), "PluralConflict");
    keep(&mut accepted, "singular", one("singular", &taken), "SingularConflict");
    let had = tree::list(own, "/shortNames");
    let short = tree::list(wanted, "/shortNames").iter().filter(|n| !had.contains(n) && taken.contains(n));
    keep(&mut accepted, "shortNames", short.map(text).collect(), "ShortNamesConflict");
    keep(&mut accepted, "kind", one("kind", &kinds), "KindConflict");
    keep(&mut accepted, "listKind", one("listKind", &kinds), "ListKindConflict");
    keep(&mut accepted, "categories", Vec::new(), "");
    (accepted, conflict)
}

async fn put_status(app: &Arc<App>, name: &str, others: &[Value]) -> Result<()> {
    let kind = app.cache.known(GROUP, PLURAL).kind;
    let call = internal_call(app, kind, "", "update").on(name).part("status");
    let result = modify_tree(&call, Part::Status, |old| Ok(with_conditions(old, others))).await;
    unless_gone(result.map(|_| ()))
}

fn unless_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(failure) if failure.code() == http::StatusCode::NOT_FOUND => Ok(()),
        other => other,
    }
}

/// Makes the versions of a definition known to requests.
async fn serve(app: &Arc<App>, definition: Definition) -> Result<()> {
    let Some(first) = definition.versions.first() else {
        app.custom.remove(&definition.name);
        return Ok(());
    };
    let storage = app.cache.add_custom(first.kind).await?;
    let name = definition.name.clone();
    app.custom.put(definition);
    let (group, plural) = (storage.kind.group, storage.kind.plural);
    storage.set_definition(app.custom.definition(group, plural));
    tracing::info!(definition = %name, "a custom resource is served");
    Ok(())
}

/// Deletes the objects of a definition that ends and, once they are gone, lets it go.
async fn clean_up(app: &Arc<App>, definition: &Value) -> Result<()> {
    let name = tree::text(definition, "/metadata/name");
    if !tree::list(definition, "/metadata/finalizers").iter().any(|f| f == FINALIZER) {
        return Ok(());
    }
    let kind = app.cache.known(GROUP, PLURAL).kind;
    let call = internal_call(app, kind, "", "update").on(name).part("status");
    let begun = modify_tree(&call, Part::Status, |old| {
        let mut new = old.clone();
        let text = "CustomResource deletion is in progress";
        set_condition(&mut new, "Terminating", ("True", "InstanceDeletionInProgress", text));
        Ok(new)
    });
    unless_gone(begun.await.map(|_| ()))?;
    let (group, plural) = (tree::text(definition, "/spec/group"), tree::text(definition, "/spec/names/plural"));
    let mut left = 0;
    if let Some(storage) = app.cache.storage(group, plural).filter(|s| super::is_custom(s.kind)) {
        app.cache.fresh().await?;
        // In the version that is stored: nothing has to be converted for this.
        let definition = storage.definition();
        let stored = definition.as_ref().and_then(|d| d.any_version(&d.stored_api_version()));
        let kind = stored.map_or(storage.kind, |v| v.kind);
        for object in storage.snapshot().values() {
            let call = internal_call(app, kind, object.namespace(), "delete");
            match remove(&call, object.name(), &DeleteOptions::default()).await {
                Ok(gone) => left += usize::from(!gone),
                Err(failure) if failure.code() == http::StatusCode::NOT_FOUND => {}
                Err(failure) => return Err(failure),
            }
        }
    }
    if left > 0 {
        return Ok(());
    }
    let (reason, text) = if is_true(definition, "Established") {
        ("InstanceDeletionCompleted", "removed all instances")
    } else {
        ("NeverEstablished", "resource was never established")
    };
    let result = modify_tree(&call, Part::Internal, |old| {
        let mut new = old.clone();
        tree::list_at(&mut new["metadata"], "finalizers").retain(|f| f != FINALIZER);
        set_condition(&mut new, "Terminating", ("False", reason, text));
        Ok(new)
    });
    unless_gone(result.await.map(|_| ()))
}

/// Whether a definition ends.
pub(super) fn is_terminating(app: &App, name: &str) -> Result<bool> {
    let storage = app.cache.known(GROUP, PLURAL);
    let Some(object) = storage.get("", name) else { return Ok(false) };
    let value = codec::to_value(storage, storage.kind, &object)?;
    Ok(tree::has(&value, "/metadata/deletionTimestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, plural: &str, kind: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"group": "example.com",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "storage": true}]}})
    }

    #[test]
    fn names_without_conflict_are_accepted_at_once() {
        let new = with_conditions(&definition("foos.example.com", "foos", "Foo"), &[]);
        assert!(is_true(&new, "NamesAccepted") && is_true(&new, "Established"));
        assert_eq!(new["status"]["acceptedNames"]["kind"], "Foo");
        let again = with_conditions(&new, &[]);
        assert_eq!(again, new);
    }

    #[test]
    fn a_kind_that_is_taken_is_not_accepted() {
        let first = with_conditions(&definition("foos.example.com", "foos", "Foo"), &[]);
        let new = with_conditions(
            &definition("bars.example.com", "bars", "Foo"),
            &[first["status"]["acceptedNames"].clone()],
        );
        assert!(!is_true(&new, "NamesAccepted") && !is_true(&new, "Established"));
        let condition = &new["status"]["conditions"][0];
        assert_eq!(
            (&condition["reason"], &condition["message"]),
            (&json!("ListKindConflict"), &json!("\"FooList\" is already in use"))
        );
        // What nobody has is its own already, and the owner keeps its names whatever is wanted of it.
        assert_eq!(new["status"]["acceptedNames"], json!({"plural": "bars", "kind": ""}));
        let mut renamed = first.clone();
        renamed["spec"]["names"]["kind"] = "Bar".into();
        renamed["spec"]["names"]["shortNames"] = json!(["bars", "b"]);
        let new = with_conditions(&renamed, &[new["status"]["acceptedNames"].clone()]);
        assert_eq!(
            new["status"]["acceptedNames"],
            json!({"plural": "foos", "singular": "foo", "kind": "Bar", "listKind": "FooList"})
        );
        assert_eq!(new["status"]["conditions"][0]["reason"], "ShortNamesConflict");
        assert!(is_true(&new, "Established"));
    }

    #[test]
    fn groups_of_the_project_want_an_approval() {
        let of = |annotations: Value| {
            let mut definition = definition("foos.example.com", "foos", "Foo");
            definition["spec"]["group"] = "x.k8s.io".into();
            definition["metadata"]["annotations"] = annotations;
            let new = with_conditions(&definition, &[]);
            let found = tree::list(&new, "/status/conditions").iter();
            let mut found = found.filter(|c| c["type"] == "KubernetesAPIApprovalPolicyConformant");
            let condition = found.next().cloned().unwrap_or_default();
            format!("{} {}", tree::text(&condition, "/reason"), tree::text(&condition, "/message"))
        };
        const NAME: &str = "api-approved.kubernetes.io";
        assert_eq!(of(json!({NAME: "https://example.com/1"})), "ApprovedAnnotation approved in https://example.com/1");
        assert_eq!(of(json!({NAME: "unapproved, x"})), "UnapprovedAnnotation not approved: \"unapproved, x\"");
        assert!(of(json!({NAME: "x"})).starts_with("InvalidAnnotation protected groups must have"));
        assert!(of(json!({})).starts_with("MissingAnnotation protected groups must have"));
    }
}
