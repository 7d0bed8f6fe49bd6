//! What is done to an object, as webhooks and policies are told.

use serde_json::{Value, json};

use super::Operation;
use crate::app::Call;
use crate::strategy::Part;
use crate::tree;

const GROUP: &str = "admissionregistration.k8s.io";

/// Kinds that nobody is asked about: a broken one could not be removed otherwise.
const EXEMPT: [&str; 6] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// What is done to an object.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) operation: &'static str,
    pub(super) new: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
}

impl<'a> Event<'a> {
    pub(super) fn of_write(operation: Operation, new: &'a Value, old: Option<&'a Value>) -> Option<Self> {
        let operation = match operation {
            Operation::Create => "CREATE",
            Operation::Update(Part::Internal) => return None,
            Operation::Update(_) => "UPDATE",
        };
        Some(Self { operation, new: Some(new), old })
    }

    pub(super) fn name(&self, call: &Call) -> String {
        let object = self.new.or(self.old);
        let own = object.map_or("", |o| tree::text(o, "/metadata/name"));
        if own.is_empty() { call.info.name.clone() } else { own.to_owned() }
    }
}

/// Whether webhooks and policies look at the request at all.
pub(super) fn is_looked_at(call: &Call) -> bool {
    let internal = call.headers.is_empty() && call.user.name == "system:apiserver";
    let exempt = call.kind.group == GROUP && EXEMPT.contains(&call.kind.plural);
    // Scale is another object than the one that is written here, and evictions and bindings delete and change pods
    // on behalf of this server.
    let other = matches!(call.info.subresource.as_str(), "scale" | "eviction" | "binding");
    !internal && !exempt && !other
}

/// A group and a version of it.
pub(super) fn version_name(call: &Call, version: &str) -> String {
    if call.kind.group.is_empty() { version.to_owned() } else { format!("{}/{version}", call.kind.group) }
}

/// The request without its objects, as `AdmissionRequest` spells it.
pub(super) fn request(call: &Call, event: Event<'_>, (version, dry_run): (&str, bool)) -> Value {
    let kind = call.kind;
    let gvk = |version: &str| json!({"group": kind.group, "version": version, "kind": kind.kind});
    let gvr = |version: &str| json!({"group": kind.group, "version": version, "resource": kind.plural});
    let mut user = json!({"username": call.user.name, "groups": call.user.groups});
    if !call.user.uid.is_empty() {
        user["uid"] = call.user.uid.as_str().into();
    }
    if !call.user.extra.is_empty() {
        user["extra"] = json!(call.user.extra);
    }
    let mut request = json!({
        "kind": gvk(version), "resource": gvr(version),
        "requestKind": gvk(kind.version), "requestResource": gvr(kind.version),
        "name": event.name(call), "operation": event.operation, "userInfo": user,
        "dryRun": dry_run, "options": options(call, event),
    });
    let namespace = if kind.plural == "namespaces" { event.name(call) } else { call.namespace().to_owned() };
    if !namespace.is_empty() {
        request["namespace"] = namespace.into();
    }
    if !call.info.subresource.is_empty() {
        request["subResource"] = call.info.subresource.as_str().into();
        request["requestSubResource"] = call.info.subresource.as_str().into();
    }
    if let Some(object) = event.new.filter(|o| event.operation == "CONNECT" && o["kind"].is_string()) {
        request["kind"] = json!({"group": "", "version": "v1", "kind": object["kind"]});
        request["requestKind"] = request["kind"].clone();
    }
    request
}

fn options(call: &Call, event: Event<'_>) -> Value {
    let kind = match event.operation {
        "CREATE" => "CreateOptions",
        "UPDATE" if call.info.verb == "patch" => "PatchOptions",
        "UPDATE" => "UpdateOptions",
        "DELETE" => "DeleteOptions",
        _ => return Value::Null,
    };
    json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"})
}
