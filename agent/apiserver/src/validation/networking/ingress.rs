//! Ingresses and IngressClasses.

use api::core::v1::TypedLocalObjectReference;
use api::networking::v1::{
    HttpIngressPath, Ingress, IngressBackend, IngressClass, IngressClassParametersReference, IngressLoadBalancerStatus,
    IngressRule, IngressSpec,
};

use super::addresses::segment;
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::addresses::{legacy_ip, parse_sloppy};
use crate::validation::core::service::host_name;
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");
const CLASS: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const NOT_WITHIN: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const NOT_AT_END: &[&str] = &["/..", "/."];
const MAX_CONTROLLER_LEN: usize = 250;

/// What an Ingress may have in spite of the rules.
#[derive(Clone, Copy, Default)]
struct Kept {
    any_secret: bool,
    any_wildcard_rule: bool,
}

pub fn ingress(change: &Change<'_, Ingress>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old);
    if change.part == Part::Status {
        return balancer(&new.status.load_balancer, old.map(|old| &old.status.load_balancer), errors);
    }
    let kept = old.map_or(Kept::default(), |old| Kept {
        any_secret: old.spec.tls.iter().any(|tls| !secret_name(&tls.secret_name).is_empty()),
        any_wildcard_rule: old.spec.rules.iter().any(wildcard_rule_is_broken),
    });
    spec(&new.spec, kept, errors);
    if old.is_none()
        && let (Some(noted), Some(class)) = (new.metadata.annotations.get(CLASS), &new.spec.ingress_class_name)
        && noted != class
    {
        let why = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(Path::root("annotations").child(CLASS), noted, why));
    }
}

fn secret_name(name: &str) -> names::Complaints {
    if name.is_empty() { names::Complaints::new() } else { names::dns1123_subdomain(name) }
}

fn wildcard_rule_is_broken(rule: &IngressRule) -> bool {
    let mut found = Errors::new();
    if rule.host.contains('*') {
        http(&SPEC, rule, &mut found);
    }
    !found.is_empty()
}

fn spec(spec: &IngressSpec, kept: Kept, errors: &mut Errors) {
    if spec.rules.is_empty() && spec.default_backend.is_none() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(SPEC, shown::texts(&[]), why));
    }
    if let Some(default) = &spec.default_backend {
        backend(&SPEC.child("defaultBackend"), default, errors);
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        let (list, told) = (SPEC.child("rules"), &mut *errors);
        if !rule.host.is_empty() {
            rule_host(&list.index(i).child("host"), &rule.host, told);
        }
        if !kept.any_wildcard_rule || !rule.host.contains('*') {
            http(&list.index(i), rule, told);
        }
    }
    for (i, tls) in spec.tls.iter().enumerate() {
        let list = SPEC.child("tls");
        let path = list.index(i);
        for (i, host) in tls.hosts.iter().enumerate() {
            name_of_host(&path.child("hosts").index(i), host, errors);
        }
        if !kept.any_secret {
            checks::text(&path.child("secretName"), &tls.secret_name, secret_name(&tls.secret_name), errors);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        checks::text(&SPEC.child("ingressClassName"), class, names::dns1123_subdomain(class), errors);
    }
}

fn rule_host(path: &Path<'_>, host: &str, errors: &mut Errors) {
    if parse_sloppy(host).is_some() {
        errors.push(FieldError::invalid(path, host, "must be a DNS name, not an IP address"));
    }
    name_of_host(path, host, errors);
}

fn name_of_host(path: &Path<'_>, host: &str, errors: &mut Errors) {
    let form = if host.contains('*') { names::wildcard_subdomain } else { names::dns1123_subdomain };
    checks::text(path, host, form(host), errors);
}

fn http(path: &Path<'_>, rule: &IngressRule, errors: &mut Errors) {
    let Some(http) = &rule.ingress_rule_value.http else { return };
    let path = path.child("http");
    let list = path.child("paths");
    if http.paths.is_empty() {
        errors.push(FieldError::required(list, ""));
    }
    for (i, each) in http.paths.iter().enumerate() {
        http_path(&list.index(i), each, errors);
    }
}

fn http_path(path: &Path<'_>, rule: &HttpIngressPath, errors: &mut Errors) {
    let Some(kind) = &rule.path_type else {
        return errors.push(FieldError::required(path.child("pathType"), "pathType must be specified"));
    };
    let (at, text) = (path.child("path"), rule.path.as_str());
    let is_rooted = text.starts_with('/');
    match kind.as_str() {
        "Exact" | "Prefix" => {
            if !is_rooted {
                errors.push(FieldError::invalid(at, text, "must be an absolute path"));
            }
            for part in NOT_WITHIN.iter().filter(|part| text.contains(**part)) {
                errors.push(FieldError::invalid(at, text, format!("must not contain '{part}'")));
            }
            for end in NOT_AT_END.iter().filter(|end| text.ends_with(**end)) {
                errors.push(FieldError::invalid(at, text, format!("cannot end with '{end}'")));
            }
        }
        "ImplementationSpecific" if is_rooted || text.is_empty() => {}
        "ImplementationSpecific" => errors.push(FieldError::invalid(at, text, "must be an absolute path")),
        other => checks::supported(&path.child("pathType"), other, PATH_TYPES, errors),
    }
    backend(&path.child("backend"), &rule.backend, errors);
}

fn backend(path: &Path<'_>, backend: &IngressBackend, errors: &mut Errors) {
    let service = match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            return errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => return errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (None, Some(resource)) => return reference(&path.child("resource"), resource, errors),
        (Some(service), None) => service,
    };
    let of_service = path.child("service");
    let name = of_service.child("name");
    checks::required(&name, &service.name, errors);
    if !service.name.is_empty() {
        checks::text(&name, &service.name, names::dns1123_label(&service.name), errors);
    }
    let (port, number) = (of_service.child("port"), service.port.number);
    match (service.port.name.as_str(), number) {
        ("", 0) => errors.push(FieldError::required(path, "port name or number is required")),
        ("", _) => checks::port_number(&port.child("number"), number, errors),
        (name, 0) => checks::text(&port.child("name"), name, names::port_name(name), errors),
        _ => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
    }
}

fn reference(path: &Path<'_>, reference: &TypedLocalObjectReference, errors: &mut Errors) {
    if let Some(group) = &reference.api_group {
        checks::text(&path.child("apiGroup"), group, names::dns1123_subdomain(group), errors);
    }
    segment(&path.child("kind"), &reference.kind, errors);
    segment(&path.child("name"), &reference.name, errors);
}

fn balancer(new: &IngressLoadBalancerStatus, old: Option<&IngressLoadBalancerStatus>, errors: &mut Errors) {
    let status = Path::root("status");
    let balancer = status.child("loadBalancer");
    let before: Vec<String> = old.map_or(Vec::new(), |old| old.ingress.iter().map(|i| i.ip.clone()).collect());
    for (i, ingress) in new.ingress.iter().enumerate() {
        let list = balancer.child("ingress");
        if !ingress.ip.is_empty() {
            legacy_ip(&list.index(i).child("ip"), &ingress.ip, &before, errors);
        }
        host_name(&list.index(i).child("hostname"), &ingress.hostname, errors);
    }
}

pub fn ingress_class(change: &Change<'_, IngressClass>, errors: &mut Errors) {
    let (new, path) = (&change.new.spec, SPEC.child("controller"));
    if change.old.is_some_and(|old| old.spec.controller != new.controller) {
        errors.push(FieldError::invalid(path, &new.controller, checks::IMMUTABLE));
    }
    if new.controller.len() > MAX_CONTROLLER_LEN {
        errors.push(FieldError::too_long(path, MAX_CONTROLLER_LEN));
    }
    domain_prefixed_path(&path, &new.controller, errors);
    if let Some(parameters) = &new.parameters {
        class_parameters(&SPEC.child("parameters"), parameters, errors);
    }
}

/// A domain, a slash and a path.
fn domain_prefixed_path(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if text.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let Some((domain, rest)) = text.split_once('/').filter(|(d, r)| !d.is_empty() && !r.is_empty()) else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return errors.push(FieldError::invalid(path, text, why));
    };
    checks::text(path, domain, names::dns1123_subdomain(domain), errors);
    if !rest.bytes().all(|c| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c)) {
        let why = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(path, rest, why));
    }
}

fn class_parameters(path: &Path<'_>, parameters: &IngressClassParametersReference, errors: &mut Errors) {
    if let Some(group) = &parameters.api_group {
        checks::text(&path.child("apiGroup"), group, names::dns1123_subdomain(group), errors);
    }
    segment(&path.child("kind"), &parameters.kind, errors);
    segment(&path.child("name"), &parameters.name, errors);
    let (at, namespace) = (path.child("namespace"), &parameters.namespace);
    match (parameters.scope.as_deref(), namespace) {
        (None, _) => errors.push(FieldError::required(path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(at, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(name)) => checks::text(&at, name, names::dns1123_label(name), errors),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(at, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            errors.push(FieldError::not_supported(path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    #[test]
    fn ingresses_lead_to_backends() {
        let cases = [
            (r#"{"defaultBackend":{"service":{"name":"a","port":{"number":80}}}}"#, ""),
            (r#"{}"#, "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"),
            (
                r#"{"rules":[{"http":{"paths":[{"path":"a//b","pathType":"Exact","backend":{}}]}}]}"#,
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path\n\
                 spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'\n\
                 spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ),
        ];
        for (spec, expected) in cases {
            let object = format!(r#"{{"spec":{spec}}}"#);
            assert_eq!(told("networking.k8s.io/v1", "Ingress", Part::Main, &object, None), expected);
        }
    }
}
