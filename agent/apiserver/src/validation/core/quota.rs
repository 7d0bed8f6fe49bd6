//! ResourceQuotas and LimitRanges.

use std::collections::BTreeSet;

use api::Quantity;
use api::core::v1::{
    LimitRange, LimitRangeItem, ResourceQuota, ResourceQuotaSpec, ScopeSelector, ScopedResourceSelectorRequirement,
};
use api::quantity::Amount;

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::resources::{self, Amounts};
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");

pub fn resource_quota(change: &Change<'_, ResourceQuota>, errors: &mut Errors) {
    let new = change.new;
    let status = Path::root("status");
    if change.part == Part::Status {
        amounts(&status.child("hard"), &new.status.hard, errors);
        return amounts(&status.child("used"), &new.status.used, errors);
    }
    amounts(&SPEC.child("hard"), &new.spec.hard, errors);
    scopes(&new.spec, errors);
    if let Some(selector) = &new.spec.scope_selector {
        scope_selector(&new.spec, selector, errors);
    }
    let set = |quota: &ResourceQuota| quota.spec.scopes.iter().cloned().collect::<BTreeSet<String>>();
    if change.old.is_some_and(|old| set(old) != set(new)) {
        errors.push(FieldError::invalid(SPEC.child("scopes"), shown::texts(&new.spec.scopes), checks::IMMUTABLE));
    }
}

fn amounts(path: &Path<'_>, amounts: &Amounts, errors: &mut Errors) {
    for (name, quantity) in amounts {
        resources::quota_resource_name(&path.key(name), name, errors);
        resources::quantity_value(&path.key(name), name, quantity, errors);
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];
const CONFLICTS: &[(&str, &str)] = &[("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
const OF_PODS: &[&str] = &["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// Whether what the scope selects uses the resource.
fn uses(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            OF_PODS.contains(&resource)
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// How many of the limits are none of what the scope selects.
fn misfits(spec: &ResourceQuotaSpec, scope: &str) -> usize {
    spec.hard.keys().filter(|name| resources::is_of_quotas(name) && !uses(scope, name)).count()
}

fn scopes(spec: &ResourceQuotaSpec, errors: &mut Errors) {
    let path = SPEC.child("scopes");
    for scope in &spec.scopes {
        if !SCOPES.contains(&scope.as_str()) {
            errors.push(FieldError::invalid(path, shown::texts(&spec.scopes), "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            let why = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(path, shown::texts(&spec.scopes), why));
        }
    }
    conflicts(&path, spec, &|scope| spec.scopes.iter().any(|s| s == scope), errors);
}

fn conflicts(path: &Path<'_>, spec: &ResourceQuotaSpec, has: &dyn Fn(&str) -> bool, errors: &mut Errors) {
    for _ in CONFLICTS.iter().filter(|(one, other)| has(one) && has(other)) {
        errors.push(FieldError::invalid(path, shown::texts(&spec.scopes), "conflicting scopes"));
    }
}

fn scope_selector(spec: &ResourceQuotaSpec, selector: &ScopeSelector, errors: &mut Errors) {
    let path = SPEC.child("scopeSelector");
    let path = path.child("matchExpressions");
    for requirement in &selector.match_expressions {
        let scope = requirement.scope_name.as_str();
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(path.child("scopeName"), shown::word(scope), "unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            let value = shown::structure("k8s.io.api.core.v1.ScopeSelector", selector);
            errors.push(FieldError::invalid(path, value, "unsupported scope applied to resource"));
        }
        scope_requirement(&path, requirement, errors);
    }
    let has = |scope: &str| selector.match_expressions.iter().any(|r| r.scope_name == scope);
    conflicts(&path, spec, &has, errors);
}

fn scope_requirement(path: &Path<'_>, requirement: &ScopedResourceSelectorRequirement, errors: &mut Errors) {
    let (operator, values) = (requirement.operator.as_str(), &requirement.values);
    let whole = !matches!(requirement.scope_name.as_str(), "PriorityClass" | "VolumeAttributesClass");
    if whole && SCOPES.contains(&requirement.scope_name.as_str()) && operator != "Exists" {
        let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(path.child("operator"), shown::word(operator), why));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(path.child("values"), shown::texts(values), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => {
            let why = "not a valid selector operator";
            errors.push(FieldError::invalid(path.child("operator"), shown::word(operator), why));
        }
    }
}

pub fn limit_range(change: &Change<'_, LimitRange>, errors: &mut Errors) {
    let limits = &change.new.spec.limits;
    let list = SPEC.child("limits");
    for (i, item) in limits.iter().enumerate() {
        let path = list.index(i);
        limit_type(&path.child("type"), &item.r#type, errors);
        if limits[..i].iter().any(|earlier| earlier.r#type == item.r#type) {
            errors.push(FieldError::duplicate(path.child("type"), shown::word(&item.r#type)));
        }
        limit(&path, item, errors);
    }
}

const LIMIT_TYPES: &[&str] = &["Pod", "Container", "PersistentVolumeClaim"];

fn limit_type(path: &Path<'_>, name: &str, errors: &mut Errors) {
    let complaints = names::qualified(name);
    if !complaints.is_empty() {
        errors.extend(complaints.into_iter().map(|why| FieldError::invalid(path, shown::word(name), why)));
    } else if !name.contains('/') && !LIMIT_TYPES.contains(&name) {
        let why = "must be a standard limit type or fully qualified";
        errors.push(FieldError::invalid(path, shown::word(name), why));
    }
}

fn limit(path: &Path<'_>, item: &LimitRangeItem, errors: &mut Errors) {
    let named = |field: &str, amounts: &Amounts, errors: &mut Errors| {
        for name in amounts.keys() {
            let at = path.child(field);
            match item.r#type.as_str() {
                "Pod" | "Container" => resources::container_resource_name(&at.key(name), name, errors),
                _ => resources::resource_name(&at.key(name), name, errors),
            }
        }
    };
    named("max", &item.max, errors);
    named("min", &item.min, errors);
    let of_pod = item.r#type == "Pod";
    for (field, amounts) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
        if !of_pod {
            named(field, amounts, errors);
        } else if !amounts.is_empty() {
            errors.push(FieldError::forbidden(path.child(field), "may not be specified when `type` is 'Pod'"));
        }
    }
    let has_storage = item.min.contains_key("storage") || item.max.contains_key("storage");
    if item.r#type == "PersistentVolumeClaim" && !has_storage {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(path.child("limits"), why));
    }
    named("maxLimitRequestRatio", &item.max_limit_request_ratio, errors);
    let defaults: &[&Amounts] = if of_pod { &[] } else { &[&item.default, &item.default_request] };
    let maps = [&item.max, &item.min, &item.max_limit_request_ratio];
    let keys: BTreeSet<&String> = maps.iter().chain(defaults).flat_map(|map| map.keys()).collect();
    for name in keys {
        amounts_agree(path, item, name, errors);
    }
}

/// What is said of one resource agrees with itself.
fn amounts_agree(path: &Path<'_>, item: &LimitRangeItem, name: &str, errors: &mut Errors) {
    let read = |amounts: &Amounts| amounts.get(name).map(|quantity| (quantity.clone(), checks::amount(quantity)));
    let (min, max, ratio) = (read(&item.min), read(&item.max), read(&item.max_limit_request_ratio));
    let (default, request) =
        if item.r#type == "Pod" { (None, None) } else { (read(&item.default), read(&item.default_request)) };
    type Entry<'a> = &'a Option<(Quantity, Amount)>;
    // A lower and an upper bound by name, the field, and which of the two is told.
    let mut ordered = |low: (Entry<'_>, &str), high: (Entry<'_>, &str), field: &str, shows_low: bool| {
        if let (Some((l, lower)), Some((h, upper))) = (low.0, high.0)
            && lower > upper
        {
            let why = format!("{} value {} is greater than {} value {}", low.1, l.string, high.1, h.string);
            let value = if shows_low { &l.string } else { &h.string };
            errors.push(FieldError::invalid(path.child(field).key(name), value, why));
        }
    };
    ordered((&min, "min"), (&max, "max"), "min", true);
    ordered((&min, "min"), (&request, "default request"), "defaultRequest", false);
    ordered((&request, "default request"), (&max, "max"), "defaultRequest", true);
    ordered((&request, "default request"), (&default, "default limit"), "defaultRequest", true);
    ordered((&min, "min"), (&default, "default"), "default", true);
    ordered((&default, "default"), (&max, "max"), "default", false);
    if let Some((text, ratio)) = &ratio {
        ratio_holds(&path.child("maxLimitRequestRatio").key(name), (text, ratio), (&min, &max), errors);
    }
    if let (Some((d, default)), Some((r, request))) = (&default, &request)
        && !resources::may_overcommit(name)
        && default.partial_cmp(request) != Some(std::cmp::Ordering::Equal)
    {
        let why = format!("default value {} must equal to defaultRequest value {} in {name}", d.string, r.string);
        errors.push(FieldError::invalid(path.child("defaultRequest").key(name), &r.string, why));
    }
}

/// A quantity as it is written and what it amounts to, where there is one.
type Bound = Option<(Quantity, Amount)>;

#[allow(clippy::cast_precision_loss, reason = "ratios are compared as floating point numbers on the wire")]
fn ratio_holds(
    path: &Path<'_>,
    (text, ratio): (&Quantity, &Amount),
    (min, max): (&Bound, &Bound),
    errors: &mut Errors,
) {
    if *ratio < Amount::from_units(1, api::quantity::Format::Decimal) {
        let why = format!("ratio {} is less than 1", text.string);
        errors.push(FieldError::invalid(path, &text.string, why));
    }
    let (Some((_, min)), Some((_, max))) = (min, max) else { return };
    let small = [ratio, min, max].iter().all(|amount| amount.value() < i64::MAX / 1000);
    let read = |amount: &Amount| if small { amount.milli() } else { amount.value() } as f64;
    let bound = read(max) / read(min);
    let own = if small { ratio.milli() as f64 / 1000.0 } else { ratio.value() as f64 };
    if own > bound {
        let why = format!("ratio {} is greater than max/min = {bound:.6}", text.string);
        errors.push(FieldError::invalid(path, &text.string, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::tests::told;

    #[test]
    fn quotas_and_limits_make_sense() {
        let quotas = [
            (r#"{"hard":{"pods":"1"}}"#, ""),
            (r#"{"hard":{"pods":"500m"}}"#, "spec.hard[pods]: Invalid value: \"500m\": must be an integer"),
            (
                r#"{"scopes":["BestEffort","NotBestEffort"]}"#,
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ),
        ];
        for (spec, expected) in quotas {
            let object = format!(r#"{{"spec":{spec}}}"#);
            assert_eq!(told("v1", "ResourceQuota", Part::Main, &object, None), expected);
        }
        let limits = [
            (r#"{"type":"Container","max":{"cpu":"1"}}"#, ""),
            (
                r#"{"type":"Container","max":{"cpu":"1"},"min":{"cpu":"2"}}"#,
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                r#"{"type":"Container","max":{"cpu":"2"},"min":{"cpu":"1"},"maxLimitRequestRatio":{"cpu":"3"}}"#,
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ),
        ];
        for (item, expected) in limits {
            let object = format!(r#"{{"spec":{{"limits":[{item}]}}}}"#);
            assert_eq!(told("v1", "LimitRange", Part::Main, &object, None), expected);
        }
    }
}
