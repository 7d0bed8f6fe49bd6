//! What configures the API server and the scheduler.

use api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ParamKind, ParamRef,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use api::apiregistration::v1::ApiService;
use api::apiserverinternal::v1alpha1::{ServerStorageVersion, StorageVersion};
use api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use api::meta::v1::ObjectMeta;
use api::scheduling::v1::PriorityClass;
use api::storagemigration::v1beta1::StorageVersionMigration;
use serde_json::Value;

use super::cell::{Cell, age};
use super::cells;
use super::text::{first, go_selector};

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";

pub(super) fn storage_version(object: &StorageVersion) -> Vec<Cell> {
    const SHOWN: usize = 3;
    let status = &object.status;
    let written = |server: &ServerStorageVersion| format!("{}={}", server.api_server_id, server.encoding_version);
    let servers: Vec<String> = status.storage_versions.iter().map(written).collect();
    cells![
        object.metadata.name.as_str(),
        status.common_encoding_version.as_deref().unwrap_or(UNSET),
        first(&servers, SHOWN, ","),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn storage_version_migration(object: &StorageVersionMigration) -> Vec<Cell> {
    let resource = &object.spec.resource;
    let called = match resource.group.as_str() {
        "" => resource.resource.clone(),
        group => format!("{}.{group}", resource.resource),
    };
    let holding = object.status.conditions.iter().filter(|condition| condition.status == "True");
    let state = holding.map(|condition| condition.r#type.as_str()).rev();
    let state = state.into_iter().find(|kind| ["Running", "Failed", "Succeeded"].contains(kind));
    cells![object.metadata.name.as_str(), called, state.unwrap_or("Unknown")]
}

pub(super) fn mutating_webhooks(object: &MutatingWebhookConfiguration) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), object.webhooks.len(), age(&object.metadata.creation_timestamp),]
}

pub(super) fn validating_webhooks(object: &ValidatingWebhookConfiguration) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), object.webhooks.len(), age(&object.metadata.creation_timestamp),]
}

pub(super) fn mutating_policy(object: &MutatingAdmissionPolicy) -> Vec<Cell> {
    policy(&object.metadata, object.spec.mutations.len(), object.spec.param_kind.as_ref())
}

pub(super) fn validating_policy(object: &ValidatingAdmissionPolicy) -> Vec<Cell> {
    policy(&object.metadata, object.spec.validations.len(), object.spec.param_kind.as_ref())
}

fn policy(metadata: &ObjectMeta, rules: usize, param: Option<&ParamKind>) -> Vec<Cell> {
    let param = param.map_or_else(|| UNSET.to_owned(), |p| format!("{}/{}", p.api_version, p.kind));
    cells![metadata.name.as_str(), rules, param, age(&metadata.creation_timestamp)]
}

pub(super) fn mutating_binding(object: &MutatingAdmissionPolicyBinding) -> Vec<Cell> {
    binding(&object.metadata, &object.spec.policy_name, object.spec.param_ref.as_ref())
}

pub(super) fn validating_binding(object: &ValidatingAdmissionPolicyBinding) -> Vec<Cell> {
    binding(&object.metadata, &object.spec.policy_name, object.spec.param_ref.as_ref())
}

fn binding(metadata: &ObjectMeta, policy: &str, param: Option<&ParamRef>) -> Vec<Cell> {
    let param = param.map_or_else(
        || UNSET.to_owned(),
        |param| match (param.name.as_str(), param.namespace.as_str()) {
            ("", _) => param.selector.as_ref().map_or_else(|| UNSET.to_owned(), go_selector),
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        },
    );
    cells![metadata.name.as_str(), policy, param, age(&metadata.creation_timestamp)]
}

pub(super) fn api_service(object: &ApiService) -> Vec<Cell> {
    let service = object.spec.service.as_ref().map(|s| format!("{}/{}", s.namespace, s.name));
    let available = object.status.conditions.iter().find(|c| c.r#type == "Available");
    let available = available.map(|c| match c.reason.as_str() {
        reason if c.status != "True" && !reason.is_empty() => format!("{} ({reason})", c.status),
        _ => c.status.clone(),
    });
    cells![
        object.metadata.name.as_str(),
        service.unwrap_or_else(|| "Local".to_owned()),
        available.unwrap_or_else(|| "Unknown".to_owned()),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn flow_schema(object: &FlowSchema) -> Vec<Cell> {
    let dangling = object.status.conditions.iter().find(|c| c.r#type == "Dangling");
    cells![
        object.metadata.name.as_str(),
        object.spec.priority_level_configuration.name.as_str(),
        object.spec.matching_precedence,
        object.spec.distinguisher_method.as_ref().map_or(NONE, |method| &method.r#type),
        age(&object.metadata.creation_timestamp),
        dangling.map_or("?", |c| &c.status),
    ]
}

pub(super) fn priority_level(object: &PriorityLevelConfiguration) -> Vec<Cell> {
    let limited = object.spec.limited.as_ref();
    let queuing = limited.and_then(|l| l.limit_response.queuing.as_ref());
    let number = |value: Option<i32>| value.map_or_else(|| Value::from(NONE), Value::from);
    cells![
        object.metadata.name.as_str(),
        object.spec.r#type.as_str(),
        number(limited.map(|l| l.nominal_concurrency_shares.unwrap_or(0))),
        number(queuing.map(|q| q.queues)),
        number(queuing.map(|q| q.hand_size)),
        number(queuing.map(|q| q.queue_length_limit)),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn priority_class(object: &PriorityClass) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        object.value,
        object.global_default,
        age(&object.metadata.creation_timestamp),
        object.preemption_policy.as_deref().unwrap_or_default(),
    ]
}
