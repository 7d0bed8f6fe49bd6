//! What is done to an object, as webhooks and policies are told.

use api::Kind;
use serde_json::{Value, json};

use crate::app::Call;
use crate::tree;

const GROUP: &str = "admissionregistration.k8s.io";

/// Kinds that no webhook is asked about: a broken one could not be removed otherwise.
const EXEMPT: [&str; 6] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// What is done to an object, in a version of its resource.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) operation: &'static str,
    /// The resource in the version that it is seen in.
    pub(super) kind: &'static Kind,
    pub(super) new: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
    /// Options of the operation; null where it has none.
    pub(super) options: &'a Value,
    pub(super) dry_run: bool,
}

impl Event<'_> {
    /// The name in the request, or that of an object that is made, if it has one yet.
    pub(super) fn name(&self, call: &Call) -> String {
        match self.new {
            Some(new) if call.info.name.is_empty() => tree::text(new, "/metadata/name").to_owned(),
            _ => call.info.name.clone(),
        }
    }

    /// The namespace of the request; a Namespace is in the one that it is.
    pub(super) fn namespace(&self, call: &Call) -> String {
        if call.kind.plural == "namespaces" { self.name(call) } else { call.namespace().to_owned() }
    }
}

/// Whether webhooks and policies look at the request at all.
pub(super) fn is_looked_at(call: &Call) -> bool {
    let internal = call.headers.is_empty() && call.user.name == "system:apiserver";
    !internal
}

/// Whether webhooks are not asked about the request.
pub(super) fn is_exempt_from_hooks(call: &Call) -> bool {
    call.kind.group == GROUP && EXEMPT.contains(&call.kind.plural)
}

/// The request without its objects, as `AdmissionRequest` spells it.
pub(super) fn request(call: &Call, event: Event<'_>) -> Value {
    let subresource = call.info.subresource.as_str();
    let gvk = |kind: &Kind| {
        let name = kind.type_of(subresource);
        json!({"group": name.group, "version": name.version, "kind": name.kind})
    };
    let gvr = |kind: &Kind| json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
    let mut user = json!({"username": call.user.name, "groups": call.user.groups});
    if !call.user.uid.is_empty() {
        user["uid"] = call.user.uid.as_str().into();
    }
    if !call.user.extra.is_empty() {
        user["extra"] = json!(call.user.extra);
    }
    let (name, namespace) = (event.name(call), event.namespace(call));
    let mut request = json!({
        "kind": gvk(event.kind), "resource": gvr(event.kind),
        "requestKind": gvk(call.kind), "requestResource": gvr(call.kind),
        "operation": event.operation, "userInfo": user, "dryRun": event.dry_run, "options": event.options,
    });
    if !name.is_empty() {
        request["name"] = name.into();
    }
    if !namespace.is_empty() {
        request["namespace"] = namespace.into();
    }
    if !subresource.is_empty() {
        request["subResource"] = subresource.into();
        request["requestSubResource"] = subresource.into();
    }
    request
}
