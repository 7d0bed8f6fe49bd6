//! Jobs.

use api::batch::v1::{Job, JobSpec};
use api::core::v1::{Affinity, Container, PodSpec, PodTemplateSpec};
use api::features::Features;
use api::meta::v1::ObjectMeta;

use super::{job_status, policies};
use crate::status::{FieldError, Shown};
use crate::strategy::Part;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::pod::{self, Options, warnings};
use crate::validation::workload;
use crate::validation::{Change, Context, Errors, Path, checks, names, shown};

const MAX_PARALLELISM: i32 = 100_000;
const MAX_FAILED_INDEXES: i32 = 100_000;
/// From so many completions on less can be told of each.
const MANY_COMPLETIONS: i32 = 100_000;
const MANY_PARALLELISM: i32 = 10_000;
const MANY_FAILED_INDEXES: i32 = 10_000;
const MAX_MANAGED_BY: usize = 63;
const INDEXED: &str = "Indexed";

/// Labels that tie a Job's Pods to it, those of old and those of today.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

pub fn job(change: &Change<'_, Job>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        return job_status::status(new, change.old.unwrap_or(new), errors);
    }
    let path = change.path("spec");
    let mut options = Options::of(
        change.old.map(|old| (&old.spec.template.spec, &old.spec.template.metadata)),
        change.context.features,
    );
    let mut labelled = true;
    if let Some(old) = change.old {
        let selector = old.spec.selector.as_ref();
        options.invalid_selector_values |= selector.is_some_and(labels::has_invalid_values);
        let labels = &old.spec.template.metadata.labels;
        labelled = labels.contains_key(NAME_LABELS[1]) && labels.contains_key(UID_LABELS[1]);
    }
    generated_selector(new, labelled, errors);
    selected_spec(&path, &new.spec, options, errors);
    host_names(new, errors);
    if let Some(old) = change.old {
        // The spec of a changed Job is looked at twice.
        selected_spec(&path, &new.spec, options, errors);
        updated(&path, new, old, change.context, errors);
    }
}

pub fn job_warnings(change: &Change<'_, Job>, out: &mut Vec<String>) {
    let (new, old) = (change.new, change.old);
    if change.part == Part::Status || old.is_some_and(|old| old.metadata.generation == new.metadata.generation) {
        return;
    }
    if old.is_none() {
        warnings::name_for_pods(&new.metadata.name, out);
    }
    spec_warnings(&Path::root("spec"), &new.spec, out);
}

/// Warnings about what a Job is to do.
pub(super) fn spec_warnings(path: &Path<'_>, spec: &JobSpec, out: &mut Vec<String>) {
    let many = spec.completions.unwrap_or(0) > MANY_COMPLETIONS && spec.parallelism.unwrap_or(0) > MANY_PARALLELISM;
    if spec.completion_mode.as_deref() == Some(INDEXED) && many {
        out.push(format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    warnings::template(&path.child("template"), &spec.template, out);
}

fn has_label(path: &Path<'_>, meta: &ObjectMeta, (key, value): (&str, &str), errors: &mut Errors) {
    let at = path.child("labels");
    let why = format!("must be '{value}'");
    match meta.labels.get(key) {
        None => errors.push(FieldError::required(at.key(key), why)),
        Some(own) if own != value => {
            errors.push(FieldError::invalid(at.key(key), workload::shown_labels(&meta.labels), why));
        }
        Some(_) => {}
    }
}

/// A selector that was made for the Job selects its Pods and no others.
fn generated_selector(job: &Job, labelled: bool, errors: &mut Errors) {
    if job.spec.manual_selector == Some(true) || job.spec.selector.is_none() {
        return;
    }
    let (uid, name) = (job.metadata.uid.as_str(), job.metadata.name.as_str());
    if uid.is_empty() {
        errors.push(FieldError::required("metadata.uid", ""));
    }
    let path = Path::root("spec");
    let at = path.child("template");
    let at = at.child("metadata");
    let mut expected = std::collections::BTreeMap::new();
    for i in if labelled { 0..2 } else { 0..1 } {
        for pair in [(UID_LABELS[i], uid), (NAME_LABELS[i], name)] {
            has_label(&at, &job.spec.template.metadata, pair, errors);
            expected.insert(pair.0.to_owned(), pair.1.to_owned());
        }
    }
    let selector = job.spec.selector.as_ref();
    if workload::usable(selector).is_some_and(|usable| !usable.matches(&expected)) {
        let shown = workload::shown_selector(selector);
        errors.push(FieldError::invalid(path.child("selector"), shown, "`selector` not auto-generated"));
    }
}

/// Pods of an indexed Job are called after it and their index.
fn host_names(job: &Job, errors: &mut Errors) {
    let Some(completions) = job.spec.completions.filter(|c| *c > 0) else { return };
    let name = &job.metadata.name;
    let longest = format!("{name}-{}", completions - 1);
    if job.spec.completion_mode.as_deref() == Some(INDEXED) && !names::dns1123_label(&longest).is_empty() {
        let why = format!("will not able to create pod with invalid DNS label: {longest}");
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
}

fn selected_spec(path: &Path<'_>, spec: &JobSpec, options: Options, errors: &mut Errors) {
    self::spec(path, spec, options, errors);
    let selector = spec.selector.as_ref();
    match selector {
        None => errors.push(FieldError::required(path.child("selector"), "")),
        Some(own) => {
            let allowed =
                SelectorOptions { allow_invalid_values: options.invalid_selector_values, ..SelectorOptions::default() };
            labels::selector(&path.child("selector"), own, allowed, errors);
        }
    }
    let own = &spec.template.metadata.labels;
    if workload::usable(selector).is_some_and(|usable| !usable.matches(own)) {
        let at = path.child("template");
        let at = at.child("metadata");
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(at.child("labels"), workload::shown_labels(own), why));
    }
}

/// What a Job is to do, but for whom it selects.
pub(super) fn spec(path: &Path<'_>, spec: &JobSpec, options: Options, errors: &mut Errors) {
    let numbers = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (name, number) in numbers {
        checks::non_negative_if_set(&path.child(name), number, errors);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(FieldError::required(path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        let at = path.child("managedBy");
        domain_path(&at, manager, errors);
        if manager.len() > MAX_MANAGED_BY {
            errors.push(FieldError::too_long(at, MAX_MANAGED_BY));
        }
    }
    completion_mode(path, spec, errors);
    policies::failure(&path.child("podFailurePolicy"), spec, errors);
    policies::success(&path.child("successPolicy"), spec, errors);
    policies::replacement(&path.child("podReplacementPolicy"), spec, errors);
    pod::template(&path.child("template"), &spec.template, options, errors);
    restart_policy(path, spec, errors);
}

/// A DNS subdomain, a slash and a path.
fn domain_path(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if text.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let parts = text.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty());
    let Some((host, rest)) = parts else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, text, why));
        return;
    };
    checks::text(path, host, names::dns1123_subdomain(host), errors);
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c);
    if !rest.bytes().all(fits) {
        let why = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(path, rest, why));
    }
}

fn completion_mode(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let mode = spec.completion_mode.as_deref();
    if let Some(mode) = mode {
        checks::supported(&path.child("completionMode"), mode, &["NonIndexed", INDEXED], errors);
    }
    if mode == Some(INDEXED) {
        indexed(path, spec, errors);
    } else if mode.is_none_or(|mode| mode == "NonIndexed") {
        let only_indexed =
            [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)];
        for (name, number) in only_indexed {
            if let Some(number) = number {
                errors.push(FieldError::invalid(path.child(name), number, "requires indexed completion mode"));
            }
        }
    }
}

fn indexed(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let (parallelism, failed) = (spec.parallelism, spec.max_failed_indexes);
    let Some(completions) = spec.completions else {
        errors.push(FieldError::required(path.child("completions"), "when completion mode is Indexed"));
        at_most(path, ("parallelism", parallelism, MAX_PARALLELISM), " when completion mode is Indexed", errors);
        at_most(path, ("maxFailedIndexes", failed, MAX_FAILED_INDEXES), "", errors);
        return;
    };
    at_most(path, ("parallelism", parallelism, MAX_PARALLELISM), " when completion mode is Indexed", errors);
    if let Some(failed) = failed.filter(|failed| *failed > completions) {
        let why = "must be less than or equal to completions";
        errors.push(FieldError::invalid(path.child("maxFailedIndexes"), failed, why));
    }
    at_most(path, ("maxFailedIndexes", failed, MAX_FAILED_INDEXES), "", errors);
    if completions > MANY_COMPLETIONS && spec.backoff_limit_per_index.is_some() {
        if failed.is_none() {
            let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            errors.push(FieldError::required(path.child("maxFailedIndexes"), why));
        }
        let when = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
        at_most(path, ("parallelism", parallelism, MANY_PARALLELISM), &when, errors);
        at_most(path, ("maxFailedIndexes", failed, MANY_FAILED_INDEXES), &when, errors);
    }
}

fn at_most(path: &Path<'_>, (name, number, most): (&str, Option<i32>, i32), when: &str, errors: &mut Errors) {
    if let Some(number) = number.filter(|number| *number > most) {
        let why = format!("must be less than or equal to {most}{when}");
        errors.push(FieldError::invalid(path.child(name), number, why));
    }
}

fn restart_policy(path: &Path<'_>, spec: &JobSpec, errors: &mut Errors) {
    let at = path.child("template");
    let at = at.child("spec");
    let at = at.child("restartPolicy");
    let policy = spec.template.spec.restart_policy.as_str();
    match policy {
        "" | "Always" => errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(at, shown::word(policy), why));
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(FieldError::not_supported(at, shown::word(policy), &["OnFailure", "Never"])),
    }
}

fn number(number: Option<i32>) -> Shown {
    number.map_or_else(|| Shown::spelled("null"), Shown::from)
}

/// What of a Job stays as it was.
fn updated(path: &Path<'_>, new: &Job, old: &Job, context: Context<'_>, errors: &mut Errors) {
    let (spec, before) = (&new.spec, &old.spec);
    completions(&path.child("completions"), spec, before, errors);
    workload::same_selector(spec.selector.as_ref(), before.selector.as_ref(), errors);
    template(path, new, old, context.features, errors);
    let mut same = |name: &str, same: bool, shown: &dyn Fn() -> Shown| {
        if !same {
            errors.push(FieldError::invalid(path.child(name), shown(), checks::IMMUTABLE));
        }
    };
    same("completionMode", spec.completion_mode == before.completion_mode, &|| {
        shown::optional_text(spec.completion_mode.as_ref())
    });
    same("podFailurePolicy", spec.pod_failure_policy == before.pod_failure_policy, &|| {
        shown::optional("k8s.io.api.batch.v1.PodFailurePolicy", spec.pod_failure_policy.as_ref())
    });
    same("backoffLimitPerIndex", spec.backoff_limit_per_index == before.backoff_limit_per_index, &|| {
        number(spec.backoff_limit_per_index)
    });
    same("managedBy", spec.managed_by == before.managed_by, &|| shown::optional_text(spec.managed_by.as_ref()));
    same("successPolicy", spec.success_policy == before.success_policy, &|| {
        shown::optional("k8s.io.api.batch.v1.SuccessPolicy", spec.success_policy.as_ref())
    });
}

fn completions(path: &Path<'_>, new: &JobSpec, old: &JobSpec, errors: &mut Errors) {
    if new.completions == old.completions {
        return;
    }
    if new.completion_mode.as_deref() != Some(INDEXED) {
        errors.push(FieldError::invalid(path, number(new.completions), checks::IMMUTABLE));
    } else if new.completions.is_some() && new.completions != new.parallelism {
        let why = "can only be modified in tandem with spec.parallelism";
        errors.push(FieldError::invalid(path, number(new.completions), why));
    }
}

/// The template may change while no Pods of it run: of it where they may run, and what they ask for.
fn template(path: &Path<'_>, new: &Job, old: &Job, features: &Features, errors: &mut Errors) {
    let suspended = old.spec.suspend == Some(true);
    let started = old.status.start_time.is_some() && !job_status::is_true(&old.status.conditions, "Suspended");
    let rests = suspended && !started && old.status.active == 0;
    let mutable_places = match features.is_on("MutableSchedulingDirectivesForSuspendedJobs") {
        true => rests,
        false => suspended && old.status.start_time.is_none(),
    };
    let mutable_resources = rests && features.is_on("MutablePodResourcesForSuspendedJobs");
    let own = &new.spec.template;
    let mut before = old.spec.template.clone();
    if mutable_places {
        let affinity = own.spec.affinity.as_ref();
        before.spec.affinity = with_nodes_of(before.spec.affinity.take(), affinity);
        before.spec.node_selector.clone_from(&own.spec.node_selector);
        before.spec.tolerations.clone_from(&own.spec.tolerations);
        before.metadata.annotations.clone_from(&own.metadata.annotations);
        before.metadata.labels.clone_from(&own.metadata.labels);
        before.spec.scheduling_gates.clone_from(&own.spec.scheduling_gates);
    }
    if mutable_resources {
        with_resources_of(&mut before.spec.containers, &own.spec.containers);
        with_resources_of(&mut before.spec.init_containers, &own.spec.init_containers);
    }
    if mutable_places || mutable_resources {
        if own.spec != before.spec {
            let shown = shown::structure::<PodSpec>("k8s.io.api.core.v1.PodSpec", &own.spec);
            errors.push(FieldError::invalid(path.child("template.spec"), shown, checks::IMMUTABLE));
        }
    } else if *own != before {
        let shown = shown::structure::<PodTemplateSpec>("k8s.io.api.core.v1.PodTemplateSpec", own);
        errors.push(FieldError::invalid(path.child("template"), shown, checks::IMMUTABLE));
    }
}

/// An affinity with the nodes of another one.
fn with_nodes_of(before: Option<Affinity>, own: Option<&Affinity>) -> Option<Affinity> {
    let nodes = own.and_then(|own| own.node_affinity.clone());
    match (before, own) {
        (None, None) => None,
        (None, Some(_)) => Some(Affinity { node_affinity: nodes, ..Affinity::default() }),
        (Some(before), own) => {
            let kept = Affinity { node_affinity: nodes, ..before };
            (own.is_some() || kept != Affinity::default()).then_some(kept)
        }
    }
}

fn with_resources_of(before: &mut [Container], own: &[Container]) {
    if before.len() == own.len() {
        for (before, own) in before.iter_mut().zip(own).filter(|(before, own)| before.name == own.name) {
            before.resources.clone_from(&own.resources);
        }
    }
}
