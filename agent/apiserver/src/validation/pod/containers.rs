//! The lists of containers: those that come first, the main ones, and those that are added later.

use api::core::v1::{Container, EphemeralContainer};

use super::container::{self, Scope};
use super::{as_container, handlers, is_sidecar};
use crate::status::FieldError;
use crate::validation::{Errors, Path};

/// The main containers.
pub(super) fn main(path: &Path<'_>, scope: Scope<'_>, errors: &mut Errors) {
    let list = &scope.spec.containers;
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    for (i, container) in list.iter().enumerate() {
        let path = path.index(i);
        container::common(&path, container, scope, errors);
        if list.iter().take(i).any(|earlier| earlier.name == container.name) {
            errors.push(FieldError::duplicate(path.child("name"), &container.name));
        }
        running(&path, container, scope, errors);
        container::restart_policy(&path, container, errors);
    }
    let all = list.iter().enumerate().map(|(i, container)| (path.index(i), container));
    container::host_ports(all, errors);
}

/// What only containers have that go on to run.
fn running(path: &Path<'_>, container: &Container, scope: Scope<'_>, errors: &mut Errors) {
    let grace = scope.spec.termination_grace_period_seconds;
    if let Some(lifecycle) = &container.lifecycle {
        handlers::lifecycle(&path.child("lifecycle"), lifecycle, (grace, scope.spec.os.as_ref()), errors);
    }
    handlers::probes(path, container, grace, errors);
}

/// Containers that start before the main ones.
pub(super) fn init(path: &Path<'_>, scope: Scope<'_>, errors: &mut Errors) {
    let list = &scope.spec.init_containers;
    for (i, container) in list.iter().enumerate() {
        let at = path.index(i);
        container::common(&at, container, scope, errors);
        if container.restart_policy.is_some() || !container.restart_policy_rules.is_empty() {
            init_restart_policy(&at, container, errors);
        }
        let mut others = scope.spec.containers.iter().chain(list.iter().take(i).filter(|c| !c.name.is_empty()));
        if others.any(|other| other.name == container.name) {
            errors.push(FieldError::duplicate(at.child("name"), &container.name));
        }
        // Each is alone while it runs; the index tells so.
        container::host_ports(std::iter::once((path.index(0), container)), errors);
        if is_sidecar(container) {
            running(&at, container, scope, errors);
        } else {
            ending(&at, container, scope, errors);
        }
    }
}

fn init_restart_policy(path: &Path<'_>, container: &Container, errors: &mut Errors) {
    if container.restart_policy.is_some() {
        container::restart_policy(path, container, errors);
    } else {
        let why = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(path.child("restartPolicy"), why));
    }
}

/// What containers do not have that end before the main ones start.
fn ending(path: &Path<'_>, container: &Container, scope: Scope<'_>, errors: &mut Errors) {
    let fields = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (name, _) in fields.iter().filter(|(_, set)| *set) {
        let why = "may not be set for init containers without restartPolicy=Always";
        errors.push(FieldError::forbidden(path.child(name), why));
    }
    if scope.options.restarting_init_containers {
        return;
    }
    let restarting = |p: &&api::core::v1::ContainerResizePolicy| p.restart_policy == "RestartContainer";
    for (i, policy) in container.resize_policy.iter().enumerate().filter(|(_, p)| restarting(p)) {
        let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
        let at = path.child("resizePolicy");
        errors.push(FieldError::invalid(at.index(i).child("restartPolicy"), &policy.restart_policy, why));
    }
}

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// Containers that are added to a running Pod.
pub(super) fn ephemeral(path: &Path<'_>, scope: Scope<'_>, errors: &mut Errors) {
    let list = &scope.spec.ephemeral_containers;
    for (i, added) in list.iter().enumerate() {
        let path = path.index(i);
        let container = as_container(&added.ephemeral_container_common);
        container::common(&path, &container, scope, errors);
        trimmed_image(&path, &container.image, errors);
        let others = || scope.spec.containers.iter().chain(&scope.spec.init_containers).map(|c| &c.name);
        let earlier = list.iter().take(i).map(|e| &e.ephemeral_container_common.name);
        if others().chain(earlier).any(|name| *name == container.name) {
            errors.push(FieldError::duplicate(path.child("name"), &container.name));
        }
        let target = &added.target_container_name;
        if !target.is_empty() && !others().any(|name| name == target) {
            errors.push(FieldError::not_found(path.child("targetContainerName"), target));
        }
        not_for_ephemeral(&path, &container, added, errors);
    }
}

/// Nothing counts on such a container, so it has no resources and is not looked after.
fn not_for_ephemeral(path: &Path<'_>, container: &Container, added: &EphemeralContainer, errors: &mut Errors) {
    let resources = &container.resources;
    let at = path.child("resources");
    let has_resources = !(resources.limits.is_empty() && resources.requests.is_empty() && resources.claims.is_empty())
        || ["limits", "requests", "claims"].iter().any(|list| at.child(list).is_blank());
    let fields = [
        ("ports", !container.ports.is_empty()),
        ("resources", has_resources),
        ("resizePolicy", !container.resize_policy.is_empty()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", !container.restart_policy_rules.is_empty()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    let lists = ["ports", "resizePolicy", "restartPolicyRules"];
    let is_blank = |name: &str| lists.contains(&name) && path.child(name).is_blank();
    for (name, _) in fields.iter().filter(|(name, set)| *set || is_blank(name)) {
        errors.push(FieldError::forbidden(path.child(name), NOT_EPHEMERAL));
    }
    for (i, mount) in added.ephemeral_container_common.volume_mounts.iter().enumerate() {
        let path = path.child("volumeMounts");
        for (name, text) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if !text.is_empty() {
                errors.push(FieldError::forbidden(path.index(i).child(name), NOT_EPHEMERAL));
            }
        }
    }
}

/// Images of Pods have no white space around them; those of templates may.
pub(super) fn trimmed_image(path: &Path<'_>, image: &str, errors: &mut Errors) {
    if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(path.child("image"), image, why));
    }
}
