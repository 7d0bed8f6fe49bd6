//! StorageVersions, in which servers tell what they write, and StorageVersionMigrations, which write it anew.

use api::apiserverinternal::v1alpha1::{
    ServerStorageVersion, StorageVersion, StorageVersionCondition, StorageVersionStatus,
};
use api::meta::v1::Condition;
use api::storagemigration::v1beta1::StorageVersionMigration;

use super::conditions::conditions;
use super::{Change, Errors, Path, checks, names, shown};
use crate::status::FieldError;
use crate::strategy::Part;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");

pub fn storage_version_migration(change: &Change<'_, StorageVersionMigration>, errors: &mut Errors) {
    if change.part == Part::Status {
        return migration_status(change, errors);
    }
    let (new, path) = (&change.new.spec.resource, SPEC.child("resource"));
    let (group, resource) = (new.group.as_str(), new.resource.as_str());
    let name = path.child("resource");
    match resource {
        "" => errors.push(FieldError::required(name, "resource is required to be set")),
        _ => whole(&name, resource, names::dns1035_label(resource), errors),
    }
    if !group.is_empty() {
        whole(&path.child("group"), group, names::dns1123_subdomain(group), errors);
    }
    if change.old.is_some_and(|old| old.spec != change.new.spec) {
        let value =
            shown::structure("k8s.io.api.storagemigration.v1beta1.StorageVersionMigrationSpec", &change.new.spec);
        errors.push(FieldError::invalid(SPEC, value, checks::IMMUTABLE));
    }
}

/// One error for all complaints about a text.
fn whole(path: &Path<'_>, text: &str, complaints: names::Complaints, errors: &mut Errors) {
    if !complaints.is_empty() {
        errors.push(FieldError::invalid(path, text, complaints.join(",")));
    }
}

fn migration_status(change: &Change<'_, StorageVersionMigration>, errors: &mut Errors) {
    let (new, old) = (&change.new.status, change.old.map(|old| &old.status));
    let (path, version) = (STATUS.child("resourceVersion"), new.resource_version.as_str());
    if !version.is_empty() && !is_version(version) {
        errors.push(FieldError::invalid(path, version, format!("resource version is not well formed: {version}")));
    }
    let list = STATUS.child("conditions");
    conditions(&list, &new.conditions, errors);
    if old.is_some_and(|old| !old.resource_version.is_empty() && old.resource_version != version) {
        errors.push(FieldError::invalid(path, version, checks::IMMUTABLE));
    }
    let holds = |conditions: &[Condition], kind: &str| {
        conditions.iter().find(|condition| condition.r#type == kind).is_some_and(|found| found.status == "True")
    };
    let mut refuse = |why: &str| {
        let value = shown::structures("k8s.io.apimachinery.pkg.apis.meta.v1.Condition", &new.conditions);
        errors.push(FieldError::invalid(list, value, why));
    };
    if holds(&new.conditions, "Succeeded") && holds(&new.conditions, "Failed") {
        refuse("Both success and failed conditions cannot be true at the same time");
    }
    for (kind, called) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if old.is_some_and(|old| holds(&old.conditions, kind)) && !holds(&new.conditions, kind) {
            refuse(&format!("{called} condition cannot be set to false once it is true"));
        }
    }
}

fn is_version(text: &str) -> bool {
    !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
}

/// The name of a StorageVersion: a group and a resource.
pub fn storage_version_name(name: &str) -> names::Complaints {
    let Some((group, resource)) = name.rsplit_once('.') else {
        return vec!["name must be in the form of <group>.<resource>".into()];
    };
    let told = |part: &str, complaints: names::Complaints| -> Vec<_> {
        complaints.into_iter().map(|why| format!("the {part} segment {why}").into()).collect()
    };
    let mut found = told("group", names::dns1123_subdomain(group));
    found.extend(told("resource", names::dns1035_label(resource)));
    found
}

pub fn storage_version(change: &Change<'_, StorageVersion>, errors: &mut Errors) {
    if change.part != Part::Status {
        return;
    }
    let status = &change.new.status;
    let (path, servers) = (STATUS.child("storageVersions"), &status.storage_versions);
    for (i, server) in servers.iter().enumerate() {
        let path = path.index(i);
        if servers[..i].iter().any(|earlier| earlier.api_server_id == server.api_server_id) {
            errors.push(FieldError::duplicate(path.child("apiServerID"), &server.api_server_id));
        }
        server_versions(&path, server, errors);
    }
    common_version(status, errors);
    for (i, condition) in status.conditions.iter().enumerate() {
        server_condition((i, condition), &status.conditions, errors);
    }
}

fn server_versions(path: &Path<'_>, server: &ServerStorageVersion, errors: &mut Errors) {
    let ServerStorageVersion { api_server_id, encoding_version, decodable_versions, served_versions } = server;
    checks::text(&path.child("apiServerID"), api_server_id, names::dns1123_subdomain(api_server_id), errors);
    whole(&path.child("encodingVersion"), encoding_version, api_version(encoding_version), errors);
    let list = path.child("decodableVersions");
    for (i, version) in decodable_versions.iter().enumerate() {
        whole(&list.index(i), version, api_version(version), errors);
    }
    if !decodable_versions.contains(encoding_version) {
        let why = format!("decodableVersions must include encodingVersion {encoding_version}");
        errors.push(FieldError::invalid(list, shown::texts(decodable_versions), why));
    }
    let list = path.child("servedVersions");
    for (i, version) in served_versions.iter().enumerate() {
        let path = list.index(i);
        whole(&path, version, api_version(version), errors);
        if !decodable_versions.contains(version) {
            let all = decodable_versions.join(" ");
            let why = format!("individual served version : {version} must be included in decodableVersions : [{all}]");
            errors.push(FieldError::invalid(path, version, why));
        }
    }
}

/// What all servers write, if they agree.
fn common_version(status: &StorageVersionStatus, errors: &mut Errors) {
    let all = &status.storage_versions;
    let first = all.first().map(|server| &server.encoding_version);
    let agreed = first.filter(|version| all.iter().all(|server| server.encoding_version == **version));
    let told = status.common_encoding_version.as_ref();
    let why = match (agreed, told) {
        (None, Some(_)) => {
            let others = "or if there is no server reporting the supported versions yet";
            format!("should be nil if servers do not agree on the same encoding version, {others}")
        }
        (Some(agreed), None) => format!("the common encoding version is {agreed}"),
        (Some(agreed), Some(told)) if agreed != told => format!("the actual common encoding version is {agreed}"),
        (Some(_), Some(_)) | (None, None) => return,
    };
    errors.push(FieldError::invalid(STATUS.child("commonEncodingVersion"), shown::optional_text(told), why));
}

/// Upstream tells of conditions as if the status were their list.
fn server_condition(
    (i, condition): (usize, &StorageVersionCondition),
    all: &[StorageVersionCondition],
    errors: &mut Errors,
) {
    let path = STATUS.index(i);
    let (kind, status) = (&condition.r#type, &condition.status);
    if let Some(earlier) = all[..i].iter().rposition(|earlier| earlier.r#type == *kind) {
        let why = format!("the type of the condition is not unique, it also appears in conditions[{earlier}]");
        errors.push(FieldError::invalid(path.child("type"), kind, why));
    }
    checks::text(&path.child("type"), kind, names::qualified(kind), errors);
    checks::text(&path.child("status"), status, names::qualified(status), errors);
    checks::required(&path.child("reason"), &condition.reason, errors);
    checks::required(&path.child("message"), &condition.message, errors);
}

/// A version, with a group and a slash before it if there is one.
fn api_version(text: &str) -> names::Complaints {
    let (group, version) = match text.split('/').collect::<Vec<_>>().as_slice() {
        [version] => (None, *version),
        [group, version] => (Some(*group), *version),
        _ => {
            let form = "a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an \
                        alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
                        used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
            let optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')";
            return vec![format!("an apiVersion is {form} {optional}").into()];
        }
    };
    let part = |called: &str, text: &str, form: fn(&str) -> names::Complaints| -> names::Complaints {
        let complaints = if text.is_empty() { vec!["must be non-empty".into()] } else { form(text) };
        complaints.into_iter().map(|why| format!("{called} part: {why}").into()).collect()
    };
    let mut found = group.map(|group| part("group", group, names::dns1123_subdomain)).unwrap_or_default();
    found.extend(part("version", version, names::dns1035_label));
    found
}

#[cfg(test)]
mod tests;
