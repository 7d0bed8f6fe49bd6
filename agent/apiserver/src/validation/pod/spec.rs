//! The specification of a Pod.

use api::core::v1::{PodResourceClaim, PodSchedulingGate, PodSchedulingGroup, PodSpec};
use api::meta::v1::ObjectMeta;

use super::container::Scope;
use super::{
    Options, affinity, annotations, containers, dns, env, resources, security, spread, tolerations, volumes, windows,
};
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, labels, names, shown};

/// The spec of a Pod, or of a template, which has no metadata of a Pod.
pub(super) fn spec(path: &Path<'_>, spec: &PodSpec, meta: Option<&ObjectMeta>, options: Options, errors: &mut Errors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let valid = volumes::volumes(&path.child("volumes"), &spec.volumes, meta, options, errors);
    claims(&path.child("resourceClaims"), &spec.resource_claims, meta, errors);
    let scope = Scope { spec, volumes: &valid, options };
    containers::main(&path.child("containers"), scope, errors);
    containers::init(&path.child("initContainers"), scope, errors);
    containers::ephemeral(&path.child("ephemeralContainers"), scope, errors);
    resources::of_pod(path, scope, errors);
    network_ports(&path.child("containers"), spec, options, errors);
    policies(path, spec, errors);
    labels::labels(&path.child("nodeSelector"), &spec.node_selector, errors);
    security::of_pod(&path.child("securityContext"), spec, options, errors);
    if let Some(own) = &spec.affinity {
        affinity::affinity(&path.child("affinity"), own, options, errors);
    }
    dns::config(&path.child("dnsConfig"), spec, errors);
    for (i, gate) in spec.readiness_gates.iter().enumerate() {
        let at = path.child("readinessGates");
        let kind = &gate.condition_type;
        checks::text(&at.index(i).child("conditionType"), kind, names::qualified(kind), errors);
    }
    scheduling_gates(&path.child("schedulingGates"), &spec.scheduling_gates, errors);
    let at = path.child("topologySpreadConstraints");
    spread::constraints(&at, &spec.topology_spread_constraints, options, errors);
    windows::host_processes(path, spec, errors);
    security::host_users(path, spec, options, errors);
    dns::hostname_override(path, spec, errors);
    named(path, spec, errors);
    scheduling(path, spec, options, errors);
    operating_system(path, spec, errors);
    if let Some(group) = &spec.scheduling_group {
        scheduling_group(&path.child("schedulingGroup").child("podGroupName"), group, errors);
    }
    env::file_volumes(path, spec, errors);
}

/// The PodGroup that a Pod is scheduled with.
fn scheduling_group(path: &Path<'_>, group: &PodSchedulingGroup, errors: &mut Errors) {
    match &group.pod_group_name {
        Some(name) => checks::text(path, name, names::dns1123_subdomain(name), errors),
        None => {
            let why = "must specify one of: `podGroupName`";
            errors.push(FieldError::invalid(path, shown::optional_text(None), why));
        }
    }
}

fn policies(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let policies = ["Always", "OnFailure", "Never"];
    checks::one_of(&path.child("restartPolicy"), &spec.restart_policy, &policies, errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    checks::one_of(&path.child("dnsPolicy"), &spec.dns_policy, &policies, errors);
}

/// In the network of the node a container's port is the node's.
fn network_ports(path: &Path<'_>, spec: &PodSpec, options: Options, errors: &mut Errors) {
    if !spec.host_network {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().enumerate() {
            // That of a template is only set when Pods are made.
            if (options.is_pod || port.host_port != 0) && port.host_port != port.container_port {
                let at = path.index(i);
                let at = at.child("ports");
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(at.index(j).child("hostPort"), port.host_port, why));
            }
        }
    }
}

fn claims(path: &Path<'_>, claims: &[PodResourceClaim], meta: Option<&ObjectMeta>, errors: &mut Errors) {
    let mirrored = meta.is_some_and(|m| m.annotations.contains_key(annotations::MIRROR));
    for (i, claim) in claims.iter().enumerate() {
        if mirrored {
            errors.push(FieldError::forbidden("", "static pods do not support resource claims"));
            continue;
        }
        let path = path.index(i);
        let at = path.child("name");
        if claim.name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if claims.iter().take(i).any(|earlier| earlier.name == claim.name) {
            errors.push(FieldError::duplicate(at, &claim.name));
        } else {
            checks::text(&at, &claim.name, names::dns1123_label(&claim.name), errors);
        }
        let why = match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                Some("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
            }
            (None, None) => Some("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => None,
        };
        let shown = || shown::structure("k8s.io.api.core.v1.PodResourceClaim", claim);
        errors.extend(why.map(|why| FieldError::invalid(path, shown(), why)));
        let references = [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ];
        for (child, name) in references {
            if let Some(name) = name {
                checks::text(&path.child(child), name, names::dns1123_subdomain(name), errors);
            }
        }
    }
}

fn scheduling_gates(path: &Path<'_>, gates: &[PodSchedulingGate], errors: &mut Errors) {
    for (i, gate) in gates.iter().enumerate() {
        let path = path.index(i);
        checks::text(&path, &gate.name, names::qualified(&gate.name), errors);
        if gates.iter().take(i).any(|earlier| earlier.name == gate.name) {
            errors.push(FieldError::duplicate(path, &gate.name));
        }
    }
}

/// What has a name.
fn named(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let subdomains = [("serviceAccountName", &spec.service_account_name), ("nodeName", &spec.node_name)];
    for (child, name) in subdomains.iter().filter(|(_, name)| !name.is_empty()) {
        checks::text(&path.child(child), name, names::dns1123_subdomain(name), errors);
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        checks::in_range(&path.child("activeDeadlineSeconds"), seconds, (1, i32::MAX.into()), errors);
    }
    let labels = [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)];
    for (child, name) in labels.iter().filter(|(_, name)| !name.is_empty()) {
        checks::text(&path.child(child), name, names::dns1123_label(name), errors);
    }
}

fn scheduling(path: &Path<'_>, spec: &PodSpec, options: Options, errors: &mut Errors) {
    tolerations::tolerations(&path.child("tolerations"), &spec.tolerations, options, errors);
    dns::host_aliases(&path.child("hostAliases"), &spec.host_aliases, errors);
    let class = &spec.priority_class_name;
    if !class.is_empty() {
        checks::text(&path.child("priorityClassName"), class, names::dns1123_subdomain(class), errors);
    }
    if let Some(class) = &spec.runtime_class_name {
        checks::text(&path.child("runtimeClassName"), class, names::dns1123_subdomain(class), errors);
    }
    if let Some(policy) = &spec.preemption_policy {
        checks::one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"], errors);
    }
    resources::overhead(&path.child("overhead"), &spec.overhead, options.partial_huge_pages, errors);
}

fn operating_system(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None => {}
        Some("") => errors.push(FieldError::required(path.child("os").child("name"), "")),
        Some("linux") => windows::not_on_linux(path, spec, errors),
        Some("windows") => windows::only_on_windows(path, spec, errors),
        Some(other) => {
            errors.push(FieldError::not_supported(path.child("os"), shown::word(other), &["linux", "windows"]))
        }
    }
}
