//! Names: how a Pod is called and how it finds others.

use api::core::v1::{HostAlias, PodDnsConfig, PodSpec};

use crate::status::FieldError;
use crate::validation::{Errors, Path, addresses, checks, names};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_HOSTNAME: usize = 64;

/// The configuration of name resolution.
pub(super) fn config(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let config = spec.dns_config.as_ref();
    if spec.dns_policy == "None" {
        if config.is_none() {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if config.is_some_and(|c| c.nameservers.is_empty()) {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(path.child("nameservers"), why));
            return;
        }
    }
    let Some(PodDnsConfig { nameservers, searches, options }) = config else { return };
    let at = path.child("nameservers");
    if nameservers.len() > MAX_NAMESERVERS {
        let why = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(at, serde_json::json!(nameservers), why));
    }
    for (i, server) in nameservers.iter().enumerate() {
        addresses::legacy_ip(&at.index(i), server, &[], errors);
    }
    self::searches(&path.child("searches"), searches, errors);
    for (i, _) in options.iter().enumerate().filter(|(_, o)| o.name.is_empty()) {
        errors.push(FieldError::required(path.child("options").index(i), "must not be empty"));
    }
}

fn searches(path: &Path<'_>, searches: &[String], errors: &mut Errors) {
    if searches.len() > MAX_SEARCHES {
        let why = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(path, serde_json::json!(searches), why));
    }
    let chars = searches.iter().map(|s| s.len() + 1).sum::<usize>().saturating_sub(1);
    if chars > MAX_SEARCH_CHARS {
        let why =
            format!("must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(path, serde_json::json!(searches), why));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        checks::text(&path.index(i), name, names::dns1123_subdomain_with_underscore(name), errors);
    }
}

/// Lines of the hosts file.
pub(super) fn host_aliases(path: &Path<'_>, aliases: &[HostAlias], errors: &mut Errors) {
    for (i, alias) in aliases.iter().enumerate() {
        let path = path.index(i);
        addresses::legacy_ip(&path.child("ip"), &alias.ip, &[], errors);
        for (j, name) in alias.hostnames.iter().enumerate() {
            checks::text(&path.child("hostnames").index(j), name, names::dns1123_subdomain(name), errors);
        }
    }
}

/// The host name that replaces all others.
pub(super) fn hostname_override(path: &Path<'_>, spec: &PodSpec, errors: &mut Errors) {
    let Some(name) = &spec.hostname_override else { return };
    let path = path.child("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.push(FieldError::forbidden(path, "may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.host_network {
        errors.push(FieldError::forbidden(path, "may not be specified when hostNetwork is true"));
    }
    if name.len() > MAX_HOSTNAME {
        errors.push(FieldError::too_long(path, MAX_HOSTNAME));
    }
    checks::text(&path, name, names::dns1123_subdomain(name), errors);
}
