//! Metadata, for every kind.
//!
//! Each kind's own rules look at it, and what all kinds share looks at it again: clients see an error as often as it
//! was found. What a kind adds to the common rules is a row of `rule`.

use api::Kind;
use api::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
use prost::Message;
use serde_json::Value;
use stdx::quoted;

use super::names::Complaints;
use super::storage_version::storage_version_name;
use super::{Errors, Path, checks, labels, names};
use crate::status::{Failure, FieldError, Result, Shown};
use crate::strategy::Part;

const METADATA: Path<'_> = Path::root("metadata");

/// How a kind's own rules look at the metadata.
struct Rule {
    /// What is wrong with a name.
    name: fn(&str) -> Complaints,
    /// Whether finalizers without a domain have to be known ones.
    known_finalizers: bool,
    /// Whether a new object is looked at.
    create: bool,
    /// What is looked at in a change, in this order.
    update: &'static [Look],
}

#[derive(Clone, Copy)]
enum Look {
    /// What may not change, and the rules of what may.
    Change,
    /// The rules of a new object.
    Whole,
}

const COMMON: Rule =
    Rule { name: names::dns1123_subdomain, known_finalizers: true, create: true, update: &[Look::Change] };
const CHANGE_THEN_WHOLE: Rule = Rule { update: &[Look::Change, Look::Whole], ..COMMON };
const WHOLE_THEN_CHANGE: Rule = Rule { update: &[Look::Whole, Look::Change], ..COMMON };
const WHOLE: Rule = Rule { update: &[Look::Whole], ..COMMON };
/// Any finalizer that is a qualified name.
const ANY_FINALIZER: Rule = Rule { known_finalizers: false, ..COMMON };
const NOTHING: Rule = Rule { create: false, update: &[], ..COMMON };

fn rule(kind: &Kind) -> Rule {
    match (kind.group, kind.plural) {
        _ if crate::custom::is_custom(kind) => ANY_FINALIZER,
        ("", "configmaps" | "secrets" | "endpoints" | "serviceaccounts" | "persistentvolumeclaims")
        | ("", "pods")
        | ("apps", "controllerrevisions")
        | ("networking.k8s.io", "ingresses" | "ingressclasses")
        | ("storage.k8s.io", "volumeattributesclasses") => CHANGE_THEN_WHOLE,
        ("", "persistentvolumes") => Rule { update: &[Look::Whole, Look::Whole], ..COMMON },
        ("", "limitranges")
        | ("discovery.k8s.io", "endpointslices")
        | ("flowcontrol.apiserver.k8s.io", _)
        | ("storage.k8s.io", "volumeattachments" | "csinodes") => WHOLE,
        ("", "nodes")
        | ("batch", "jobs")
        | ("storage.k8s.io", "storageclasses" | "csistoragecapacities")
        | ("resource.k8s.io", "resourceclaims" | "resourceclaimtemplates") => WHOLE_THEN_CHANGE,
        // Upstream declares the names of these.
        ("resource.k8s.io", "deviceclasses") => Rule { name: names::long_name, ..WHOLE_THEN_CHANGE },
        ("", "replicationcontrollers") => Rule { name: names::long_name, ..COMMON },
        ("", "namespaces") => Rule { name: names::dns1123_label, ..WHOLE_THEN_CHANGE },
        ("", "services") | ("apps", "statefulsets") => Rule { name: names::dns1123_label, ..COMMON },
        ("", "events") => NOTHING,
        ("events.k8s.io", _) => COMMON,
        ("policy", _) => NOTHING,
        ("networking.k8s.io", "ipaddresses") => Rule { name: ip_name, ..WHOLE_THEN_CHANGE },
        ("rbac.authorization.k8s.io", _) => Rule { name: names::path_segment, ..WHOLE_THEN_CHANGE },
        ("certificates.k8s.io", "podcertificaterequests") => COMMON,
        ("internal.apiserver.k8s.io", _) => Rule { name: storage_version_name, update: &[], ..COMMON },
        ("storagemigration.k8s.io", _) => WHOLE_THEN_CHANGE,
        ("certificates.k8s.io", _) => Rule { name: |_| Complaints::new(), ..WHOLE_THEN_CHANGE },
        ("node.k8s.io", _) => Rule { known_finalizers: false, ..WHOLE_THEN_CHANGE },
        ("admissionregistration.k8s.io", _) => Rule { known_finalizers: false, ..WHOLE },
        ("apiregistration.k8s.io", _) => {
            // The name is checked with what it is made of.
            Rule { name: |_| Complaints::new(), known_finalizers: false, ..CHANGE_THEN_WHOLE }
        }
        ("coordination.k8s.io", "leasecandidates") => Rule { name: names::config_key, ..ANY_FINALIZER },
        ("apiextensions.k8s.io" | "coordination.k8s.io", _) => ANY_FINALIZER,
        _ => COMMON,
    }
}

fn ip_name(name: &str) -> Complaints {
    match name.parse::<std::net::IpAddr>().map(|address| address.to_string()) {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        Ok(canonical) if canonical != name => vec![format!("must be in canonical form ({canonical:?})").into()],
        Ok(_) => Complaints::new(),
    }
}

/// The metadata of a tree.
///
/// # Errors
/// If it has values of other types than metadata has.
pub fn of(value: &Value) -> Result<ObjectMeta> {
    let schema = crate::codec::schema("k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let raw = api::transcode::value_to_proto(schema, &value["metadata"], &mut api::transcode::Report::default());
    ObjectMeta::decode(raw.map_err(Failure::internal)?.as_slice()).map_err(Failure::internal)
}

/// Errors of a new object's metadata by the kind's own rules.
pub fn of_new(kind: &Kind, meta: &ObjectMeta, errors: &mut Errors) {
    let rule = rule(kind);
    if rule.create {
        rule.whole(kind, meta, errors);
    }
}

/// Errors of a new object's metadata by the rules of all kinds; told if there are no others.
pub fn of_any_new(kind: &Kind, meta: &ObjectMeta, errors: &mut Errors) {
    generate_name(meta, names::path_segment, errors);
    whole(kind, meta, names::path_segment, errors);
}

/// Errors of a change of the metadata.
pub fn of_change(kind: &Kind, part: Part, (new, old): (&ObjectMeta, &ObjectMeta), errors: &mut Errors) {
    generate_name(new, names::path_segment, errors);
    whole(kind, new, names::path_segment, errors);
    change(new, old, errors);
    let rule = rule(kind);
    let looks = if part == Part::Main || rule.update.is_empty() { rule.update } else { &[Look::Change] };
    for look in looks {
        match look {
            Look::Whole => rule.whole(kind, new, errors),
            Look::Change => {
                change(new, old, errors);
                rule.known_finalizers(new, errors);
            }
        }
    }
}

/// Errors of the metadata of an object inside another.
pub fn of_embedded(meta: &ObjectMeta, errors: &mut Errors) {
    if !meta.name.is_empty() {
        checks::text(&METADATA.child("name"), &meta.name, names::path_segment(&meta.name), errors);
    }
    if !meta.namespace.is_empty() {
        let complaints = names::dns1123_label(&meta.namespace);
        checks::text(&METADATA.child("namespace"), &meta.namespace, complaints, errors);
    }
    checks::non_negative(&METADATA.child("generation"), meta.generation, errors);
    changeable(meta, errors);
    finalizers(meta, errors);
    managers(&meta.managed_fields, errors);
}

impl Rule {
    fn whole(&self, kind: &Kind, meta: &ObjectMeta, errors: &mut Errors) {
        if !NAMES_ALONE.contains(&kind.plural) {
            generate_name(meta, self.name, errors);
        }
        whole(kind, meta, self.name, errors);
        self.known_finalizers(meta, errors);
    }

    fn known_finalizers(&self, meta: &ObjectMeta, errors: &mut Errors) {
        if !self.known_finalizers {
            return;
        }
        let known = |f: &str| matches!(f, "kubernetes" | "orphan" | "foregroundDeletion") || f.contains('/');
        for (i, finalizer) in meta.finalizers.iter().enumerate().filter(|(_, f)| !known(f)) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(METADATA.child("finalizers").index(i), finalizer, why));
        }
    }
}

/// Kinds whose own rules look only at the name, not at what it is made from.
const NAMES_ALONE: [&str; 2] = ["deviceclasses", "replicationcontrollers"];

fn generate_name(meta: &ObjectMeta, name: fn(&str) -> Complaints, errors: &mut Errors) {
    if !meta.generate_name.is_empty() {
        let complaints = name(&without_dash(&meta.generate_name));
        checks::text(&METADATA.child("generateName"), &meta.generate_name, complaints, errors);
    }
}

fn whole(kind: &Kind, meta: &ObjectMeta, name: fn(&str) -> Complaints, errors: &mut Errors) {
    if meta.name.is_empty() {
        errors.push(FieldError::required(METADATA.child("name"), "name or generateName is required"));
    } else {
        checks::text(&METADATA.child("name"), &meta.name, name(&meta.name), errors);
    }
    if kind.namespaced {
        let complaints = names::dns1123_label(&meta.namespace);
        checks::text(&METADATA.child("namespace"), &meta.namespace, complaints, errors);
    }
    checks::non_negative(&METADATA.child("generation"), meta.generation, errors);
    changeable(meta, errors);
    finalizers(meta, errors);
    managers(&meta.managed_fields, errors);
}

/// A name of which only the beginning is known may end in a dash; what follows will be fine.
fn without_dash(base: &str) -> std::borrow::Cow<'_, str> {
    match base.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut kept: String = rest.to_owned();
            kept.pop();
            (kept + "a").into()
        }
        _ => base.into(),
    }
}

/// What is looked at in new objects and in changes.
fn changeable(meta: &ObjectMeta, errors: &mut Errors) {
    labels::labels(&METADATA.child("labels"), &meta.labels, errors);
    let annotations = METADATA.child("annotations");
    for key in meta.annotations.keys() {
        checks::text(&annotations, key, names::qualified(&key.to_lowercase()), errors);
    }
    if meta.annotations.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_ANNOTATION_BYTES {
        errors.push(FieldError::too_long(annotations, MAX_ANNOTATION_BYTES));
    }
    owners(&meta.owner_references, errors);
}

/// Most bytes in all annotations of an object.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

fn owners(owners: &[OwnerReference], errors: &mut Errors) {
    let path = METADATA.child("ownerReferences");
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        let parts = [
            ("apiVersion", version, "version must not be empty"),
            ("kind", &owner.kind, "must not be empty"),
            ("name", &owner.name, "must not be empty"),
            ("uid", &owner.uid, "must not be empty"),
        ];
        for (field, text, why) in parts {
            if text.is_empty() {
                errors.push(FieldError::invalid(path.child(field), "", why));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, shown(std::slice::from_ref(owner), false), why));
        }
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                None => controller = Some(name),
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    errors.push(FieldError::invalid(path, shown(owners, true), why));
                }
            }
        }
    }
}

/// Owners as error texts show them.
fn shown(owners: &[OwnerReference], as_list: bool) -> Shown {
    let schema = crate::codec::schema("k8s.io.apimachinery.pkg.apis.meta.v1.OwnerReference");
    let texts = owners.iter().map(|o| api::transcode::to_json(schema, o, None));
    let text = texts.map(|t| String::from_utf8_lossy(&t).into_owned()).collect::<Vec<_>>().join(",");
    Shown::spelled(if as_list { format!("[{text}]") } else { text })
}

fn finalizers(meta: &ObjectMeta, errors: &mut Errors) {
    let path = METADATA.child("finalizers");
    for finalizer in &meta.finalizers {
        checks::text(&path, finalizer, names::qualified(finalizer), errors);
    }
    let has = |name: &str| meta.finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let list = meta.finalizers.iter().map(|f| quoted(f).to_string()).collect::<Vec<_>>().join(",");
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, Shown::spelled(format!("[{list}]")), why));
    }
}

/// Longest name of a field manager, and of a subresource it wrote.
const MAX_MANAGER_LEN: usize = 128;
const MAX_SUBRESOURCE_LEN: usize = 256;

fn managers(entries: &[ManagedFieldsEntry], errors: &mut Errors) {
    let path = METADATA.child("managedFields");
    for (i, entry) in entries.iter().enumerate() {
        let at = path.index(i);
        if !matches!(entry.operation.as_str(), "Apply" | "Update") {
            errors.push(FieldError::invalid(at.child("operation"), &entry.operation, "must be `Apply` or `Update`"));
        }
        if !matches!(entry.fields_type.as_str(), "" | "FieldsV1") {
            errors.push(FieldError::invalid(at.child("fieldsType"), &entry.fields_type, "must be `FieldsV1`"));
        }
        if entry.manager.len() > MAX_MANAGER_LEN {
            errors.push(FieldError::too_long(at.child("manager"), MAX_MANAGER_LEN));
        }
        if entry.subresource.len() > MAX_SUBRESOURCE_LEN {
            errors.push(FieldError::too_long(at.child("subresource"), MAX_SUBRESOURCE_LEN));
        }
    }
}

fn change(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    if old.deletion_timestamp.is_some() {
        let mut added: Vec<&String> = new.finalizers.iter().filter(|f| !old.finalizers.contains(f)).collect();
        added.sort();
        added.dedup();
        if !added.is_empty() {
            let list = added.iter().map(|f| quoted(f).to_string()).collect::<Vec<_>>().join(", ");
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
            );
            errors.push(FieldError::forbidden(METADATA.child("finalizers"), why));
        }
    }
    if new.generation < old.generation {
        errors.push(FieldError::invalid(METADATA.child("generation"), new.generation, "must not be decremented"));
    }
    let texts =
        [("name", &new.name, &old.name), ("namespace", &new.namespace, &old.namespace), ("uid", &new.uid, &old.uid)];
    for (field, new, old) in texts {
        checks::immutable(&METADATA.child(field), (new, old), |text| Shown::from(text), errors);
    }
    let times = (new.deletion_timestamp.as_ref(), old.deletion_timestamp.as_ref());
    checks::immutable(&METADATA.child("deletionTimestamp"), (&times.0, &times.1), |time| time_text(*time), errors);
    let seconds = (new.deletion_grace_period_seconds, old.deletion_grace_period_seconds);
    let text = |seconds: &Option<i64>| Shown::spelled(seconds.map_or_else(|| "null".to_owned(), |s| s.to_string()));
    checks::immutable(&METADATA.child("deletionGracePeriodSeconds"), (&seconds.0, &seconds.1), text, errors);
    changeable(new, errors);
    managers(&new.managed_fields, errors);
}

fn time_text(time: Option<&Time>) -> Shown {
    match time.and_then(Time::unix) {
        Some(seconds) => Shown::from(api::time::format_seconds(seconds)),
        None => Shown::spelled("null"),
    }
}
