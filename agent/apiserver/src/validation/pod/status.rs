//! What is said of a running Pod.

use api::core::v1::{
    Container, ContainerRestartRule, ContainerStatus, LinuxContainerUser, Pod, PodCondition,
    PodExtendedResourceClaimStatus, PodSpec, PodStatus, ResourceStatus,
};

use super::{Options, update};
use crate::status::FieldError;
use crate::validation::{Errors, Path, addresses, checks, names, shown};

const BACK: &str = "may not be transitioned to non-terminated state";
const NEGATIVE: &str = "must be a non-negative integer";
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// A change of a Pod's status.
pub(super) fn status(new: &Pod, old: &Pod, options: Options, errors: &mut Errors) {
    update::annotation_updates(new, old, options, errors);
    let path = Path::root("status");
    let (after, before) = (&new.status, &old.status);
    conditions(&path.child("conditions"), &after.conditions, errors);
    if new.spec.node_name != old.spec.node_name {
        errors.push(FieldError::forbidden(path.child("nodeName"), "may not be changed directly"));
    }
    nominated_node(&path.child("nominatedNodeName"), (new, old), options, errors);
    if after.observed_generation < 0 {
        errors.push(FieldError::invalid(path.child("observedGeneration"), after.observed_generation, NEGATIVE));
    }
    checks::immutable(&path.child("qosClass"), (&after.qos_class, &before.qos_class), |c| shown::word(c), errors);
    transitions(&path, new, old, errors);
    claims(&path.child("resourceClaimStatuses"), after, &new.spec, errors);
    if let Some(claim) = &after.extended_resource_claim_status {
        extended_claim(&path.child("extendedResourceClaimStatus"), claim, &new.spec, errors);
    }
    pod_addresses(&path, after, before, errors);
    users(&path, new, errors);
    let lists = [
        ("containerStatuses", &after.container_statuses, &new.spec.containers),
        ("initContainerStatuses", &after.init_container_statuses, &new.spec.init_containers),
    ];
    for (name, statuses, containers) in lists {
        allocated(&path.child(name), statuses, containers, errors);
    }
    for (i, status) in after.ephemeral_container_statuses.iter().enumerate() {
        if !status.allocated_resources_status.is_empty() {
            let at = path.child("ephemeralContainerStatuses");
            let why = "must not be specified in container status";
            errors.push(FieldError::forbidden(at.index(i).child("allocatedResourcesStatus"), why));
        }
    }
    let lists = [
        ("containerStatuses", &after.container_statuses),
        ("initContainerStatuses", &after.init_container_statuses),
        ("ephemeralContainerStatuses", &after.ephemeral_container_statuses),
    ];
    for (name, statuses) in lists {
        image_volumes(&path.child(name), statuses, errors);
    }
}

/// The images that volumes are of.
fn image_volumes(path: &Path<'_>, statuses: &[ContainerStatus], errors: &mut Errors) {
    const MAX_REFERENCE_BYTES: usize = 256;
    for (i, status) in statuses.iter().enumerate() {
        for (j, mount) in status.volume_mounts.iter().enumerate() {
            let image = mount.volume_status.as_ref().and_then(|status| status.image.as_ref());
            let Some(image) = image else { continue };
            let status = path.index(i);
            let mounts = status.child("volumeMounts");
            let mount = mounts.index(j);
            let volume = mount.child("volumeStatus");
            // Upstream calls the field by its type.
            let image_path = volume.child("imageVolumeStatus");
            let at = image_path.child("imageRef");
            if image.image_ref.is_empty() {
                errors.push(FieldError::required(at, "imageRef must not be empty"));
            } else if image.image_ref.len() > MAX_REFERENCE_BYTES {
                errors.push(FieldError::too_long(at, MAX_REFERENCE_BYTES));
            }
        }
    }
}

fn conditions(path: &Path<'_>, list: &[PodCondition], errors: &mut Errors) {
    for (i, condition) in list.iter().enumerate() {
        let path = path.index(i);
        if condition.observed_generation < 0 {
            let at = path.child("observedGeneration");
            errors.push(FieldError::invalid(at, condition.observed_generation, NEGATIVE));
        }
        let kind = condition.r#type.as_str();
        if !SYSTEM_CONDITIONS.contains(&kind) {
            checks::text(&path.child("Type"), kind, names::qualified(kind), errors);
        }
    }
}

fn nominated_node(path: &Path<'_>, (new, old): (&Pod, &Pod), options: Options, errors: &mut Errors) {
    let name = &new.status.nominated_node_name;
    if name.is_empty() || *name == old.status.nominated_node_name {
        return;
    }
    checks::text(path, name, names::dns1123_subdomain(name), errors);
    if !old.spec.node_name.is_empty() && !options.nominated_when_bound {
        errors.push(FieldError::forbidden(path, "may not be set on pods that are already bound to a node"));
    }
}

/// A container that ended only runs again if it is to be restarted.
fn transitions(path: &Path<'_>, new: &Pod, old: &Pod, errors: &mut Errors) {
    let spec = &old.spec;
    let mut rules = spec.containers.iter().chain(&spec.init_containers).flat_map(|c| &c.restart_policy_rules);
    let (after, before) = (&new.status, &old.status);
    if !rules.any(|rule| rule.action == "RestartAllContainers") {
        let lists = [
            ("containerStatuses", &after.container_statuses, &before.container_statuses, &spec.containers),
            (
                "initContainerStatuses",
                &after.init_container_statuses,
                &before.init_container_statuses,
                &spec.init_containers,
            ),
        ];
        for (name, after, before, containers) in lists {
            let restarts = |name: &str, code: i32| {
                containers.iter().find(|c| c.name == name).is_some_and(|c| restarts(c, spec, code))
            };
            back(&path.child(name), (after, before), (true, &restarts), errors);
        }
    }
    let lists = (after.ephemeral_container_statuses.as_slice(), before.ephemeral_container_statuses.as_slice());
    back(&path.child("ephemeralContainerStatuses"), lists, (false, &|_, _| false), errors);
}

/// Whether a container of a name is started again after it ended with a code.
type Restarts<'a> = &'a dyn Fn(&str, i32) -> bool;

fn back(
    path: &Path<'_>,
    (after, before): (&[ContainerStatus], &[ContainerStatus]),
    (only_first, restarts): (bool, Restarts<'_>),
    errors: &mut Errors,
) {
    for (i, old) in before.iter().enumerate() {
        let Some(ended) = &old.state.terminated else { continue };
        let running = after.iter().filter(|new| new.name == old.name && new.state.terminated.is_none());
        for _ in running.take(if only_first { 1 } else { usize::MAX }) {
            if !restarts(&old.name, ended.exit_code) {
                errors.push(FieldError::forbidden(path.index(i).child("state"), BACK));
            }
        }
    }
}

fn restarts(container: &Container, spec: &PodSpec, code: i32) -> bool {
    let by = |policy: &str| match policy {
        "OnFailure" => Some(code != 0),
        "Never" => Some(false),
        "Always" => Some(true),
        _ => None,
    };
    let own = container.restart_policy.as_deref();
    if own.is_some() {
        let rule = container.restart_policy_rules.iter().find(|rule| matches(rule, code));
        if rule.is_some_and(|r| matches!(r.action.as_str(), "Restart" | "RestartAllContainers")) {
            return true;
        }
    }
    own.and_then(by).or_else(|| by(&spec.restart_policy)).unwrap_or(true)
}

fn matches(rule: &ContainerRestartRule, code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
        "In" => codes.values.contains(&code),
        "NotIn" => !codes.values.contains(&code),
        _ => false,
    })
}

fn claims(path: &Path<'_>, status: &PodStatus, spec: &PodSpec, errors: &mut Errors) {
    let list = &status.resource_claim_statuses;
    for (i, claim) in list.iter().enumerate() {
        let path = path.index(i);
        if !spec.resource_claims.iter().any(|c| c.name == claim.name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(path.child("name"), &claim.name, why));
        }
        if list.iter().take(i).any(|earlier| earlier.name == claim.name) {
            errors.push(FieldError::duplicate(path.child("name"), &claim.name));
        }
        if let Some(name) = &claim.resource_claim_name {
            let at = path.child("resourceClaimName");
            let complaints = names::dns1123_subdomain(name).into_iter();
            errors.extend(complaints.map(|why| FieldError::invalid(at, shown::word(name), why)));
        }
    }
}

fn extended_claim(path: &Path<'_>, claim: &PodExtendedResourceClaimStatus, spec: &PodSpec, errors: &mut Errors) {
    let list = path.child("requestMappings");
    if claim.request_mappings.is_empty() {
        errors.push(FieldError::required(list, "at least one request mapping is required"));
    }
    for (i, mapping) in claim.request_mappings.iter().enumerate() {
        let at = list.index(i);
        let mut containers = spec.containers.iter().chain(&spec.init_containers);
        match containers.find(|c| c.name == mapping.container_name) {
            None => {
                let why = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.push(FieldError::invalid(at.child("containerName"), &mapping.container_name, why));
            }
            Some(container) if !container.resources.requests.contains_key(&mapping.resource_name) => {
                let why = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                errors.push(FieldError::invalid(at.child("resourceName"), &mapping.resource_name, why));
            }
            Some(_) => {}
        }
        let request = &mapping.request_name;
        checks::text(&path.child("requestName"), request, names::dns1123_label(request), errors);
        if claim.request_mappings.iter().take(i).any(|earlier| earlier == mapping) {
            let parts = [
                ("containerName", &mapping.container_name),
                ("resourceName", &mapping.resource_name),
                ("requestName", request),
            ];
            errors.extend(parts.iter().map(|(name, text)| FieldError::duplicate(at.child(name), *text)));
        }
    }
    let at = path.child("resourceClaimName");
    if claim.resource_claim_name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        checks::text(&at, &claim.resource_claim_name, names::dns1123_subdomain(&claim.resource_claim_name), errors);
    }
}

fn pod_addresses(path: &Path<'_>, new: &PodStatus, old: &PodStatus, errors: &mut Errors) {
    let texts = |ips: &[api::core::v1::PodIp]| -> Vec<String> { ips.iter().map(|ip| ip.ip.clone()).collect() };
    let hosts = |ips: &[api::core::v1::HostIp]| -> Vec<String> { ips.iter().map(|ip| ip.ip.clone()).collect() };
    family_addresses(&path.child("podIPs"), &texts(&new.pod_ips), &texts(&old.pod_ips), errors);
    let ips = hosts(&new.host_ips);
    let path = path.child("hostIPs");
    if let Some(first) = ips.first().filter(|first| **first != new.host_ip) {
        errors.push(FieldError::invalid(path.index(0).child("ip"), first, "must be equal to `hostIP`"));
    }
    family_addresses(&path, &ips, &hosts(&old.host_ips), errors);
}

/// Addresses, at most one of each family.
fn family_addresses(path: &Path<'_>, ips: &[String], old: &[String], errors: &mut Errors) {
    for (i, ip) in ips.iter().enumerate() {
        addresses::legacy_ip(&path.index(i), ip, old, errors);
    }
    if ips.len() < 2 {
        return;
    }
    let parsed: Vec<_> = ips.iter().map(|ip| addresses::parse_sloppy(ip)).collect();
    if let Some(bad) = parsed.iter().position(Option::is_none) {
        let why = format!("failed to check for dual stack with error:invalid IP[{bad}]: {}", ips[bad]);
        errors.push(FieldError::internal(path, why));
    }
    let both = |v4: bool| parsed.iter().flatten().any(|ip| ip.is_ipv4() == v4);
    let dual = parsed.iter().all(Option::is_some) && both(true) && both(false);
    if !dual || ips.len() > 2 {
        let list: Vec<_> = ips.iter().map(|ip| format!("{{\"IP\":{}}}", serde_json::json!(ip))).collect();
        let shown = crate::status::Shown::spelled(format!("[{}]", list.join(",")));
        errors.push(FieldError::invalid(path, shown, "may specify no more than one IP for each IP family"));
    }
}

fn users(path: &Path<'_>, pod: &Pod, errors: &mut Errors) {
    let status = &pod.status;
    let os = pod.spec.os.as_ref().map_or("linux", |os| os.name.as_str());
    let lists = [
        ("containerStatuses", &status.container_statuses),
        ("initContainerStatuses", &status.init_container_statuses),
        ("ephemeralContainerStatuses", &status.ephemeral_container_statuses),
    ];
    for (name, statuses) in lists {
        for (i, status) in statuses.iter().enumerate() {
            let Some(user) = status.user.as_ref().and_then(|u| u.linux.as_ref()) else { continue };
            let path = path.child(name);
            let path = path.index(i);
            let path = path.child("user");
            let path = path.child("linux");
            match os {
                "windows" => errors.push(FieldError::forbidden(path, "cannot be set for a windows pod")),
                "linux" => linux_user(&path, user, errors),
                _ => {}
            }
        }
    }
}

fn linux_user(path: &Path<'_>, user: &LinuxContainerUser, errors: &mut Errors) {
    checks::user_id(&path.child("uid"), user.uid, errors);
    checks::user_id(&path.child("gid"), user.gid, errors);
    for (i, id) in user.supplemental_groups.iter().enumerate() {
        checks::user_id(&path.child("supplementalGroups").index(i), *id, errors);
    }
}

fn allocated(path: &Path<'_>, statuses: &[ContainerStatus], containers: &[Container], errors: &mut Errors) {
    for (i, status) in statuses.iter().enumerate() {
        let container = containers.iter().find(|c| c.name == status.name);
        for (j, allocated) in status.allocated_resources_status.iter().enumerate() {
            let at = path.index(i);
            let at = at.child("allocatedResourcesStatus");
            let at = at.index(j);
            if let Some(container) = container {
                allocated_name(&at.child("name"), &allocated.name, container, errors);
            }
            health(&at.child("resources"), allocated, errors);
        }
    }
}

fn allocated_name(path: &Path<'_>, name: &str, container: &Container, errors: &mut Errors) {
    let (found, why) = if let Some(claim) = name.strip_prefix("claim:") {
        let (claim, request) = claim.split_once('/').unwrap_or((claim, ""));
        let found = container.resources.claims.iter().any(|c| c.name == claim && c.request == request);
        let why = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
        (found, why)
    } else {
        (container.resources.requests.contains_key(name), "must match one of the container's resource requests")
    };
    if !found {
        errors.push(FieldError::invalid(path, name, why));
    }
}

fn health(path: &Path<'_>, allocated: &ResourceStatus, errors: &mut Errors) {
    for (i, resource) in allocated.resources.iter().enumerate() {
        let path = path.index(i);
        checks::supported(&path.child("health"), &resource.health, &["Healthy", "Unhealthy", "Unknown"], errors);
        if resource.message.as_ref().is_some_and(String::is_empty) {
            errors.push(FieldError::required(path.child("message"), "must be non-empty if specified"));
        }
        if allocated.resources.iter().take(i).any(|earlier| earlier.resource_id == resource.resource_id) {
            errors.push(FieldError::duplicate(path.child("resourceID"), &resource.resource_id));
        }
    }
}
