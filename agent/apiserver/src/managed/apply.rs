//! Server-side apply: what the configuration names is the applier's, what it no longer names goes.

use serde_json::Value;

use super::compare::{Comparison, equal, field_set};
use super::entries::{self, Entry, Manager};
use super::merge::{merge, remove, with_named_fields};
use super::reset;
use super::schema::{Target, Type};
use super::set::{Set, path_text};
use super::update::book;
use crate::status::{Failure, Result};
use crate::{codec, tree};

/// An applied configuration with who applies it.
pub struct Applying<'a> {
    /// The configuration.
    pub config: &'a Value,
    /// Who.
    pub manager: Manager,
    /// Whether fields of others are taken.
    pub force: bool,
    /// Now.
    pub now: &'a str,
}

/// What an apply comes to, before defaults.
pub struct Applied {
    /// The object with the configuration in it.
    pub object: Value,
}

/// Who owns what was there before anybody tracked it.
const BEFORE: &str = "before-first-apply";
/// Where kubectl keeps what it last applied by itself.
const LAST_APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
const LAST_APPLIED_KEY: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Applies a configuration to an object; to nothing when `live` is none.
pub fn apply(target: Target<'_>, live: Option<&Value>, applying: &Applying<'_>) -> Result<Applied> {
    let (kind, part, ty) = (target.kind, target.part, target.ty());
    let empty = codec::empty(kind)?;
    let mut base = live.unwrap_or(&empty).clone();
    let mut entries = entries::read(&base);
    tree::remove(&mut base["metadata"], "managedFields");
    if entries.is_empty() && live.is_some() {
        let before = Manager {
            name: BEFORE.to_owned(),
            applies: false,
            api_version: kind.api_version(),
            subresource: applying.manager.subresource.clone(),
        };
        book(target, (&empty, &base), &mut entries, (&before, applying.now));
    }
    entries::drop_unknown(kind, &mut entries);
    let at = entries.iter().position(|e| e.manager.is_same(&applying.manager));
    let last = at.map(|at| entries.remove(at));
    let filter = reset::filter(kind, part);
    let fields = filter.of_set(field_set(ty, applying.config));
    let merged = merge(ty, Some(&base), Some(applying.config));
    let object = match &last {
        Some(last) if !last.fields.is_empty() => prune(ty, &merged, &last.fields, (&entries, &fields)),
        _ => merged,
    };
    let Comparison { added, modified, removed } = filter.of(Comparison::of(ty, &base, &object));
    let written = added.union(&modified);
    resolve(ty, &mut entries, &written, &base, applying)?;
    for entry in &mut entries {
        entry.fields.subtract(&removed);
    }
    // An apply that changes nothing leaves the time, or the lack of one, as it was.
    let time = if equal(&object, &base) { last.and_then(|last| last.time) } else { Some(applying.now.to_owned()) };
    let fields = fields.difference(reset::stripped());
    entries.push(Entry { manager: applying.manager.clone(), time, fields });
    let mut object = object;
    entries::write(&mut object, entries);
    keep_annotation(&mut object, applying);
    Ok(Applied { object })
}

/// Where kubectl once kept what it applied by itself, it finds there what it applied last, whichever way.
fn keep_annotation(object: &mut Value, applying: &Applying<'_>) {
    let kept = object.pointer_mut(LAST_APPLIED).filter(|text| text.as_str().is_some_and(|text| !text.is_empty()));
    let Some(kept) = kept.filter(|_| applying.manager.name == "kubectl") else { return };
    let mut config = applying.config.clone();
    if let Some(all) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        all.remove(LAST_APPLIED_KEY);
    }
    *kept = format!("{}\n", api::transcode::go_json(&config)).into();
}

/// Takes away what the applier named before and nobody names now.
fn prune(ty: Type<'_>, merged: &Value, last: &Set, (others, own): (&[Entry], &Set)) -> Value {
    let last = with_named_fields(ty, last.clone());
    let pruned = remove(ty, merged, &last);
    let managed = others.iter().fold(own.clone(), |all, entry| all.union(&entry.fields));
    let in_merged = with_named_fields(ty, field_set(ty, merged));
    let in_pruned = with_named_fields(ty, field_set(ty, &pruned));
    // What somebody owns comes back.
    let kept = in_pruned.union(&with_named_fields(ty, managed));
    let pruned = remove(ty, merged, &in_merged.clone().difference(&kept));
    // So does what the applier never owned.
    let in_pruned = with_named_fields(ty, field_set(ty, &pruned));
    let gone = in_merged.difference(&in_pruned).intersection(&last);
    remove(ty, merged, &gone)
}

/// Fails on fields of other managers that would change, or takes them.
fn resolve(ty: Type<'_>, entries: &mut [Entry], written: &Set, live: &Value, applying: &Applying<'_>) -> Result<()> {
    let mut conflicts: Vec<(Manager, String)> = Vec::new();
    let kubectl = last_applied(ty, live, applying);
    for entry in entries.iter_mut() {
        let taken = entry.fields.clone().intersection(written);
        entry.fields.subtract(&taken);
        let disputed = match &kubectl {
            Some(own) => taken.difference(own),
            None => taken,
        };
        conflicts.extend(disputed.paths().iter().map(|path| (entry.manager.clone(), path_text(path))));
    }
    if conflicts.is_empty() || applying.force {
        return Ok(());
    }
    // Of one manager in the order of its set.
    conflicts.sort_by(|(a, _), (b, _)| a.cmp(b));
    Err(conflict(&conflicts))
}

/// What kubectl applied by itself before it applied through the server, where it still is so: changing that is no
/// conflict.
fn last_applied(ty: Type<'_>, live: &Value, applying: &Applying<'_>) -> Option<Set> {
    if applying.manager.name != "kubectl" {
        return None;
    }
    let config: Value = serde_json::from_str(tree::at(live, LAST_APPLIED)?.as_str()?).ok()?;
    if config["apiVersion"] != applying.manager.api_version.as_str() {
        return None;
    }
    let compared = Comparison::of(ty, &config, live);
    let own = field_set(ty, &config).difference(&compared.modified).difference(&compared.added);
    Some(own.difference(&compared.removed))
}

pub(super) fn conflict(conflicts: &[(Manager, String)]) -> Failure {
    let message = match conflicts {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {}: {path}", manager.shown()),
        many => {
            let mut lines = Vec::new();
            let mut last: Option<&Manager> = None;
            for (manager, path) in many {
                if last != Some(manager) {
                    lines.push(format!("conflicts with {}:", manager.shown()));
                    last = Some(manager);
                }
                lines.push(format!("- {path}"));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let mut failure = Failure::new(http::StatusCode::CONFLICT, "Conflict", message);
    for (manager, path) in conflicts {
        let text = format!("conflict with {}", manager.shown());
        failure = failure.with_field_cause("FieldManagerConflict", &text, path);
    }
    failure
}
