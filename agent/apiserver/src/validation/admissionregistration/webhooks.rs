//! Configurations of webhooks.

use api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use api::meta::v1::LabelSelector;
use serde_json::json;

use super::{FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, rules};
use crate::status::FieldError;
use crate::validation::labels::{self, SelectorOptions};
use crate::validation::{Change, Errors, Path, checks, names};

const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "; desired format: https://host[/path]";

/// What both kinds of webhooks have.
struct Hook<'a> {
    name: &'a str,
    client: &'a WebhookClientConfig,
    rules: &'a [RuleWithOperations],
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    selectors: [(&'static str, Option<&'a LabelSelector>); 2],
    side_effects: Option<&'a str>,
    timeout: Option<i32>,
    review_versions: &'a [String],
    reinvocation: Option<&'a str>,
    conditions: &'a [MatchCondition],
}

impl<'a> From<&'a ValidatingWebhook> for Hook<'a> {
    fn from(hook: &'a ValidatingWebhook) -> Self {
        Self {
            name: &hook.name,
            client: &hook.client_config,
            rules: &hook.rules,
            failure_policy: hook.failure_policy.as_deref(),
            match_policy: hook.match_policy.as_deref(),
            selectors: [
                ("namespaceSelector", hook.namespace_selector.as_ref()),
                ("objectSelector", hook.object_selector.as_ref()),
            ],
            side_effects: hook.side_effects.as_deref(),
            timeout: hook.timeout_seconds,
            review_versions: &hook.admission_review_versions,
            reinvocation: None,
            conditions: &hook.match_conditions,
        }
    }
}

impl<'a> From<&'a MutatingWebhook> for Hook<'a> {
    fn from(hook: &'a MutatingWebhook) -> Self {
        Self {
            name: &hook.name,
            client: &hook.client_config,
            rules: &hook.rules,
            failure_policy: hook.failure_policy.as_deref(),
            match_policy: hook.match_policy.as_deref(),
            selectors: [
                ("namespaceSelector", hook.namespace_selector.as_ref()),
                ("objectSelector", hook.object_selector.as_ref()),
            ],
            side_effects: hook.side_effects.as_deref(),
            timeout: hook.timeout_seconds,
            review_versions: &hook.admission_review_versions,
            reinvocation: hook.reinvocation_policy.as_deref(),
            conditions: &hook.match_conditions,
        }
    }
}

/// What objects of old may be in spite of the rules.
struct Options {
    allow_side_effects: bool,
    allow_unknown_reviews: bool,
    allow_repeated_names: bool,
    allow_invalid_values: bool,
    ignore_conditions: bool,
}

pub(in crate::validation) fn validating(change: &Change<'_, ValidatingWebhookConfiguration>, errors: &mut Errors) {
    let hooks: Vec<Hook<'_>> = change.new.webhooks.iter().map(Hook::from).collect();
    let old: Option<Vec<Hook<'_>>> = change.old.map(|old| old.webhooks.iter().map(Hook::from).collect());
    check(&hooks, old.as_deref(), errors);
}

pub(in crate::validation) fn mutating(change: &Change<'_, MutatingWebhookConfiguration>, errors: &mut Errors) {
    let hooks: Vec<Hook<'_>> = change.new.webhooks.iter().map(Hook::from).collect();
    let old: Option<Vec<Hook<'_>>> = change.old.map(|old| old.webhooks.iter().map(Hook::from).collect());
    check(&hooks, old.as_deref(), errors);
}

fn has_repeated(hooks: &[Hook<'_>]) -> bool {
    hooks.iter().enumerate().any(|(i, hook)| hooks[..i].iter().any(|other| other.name == hook.name))
}

fn options(new: &[Hook<'_>], old: Option<&[Hook<'_>]>) -> Options {
    let old_ones = old.unwrap_or_default();
    let known = |hook: &Hook<'_>| hook.review_versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str()));
    let selectors = || old_ones.iter().flat_map(|h| h.selectors.iter().filter_map(|(_, s)| *s));
    Options {
        allow_side_effects: old_ones.iter().any(|h| !h.side_effects.is_some_and(|s| NO_SIDE_EFFECTS.contains(&s))),
        allow_unknown_reviews: old_ones.iter().any(|h| !h.review_versions.is_empty() && !known(h)),
        allow_repeated_names: has_repeated(old_ones),
        allow_invalid_values: selectors().any(labels::has_invalid_values),
        ignore_conditions: old.is_some_and(|old| {
            new.len() == old.len() && new.iter().zip(old).all(|(a, b)| a.conditions == b.conditions)
        }),
    }
}

fn check(hooks: &[Hook<'_>], old: Option<&[Hook<'_>]>, errors: &mut Errors) {
    let options = options(hooks, old);
    let list = Path::root("webhooks");
    let mut seen: Vec<&str> = Vec::new();
    for (i, hook) in hooks.iter().enumerate() {
        let path = list.index(i);
        one(&path, hook, &options, errors);
        review_versions(&path.child("admissionReviewVersions"), hook, &options, errors);
        if !options.allow_repeated_names && !hook.name.is_empty() {
            if seen.contains(&hook.name) {
                errors.push(FieldError::duplicate(path.child("name"), hook.name));
            } else {
                seen.push(hook.name);
            }
        }
    }
}

fn qualified_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let complaints = names::dns1123_subdomain(name);
    if !complaints.is_empty() {
        errors.push(FieldError::invalid(path, name, complaints.join(",")));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, why));
    }
}

fn one(path: &Path<'_>, hook: &Hook<'_>, options: &Options, errors: &mut Errors) {
    qualified_name(&path.child("name"), hook.name, errors);
    for (i, rule) in hook.rules.iter().enumerate() {
        rules::rule(&path.child("rules").index(i), rule, errors);
    }
    if let Some(policy) = hook.failure_policy {
        super::word(&path.child("failurePolicy"), policy, &FAILURE_POLICIES, errors);
    }
    if let Some(policy) = hook.match_policy {
        super::word(&path.child("matchPolicy"), policy, &MATCH_POLICIES, errors);
    }
    let allowed: &[&str] = if options.allow_side_effects { &SIDE_EFFECTS } else { &NO_SIDE_EFFECTS };
    match hook.side_effects {
        None => {
            let why = format!("must specify one of {}", allowed.join(", "));
            errors.push(FieldError::required(path.child("sideEffects"), why));
        }
        Some(effects) => super::word(&path.child("sideEffects"), effects, allowed, errors),
    }
    if let Some(timeout) = hook.timeout.filter(|t| !(1..=30).contains(t)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(path.child("timeoutSeconds"), timeout, why));
    }
    for (name, selector) in hook.selectors {
        if let Some(selector) = selector {
            let lenient =
                SelectorOptions { allow_invalid_values: options.allow_invalid_values, ..SelectorOptions::default() };
            labels::selector(&path.child(name), selector, lenient, errors);
        }
    }
    if let Some(policy) = hook.reinvocation {
        super::word(&path.child("reinvocationPolicy"), policy, &REINVOCATION_POLICIES, errors);
    }
    client(&path.child("clientConfig"), hook.client, errors);
    if !options.ignore_conditions {
        super::match_conditions(&path.child("matchConditions"), hook.conditions, false, errors);
    }
}

fn client(path: &Path<'_>, client: &WebhookClientConfig, errors: &mut Errors) {
    match (&client.url, &client.service) {
        (Some(url), None) => self::url(&path.child("url"), url, errors),
        (None, Some(reference)) => service(&path.child("service"), reference, errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

/// The parts of a URL that matter here.
fn url(path: &Path<'_>, url: &str, errors: &mut Errors) {
    if url.chars().any(|c| c.is_ascii_control()) {
        let text = stdx::quoted(url);
        let why = format!("url must be a valid URL: parse {text}: net/url: invalid control character in URL{URL_FORM}");
        errors.push(FieldError::required(path, why));
        return;
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").map_or("", |r| r.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{URL_FORM}");
        errors.push(FieldError::invalid(path, scheme, why));
    }
    if host.is_empty() {
        errors.push(FieldError::invalid(path, "", format!("host must be specified{URL_FORM}")));
    }
    if let Some(user) = user {
        errors.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

/// Upstream hands name and namespace over in the wrong order, and so tells of the one where the other is missing.
fn service(path: &Path<'_>, service: &ServiceReference, errors: &mut Errors) {
    checks::required(&path.child("name"), &service.namespace, errors);
    checks::required(&path.child("namespace"), &service.name, errors);
    let port = service.port.unwrap_or(443);
    if !(1..=65_535).contains(&port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(path.child("port"), port, why));
    }
    let given = service.path.as_deref().unwrap_or_default();
    if given.is_empty() || given == "/" {
        return;
    }
    let path = path.child("path");
    if given == "//" {
        errors.push(FieldError::invalid(path, given, "segment[0] may not be empty"));
        return;
    }
    if !given.starts_with('/') {
        errors.push(FieldError::invalid(path, given, "must start with a '/'"));
    }
    let rest = given.char_indices().nth(1).map_or("", |(at, _)| &given[at..]);
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(FieldError::invalid(path, given, format!("segment[{i}] may not be empty")));
            continue;
        }
        for why in names::dns1123_subdomain(step) {
            errors.push(FieldError::invalid(path, given, format!("segment[{i}]: {why}")));
        }
    }
}

fn review_versions(path: &Path<'_>, hook: &Hook<'_>, options: &Options, errors: &mut Errors) {
    let versions = hook.review_versions;
    if versions.is_empty() {
        errors.push(FieldError::required(path, format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    let mut is_known = false;
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errors.push(FieldError::invalid(path.index(i), version, "duplicate version"));
            continue;
        }
        checks::text(&path.index(i), version, names::dns1035_label(version), errors);
        is_known |= REVIEW_VERSIONS.contains(&version.as_str());
    }
    if !is_known && !options.allow_unknown_reviews {
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(path, json!(versions), why));
    }
}
