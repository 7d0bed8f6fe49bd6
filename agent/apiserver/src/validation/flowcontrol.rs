//! FlowSchemas and PriorityLevelConfigurations.

use std::collections::HashSet;

use api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, LimitResponse, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfiguration, PriorityLevelConfigurationSpec, QueuingConfiguration, ResourcePolicyRule, Subject,
};

use super::{Change, Errors, Path, checks, names, shown};
use crate::status::FieldError;
use crate::strategy::Part;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const EXEMPT: &str = "exempt";
const CATCH_ALL: &str = "catch-all";
const MAX_PRECEDENCE: i32 = 10_000;
const MAX_QUEUES: i32 = 10_000_000;
/// Bits of a hash that deals hands of queues.
const MAX_HASH_BITS: u32 = 60;
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub fn flow_schema(change: &Change<'_, FlowSchema>, errors: &mut Errors) {
    let new = change.new;
    let kinds = new.status.conditions.iter().map(|condition| condition.r#type.as_str());
    if change.part == Part::Status {
        return conditions(kinds, errors);
    }
    let (name, spec) = (new.metadata.name.as_str(), &new.spec);
    schema_spec(name, spec, errors);
    if mandatory_schema(name).is_some_and(|fixed| fixed != *spec) {
        let value = shown::structure("k8s.io.api.flowcontrol.v1.FlowSchemaSpec", spec);
        errors.push(FieldError::invalid(SPEC, value, format!("spec of '{name}' must equal the fixed value")));
    }
    conditions(kinds, errors);
}

/// What the schemas that always are look like.
fn mandatory_schema(name: &str) -> Option<FlowSchemaSpec> {
    let text = match name {
        EXEMPT => {
            r#"{"matchingPrecedence":1,"priorityLevelConfiguration":{"name":"exempt"},"rules":[{
                "subjects":[{"kind":"Group","group":{"name":"system:masters"}}],
                "resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"clusterScope":true,"namespaces":["*"]}],
                "nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}"#
        }
        CATCH_ALL => {
            r#"{"matchingPrecedence":10000,"priorityLevelConfiguration":{"name":"catch-all"},
                "distinguisherMethod":{"type":"ByUser"},"rules":[{
                "subjects":[{"kind":"Group","group":{"name":"system:unauthenticated"}},
                            {"kind":"Group","group":{"name":"system:authenticated"}}],
                "resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"clusterScope":true,"namespaces":["*"]}],
                "nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}"#
        }
        _ => return None,
    };
    read("k8s.io.api.flowcontrol.v1.FlowSchemaSpec", text)
}

fn mandatory_level(name: &str) -> Option<PriorityLevelConfigurationSpec> {
    let text = match name {
        EXEMPT => r#"{"type":"Exempt","exempt":{"nominalConcurrencyShares":0,"lendablePercent":0}}"#,
        CATCH_ALL => {
            r#"{"type":"Limited","limited":{"nominalConcurrencyShares":5,"limitResponse":{"type":"Reject"},"lendablePercent":0}}"#
        }
        _ => return None,
    };
    read("k8s.io.api.flowcontrol.v1.PriorityLevelConfigurationSpec", text)
}

fn read<M: prost::Message + Default>(message: &str, text: &str) -> Option<M> {
    let tree = serde_json::from_str(text).ok()?;
    let schema = api::schema::message(message)?;
    let raw = api::transcode::value_to_proto(schema, &tree, &mut api::transcode::Report::default()).ok()?;
    M::decode(raw.as_slice()).ok()
}

fn conditions<'a>(kinds: impl Iterator<Item = &'a str>, errors: &mut Errors) {
    let list = STATUS.child("conditions");
    let mut seen = HashSet::new();
    for (i, kind) in kinds.enumerate() {
        let item = list.index(i);
        let path = item.child("type");
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(path, shown::word(kind)));
        }
        checks::required(&path, kind, errors);
    }
}

fn schema_spec(name: &str, spec: &FlowSchemaSpec, errors: &mut Errors) {
    let (path, precedence) = (SPEC.child("matchingPrecedence"), spec.matching_precedence);
    if precedence <= 0 {
        errors.push(FieldError::invalid(path, precedence, "must be a positive value"));
    }
    if precedence > MAX_PRECEDENCE {
        errors.push(FieldError::invalid(path, precedence, format!("must not be greater than {MAX_PRECEDENCE}")));
    }
    if precedence == 1 && name != EXEMPT {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(FieldError::invalid(path, precedence, why));
    }
    if let Some(method) =
        spec.distinguisher_method.as_ref().filter(|m| !matches!(m.r#type.as_str(), "ByNamespace" | "ByUser"))
    {
        let value = shown::structure("k8s.io.api.flowcontrol.v1.FlowDistinguisherMethod", method);
        let path = SPEC.child("distinguisherMethod");
        errors.push(FieldError::not_supported(path.child("type"), value, &["ByNamespace", "ByUser"]));
    }
    let path = SPEC.child("priorityLevelConfiguration");
    let (path, level) = (path.child("name"), &spec.priority_level_configuration.name);
    if level.is_empty() {
        errors.push(FieldError::required(path, "must reference a priority level"));
    } else {
        checks::text(&path, level, names::dns1123_subdomain(level), errors);
    }
    for (i, each) in spec.rules.iter().enumerate() {
        rules(&SPEC.child("rules").index(i), each, errors);
    }
}

fn rules(path: &Path<'_>, rules: &PolicyRulesWithSubjects, errors: &mut Errors) {
    let list = path.child("subjects");
    if rules.subjects.is_empty() {
        errors.push(FieldError::required(list, "subjects must contain at least one value"));
    }
    for (i, each) in rules.subjects.iter().enumerate() {
        subject(&list.index(i), each, errors);
    }
    if rules.resource_rules.is_empty() && rules.non_resource_rules.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, why));
    }
    for (i, each) in rules.resource_rules.iter().enumerate() {
        resource_rule(&path.child("resourceRules").index(i), each, errors);
    }
    for (i, each) in rules.non_resource_rules.iter().enumerate() {
        path_rule(&path.child("nonResourceRules").index(i), each, errors);
    }
}

fn subject(path: &Path<'_>, subject: &Subject, errors: &mut Errors) {
    // Field, kind and whether it is there.
    let holders = [
        ("serviceAccount", "ServiceAccount", subject.service_account.is_some()),
        ("user", "User", subject.user.is_some()),
        ("group", "Group", subject.group.is_some()),
    ];
    let kind = subject.kind.as_str();
    let Some((field, _, there)) = holders.iter().find(|(_, of, _)| *of == kind) else {
        let kinds = &["Group", "ServiceAccount", "User"];
        return checks::supported(&path.child("kind"), kind, kinds, errors);
    };
    let at = path.child(field);
    if *there {
        match kind {
            "ServiceAccount" => service_account(&at, subject, errors),
            "User" => checks::required(&at.child("name"), subject.user.as_ref().map_or("", |u| &u.name), errors),
            _ => checks::required(&at.child("name"), subject.group.as_ref().map_or("", |g| &g.name), errors),
        }
    } else {
        errors.push(FieldError::required(at, format!("{field} is required when subject kind is '{kind}'")));
    }
    // The order in which what does not belong is told.
    for (field, of, _) in holders.iter().filter(|(_, of, there)| *there && *of != kind) {
        let why = format!("{field} is forbidden when subject kind is not '{of}'");
        errors.push(FieldError::forbidden(path.child(field), why));
    }
}

fn service_account(path: &Path<'_>, subject: &Subject, errors: &mut Errors) {
    let Some(account) = &subject.service_account else { return };
    let name = path.child("name");
    checks::required(&name, &account.name, errors);
    if !matches!(account.name.as_str(), "" | "*") {
        checks::text(&name, &account.name, names::dns1123_subdomain(&account.name), errors);
    }
    let path = path.child("namespace");
    if account.namespace.is_empty() {
        errors.push(FieldError::required(path, "must specify namespace for service account"));
    } else {
        checks::text(&path, &account.namespace, names::dns1123_label(&account.namespace), errors);
    }
}

fn is_any(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

fn verbs(path: &Path<'_>, verbs: &[String], errors: &mut Errors) {
    let path = path.child("verbs");
    if verbs.is_empty() {
        errors.push(FieldError::required(path, "verbs must contain at least one value"));
    } else if is_any(verbs) {
        alone(&path, verbs, "verbs", errors);
    } else if !verbs.iter().all(|verb| VERBS.contains(&verb.as_str())) {
        errors.push(FieldError::not_supported(path, shown::texts(verbs), VERBS));
    }
}

/// With `*` goes nothing else.
fn alone(path: &Path<'_>, list: &[String], what: &str, errors: &mut Errors) {
    if list.len() > 1 && is_any(list) {
        let why = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, shown::texts(list), why));
    }
}

fn resource_rule(path: &Path<'_>, rule: &ResourcePolicyRule, errors: &mut Errors) {
    verbs(path, &rule.verbs, errors);
    let lists = [
        ("apiGroups", &rule.api_groups, "api group", "api groups"),
        ("resources", &rule.resources, "resource", "resources"),
    ];
    for (field, list, one, many) in lists {
        let path = path.child(field);
        if list.is_empty() {
            errors.push(FieldError::required(path, format!("resource rules must supply at least one {one}")));
        }
        alone(&path, list, many, errors);
    }
    let path = path.child("namespaces");
    if rule.namespaces.is_empty() && !rule.cluster_scope {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(path, why));
    } else if is_any(&rule.namespaces) {
        alone(&path, &rule.namespaces, "namespaces", errors);
    } else {
        for (i, namespace) in rule.namespaces.iter().enumerate() {
            for why in names::dns1123_label(namespace) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                errors.push(FieldError::invalid(path.index(i), namespace, why));
            }
        }
    }
}

fn path_rule(path: &Path<'_>, rule: &NonResourcePolicyRule, errors: &mut Errors) {
    verbs(path, &rule.verbs, errors);
    let (path, urls) = (path.child("nonResourceURLs"), &rule.non_resource_urls);
    if urls.is_empty() {
        errors.push(FieldError::required(path, "nonResourceURLs must contain at least one value"));
    } else if is_any(urls) {
        alone(&path, urls, "non-resource URLs", errors);
    } else {
        for (i, url) in urls.iter().enumerate() {
            if let Some(why) = bad_url(url) {
                errors.push(FieldError::invalid(path.index(i), url, why));
            }
        }
    }
}

fn bad_url(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || stars == 1 && !url.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

pub fn priority_level(change: &Change<'_, PriorityLevelConfiguration>, errors: &mut Errors) {
    let new = change.new;
    let kinds = new.status.conditions.iter().map(|condition| condition.r#type.as_str());
    if change.part == Part::Status {
        return conditions(kinds, errors);
    }
    const KEEPS_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
    if new.metadata.annotations.contains_key(KEEPS_ZERO) {
        let path = Path::root("metadata");
        errors
            .push(FieldError::forbidden(path.child("annotations"), format!("annotation '{KEEPS_ZERO}' is forbidden")));
    }
    level_spec(&new.metadata.name, &new.spec, errors);
    fixed_level(&new.metadata.name, &new.spec, errors);
    conditions(kinds, errors);
}

fn fixed_level(name: &str, spec: &PriorityLevelConfigurationSpec, errors: &mut Errors) {
    let Some(fixed) = mandatory_level(name) else { return };
    let value = || shown::structure("k8s.io.api.flowcontrol.v1.PriorityLevelConfigurationSpec", spec);
    if name == EXEMPT {
        let own = PriorityLevelConfigurationSpec { exempt: fixed.exempt, ..spec.clone() };
        if own != fixed {
            let why = format!("spec of '{name}' except the 'spec.exempt' field must equal the fixed value");
            errors.push(FieldError::invalid(SPEC, value(), why));
        }
    } else if *spec != fixed {
        errors.push(FieldError::invalid(SPEC, value(), format!("spec of '{name}' must equal the fixed value")));
    }
}

fn level_spec(name: &str, spec: &PriorityLevelConfigurationSpec, errors: &mut Errors) {
    let kind = SPEC.child("type");
    if (name == EXEMPT) != (spec.r#type == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid(kind, shown::word(&spec.r#type), why));
    }
    let (limited, exempt) = (SPEC.child("limited"), SPEC.child("exempt"));
    match spec.r#type.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                errors.push(FieldError::forbidden(limited, "must be nil if the type is not Limited"));
            }
            if let Some(own) = &spec.exempt {
                shares(&exempt, own.nominal_concurrency_shares, errors);
                percent(&exempt, own.lendable_percent, errors);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.push(FieldError::forbidden(exempt, "must be nil if the type is Limited"));
            }
            let Some(own) = &spec.limited else {
                return errors.push(FieldError::required(limited, "must not be empty when type is Limited"));
            };
            shares(&limited, own.nominal_concurrency_shares, errors);
            limit_response(&limited.child("limitResponse"), &own.limit_response, errors);
            percent(&limited, own.lendable_percent, errors);
            if let Some(percent) = own.borrowing_limit_percent.filter(|percent| *percent < 0) {
                let why = "if specified, must be a non-negative integer";
                errors.push(FieldError::invalid(limited.child("borrowingLimitPercent"), percent, why));
            }
        }
        other => checks::one_of(&kind, other, &["Exempt", "Limited"], errors),
    }
}

fn shares(path: &Path<'_>, shares: Option<i32>, errors: &mut Errors) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let why = "must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("nominalConcurrencyShares"), shares, why));
    }
}

fn percent(path: &Path<'_>, percent: Option<i32>, errors: &mut Errors) {
    if let Some(percent) = percent {
        checks::in_range(&path.child("lendablePercent"), percent.into(), (0, 100), errors);
    }
}

fn limit_response(path: &Path<'_>, response: &LimitResponse, errors: &mut Errors) {
    let at = path.child("queuing");
    match (response.r#type.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(at, why));
        }
        ("Queue", None) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(at, why));
        }
        ("Queue", Some(own)) => queuing(&at, own, errors),
        (kind, _) => checks::one_of(&path.child("type"), kind, &["Queue", "Reject"], errors),
    }
}

fn queuing(path: &Path<'_>, queuing: &QueuingConfiguration, errors: &mut Errors) {
    const POSITIVE: &str = "must be positive";
    let QueuingConfiguration { queues, hand_size: hand, queue_length_limit: length } = *queuing;
    if length <= 0 {
        errors.push(FieldError::invalid(path.child("queueLengthLimit"), length, POSITIVE));
    }
    let at = path.child("queues");
    if queues <= 0 {
        errors.push(FieldError::invalid(at, queues, POSITIVE));
    } else if queues > MAX_QUEUES {
        errors.push(FieldError::invalid(at, queues, format!("must not be greater than {MAX_QUEUES}")));
    }
    let at = path.child("handSize");
    if hand <= 0 {
        errors.push(FieldError::invalid(at, hand, POSITIVE));
    } else if hand > queues {
        errors.push(FieldError::invalid(at, hand, format!("should not be greater than queues ({queues})")));
    } else if entropy_bits(queues, hand) > MAX_HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        errors.push(FieldError::invalid(at, hand, why));
    }
}

/// Bits that it takes to deal a hand out of a deck.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither is negative")]
fn entropy_bits(deck: i32, hand: i32) -> u32 {
    (f64::from(deck).log2() * f64::from(hand)).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::tests::told;

    #[test]
    fn levels_deal_hands() {
        let cases = [
            (r#"{"queues":64,"handSize":8,"queueLengthLimit":50}"#, ""),
            (
                r#"{"queues":4,"handSize":8,"queueLengthLimit":0}"#,
                "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: 0: must be positive\n\
                 spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)",
            ),
        ];
        for (queuing, expected) in cases {
            let object = format!(
                r#"{{"spec":{{"type":"Limited","limited":{{"limitResponse":{{"type":"Queue","queuing":{queuing}}}}}}}}}"#
            );
            let kind = "PriorityLevelConfiguration";
            assert_eq!(told("flowcontrol.apiserver.k8s.io/v1", kind, Part::Main, &object, None), expected);
        }
    }

    #[test]
    fn what_always_is_stays_as_it_is() {
        assert!([EXEMPT, CATCH_ALL].iter().all(|name| mandatory_schema(name).is_some()));
        assert!([EXEMPT, CATCH_ALL].iter().all(|name| mandatory_level(name).is_some()));
    }
}
