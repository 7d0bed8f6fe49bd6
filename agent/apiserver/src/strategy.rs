//! Where kinds differ: what a client may set when, and what makes an object valid.
//!
//! All of it is pure: trees in, trees and field errors out. What needs other objects is admission.

mod certificate;
mod gated;
mod meta;
mod pod;
mod storage;
mod workload;

use api::Kind;
use api::features::Features;
use serde_json::{Value, json};

use crate::app::{Call, now_text};
use crate::codec;
use crate::tree;
use crate::user::User;

pub use pod::qos_class;

/// The part of an object that a request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object itself.
    Main,
    /// Its status.
    Status,
    /// The finalizers in a namespace's spec.
    Finalize,
    /// The conditions of a certificate signing request.
    Approval,
    /// A pod's ephemeral containers.
    EphemeralContainers,
    /// A pod's resources.
    Resize,
    /// What this server itself changes, such as a pod's node: taken as it is.
    Internal,
}

/// Kinds without a generation although they have a spec.
const NO_GENERATION: &[&str] = &[
    "services",
    "nodes",
    "namespaces",
    "persistentvolumes",
    "persistentvolumeclaims",
    "resourcequotas",
    "limitranges",
    "horizontalpodautoscalers",
    "leases",
    "leasecandidates",
    "clustertrustbundles",
    "apiservices",
    "certificatesigningrequests",
    "ipaddresses",
    "volumeattachments",
    "csinodes",
    "resourceclaims",
    "resourceclaimtemplates",
    "servicecidrs",
    "csidrivers",
    "podcertificaterequests",
    "podgroups",
    "resourcepoolstatusrequests",
    "storageversionmigrations",
    "storageversions",
    "workloads",
];

/// Kinds without a spec that have a generation all the same.
const GENERATION: &[&str] = &[
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "priorityclasses",
    "endpointslices",
    "podtemplates",
];

fn has_generation(kind: &Kind) -> bool {
    let has_spec = kind.schema().field("spec").is_some() || crate::custom::is_custom(kind);
    (has_spec && !NO_GENERATION.contains(&kind.plural)) || GENERATION.contains(&kind.plural)
}

fn has_status(kind: &Kind) -> bool {
    kind.subresource("status").is_some()
}

/// Whether a write without a resource version is taken.
#[must_use]
pub fn allows_unconditional_update(kind: &Kind) -> bool {
    !crate::custom::is_custom(kind)
        && !matches!(
            kind.plural,
            "leases"
                | "leasecandidates"
                | "clustertrustbundles"
                | "customresourcedefinitions"
                | "apiservices"
                | "poddisruptionbudgets"
                | "validatingwebhookconfigurations"
                | "mutatingwebhookconfigurations"
                | "validatingadmissionpolicies"
                | "validatingadmissionpolicybindings"
                | "mutatingadmissionpolicies"
                | "mutatingadmissionpolicybindings"
                | "csinodes"
                | "csidrivers"
                | "csistoragecapacities"
                | "volumeattachments"
                | "runtimeclasses"
                | "podcertificaterequests"
                | "resourcepoolstatusrequests"
                | "storageversionmigrations"
                | "storageversions"
        )
}

/// Whether a PUT to a name that is not there makes the object.
#[must_use]
pub fn allows_create_on_update(kind: &Kind) -> bool {
    matches!(
        (kind.group, kind.plural),
        ("", "endpoints" | "events" | "limitranges" | "podtemplates" | "services")
            | ("coordination.k8s.io", "leases" | "leasecandidates")
            | ("events.k8s.io", "events")
            | ("rbac.authorization.k8s.io", _)
            | ("node.k8s.io", "runtimeclasses")
    )
}

/// Whether the answer to a deletion is the object, not a Status.
#[must_use]
pub fn returns_deleted_object(kind: &Kind) -> bool {
    kind.group == "resource.k8s.io"
        || matches!(
            kind.plural,
            "pods"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
                | "storageclasses"
                | "volumeattachments"
                | "csidrivers"
                | "csinodes"
                | "volumeattributesclasses"
        )
}

/// What becomes of dependents when the client does not say.
#[must_use]
pub fn default_propagation(kind: &Kind) -> &'static str {
    if matches!(kind.plural, "replicationcontrollers" | "jobs") { "Orphan" } else { "Background" }
}

/// Seconds an object gets to end by itself; 0 lets it go at once.
#[must_use]
pub fn grace_period(kind: &Kind, value: &Value, asked: Option<i64>) -> i64 {
    if kind.plural != "pods" || !kind.group.is_empty() {
        return 0;
    }
    let done = matches!(tree::text(value, "/status/phase"), "Succeeded" | "Failed");
    if tree::text(value, "/spec/nodeName").is_empty() || done {
        return 0;
    }
    let own = tree::integer(value, "/spec/terminationGracePeriodSeconds");
    match asked.or(own).unwrap_or(30) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

/// Gives fields what older clients said by annotations. Says what is out of date.
pub fn adopt_annotations(kind: &'static Kind, value: &mut Value) -> Vec<String> {
    match (kind.group, kind.plural) {
        ("", "pods") => pod::adopt_profiles(value),
        _ => Vec::new(),
    }
}

/// Sets what the server decides about a new object that `user` asks for.
pub fn prepare_create(kind: &'static Kind, value: &mut Value, user: &User, features: &Features) {
    meta::prepare_create(value);
    if has_generation(kind) {
        value["metadata"]["generation"] = 1.into();
    }
    if has_status(kind) && kind.plural != "nodes" {
        tree::remove(value, "status");
    }
    gated::drop(kind, value, None, features);
    match (kind.group, kind.plural) {
        ("", "pods") => pod::prepare_create(value, features),
        ("", "namespaces") => {
            let finalizers = tree::list_at(&mut value["spec"], "finalizers");
            if !finalizers.iter().any(|name| name == "kubernetes") {
                finalizers.push("kubernetes".into());
            }
            value["status"] = json!({"phase": "Active"});
        }
        // Of all kinds this one needs no name from its client.
        ("", "limitranges") if tree::text(value, "/metadata/name").is_empty() => {
            value["metadata"]["name"] = uuid::Uuid::new_v4().to_string().into();
        }
        ("", "persistentvolumes") => {
            value["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now_text()});
        }
        ("", "persistentvolumeclaims") => {
            value["status"] = json!({"phase": "Pending"});
            storage::normalize_claim(value, None, features);
        }
        ("apiregistration.k8s.io", _) => storage::local_api_service(value),
        ("", "nodes") => {
            tree::remove(&mut value["spec"], "configSource");
            if value["status"].is_object() {
                tree::remove(&mut value["status"], "config");
            }
        }
        ("batch", "jobs") => workload::prepare_job(value),
        ("apps", "daemonsets") => workload::set_template_generation(value, 1),
        ("certificates.k8s.io", "certificatesigningrequests") => certificate::prepare_create(value, user),
        ("apiextensions.k8s.io", _) => prepare_definition(value),
        ("", "serviceaccounts") => keep_secret_names(value),
        _ => {}
    }
}

/// Of the secrets of an account only the names are told.
fn keep_secret_names(account: &mut Value) {
    for secret in account.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = secret["name"].take();
        *secret = if name.is_string() { json!({"name": name}) } else { json!({}) };
    }
}

/// Kinds whose metadata a write of the status leaves as it is.
const STATUS_ALONE: &[&str] = &[
    "validatingadmissionpolicies",
    "servicecidrs",
    "resourceclaims",
    "devicetaintrules",
    "volumeattachments",
    "flowschemas",
    "prioritylevelconfigurations",
    "podcertificaterequests",
    "podgroups",
    "resourcepoolstatusrequests",
    "storageversionmigrations",
    "storageversions",
];

fn prepare_definition(value: &mut Value) {
    let stored = tree::list(value, "/spec/versions").iter().find(|v| v["storage"] == true);
    let stored = stored.map(|version| json!([version["name"]]));
    value["status"] = json!({
        "conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored,
    });
}

/// Makes what a client sent into the successor of `old`: keeps what this part of the object may not change.
pub fn prepare_update(kind: &'static Kind, part: Part, new: &mut Value, old: &Value, features: &Features) {
    meta::prepare_update(new, old);
    match part {
        Part::Main => {
            if has_status(kind) {
                tree::copy_key(new, old, "status");
            }
            main_keeps(kind, new, old, features);
        }
        Part::Status => prepare_status(kind, new, old),
        Part::Finalize => keep_all_but_list(new, old, ("spec", "finalizers")),
        Part::Approval => {
            keep_all_but_list(new, old, ("status", "conditions"));
            certificate::stamp(new, old);
        }
        Part::EphemeralContainers => {
            keep_all_but_list(new, old, ("spec", "ephemeralContainers"));
            keep_meta(new, old);
        }
        // That containers come, go or change places is told by validation.
        Part::Resize if !pod::has_same_containers(new, old) => {}
        Part::Resize => {
            let wanted = new.clone();
            keep_all_but(new, old, &["metadata"]);
            keep_meta(new, old);
            pod::copy_resources(new, &wanted);
        }
        Part::Internal => return,
    }
    bump_generation(kind, part, new, old);
    if part != Part::Main || drops_late(kind) {
        gated::drop(kind, new, Some(old), features);
    }
}

/// Of what was sent only the metadata and one list of a section counts.
fn keep_all_but_list(new: &mut Value, old: &Value, (section, list): (&str, &str)) {
    let wanted = new.get(section).and_then(|section| section.get(list)).cloned().unwrap_or(Value::Null);
    keep_all_but(new, old, &["metadata"]);
    new[section][list] = wanted;
}

fn prepare_status(kind: &'static Kind, new: &mut Value, old: &Value) {
    let status = new.get("status").cloned().unwrap_or(Value::Null);
    keep_all_but(new, old, &["metadata"]);
    if status.is_null() {
        tree::remove(new, "status");
    } else {
        new["status"] = status;
    }
    status_keeps(kind, new, old);
    if kind.plural == "nodes" && !tree::has(old, "/status/config") && new["status"].is_object() {
        tree::remove(&mut new["status"], "config");
    }
    match kind.plural {
        "pods" => pod::prepare_status_update(new, old),
        "daemonsets" => workload::prepare_daemon_set_status_update(new, old),
        "deployments" => tree::copy_key(&mut new["metadata"], &old["metadata"], "labels"),
        "persistentvolumes" => keep_transition_time(new, old),
        // What is read has labels all the same: defaults know only the template.
        "jobs" | "replicationcontrollers" => crate::defaults::apply(kind, new),
        _ => {}
    }
    if STATUS_ALONE.contains(&kind.plural) || crate::custom::is_custom(kind) {
        keep_meta(new, old);
    }
}

/// Whether asking for what is switched off counts as a change.
fn drops_late(kind: &Kind) -> bool {
    matches!(kind.plural, "resourceslices" | "endpointslices")
}

/// Kinds that wish for something else once a list or map is there that holds nothing.
const BY_THE_LETTER: &[&str] = &["networkpolicies", "mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

/// When a volume's phase changed: now, unless the client says otherwise.
fn keep_transition_time(new: &mut Value, old: &Value) {
    let (phase, time) = ("/status/phase", "/status/lastPhaseTransitionTime");
    let before = tree::at(old, time).cloned().unwrap_or_default();
    let given = tree::at(new, time).cloned().unwrap_or_default();
    let same_phase = tree::text(new, phase) == tree::text(old, phase);
    let kept = match (same_phase, given.is_null()) {
        (true, true) => before,
        (false, true) => now_text().into(),
        (false, false) if given == before => now_text().into(),
        _ => return,
    };
    if !kept.is_null() {
        tree::object_at(new, "status").insert("lastPhaseTransitionTime".into(), kept);
    }
}

/// Puts back what a client sets in metadata by itself.
fn keep_meta(new: &mut Value, old: &Value) {
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        tree::copy_key(&mut new["metadata"], &old["metadata"], key);
    }
}

/// Puts everything back as it was but the version precondition and the keys named.
fn keep_all_but(new: &mut Value, old: &Value, keys: &[&str]) {
    let mut kept = old.clone();
    kept["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"].clone();
    for key in keys {
        kept[*key] = new[*key].clone();
    }
    *new = kept;
}

fn main_keeps(kind: &'static Kind, new: &mut Value, old: &Value, features: &Features) {
    if !drops_late(kind) {
        gated::drop(kind, new, Some(old), features);
    }
    match (kind.group, kind.plural) {
        ("", "serviceaccounts") => keep_secret_names(new),
        ("", "persistentvolumeclaims") => storage::normalize_claim(new, Some(old), features),
        ("", "namespaces") => {
            let finalizers = tree::at(old, "/spec/finalizers").cloned().unwrap_or(Value::Null);
            new["spec"]["finalizers"] = finalizers;
        }
        ("", "pods") => pod::prepare_update(new),
        ("", "nodes") if !tree::has(old, "/spec/configSource") => tree::remove(&mut new["spec"], "configSource"),
        ("apps", "daemonsets") => workload::prepare_daemon_set_update(new, old),
        ("apiextensions.k8s.io", _) => note_storage_version(new),
        ("certificates.k8s.io", "certificatesigningrequests") => tree::copy_key(new, old, "spec"),
        ("resource.k8s.io", "devicetaintrules") => stamp_taint(new, old),
        _ => {}
    }
}

/// Another effect of a taint begins now, unless the client says otherwise.
fn stamp_taint(new: &mut Value, old: &Value) {
    let part = |object: &Value, key: &str| tree::at(object, &format!("/spec/taint/{key}")).cloned();
    if part(new, "effect") != part(old, "effect") && part(new, "timeAdded") == part(old, "timeAdded") {
        new["spec"]["taint"]["timeAdded"] = now_text().into();
    }
}

/// What a change of the status may not change, besides the spec.
fn status_keeps(kind: &'static Kind, new: &mut Value, old: &Value) {
    let kept: &[&str] = match (kind.group, kind.plural) {
        ("networking.k8s.io", "servicecidrs")
        | ("resource.k8s.io", "resourceclaims")
        | ("storage.k8s.io", "volumeattachments") => {
            &["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"]
        }
        ("apiregistration.k8s.io", _) => &["labels", "annotations", "finalizers", "ownerReferences"],
        _ => &[],
    };
    for key in kept {
        tree::copy_key(&mut new["metadata"], &old["metadata"], key);
    }
    match (kind.group, kind.plural) {
        ("", "persistentvolumes") => storage::stamp_phase(new, old),
        ("resource.k8s.io", "resourceclaims") => storage::forget_devices(new, old),
        ("certificates.k8s.io", "certificatesigningrequests") => certificate::keep_decisions(new, old),
        _ => {}
    }
}

/// A change of what is wished for is a new generation.
fn bump_generation(kind: &'static Kind, part: Part, new: &mut Value, old: &Value) {
    // Drivers have none until the first change.
    if !has_generation(kind) && kind.plural != "csidrivers" {
        return;
    }
    let before = tree::integer(old, "/metadata/generation").unwrap_or(0);
    let wishes = !matches!(part, Part::Status | Part::Approval | Part::Finalize);
    let changed = wishes && kind.plural != "priorityclasses" && is_other(kind, new, old);
    if changed || before > 0 {
        new["metadata"]["generation"] = (before + i64::from(changed)).into();
    }
}

/// Whether two objects wish for different things: empty lists and maps are as good as none for most kinds, empty structs
/// for none.
fn is_other(kind: &'static Kind, new: &Value, old: &Value) -> bool {
    if crate::custom::is_custom(kind) {
        let body = |v: &Value| {
            let mut rest = v.clone();
            tree::remove(&mut rest, "metadata");
            if has_status(kind) {
                tree::remove(&mut rest, "status");
            }
            rest
        };
        return !tree::same(&body(new), &body(old));
    }
    let annotations = |v: &'_ Value| v["metadata"]["annotations"].clone();
    if kind.plural == "deployments" && !tree::same(&annotations(new), &annotations(old)) {
        return true;
    }
    if BY_THE_LETTER.contains(&kind.plural) {
        return new["spec"] != old["spec"] || new["webhooks"] != old["webhooks"];
    }
    if let Some(message) = kind.schema().field("spec").and_then(|spec| spec.ty.message()) {
        return new["spec"] != old["spec"] && !codec::is_same(message, &new["spec"], &old["spec"]);
    }
    // Slices are found by their labels.
    let labels = |v: &'_ Value| v["metadata"]["labels"].clone();
    if kind.plural == "endpointslices" && !tree::same(&labels(new), &labels(old)) {
        return true;
    }
    let body = |v: &Value| {
        let mut rest = v.clone();
        tree::remove(&mut rest, "metadata");
        rest
    };
    !codec::is_same(kind.schema(), &body(new), &body(old))
}

/// A definition's status lists every version that objects may be stored in, from the change that makes it so.
fn note_storage_version(definition: &mut Value) {
    let is_stored = |version: &&Value| version["storage"] == true;
    let stored = tree::list(definition, "/spec/versions").iter().find(is_stored).map(|version| version["name"].clone());
    let Some(stored) = stored else { return };
    let versions = tree::list_at(&mut definition["status"], "storedVersions");
    if !versions.contains(&stored) {
        versions.push(stored);
    }
}

fn is_daemon_set(kind: &Kind) -> bool {
    kind.plural == "daemonsets" && kind.group == "apps"
}

/// Encoded metadata as it is shown apart from its object, if that differs.
#[must_use]
pub fn shown_meta(kind: &Kind, meta: &[u8]) -> Option<Vec<u8>> {
    if is_daemon_set(kind) { workload::without_template_generation(meta) } else { None }
}

/// Shows the generation of a DaemonSet's template, which is there also where there is no set.
pub fn show_template_generation(object: &mut Value) {
    workload::set_template_generation(object, 0);
}

/// Makes an object's metadata that which is shown apart from it.
pub fn make_shown_meta(kind: &Kind, object: &mut Value) {
    if is_daemon_set(kind) {
        workload::hide_template_generation(&mut object["metadata"]);
    }
}

/// Whether nothing keeps an object that is being deleted.
#[must_use]
pub fn is_finished(kind: &Kind, value: &Value) -> bool {
    let deleting = tree::has(value, "/metadata/deletionTimestamp");
    let finalizers = tree::list(value, "/metadata/finalizers").is_empty();
    let grace = tree::integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0;
    let namespace = kind.plural != "namespaces" || tree::list(value, "/spec/finalizers").is_empty();
    deleting && finalizers && grace && namespace
}

/// Leaves of equal owners only the first, and warns of it.
pub fn drop_repeated_owners(call: &Call, value: &mut Value, admitted: bool) {
    let Some(owners) = value.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) else { return };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated = Vec::new();
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            repeated.push(tree::text(&owner, "/uid").to_owned());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if !repeated.is_empty() {
        call.warn(format!(
            ".metadata.ownerReferences contains duplicate entries{}; API server dedups owner references in 1.20+, and \
             may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            if admitted { " after mutating admission happens" } else { "" },
            repeated.join(", ")
        ));
    }
}

/// Adds to a new object, once it was found valid, what is to be stored of it besides. Tells whether there was anything.
pub fn complete_new(kind: &Kind, value: &mut Value) -> bool {
    kind.plural == "jobs" && kind.group == "batch" && workload::share_labels(value)
}

/// Whether the labels of a new object are those of its template, before defaults say so: these are one inside, so that
/// what is added to the ones is added to the others.
#[must_use]
pub fn shares_labels(kind: &Kind, value: &Value) -> bool {
    kind.plural == "jobs" && kind.group == "batch" && !tree::is_filled(value, "/metadata/labels")
}
