//! Changes of what the containers of a running Pod have.

use api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::{annotations, is_sidecar, is_windows};
use crate::status::FieldError;
use crate::strategy::qos_class;
use crate::validation::resources::Amounts;
use crate::validation::{Errors, Path};

const ONLY_CPU_AND_MEMORY: &str = "only cpu and memory resources are mutable";

/// A change of resources.
pub(super) fn resize(new: &Pod, old: &Pod, errors: &mut Errors) {
    let never = if old.metadata.annotations.contains_key(annotations::MIRROR) {
        Some("static pods cannot be resized")
    } else {
        is_windows(&old.spec).then_some("windows pods cannot be resized")
    };
    if let Some(why) = never {
        errors.clear();
        errors.push(FieldError::forbidden("", why));
        return;
    }
    let path = Path::root("spec");
    if class(old) != computed_class(new) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(path, &new.status.qos_class, why));
    }
    let running = old.status.container_statuses.iter().find(|c| c.state.running.is_some());
    if running.is_some_and(|c| c.resources.is_none()) {
        errors.push(FieldError::forbidden(path, "Pod running on node without support for resize"));
    }
    let mut spec = new.spec.clone();
    whole(&path, &mut spec, &old.spec, errors);
    if !same_order(&path, &new.spec, &old.spec, errors) {
        return;
    }
    for (name, new, old) in lists(&new.spec, &old.spec) {
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let path = path.child(name);
            let path = path.index(i);
            removed(&path.child("resources"), &new.resources, &old.resources, errors);
        }
    }
    containers(&path, &mut spec, &old.spec, errors);
    if errors.is_empty() && spec != old.spec {
        errors.push(FieldError::forbidden(path, ONLY_CPU_AND_MEMORY));
    }
}

fn class(pod: &Pod) -> String {
    if pod.status.qos_class.is_empty() { computed_class(pod) } else { pod.status.qos_class.clone() }
}

fn computed_class(pod: &Pod) -> String {
    let message = api::schema::message("k8s.io.api.core.v1.Pod");
    let tree = message.and_then(|m| {
        let bytes = prost::Message::encode_to_vec(&Pod { spec: pod.spec.clone(), ..Pod::default() });
        api::transcode::proto_to_value(m, &bytes, None).ok()
    });
    qos_class(&tree.unwrap_or_default()).to_owned()
}

type Lists<'a> = [(&'static str, &'a [Container], &'a [Container]); 2];

fn lists<'a>(new: &'a PodSpec, old: &'a PodSpec) -> Lists<'a> {
    [("initContainers", &new.init_containers, &old.init_containers), ("containers", &new.containers, &old.containers)]
}

/// The resources of the Pod as a whole.
fn whole(path: &Path<'_>, spec: &mut PodSpec, old: &PodSpec, errors: &mut Errors) {
    let is_set =
        |r: &Option<ResourceRequirements>| r.as_ref().is_some_and(|r| !r.requests.is_empty() || !r.limits.is_empty());
    if !is_set(&spec.resources) && !is_set(&old.resources) {
        return;
    }
    let path_of = path.child("resources");
    let empty = ResourceRequirements::default();
    let before = old.resources.as_ref();
    let Some(new) = &mut spec.resources else {
        if before.is_some() {
            errors.push(FieldError::forbidden(path_of, "pod-level resources cannot be removed"));
        }
        return;
    };
    if let Some(before) = before {
        let lists = [("requests", &new.requests, &before.requests), ("limits", &new.limits, &before.limits)];
        for (name, _, _) in lists.iter().filter(|(_, new, old)| is_removed(new, old)) {
            let why = format!("pod-level resource {name} cannot be removed");
            errors.push(FieldError::forbidden(path_of.child(name), why));
        }
    }
    keep_cpu_and_memory(&mut new.requests, &before.unwrap_or(&empty).requests);
    keep_cpu_and_memory(&mut new.limits, &before.unwrap_or(&empty).limits);
    if before.is_none() && *new == empty {
        spec.resources = None;
    }
    if spec.resources != old.resources {
        errors.push(FieldError::forbidden(path, "only cpu and memory resources are mutable at pod-level"));
    }
}

/// Whether the containers are the same ones.
fn same_order(path: &Path<'_>, new: &PodSpec, old: &PodSpec, errors: &mut Errors) -> bool {
    let told = errors.len();
    for (name, new, old) in lists(new, old).into_iter().rev() {
        let path = path.child(name);
        if new.len() != old.len() {
            errors.push(FieldError::forbidden(path, format!("{name} may not be added or removed on resize")));
            continue;
        }
        for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
            let why = format!("{name} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(path.index(i).child("name"), why));
        }
    }
    errors.len() == told
}

fn removed(path: &Path<'_>, new: &ResourceRequirements, old: &ResourceRequirements, errors: &mut Errors) {
    let lists = [("requests", &new.requests, &old.requests), ("limits", &new.limits, &old.limits)];
    for (name, _, _) in lists.iter().filter(|(_, new, old)| is_removed(new, old)) {
        errors.push(FieldError::forbidden(path.child(name), format!("resource {name} cannot be removed")));
    }
}

fn is_removed(new: &Amounts, old: &Amounts) -> bool {
    old.keys().any(|name| !new.contains_key(name))
}

/// Puts back what may change, and tells what else did.
fn containers(path: &Path<'_>, spec: &mut PodSpec, old: &PodSpec, errors: &mut Errors) {
    for (new, old) in spec.containers.iter_mut().zip(&old.containers) {
        keep(new, old);
        if new != old {
            errors.push(FieldError::forbidden(path, ONLY_CPU_AND_MEMORY));
        }
    }
    for (i, (new, old)) in spec.init_containers.iter_mut().zip(&old.init_containers).enumerate() {
        let modified = new != old;
        let path = path.child("initContainers");
        keep(new, old);
        if new != old {
            let why = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.push(FieldError::forbidden(path.index(i), why));
        }
        if modified && !is_sidecar(new) {
            for _ in new.resize_policy.iter().filter(|p| p.restart_policy == "RestartContainer") {
                let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.push(FieldError::forbidden(path.index(i), why));
            }
        }
    }
}

fn keep(new: &mut Container, old: &Container) {
    keep_cpu_and_memory(&mut new.resources.requests, &old.resources.requests);
    keep_cpu_and_memory(&mut new.resources.limits, &old.resources.limits);
    // Claims cannot be given by resizing.
    new.resources.claims.clear();
}

fn keep_cpu_and_memory(new: &mut Amounts, old: &Amounts) {
    for name in ["cpu", "memory"] {
        match old.get(name) {
            Some(quantity) => new.insert(name.to_owned(), quantity.clone()),
            None => new.remove(name),
        };
    }
}
