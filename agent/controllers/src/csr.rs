//! `certificatesigningrequest-approving-controller` and `-signing-controller`: certificates of nodes.
//!
//! Requests of kubelets are checked and approved here; whatever else was approved by somebody is signed, where its
//! signer is one of ours.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use api::authorization::v1::{ResourceAttributes, SubjectAccessReview};
use api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use api::core::v1::Node;
use api::meta::v1::Time;
use client::DeleteOptions;
use pki::{Authority, Csr, CsrDenied, San, Usage};
use reconcile::{Action, Event, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now};
use crate::error::{During, Error};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// User names of nodes.
const NODE_USER_PREFIX: &str = "system:node:";
/// Life of a certificate where the request does not ask for less.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest life a request may ask for, as upstream.
const MIN_LIFE: Duration = Duration::from_secs(600);
/// Requests that were answered are kept so long, those that nobody answers a day.
const KEEP_ANSWERED: i64 = 3600;
const KEEP_PENDING: i64 = 24 * 3600;
/// Nothing is done for a request that nobody approves, until it is removed.
const UNTIL_OLD: Action = Action::RequeueAfter(Duration::from_secs(KEEP_PENDING.unsigned_abs() + 1));
pub(crate) struct Requests {
    context: Context,
}

impl Controller for Requests {
    const NAME: &'static str = "certificatesigningrequest-signing-controller";
    const NEEDS: &'static [Need] = &[need::signing_requests, need::nodes];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.signing_requests.handle(enqueue(queue));
        let (queue, requests) = (queue.clone(), self.context.caches.signing_requests.clone());
        reflectors.nodes.handle(move |event| {
            let Event::Applied { old, new } = event else { return };
            if old.as_ref().is_some_and(|old| old.status.addresses == new.status.addresses) {
                return;
            }
            let waiting = requests.list();
            let waiting = waiting.iter().filter(|request| waits_for(request, &new.metadata.name));
            waiting.for_each(|request| queue.add(Key::of(&request.metadata)));
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(request) = self.context.caches.signing_requests.get("", &key.name) else { return Ok(Action::Done) };
        let age = now() - request.metadata.creation_timestamp.unix().unwrap_or_else(now);
        match plan(&request, age) {
            Step::Remove => self.remove(&request).await,
            Step::Judge => self.judge(&request).await,
            Step::Sign => self.sign(&request).await,
            Step::Wait(rest) => Ok(Action::RequeueAfter(rest)),
        }
    }
}

/// What a request needs next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Judge,
    Sign,
    Remove,
    /// Nothing, until it is old.
    Wait(Duration),
}

fn plan(request: &CertificateSigningRequest, age: i64) -> Step {
    let has = |kind: &str| request.status.conditions.iter().any(|c| c.r#type == kind);
    let issued = request.status.certificate.as_ref().is_some_and(|c| !c.is_empty());
    let answered = issued || has("Denied") || has("Failed");
    let ours = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING].contains(&request.spec.signer_name.as_str());
    let keep = if answered { KEEP_ANSWERED } else { KEEP_PENDING };
    if age > keep {
        return Step::Remove;
    }
    if !answered && ours && has("Approved") {
        return Step::Sign;
    }
    if !answered && !has("Approved") && request.spec.signer_name != CLIENT && ours {
        return Step::Judge;
    }
    Step::Wait(Duration::from_secs((keep - age + 1).unsigned_abs()))
}

/// Whether a node's request for its serving certificate may wait for the addresses that the node tells.
fn waits_for(request: &CertificateSigningRequest, node: &str) -> bool {
    request.spec.signer_name == KUBELET_SERVING
        && request.status.conditions.is_empty()
        && request.spec.username.strip_prefix(NODE_USER_PREFIX) == Some(node)
}

/// The permissions of which one is enough: nodes renew their own certificate, others ask for a node's first.
fn node_client_permissions(user: &str) -> &'static [&'static str] {
    if user.starts_with(NODE_USER_PREFIX) { &["selfnodeclient", "nodeclient"] } else { &["nodeclient"] }
}

fn access_review(request: &CertificateSigningRequest, permission: &str) -> SubjectAccessReview {
    let mut review = SubjectAccessReview::default();
    let extra = request
        .spec
        .extra
        .iter()
        .map(|(key, values)| (key.clone(), api::authorization::v1::ExtraValue { items: values.items.clone() }));
    review.spec.user.clone_from(&request.spec.username);
    review.spec.uid.clone_from(&request.spec.uid);
    review.spec.groups.clone_from(&request.spec.groups);
    review.spec.extra = extra.collect();
    review.spec.resource_attributes = Some(ResourceAttributes {
        group: "certificates.k8s.io".to_owned(),
        version: "*".to_owned(),
        resource: "certificatesigningrequests".to_owned(),
        subresource: permission.to_owned(),
        verb: "create".to_owned(),
        ..ResourceAttributes::default()
    });
    review
}

impl Requests {
    async fn remove(&self, request: &CertificateSigningRequest) -> Result<Action, Error> {
        let (name, options) = (&request.metadata.name, DeleteOptions::default());
        match self.context.client.delete::<CertificateSigningRequest>(None, name, &options).await {
            Err(error) if !error.is_not_found() => Err(error).during("removing an old signing request"),
            _ => Ok(Action::Done),
        }
    }

    /// Approves what a node may have. What it may not have stays pending for a person to decide, as upstream.
    async fn judge(&self, request: &CertificateSigningRequest) -> Result<Action, Error> {
        match self.check(request) {
            Ok(()) if self.may_approve(request).await? => {}
            Ok(()) => {
                let (request, user) = (&request.metadata.name, &request.spec.username);
                tracing::info!(request, user, "not approved by itself: the user may not have node certificates");
                return Ok(UNTIL_OLD);
            }
            Err(CsrDenied::ForeignName(name)) if request.spec.signer_name == KUBELET_SERVING => {
                // Once the node has told its addresses, the request is looked at again.
                tracing::debug!(request = request.metadata.name, name, "a name that the node does not have");
                return Ok(UNTIL_OLD);
            }
            Err(denied) => {
                tracing::info!(request = request.metadata.name, %denied, "not approved by itself");
                return Ok(UNTIL_OLD);
            }
        }
        let mut approved = request.clone();
        approved.status.conditions.push(condition(
            "Approved",
            "AutoApproved",
            "Auto approving kubelet certificate after SubjectAccessReview.",
        ));
        self.context.client.update_subresource(&approved, "approval").await.during("approving a signing request")?;
        Ok(Action::Done)
    }

    fn check(&self, request: &CertificateSigningRequest) -> Result<(), CsrDenied> {
        let (csr, usages) = read(request)?;
        if request.spec.signer_name == KUBELET_CLIENT {
            return pki::node_client(&csr, &usages, &request.spec.username).map(drop);
        }
        let nodes = &self.context.caches.nodes;
        let is_own = |node: &str, san: &San| nodes.get("", node).is_some_and(|node| has_name(&node, san));
        pki::node_serving(&csr, &usages, &request.spec.username, is_own).map(drop)
    }

    /// Whether who asks may have such a certificate without a person's approval. For client certificates that is a
    /// permission, as upstream; serving certificates go by the names alone.
    async fn may_approve(&self, request: &CertificateSigningRequest) -> Result<bool, Error> {
        if request.spec.signer_name != KUBELET_CLIENT {
            return Ok(true);
        }
        let Some(kind) = api::kind_by_resource("authorization.k8s.io", "v1", "subjectaccessreviews") else {
            return Ok(false);
        };
        for permission in node_client_permissions(&request.spec.username) {
            let review = access_review(request, permission);
            let answer = self.context.client.review(kind, &review).await.during("asking what a requester may do")?;
            if answer.status.allowed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn sign(&self, request: &CertificateSigningRequest) -> Result<Action, Error> {
        let Some(signer) = &self.context.config.signer else { return Ok(Action::Done) };
        let name = &request.metadata.name;
        let mut signed = request.clone();
        match issue(signer, request) {
            Ok(certificate) => signed.status.certificate = Some(certificate.into_bytes()),
            Err(source) => {
                tracing::warn!(request = name, error = %source, "signing failed");
                signed.status.conditions.push(condition("Failed", "SignerValidationFailure", &source.to_string()));
            }
        }
        self.context.client.update_status(&signed).await.during("writing a signed certificate")?;
        Ok(Action::Done)
    }
}

fn issue(signer: &crate::Signer, request: &CertificateSigningRequest) -> Result<String, pki::Error> {
    let authority = Authority::from_pem("ca", &signer.cert_pem, &signer.key_pem)?;
    let (_, usages) = read(request)?;
    let text = String::from_utf8_lossy(request.spec.request.as_deref().unwrap_or_default()).into_owned();
    let asked = request.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let life = asked.map_or(LIFE, |asked| asked.clamp(MIN_LIFE, LIFE));
    authority.sign_csr(&text, &usages, (life, SystemTime::now()), &mut pki::os_random)
}

fn read(request: &CertificateSigningRequest) -> Result<(Csr, BTreeSet<Usage>), CsrDenied> {
    let text = String::from_utf8_lossy(request.spec.request.as_deref().unwrap_or_default());
    Ok((Csr::parse(&text)?, Usage::parse_all(request.spec.usages.iter().map(String::as_str))?))
}

fn has_name(node: &Node, san: &San) -> bool {
    node.status.addresses.iter().any(|address| match san {
        San::Dns(name) => *name == address.address,
        San::Ip(ip) => address.address.parse() == Ok(*ip),
    })
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        r#type: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_update_time: Time::from_unix(now()),
        last_transition_time: Time::from_unix(now()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(signer: &str, conditions: &[&str]) -> CertificateSigningRequest {
        let mut request = CertificateSigningRequest::default();
        request.spec.signer_name = signer.to_owned();
        request.status.conditions = conditions.iter().map(|kind| condition(kind, "", "")).collect();
        request
    }

    #[test]
    fn a_request_goes_through_its_steps() {
        let mut issued = request(KUBELET_CLIENT, &["Approved"]);
        issued.status.certificate = Some(vec![1]);
        assert_eq!(plan(&request(KUBELET_CLIENT, &[]), 0), Step::Judge);
        assert_eq!(plan(&request(CLIENT, &[]), 0), Step::Wait(Duration::from_secs(86_401)));
        assert_eq!(plan(&request(CLIENT, &["Approved"]), 0), Step::Sign);
        assert_eq!(plan(&request("example.com/other", &["Approved"]), 0), Step::Wait(Duration::from_secs(86_401)));
        assert_eq!(plan(&issued, 0), Step::Wait(Duration::from_secs(3601)));
        assert_eq!(plan(&issued, 3601), Step::Remove);
        assert_eq!(plan(&request(KUBELET_CLIENT, &["Denied"]), 0), Step::Wait(Duration::from_secs(3601)));
    }
    #[test]
    fn what_waits_for_a_node_is_looked_at_when_the_node_tells_its_addresses() {
        let of = |signer: &str, user: &str, conditions: &[&str]| {
            let mut request = request(signer, conditions);
            request.spec.username = user.to_owned();
            waits_for(&request, "worker-1")
        };
        assert!(of(KUBELET_SERVING, "system:node:worker-1", &[]));
        assert!(!of(KUBELET_SERVING, "system:node:worker-10", &[]));
        assert!(!of(KUBELET_SERVING, "system:node:worker-1", &["Denied"]));
        assert!(!of(KUBELET_CLIENT, "system:node:worker-1", &[]));
    }
}
