//! PodSecurity: what a namespace's labels demand of pods, to enforce, to warn of, or to note.
//!
//! ```text
//!  labels, settings ─▶ policy: level and release per mode ─▶ checks of that release ─▶ refusal, warning, audit log
//!  labels that change ─▶ the pods that are there ─▶ warnings
//! ```
//! The checks are pure.

mod checks;
mod level;
mod pod;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::cache::Object;
use crate::codec;
use crate::metrics::{Judged, Looked};
use crate::status::{Failure, FieldError, Result, joined};
use crate::strategy::Part;
use crate::tree;
use crate::validation::names::{self, Complaints};

use level::{Demand, Level, PREFIX, Policy, Version};
use pod::Pod;

/// What namespaces without labels demand, and what nothing is demanded of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PodSecuritySettings {
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        let (level, version) = (|| "privileged".to_owned(), || "latest".to_owned());
        Self {
            enforce: level(),
            enforce_version: version(),
            audit: level(),
            audit_version: version(),
            warn: level(),
            warn_version: version(),
        }
    }
}

impl Defaults {
    /// Mode, level and version.
    fn modes(&self) -> [(&'static str, &str, &str); 3] {
        [
            ("enforce", &self.enforce, &self.enforce_version),
            ("warn", &self.warn, &self.warn_version),
            ("audit", &self.audit, &self.audit_version),
        ]
    }

    /// What was checked when it was read.
    fn policy(&self) -> Policy {
        let demand = |level: &str, version: &str| Demand {
            level: Level::parse(level).unwrap_or(Level::Restricted),
            version: Version::parse(version).unwrap_or(Version::Latest),
        };
        Policy {
            enforce: demand(&self.enforce, &self.enforce_version),
            audit: demand(&self.audit, &self.audit_version),
            warn: demand(&self.warn, &self.warn_version),
        }
    }
}

impl PodSecuritySettings {
    /// What is wrong with them, in upstream's words.
    pub(super) fn errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (mode, level, version) in self.defaults.modes() {
            if let Err(why) = Level::parse(level) {
                errors.push(FieldError::invalid(format!("defaults.{mode}"), level, why));
            }
            if let Err(why) = Version::parse(version) {
                errors.push(FieldError::invalid(format!("defaults.{mode}-version"), version, why));
            }
        }
        let of_user = |name: &str| if name.is_empty() { vec!["username must not be empty".into()] } else { Vec::new() };
        let exempt = &self.exemptions;
        unique("namespaces", &exempt.namespaces, names::dns1123_label, &mut errors);
        unique("runtimeClasses", &exempt.runtime_classes, names::dns1123_subdomain, &mut errors);
        unique("usernames", &exempt.usernames, of_user, &mut errors);
        errors
    }

    /// Whether nothing is demanded of a namespace.
    fn exempts_namespace(&self, namespace: &str) -> bool {
        has(&self.exemptions.namespaces, namespace)
    }

    /// Why nothing is demanded of a request.
    fn exemption(&self, namespace: &str, user: &str) -> Option<&'static str> {
        match &self.exemptions {
            exempt if has(&exempt.namespaces, namespace) => Some("namespace"),
            exempt if has(&exempt.usernames, user) => Some("user"),
            _ => None,
        }
    }

    /// Whether nothing is demanded of pods like this.
    fn exempts_pod(&self, spec: &Value) -> bool {
        has(&self.exemptions.runtime_classes, tree::text(spec, "/runtimeClassName"))
    }
}

fn has(list: &[String], name: &str) -> bool {
    !name.is_empty() && list.iter().any(|known| known == name)
}

fn unique(field: &str, list: &[String], form: impl Fn(&str) -> Complaints, errors: &mut Vec<FieldError>) {
    for (index, name) in list.iter().enumerate() {
        let field = format!("exemptions.{field}[{index}]");
        let complaints = form(name);
        if !complaints.is_empty() {
            errors.push(FieldError::invalid(field, name, complaints.join(", ")));
        } else if list[..index].contains(name) {
            errors.push(FieldError::duplicate(field, name));
        }
    }
}

/// Refuses pods that the namespace forbids, and warns of what it does not like.
pub(super) fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    match (call.kind.group, call.kind.plural) {
        ("", "namespaces") if matches!(operation, Operation::Create | Operation::Update(Part::Main)) => {
            check_labels(call, new, old)
        }
        ("", "pods") if is_looked_at(operation) => {
            check_pod(call, operation, (true, new), || is_significant(operation, new, old))
        }
        ("", "pods") => Ok(()),
        _ if matches!(operation, Operation::Create | Operation::Update(Part::Main)) => {
            check_pod(call, operation, (false, new), || true)
        }
        _ => Ok(()),
    }
}

/// Whether a write may change what a pod does.
fn is_looked_at(operation: Operation) -> bool {
    matches!(operation, Operation::Create | Operation::Update(Part::Main | Part::EphemeralContainers | Part::Resize))
}

/// Whether a pod may do something that it did not before.
fn is_significant(operation: Operation, new: &Value, old: Option<&Value>) -> bool {
    let old = match (operation, old) {
        (Operation::Create, _) | (_, None) => return operation == Operation::Create,
        (Operation::Update(Part::Main | Part::EphemeralContainers), Some(old)) => old,
        (Operation::Update(_), Some(_)) => return false,
    };
    let images = |pod: &Value, list: &str| -> Vec<Value> {
        tree::list(pod, list).iter().map(|c| serde_json::json!([c["name"], c["image"]])).collect()
    };
    let same = |list: &str| images(new, list) == images(old, list);
    let known = images(old, "/spec/ephemeralContainers");
    !same("/spec/containers")
        || !same("/spec/initContainers")
        || images(new, "/spec/ephemeralContainers").iter().any(|image| !known.contains(image))
}

/// Looks at a pod, or at what will make pods: of those nothing is refused.
fn check_pod(
    call: &Call,
    operation: Operation,
    (is_pod, new): (bool, &Value),
    is_significant: impl FnOnce() -> bool,
) -> Result<()> {
    let Some((spec, metadata)) = pod_of(call, new) else { return Ok(()) };
    let looked = Looked {
        operation: if operation == Operation::Create { "create" } else { "update" },
        resource: if is_pod { "pod" } else { "controller" },
        subresource: &call.info.subresource,
    };
    let counted = &call.app.metrics.admission;
    let judged = |is_allowed: bool, mode: &'static str, demand: Demand| {
        let version = demand.told_version();
        counted.judged(looked, Judged { is_allowed, mode, level: demand.level.name(), version: &version });
    };
    let settings = &call.app.config.admission.pod_security;
    let exempt = |why: &str| {
        counted.exempted(looked);
        call.record.annotate(&format!("{PREFIX}exempt"), why.to_owned());
    };
    if let Some(why) = settings.exemption(call.namespace(), &call.user.name) {
        exempt(why);
        return Ok(());
    }
    let Some(namespace) = call.app.cache.known("", "namespaces").get("", call.namespace()) else { return Ok(()) };
    let (policy, errors) = Policy::of(|key| namespace.label(key), &settings.defaults.policy());
    let is_open = |demand: Demand| demand.level == Level::Privileged;
    if errors.is_empty() && is_open(policy.warn) && is_open(policy.audit) && (!is_pod || is_open(policy.enforce)) {
        if is_pod {
            judged(true, "enforce", policy.enforce);
            call.record.annotate(&format!("{PREFIX}enforce-policy"), "privileged:latest".to_owned());
        }
        return Ok(());
    }
    if !is_significant() {
        return Ok(());
    }
    if settings.exempts_pod(spec) {
        exempt("runtimeClass");
        return Ok(());
    }
    if !errors.is_empty() {
        counted.misread(looked);
    }
    let pod = Pod::new(spec, metadata);
    let enforced = if is_pod { checks::details(policy.enforce, &pod) } else { None };
    if is_pod {
        judged(enforced.is_none(), "enforce", policy.enforce);
    }
    let audited = checks::details(policy.audit, &pod);
    if audited.is_some() {
        judged(false, "audit", policy.audit);
    }
    if call.record.is_on() {
        note(call, (is_pod, audited), &policy, &errors);
    }
    if let Some(text) = enforced {
        let why = format!("violates PodSecurity \"{}\": {text}", policy.enforce);
        return Err(Failure::forbidden(call.subject(), tree::name_given(new), &why));
    }
    if let Some(text) = checks::details(policy.warn, &pod) {
        judged(false, "warn", policy.warn);
        call.warn(format!("would violate PodSecurity \"{}\": {text}", policy.warn));
    }
    Ok(())
}

/// Notes for the audit log what was enforced, and what is to be seen there only.
fn note(call: &Call, (is_pod, audited): (bool, Option<String>), policy: &Policy, errors: &[FieldError]) {
    let annotate = |key: &str, text: String| call.record.annotate(&format!("{PREFIX}{key}"), text);
    if !errors.is_empty() {
        annotate("error", format!("Failed to parse policy: {}", joined(errors)));
    }
    if is_pod {
        annotate("enforce-policy", policy.enforce.to_string());
    }
    if let Some(text) = audited {
        annotate("audit-violations", format!("would violate PodSecurity \"{}\": {text}", policy.audit));
    }
}

/// Labels that change must be ones that can be read; who demands more is told which pods do not meet it.
fn check_labels(call: &Call, namespace: &Value, old: Option<&Value>) -> Result<()> {
    let settings = &call.app.config.admission.pod_security;
    let defaults = settings.defaults.policy();
    let name = tree::text(namespace, "/metadata/name");
    let of = |object: &Value| Policy::of(|key| object["metadata"]["labels"][key].as_str(), &defaults);
    let ((policy, errors), before) = (of(namespace), old.map(of));
    if !errors.is_empty() && before.as_ref().is_none_or(|(_, known)| joined(known) != joined(&errors)) {
        return Err(Failure::invalid(call.kind_subject(), name, &errors));
    }
    let is_stricter = before.as_ref().is_none_or(|(known, _)| {
        let (now, then) = (policy.enforce, known.enforce);
        now.level != Level::Privileged && (now.version != then.version || now.level > then.level)
    });
    if !is_stricter {
        return Ok(());
    }
    if settings.exempts_namespace(name) {
        let label = |key: &str| namespace["metadata"]["labels"][key].as_str();
        policy.ignored(name, label, &defaults).into_iter().for_each(|text| call.warn(text));
    } else if before.is_some() {
        complaints(call, name, policy.enforce).into_iter().for_each(|text| call.warn(text));
    }
    Ok(())
}

/// The most pods that are looked at when the labels of their namespace change, and for how long.
const MAX_PODS: usize = 3000;
const MAX_TIME: Duration = Duration::from_secs(1);

/// What the pods of a namespace do that it is to forbid.
fn complaints(call: &Call, namespace: &str, demand: Demand) -> Vec<String> {
    let pods = pods_in(call, namespace);
    let total = pods.len();
    let begun = Instant::now();
    let looked_at = pods.into_iter().take(MAX_PODS).take_while(|_| begun.elapsed() < MAX_TIME);
    let (mut checked, mut found) = (0, BTreeMap::<String, Vec<String>>::new());
    for pod in looked_at {
        checked += 1;
        let violations = checks::violations(demand, &Pod::new(&pod["spec"], &pod["metadata"]));
        if !violations.is_empty() {
            let reasons: Vec<&str> = violations.iter().map(|violation| violation.reason).collect();
            found.entry(reasons.join(", ")).or_default().push(tree::text(&pod, "/metadata/name").to_owned());
        }
    }
    let mut texts = Vec::new();
    if checked < total {
        texts.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        texts.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{demand}\""
        ));
    }
    let mut by_pod: Vec<String> = found.iter().map(|(reasons, names)| told(reasons, names)).collect();
    by_pod.sort();
    texts.extend(by_pod);
    texts
}

/// `a (and 2 other pods): what they do`.
fn told(reasons: &str, names: &[String]) -> String {
    let first = names.iter().min().map_or("", String::as_str);
    match names.len() {
        0 | 1 => format!("{first}: {reasons}"),
        2 => format!("{first} (and 1 other pod): {reasons}"),
        many => format!("{first} (and {} other pods): {reasons}", many - 1),
    }
}

/// The pods of a namespace that something may be demanded of; one of each controller comes first.
fn pods_in(call: &Call, namespace: &str) -> Vec<Value> {
    let storage = call.app.cache.known("", "pods");
    let objects = storage.snapshot();
    let own = objects.values().filter(|pod| pod.namespace() == namespace);
    let read = |pod: &Arc<Object>| codec::to_value(storage, storage.kind, pod).ok();
    let settings = &call.app.config.admission.pod_security;
    let pods = own.filter_map(read).filter(|pod| !settings.exempts_pod(&pod["spec"]));
    let mut controllers = HashSet::new();
    let (mut first, others): (Vec<Value>, Vec<Value>) = pods.partition(|pod| {
        let owners = tree::list(pod, "/metadata/ownerReferences");
        let controller = owners.iter().find(|owner| owner["controller"] == true);
        controller.is_none_or(|owner| controllers.insert(tree::text(owner, "/uid").to_owned()))
    });
    first.extend(others);
    first
}

/// Spec and metadata of a pod, or of the pods that an object will make.
fn pod_of<'v>(call: &Call, value: &'v Value) -> Option<(&'v Value, &'v Value)> {
    let pointer = match (call.kind.group, call.kind.plural) {
        ("", "pods") => "",
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    let pod = if pointer.is_empty() { value } else { tree::at(value, pointer)? };
    pod["spec"].is_object().then_some((&pod["spec"], &pod["metadata"]))
}
