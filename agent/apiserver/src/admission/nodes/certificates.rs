//! Nodes ask for certificates of the pods that they run, and of no others.

use http::StatusCode;
use serde_json::Value;

use super::{Operation, refuse};
use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::tree;

const FEATURE: &str = "PodCertificateRequest";

/// Why a node may not do anything else with requests.
pub(super) fn unexpected(call: &Call, operation: &str) -> String {
    match call.app.config.features.is_on(FEATURE) {
        true => format!("unexpected operation {operation}"),
        false => "PodCertificateRequest feature gate is disabled".to_owned(),
    }
}

/// What the request says of its node, pod and service account has to be so.
pub(super) fn own_request(call: &Call, node: &str, operation: Operation, new: &Value) -> Result<()> {
    let no = |why: String| Err(refuse(call, tree::name_given(new), why));
    if operation != Operation::Create || !call.app.config.features.is_on(FEATURE) {
        return no(unexpected(call, operation.name()));
    }
    let said = |field: &str| tree::text(&new["spec"], &format!("/{field}"));
    let namespace = call.namespace();
    let of = |name: &str| format!("{namespace}/{name}");
    let (pod_name, account_name) = (of(said("podName")), of(said("serviceAccountName")));
    if said("nodeName") != node {
        return no(format!(
            "PodCertificateRequest.Spec.NodeName={:?}, which is not the requesting node {node:?}",
            said("nodeName")
        ));
    }
    let uid = |object: &Value| tree::text(object, "/metadata/uid").to_owned();
    // What follows may be a cache that is behind: who asks again may get an answer.
    let own =
        find(call, "nodes", ("", node))?.ok_or_else(|| missing("node", node, format!("node {node:?} not found")))?;
    if uid(&own) != said("nodeUID") {
        return Err(retry(format!(
            "PodCertificateRequest for pod {pod_name:?} names node UID {:?}, inconsistent with the running node ({:?})",
            said("nodeUID"),
            uid(&own)
        )));
    }
    let pod = find(call, "pods", (namespace, said("podName")))?;
    let pod = pod.ok_or_else(|| missing("pod", &pod_name, format!("pod {:?} not found", said("podName"))))?;
    if uid(&pod) != said("podUID") {
        return Err(retry(format!(
            "PodCertificateRequest for pod {pod_name:?} contains pod UID ({:?}) which differs from running pod {:?}",
            said("podUID"),
            uid(&pod)
        )));
    }
    if tree::text(&pod, "/spec/nodeName") != node {
        return no(format!("pod {pod_name:?} is not running on node {node:?} named in the PodCertificateRequest"));
    }
    if tree::has(&pod, "/metadata/annotations/kubernetes.io~1config.mirror") {
        return no(format!("pod {pod_name:?} is a mirror pod"));
    }
    let runs_as = tree::text(&pod, "/spec/serviceAccountName");
    if runs_as != said("serviceAccountName") {
        return no(format!(
            "PodCertificateRequest for pod {pod_name:?} contains serviceAccountName ({:?}) that differs from running pod \
             ({runs_as:?})",
            said("serviceAccountName")
        ));
    }
    let account = find(call, "serviceaccounts", (namespace, runs_as))?;
    let not_found = || missing("service account", &account_name, format!("serviceaccount {runs_as:?} not found"));
    let account = account.ok_or_else(not_found)?;
    if uid(&account) != said("serviceAccountUID") {
        return Err(retry(format!(
            "PodCertificateRequest for pod {pod_name:?} names service account UID {:?}, which differs from the running \
             service account ({:?})",
            said("serviceAccountUID"),
            uid(&account)
        )));
    }
    Ok(())
}

/// An error of which upstream says no more than its text.
fn retry(why: String) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", why)
}

fn missing(what: &str, name: &str, why: String) -> Failure {
    retry(format!("while retrieving {what} {name:?} named in the PodCertificateRequest: {why}"))
}

fn find(call: &Call, plural: &str, (namespace, name): (&str, &str)) -> Result<Option<Value>> {
    let storage = call.app.cache.known("", plural);
    let object = storage.get(namespace, name);
    object.map(|object| codec::to_value(storage, storage.kind, &object)).transpose()
}
