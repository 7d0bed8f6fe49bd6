//! Whether a kubelet may have the certificate that it asks for.

use std::collections::BTreeSet;

use crate::CsrDenied;
use crate::authority::{San, Usage};
use crate::csr::Csr;

const NODE_USER_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";

/// The user name of a node's certificates.
pub(crate) fn user(node: &str) -> String {
    format!("{NODE_USER_PREFIX}{node}")
}

fn node_name(csr: &Csr) -> Result<&str, CsrDenied> {
    let name = csr.common_name.strip_prefix(NODE_USER_PREFIX).filter(|name| !name.is_empty());
    let name = name.ok_or(CsrDenied::NotANode)?;
    if csr.organizations == [NODES_GROUP] { Ok(name) } else { Err(CsrDenied::NotInNodes) }
}

/// Checks a request for the signer `kubernetes.io/kube-apiserver-client-kubelet` and returns the node's name.
/// A requester that is a node may only ask for itself.
///
/// # Errors
/// Why the request is refused.
pub fn node_client<'a>(csr: &'a Csr, usages: &BTreeSet<Usage>, requester: &str) -> Result<&'a str, CsrDenied> {
    let node = node_name(csr)?;
    if !csr.sans.is_empty() || csr.other_names > 0 {
        return Err(CsrDenied::Names);
    }
    let mut with_encipherment = usages.clone();
    with_encipherment.insert(Usage::KeyEncipherment);
    if with_encipherment != [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ClientAuth].into() {
        return Err(CsrDenied::Usages { expected: "digital signature, client auth, perhaps key encipherment" });
    }
    if requester.starts_with(NODE_USER_PREFIX) && requester != csr.common_name {
        return Err(CsrDenied::Requester { requester: requester.to_owned(), node: node.to_owned() });
    }
    Ok(node)
}

/// Checks a request for the signer `kubernetes.io/kubelet-serving` and returns the node's name. Only the node itself
/// may ask, and only for names and addresses that are its own according to `is_own`.
///
/// # Errors
/// Why the request is refused.
pub fn node_serving<'a>(
    csr: &'a Csr,
    usages: &BTreeSet<Usage>,
    requester: &str,
    is_own: impl Fn(&str, &San) -> bool,
) -> Result<&'a str, CsrDenied> {
    let node = node_name(csr)?;
    if requester != csr.common_name {
        return Err(CsrDenied::Requester { requester: requester.to_owned(), node: node.to_owned() });
    }
    if csr.other_names > 0 {
        return Err(CsrDenied::OtherNames);
    }
    if csr.sans.is_empty() {
        return Err(CsrDenied::NoNames);
    }
    let mut with_encipherment = usages.clone();
    with_encipherment.insert(Usage::KeyEncipherment);
    if with_encipherment != [Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth].into() {
        return Err(CsrDenied::Usages { expected: "digital signature, server auth, perhaps key encipherment" });
    }
    match csr.sans.iter().find(|san| !is_own(node, san)) {
        Some(foreign) => Err(CsrDenied::ForeignName(foreign.to_string())),
        None => Ok(node),
    }
}
