//! What holds for containers of every sort.

use api::core::v1::{Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, PodSpec, Volume};

use super::{Options, env, has_host_users, mounts, resources, security};
use crate::status::FieldError;
use crate::validation::{Errors, Path, checks, names};

pub(super) const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// What a container is looked at with.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) spec: &'a PodSpec,
    /// The Pod's volumes, but for those that are not valid.
    pub(super) volumes: &'a [&'a Volume],
    pub(super) options: Options,
}

/// A container.
pub(super) fn common(path: &Path<'_>, container: &Container, scope: Scope<'_>, errors: &mut Errors) {
    let at = path.child("name");
    if container.name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        checks::text(&at, &container.name, names::dns1123_label(&container.name), errors);
    }
    checks::required(&path.child("image"), &container.image, errors);
    let policies = ["File", "FallbackToLogsOnError"];
    checks::one_of(&path.child("terminationMessagePolicy"), &container.termination_message_policy, &policies, errors);
    ports(&path.child("ports"), &container.ports, errors);
    env::variables(&path.child("env"), &container.env, errors);
    env::sources(&path.child("envFrom"), &container.env_from, errors);
    mounts::mounts(&path.child("volumeMounts"), container, scope.volumes, errors);
    mounts::devices(&path.child("volumeDevices"), container, scope.volumes, errors);
    checks::one_of(&path.child("imagePullPolicy"), &container.image_pull_policy, &PULL_POLICIES, errors);
    resources::of_container(&path.child("resources"), &container.resources, scope, errors);
    resize_policy(&path.child("resizePolicy"), &container.resize_policy, &scope.spec.restart_policy, errors);
    if let Some(context) = &container.security_context {
        security::of_container(&path.child("securityContext"), context, has_host_users(scope.spec), errors);
    }
}

fn ports(path: &Path<'_>, ports: &[ContainerPort], errors: &mut Errors) {
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if !port.name.is_empty() {
            let complaints = names::port_name(&port.name);
            if complaints.is_empty() && ports.iter().take(i).any(|earlier| earlier.name == port.name) {
                errors.push(FieldError::duplicate(path.child("name"), &port.name));
            }
            checks::text(&path.child("name"), &port.name, complaints, errors);
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(path.child("containerPort"), ""));
        } else {
            checks::port_number(&path.child("containerPort"), port.container_port, errors);
        }
        if port.host_port != 0 {
            checks::port_number(&path.child("hostPort"), port.host_port, errors);
        }
        checks::one_of(&path.child("protocol"), &port.protocol, &["SCTP", "TCP", "UDP"], errors);
    }
}

/// A port of the node is for one container.
pub(super) fn host_ports<'a>(containers: impl Iterator<Item = (Path<'a>, &'a Container)>, errors: &mut Errors) {
    let mut seen: Vec<&ContainerPort> = Vec::new();
    for (path, container) in containers {
        for (i, port) in container.ports.iter().enumerate().filter(|(_, p)| p.host_port != 0) {
            let same = |o: &&ContainerPort| {
                o.protocol == port.protocol && o.host_ip == port.host_ip && o.host_port == port.host_port
            };
            if seen.iter().any(same) {
                let shown = format!("{}/{}/{}", port.protocol, port.host_ip, port.host_port);
                errors.push(FieldError::duplicate(path.child("ports").index(i).child("hostPort"), shown));
            } else {
                seen.push(port);
            }
        }
    }
}

fn resize_policy(path: &Path<'_>, list: &[ContainerResizePolicy], restart: &str, errors: &mut Errors) {
    for (i, policy) in list.iter().enumerate() {
        let ContainerResizePolicy { resource_name, restart_policy } = policy;
        if list.iter().take(i).any(|earlier| earlier.resource_name == *resource_name) {
            errors.push(FieldError::duplicate(path.index(i), resource_name));
        }
        checks::one_of(path, resource_name, &["cpu", "memory"], errors);
        checks::one_of(path, restart_policy, &["NotRequired", "RestartContainer"], errors);
        if restart == "Never" && restart_policy != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart_policy, why));
        }
    }
}

/// When a container is started again.
pub(super) fn restart_policy(path: &Path<'_>, container: &Container, errors: &mut Errors) {
    let (policy, rules) = (&container.restart_policy, &container.restart_policy_rules);
    let at = path.child("restartPolicy");
    match policy {
        Some(policy) => checks::supported(&at, policy, &["Always", "Never", "OnFailure"], errors),
        None if rules.is_empty() => {}
        None => errors.push(FieldError::required(at, "must specify restartPolicy when restart rules are used")),
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(FieldError::too_many(path, rules.len(), MAX_RESTART_RULES as u64));
    }
    for (i, rule) in rules.iter().enumerate() {
        restart_rule(&path.index(i), rule, errors);
    }
}

fn restart_rule(path: &Path<'_>, rule: &ContainerRestartRule, errors: &mut Errors) {
    checks::supported(&path.child("action"), &rule.action, &["Restart", "RestartAllContainers"], errors);
    let path = path.child("exitCodes");
    let Some(codes) = &rule.exit_codes else {
        errors.push(FieldError::required(path, "must be specified"));
        return;
    };
    checks::supported(&path.child("operator"), &codes.operator, &["In", "NotIn"], errors);
    if codes.values.len() > MAX_EXIT_CODES {
        errors.push(FieldError::too_many(path.child("values"), codes.values.len(), MAX_EXIT_CODES as u64));
    }
}
