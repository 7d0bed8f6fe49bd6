//! APIServices.

use api::apiregistration::v1::{ApiService, ApiServiceSpec};

use super::{Change, Errors, Path, checks, names};
use crate::status::FieldError;
use crate::strategy::Part;

const SPEC: Path<'static> = Path::root("spec");
const STATUSES: &[&str] = &["True", "False", "Unknown"];

pub fn api_service(change: &Change<'_, ApiService>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        let status = Path::root("status");
        for (i, condition) in new.status.conditions.iter().enumerate() {
            let list = status.child("conditions");
            checks::supported(&list.index(i).child("status"), &condition.status, STATUSES, errors);
        }
        return;
    }
    let spec = &new.spec;
    for (field, given) in [("generateName", &new.metadata.generate_name), ("name", &new.metadata.name)] {
        name(&Path::root("metadata").child(field), given, spec, errors);
    }
    let group = SPEC.child("group");
    if !spec.group.is_empty() {
        checks::text(&group, &spec.group, names::dns1123_subdomain(&spec.group), errors);
    } else if spec.version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required(group, why));
    }
    checks::text(&SPEC.child("version"), &spec.version, names::dns1035_label(&spec.version), errors);
    let priorities = [
        ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
        ("versionPriority", spec.version_priority, 1_000),
    ];
    for (field, value, max) in priorities {
        if !(1..=max).contains(&value) {
            let why = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(SPEC.child(field), value, why));
        }
    }
    backend(spec, errors);
}

/// The name follows from what is served.
fn name(path: &Path<'_>, name: &str, spec: &ApiServiceSpec, errors: &mut Errors) {
    let wanted = format!("{}.{}", spec.version, spec.group);
    let complaints = names::path_segment(name);
    if !complaints.is_empty() {
        checks::text(path, name, complaints, errors);
    } else if name != wanted && !name.is_empty() {
        let why = format!("must be `spec.version+\".\"+spec.group`: {}", stdx::quoted(&wanted));
        errors.push(FieldError::invalid(path, name, why));
    }
}

fn backend(spec: &ApiServiceSpec, errors: &mut Errors) {
    let insecure = SPEC.child("insecureSkipTLSVerify");
    let bundle = spec.ca_bundle.as_ref().map_or(0, Vec::len);
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let why = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(SPEC.child("caBundle"), format!("{bundle} bytes"), why));
        }
        if spec.insecure_skip_tls_verify {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(insecure, true, why));
        }
        return;
    };
    let path = SPEC.child("service");
    checks::required(&path.child("namespace"), &service.namespace, errors);
    checks::required(&path.child("name"), &service.name, errors);
    let port = service.port.unwrap_or(0);
    if !(1..=65_535).contains(&port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(path.child("port"), port, why));
    }
    if spec.insecure_skip_tls_verify && bundle > 0 {
        errors.push(FieldError::invalid(insecure, true, "may not be true if caBundle is present"));
    }
}
