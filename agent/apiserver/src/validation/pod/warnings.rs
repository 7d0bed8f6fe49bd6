//! What is taken of a Pod, but is not what the client may think.

mod ports;
mod volumes;

use api::core::v1::{Container, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec};
use api::meta::v1::ObjectMeta;

use super::{annotations, each_container};
use crate::validation::{Change, Path, addresses, checks, names};
use stdx::quoted;

pub(in crate::validation) use volumes::claim;

/// Warnings, in the order in which they are told.
pub(in crate::validation) type Warnings = Vec<String>;

/// Labels of nodes that have other names now.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Warnings about a new Pod; about changed ones there are none.
pub(in crate::validation) fn pod(change: &Change<'_, Pod>, out: &mut Warnings) {
    let pod = change.new;
    if change.old.is_none() {
        let complaints = names::dns1123_label(&pod.metadata.name);
        if !complaints.is_empty() {
            let list = complaints.join(" ");
            out.push(format!("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{list}]"));
        }
        whole((&Path::root("metadata"), &Path::root("spec")), (&pod.metadata, &pod.spec), false, out);
    }
}

/// Warnings about a template of Pods.
pub(in crate::validation) fn template(path: &Path<'_>, template: &PodTemplateSpec, out: &mut Warnings) {
    whole((&path.child("metadata"), &path.child("spec")), (&template.metadata, &template.spec), true, out);
}

/// The name of an object that others are called after.
pub(in crate::validation) fn name_for_pods(name: &str, out: &mut Warnings) {
    let complaints = names::dns1123_label(name);
    if !complaints.is_empty() {
        let list = complaints.join(" ");
        out.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{list}]"));
    }
}

fn whole(
    (meta_path, path): (&Path<'_>, &Path<'_>),
    (meta, spec): (&ObjectMeta, &PodSpec),
    is_template: bool,
    out: &mut Warnings,
) {
    old_labels(path, spec, out);
    let at = meta_path.child("annotations");
    for (key, text) in OLD_ANNOTATIONS.iter().filter(|(key, _)| meta.annotations.contains_key(*key)) {
        out.push(format!("{}: {text}", at.key(key)));
    }
    volumes::volumes(&path.child("volumes"), &spec.volumes, out);
    repeated(path, spec, out);
    for name in ["memory", "ephemeral-storage"] {
        fraction(&path.child("overhead"), spec.overhead.get(name), name, out);
    }
    let context = spec.security_context.as_ref();
    if context.is_none_or(|c| c.seccomp_profile.is_none()) {
        old_seccomp(&at, meta, annotations::SECCOMP_POD, out);
    }
    each_container(path, spec, |path, container| {
        if container.security_context.as_ref().is_none_or(|c| c.seccomp_profile.is_none()) {
            old_seccomp(&at, meta, &format!("{}{}", annotations::SECCOMP_CONTAINER, container.name), out);
        }
        if is_template {
            old_app_armor(&at, meta, (spec, container), out);
        }
        amounts(&path.child("resources"), container, out);
        hidden_variables(&path.child("env"), container, out);
    });
    ports::ports(path, spec, out);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let at = path.child("terminationGracePeriodSeconds");
        out.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    null_selectors(&path.child("affinity"), spec, out);
    ips(path, spec, out);
}

pub(in crate::validation) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(old, _)| *old == key).map(|(_, text)| *text)
}

fn old_labels(path: &Path<'_>, spec: &PodSpec, out: &mut Warnings) {
    for key in spec.node_selector.keys() {
        out.extend(old_label(key).map(|text| format!("{}: {text}", path.child("nodeSelector").key(key))));
    }
    if let Some(nodes) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) {
        let at = path.child("affinity");
        let at = at.child("nodeAffinity");
        if let Some(required) = &nodes.required_during_scheduling_ignored_during_execution {
            let at = at.child("requiredDuringSchedulingIgnoredDuringExecution");
            for (i, term) in required.node_selector_terms.iter().enumerate() {
                node_term(&at.child("nodeSelectorTerms").index(i), term, false, out);
            }
        }
        let at = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in nodes.preferred_during_scheduling_ignored_during_execution.iter().enumerate() {
            node_term(&at.index(i).child("preference"), &term.preference, true, out);
        }
    }
    for (i, constraint) in spec.topology_spread_constraints.iter().enumerate() {
        let at = path.child("topologySpreadConstraints");
        let (at, key) = (at.index(i), &constraint.topology_key);
        out.extend(old_label(key).map(|text| format!("{}: {key} is {text}", at.child("topologyKey"))));
        if constraint.label_selector.is_none() {
            out.push(format!("{}: {NULL_SELECTOR}", at.child("labelSelector")));
        }
    }
}

pub(in crate::validation) fn node_term(path: &Path<'_>, term: &NodeSelectorTerm, values: bool, out: &mut Warnings) {
    for (i, expression) in term.match_expressions.iter().enumerate() {
        let at = path.child("matchExpressions");
        let (at, key) = (at.index(i), &expression.key);
        out.extend(old_label(key).map(|text| format!("{}: {key} is {text}", at.child("key"))));
        for (j, value) in expression.values.iter().enumerate().filter(|_| values) {
            let at = at.child("values");
            out.extend(
                names::label_value(value).iter().map(|why| format!("{}: {value} is invalid, {why}", at.index(j))),
            );
        }
    }
}

/// What is given twice.
fn repeated(path: &Path<'_>, spec: &PodSpec, out: &mut Warnings) {
    for (i, alias) in spec.host_aliases.iter().enumerate() {
        if spec.host_aliases.iter().take(i).any(|earlier| earlier.ip == alias.ip) {
            let at = path.child("hostAliases");
            out.push(format!("{}: duplicate ip {}", at.index(i).child("ip"), quoted(&alias.ip)));
        }
    }
    let secrets = &spec.image_pull_secrets;
    let at = path.child("imagePullSecrets");
    for (i, secret) in secrets.iter().enumerate() {
        if secrets.iter().take(i).any(|earlier| earlier.name == secret.name) {
            out.push(format!("{}: duplicate name {}", at.index(i).child("name"), quoted(&secret.name)));
        }
    }
    for (i, _) in secrets.iter().enumerate().filter(|(_, secret)| secret.name.is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", at.index(i).child("name")));
    }
}

/// Bytes come as a whole.
pub(in crate::validation) fn fraction(
    list: &Path<'_>,
    quantity: Option<&api::Quantity>,
    name: &str,
    out: &mut Warnings,
) {
    if let Some(quantity) = quantity.filter(|q| checks::amount(q).milli() % 1000 != 0) {
        let shown = quoted(&quantity.string);
        out.push(format!("{}: fractional byte value {shown} is invalid, must be an integer", list.key(name)));
    }
}

fn amounts(path: &Path<'_>, container: &Container, out: &mut Warnings) {
    let own = &container.resources;
    for name in ["memory", "ephemeral-storage"] {
        fraction(&path.child("limits"), own.limits.get(name), name, out);
        fraction(&path.child("requests"), own.requests.get(name), name, out);
    }
}

fn old_seccomp(path: &Path<'_>, meta: &ObjectMeta, key: &str, out: &mut Warnings) {
    if meta.annotations.contains_key(key) {
        out.push(format!("{}: non-functional in v1.27+; use the \"seccompProfile\" field instead", path.key(key)));
    }
}

fn old_app_armor(path: &Path<'_>, meta: &ObjectMeta, (spec, container): (&PodSpec, &Container), out: &mut Warnings) {
    if container.security_context.as_ref().is_some_and(|c| c.app_armor_profile.is_some()) {
        return;
    }
    let key = format!("{}{}", annotations::APP_ARMOR, container.name);
    let Some(annotation) = meta.annotations.get(&key) else { return };
    let of_pod = spec.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let same = of_pod.is_some_and(|profile| match (profile.r#type.as_str(), &profile.localhost_profile) {
        ("Unconfined", None) => annotation == "unconfined",
        ("RuntimeDefault", None) => annotation == "runtime/default",
        ("Localhost", Some(file)) => annotation.strip_prefix("localhost/") == Some(file),
        _ => false,
    });
    if !same {
        out.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", path.key(&key)));
    }
}

/// A variable that is given again without what it was before.
fn hidden_variables(path: &Path<'_>, container: &Container, out: &mut Warnings) {
    for (i, variable) in container.env.iter().enumerate() {
        if !container.env.iter().take(i).any(|earlier| earlier.name == variable.name) {
            continue;
        }
        let reference = format!("$({})", variable.name);
        let extends = variable.value.contains(&reference) && variable.value != reference;
        if variable.value_from.is_some() || !extends {
            let name = quoted(&variable.name);
            let at = path.index(i);
            out.push(format!("{at}: hides previous definition of {name}, which may be dropped when using apply"));
        }
    }
}

fn null_selectors(path: &Path<'_>, spec: &PodSpec, out: &mut Warnings) {
    for (name, required, preferred) in spec.affinity.iter().flat_map(super::affinity::pod_affinities) {
        let path = path.child(name);
        let at = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, _) in required.iter().enumerate().filter(|(_, term)| term.label_selector.is_none()) {
            out.push(format!("{}: {NULL_SELECTOR}", at.index(i).child("labelSelector")));
        }
        let at = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let none = |i: &usize| preferred[*i].pod_affinity_term.label_selector.is_none();
        for i in (0..preferred.len()).filter(none) {
            out.push(format!("{}: {NULL_SELECTOR}", at.index(i).child("podAffinityTerm").child("labelSelector")));
        }
    }
}

fn ips(path: &Path<'_>, spec: &PodSpec, out: &mut Warnings) {
    let servers = spec.dns_config.iter().flat_map(|c| &c.nameservers).enumerate();
    let at = path.child("dnsConfig");
    for (i, server) in servers {
        out.extend(addresses::ip_warning(&at.child("nameservers").index(i), server));
    }
    for (i, alias) in spec.host_aliases.iter().enumerate() {
        out.extend(addresses::ip_warning(&path.child("hostAliases").index(i).child("ip"), &alias.ip));
    }
}
