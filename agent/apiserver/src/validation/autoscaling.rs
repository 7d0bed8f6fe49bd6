//! HorizontalPodAutoscalers, as they are stored.

use api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource, HorizontalPodAutoscaler,
    HpaScalingPolicy, HpaScalingRules, MetricIdentifier, MetricSpec, MetricTarget, ObjectMetricSource,
    PodsMetricSource, ResourceMetricSource,
};

use super::{Change, Errors, Path, checks, names, resources, shown};
use crate::status::FieldError;
use crate::strategy::Part;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MAX_SECONDS: i32 = 3600;
const MAX_PERIOD_SECONDS: i32 = 1800;
const METRIC_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

/// Which versions a reference may name.
#[derive(Clone, Copy)]
enum Versions {
    Any,
    /// Also those without a group.
    WellFormed,
    WithGroup,
}

pub fn autoscaler(change: &Change<'_, HorizontalPodAutoscaler>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old);
    if change.part == Part::Status {
        checks::non_negative(&STATUS.child("currentReplicas"), new.status.current_replicas, errors);
        checks::non_negative(&STATUS.child("desiredReplicas"), new.status.desired_replicas, errors);
        return;
    }
    let spec = &new.spec;
    let (max_path, max) = (SPEC.child("maxReplicas"), spec.max_replicas);
    let may_rest = change.context.features.is_on("HPAScaleToZero");
    let lowest = i32::from(!may_rest && old.is_none_or(|old| old.spec.min_replicas != Some(0)));
    if let Some(min) = spec.min_replicas.filter(|min| *min < lowest) {
        let why = format!("must be greater than or equal to {lowest}");
        errors.push(FieldError::invalid(SPEC.child("minReplicas"), min, why));
    }
    match max {
        0 => errors.push(FieldError::required(max_path, "must be set and greater than 0")),
        ..0 => errors.push(FieldError::invalid(max_path, max, "must be greater than or equal to 1")),
        _ => {}
    }
    if spec.min_replicas.is_some_and(|min| max < min) {
        errors.push(FieldError::invalid(max_path, max, "must be greater than or equal to `minReplicas`"));
    }
    let target = &spec.scale_target_ref;
    let versions = match old.map(|old| &old.spec.scale_target_ref) {
        Some(old) if old.api_version == target.api_version && old.kind == target.kind => Versions::Any,
        _ if target.kind == "ReplicationController" => Versions::WellFormed,
        _ => Versions::WithGroup,
    };
    reference(&SPEC.child("scaleTargetRef"), target, versions, errors);
    metrics(new, old, errors);
    if let Some(behavior) = &spec.behavior {
        let path = SPEC.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                scaling_rules(&path.child(field), rules, errors);
            }
        }
    }
}

fn reference(path: &Path<'_>, reference: &CrossVersionObjectReference, versions: Versions, errors: &mut Errors) {
    super::networking::addresses::segment(&path.child("kind"), &reference.kind, errors);
    super::networking::addresses::segment(&path.child("name"), &reference.name, errors);
    if let Some(why) = version_complaint(&reference.api_version, versions) {
        errors.push(FieldError::invalid(path.child("apiVersion"), &reference.api_version, why));
    }
}

fn version_complaint(version: &str, versions: Versions) -> Option<String> {
    let slashes = version.matches('/').count();
    match versions {
        Versions::Any => None,
        _ if slashes > 1 => Some(format!("unexpected GroupVersion string: {version}")),
        Versions::WithGroup if slashes == 0 || version.starts_with('/') => {
            Some("apiVersion must specify API group".to_owned())
        }
        Versions::WellFormed | Versions::WithGroup => None,
    }
}

fn metrics(new: &HorizontalPodAutoscaler, old: Option<&HorizontalPodAutoscaler>, errors: &mut Errors) {
    let list = SPEC.child("metrics");
    let objects = old.iter().flat_map(|old| &old.spec.metrics).filter(|metric| metric.r#type == "Object");
    let mut versions = objects.filter_map(|metric| metric.object.as_ref()).map(|o| &o.described_object.api_version);
    let kept = versions.any(|version| version_complaint(version, Versions::WellFormed).is_some());
    let versions = if kept { Versions::Any } else { Versions::WellFormed };
    for (i, each) in new.spec.metrics.iter().enumerate() {
        metric(&list.index(i), each, versions, errors);
    }
    let outside = |metric: &MetricSpec| matches!(metric.r#type.as_str(), "Object" | "External");
    if new.spec.min_replicas == Some(0) && !new.spec.metrics.iter().any(outside) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(list, why));
    }
}

fn metric(path: &Path<'_>, metric: &MetricSpec, versions: Versions, errors: &mut Errors) {
    let kind = path.child("type");
    if metric.r#type.is_empty() {
        errors.push(FieldError::required(kind, "must specify a metric source type"));
    }
    checks::supported(&kind, &metric.r#type, METRIC_TYPES, errors);
    // Source, and the type that goes with it; the first that is there is looked at.
    let sources = [
        ("object", "Object", metric.object.is_some()),
        ("external", "External", metric.external.is_some()),
        ("pods", "Pods", metric.pods.is_some()),
        ("resource", "Resource", metric.resource.is_some()),
        ("containerResource", "ContainerResource", metric.container_resource.is_some()),
    ];
    let at = |field: &'static str| path.child(field);
    if let Some(source) = &metric.object {
        object(&at("object"), source, versions, errors);
    } else if let Some(source) = &metric.external {
        external(&at("external"), source, errors);
    } else if let Some(source) = &metric.pods {
        pods(&at("pods"), source, errors);
    } else if let Some(source) = &metric.resource {
        resource(&at("resource"), source, errors);
    } else if let Some(source) = &metric.container_resource {
        container_resource(&at("containerResource"), source, errors);
    }
    let expected = sources.iter().find(|(_, of, _)| *of == metric.r#type);
    match expected {
        Some((field, _, false)) => {
            errors.push(FieldError::required(at(field), "must populate information for the given metric source"));
        }
        Some(_) => {}
        None => checks::supported(&kind, &metric.r#type, METRIC_TYPES, errors),
    }
    if sources.iter().filter(|(.., there)| *there).count() != 1 {
        let others = sources.iter().filter(|(_, of, there)| *there && *of != metric.r#type);
        for (field, ..) in others {
            errors.push(FieldError::forbidden(at(field), "must populate the given metric source only"));
        }
    }
}

fn object(path: &Path<'_>, source: &ObjectMetricSource, versions: Versions, errors: &mut Errors) {
    reference(&path.child("describedObject"), &source.described_object, versions, errors);
    identifier(&path.child("metric"), &source.metric, errors);
    let path = path.child("target");
    target(&path, &source.target, errors);
    if source.target.value.is_none() && source.target.average_value.is_none() {
        let why = "must set either a target value or averageValue";
        errors.push(FieldError::required(path.child("averageValue"), why));
    }
}

fn external(path: &Path<'_>, source: &ExternalMetricSource, errors: &mut Errors) {
    identifier(&path.child("metric"), &source.metric, errors);
    let path = path.child("target");
    target(&path, &source.target, errors);
    match (&source.target.value, &source.target.average_value) {
        (None, None) => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.push(FieldError::required(path.child("averageValue"), why));
        }
        (Some(_), Some(_)) => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(path.child("value"), why));
        }
        _ => {}
    }
}

fn pods(path: &Path<'_>, source: &PodsMetricSource, errors: &mut Errors) {
    identifier(&path.child("metric"), &source.metric, errors);
    let path = path.child("target");
    target(&path, &source.target, errors);
    if source.target.average_value.is_none() {
        errors.push(FieldError::required(path.child("averageValue"), "must specify a positive target averageValue"));
    }
}

fn resource(path: &Path<'_>, source: &ResourceMetricSource, errors: &mut Errors) {
    if source.name.is_empty() {
        errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
    }
    utilization(path, &source.target, errors);
}

fn container_resource(path: &Path<'_>, source: &ContainerResourceMetricSource, errors: &mut Errors) {
    if source.name.is_empty() {
        errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
    } else {
        resources::container_resource_name(&path.child("name"), &source.name, errors);
    }
    if source.container.is_empty() {
        errors.push(FieldError::required(path.child("container"), "must specify a container"));
    } else {
        checks::text(&path.child("container"), &source.container, names::dns1123_label(&source.container), errors);
    }
    utilization(path, &source.target, errors);
}

/// A target that is an amount or a share of what was asked for.
fn utilization(path: &Path<'_>, wanted: &MetricTarget, errors: &mut Errors) {
    let path = path.child("target");
    target(&path, wanted, errors);
    match (wanted.average_utilization, &wanted.average_value) {
        (None, None) => {
            let why = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(path.child("averageUtilization"), why));
        }
        (Some(_), Some(_)) => {
            let why = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(path.child("averageValue"), why));
        }
        _ => {}
    }
}

fn target(path: &Path<'_>, target: &MetricTarget, errors: &mut Errors) {
    let kind = path.child("type");
    if target.r#type.is_empty() {
        errors.push(FieldError::required(kind, "must specify a metric target type"));
    }
    if !matches!(target.r#type.as_str(), "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(kind, shown::word(&target.r#type), why));
    }
    for (field, amount) in [("value", &target.value), ("averageValue", &target.average_value)] {
        let Some(amount) = amount else { continue };
        let read = checks::amount(amount);
        if read.is_negative() || read.is_zero() {
            errors.push(FieldError::invalid(path.child(field), &amount.string, "must be positive"));
        }
    }
    if let Some(share) = target.average_utilization.filter(|share| *share < 1) {
        errors.push(FieldError::invalid(path.child("averageUtilization"), share, "must be greater than 0"));
    }
}

fn identifier(path: &Path<'_>, id: &MetricIdentifier, errors: &mut Errors) {
    let path = path.child("name");
    if id.name.is_empty() {
        errors.push(FieldError::required(path, "must specify a metric name"));
    } else {
        checks::text(&path, &id.name, names::path_segment(&id.name), errors);
    }
}

fn scaling_rules(path: &Path<'_>, rules: &HpaScalingRules, errors: &mut Errors) {
    let at = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(seconds @ ..0) => {
            errors.push(FieldError::invalid(at, seconds, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > MAX_SECONDS => {
            errors.push(FieldError::invalid(at, seconds, format!("must be less than or equal to {MAX_SECONDS}")));
        }
        _ => {}
    }
    if let Some(policy) = &rules.select_policy {
        checks::supported(&path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"], errors);
    }
    let list = path.child("policies");
    if rules.policies.is_empty() {
        errors.push(FieldError::required(list, "must specify at least one Policy"));
    }
    for (i, policy) in rules.policies.iter().enumerate() {
        scaling_policy(&list.index(i), policy, errors);
    }
    if let Some(tolerance) = &rules.tolerance {
        checks::non_negative_quantity(&path.child("tolerance"), tolerance, errors);
    }
}

fn scaling_policy(path: &Path<'_>, policy: &HpaScalingPolicy, errors: &mut Errors) {
    const ABOVE: &str = "must be greater than zero";
    checks::supported(&path.child("type"), &policy.r#type, &["Percent", "Pods"], errors);
    if policy.value <= 0 {
        errors.push(FieldError::invalid(path.child("value"), policy.value, ABOVE));
    }
    let (at, seconds) = (path.child("periodSeconds"), policy.period_seconds);
    if seconds <= 0 {
        errors.push(FieldError::invalid(at, seconds, ABOVE));
    }
    if seconds > MAX_PERIOD_SECONDS {
        errors.push(FieldError::invalid(at, seconds, format!("must be less than or equal to {MAX_PERIOD_SECONDS}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::tests::told;

    #[test]
    fn autoscalers_have_bounds_and_targets() {
        let target = r#""scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"a"}"#;
        let cases = [
            (r#""maxReplicas":2"#, ""),
            (
                r#""maxReplicas":1,"minReplicas":2"#,
                "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`",
            ),
            (
                r#""maxReplicas":1,"metrics":[{"type":"Pods","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":1}}}]"#,
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            ),
        ];
        for (fields, expected) in cases {
            let object = format!(r#"{{"spec":{{{target},{fields}}}}}"#);
            let kind = "HorizontalPodAutoscaler";
            assert_eq!(told("autoscaling/v2", kind, Part::Main, &object, None), expected);
        }
    }
}
