//! Autoscalers: what is measured against what is wanted.

use api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};

use super::cell::{Cell, age};
use super::cells;
use super::text::{first, quantity};

/// Metrics that a cell shows.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub(super) fn horizontal_pod_autoscaler(object: &HorizontalPodAutoscaler) -> Vec<Cell> {
    let (spec, status) = (&object.spec, &object.status);
    let metric = |(i, metric)| metric_text(metric, status.current_metrics.get(i));
    let metrics: Vec<String> = spec.metrics.iter().enumerate().map(metric).collect();
    cells![
        object.metadata.name.as_str(),
        format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name),
        if metrics.is_empty() { "<none>".to_owned() } else { first(&metrics, SHOWN, ", ") },
        spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |min| min.to_string()),
        spec.max_replicas,
        status.current_replicas,
        age(&object.metadata.creation_timestamp),
    ]
}

fn metric_text(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let text = match spec.r#type.as_str() {
        "External" => spec
            .external
            .as_ref()
            .map(|metric| total(&metric.target, status.and_then(|s| s.external.as_ref()).map(|s| &s.current))),
        "Object" => spec
            .object
            .as_ref()
            .map(|metric| total(&metric.target, status.and_then(|s| s.object.as_ref()).map(|s| &s.current))),
        "Pods" => spec.pods.as_ref().map(|metric| {
            let current = status.and_then(|s| s.pods.as_ref()).map(|s| &s.current);
            format!("{}/{}", average(current), quantity(metric.target.average_value.as_ref()))
        }),
        "Resource" => spec.resource.as_ref().map(|metric| {
            let current = status.and_then(|s| s.resource.as_ref()).map(|s| &s.current);
            format!("{}: {}", metric.name, usage(&metric.target, current))
        }),
        "ContainerResource" => spec.container_resource.as_ref().map(|metric| {
            let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
            format!("{}: {}", metric.name, usage(&metric.target, current))
        }),
        _ => None,
    };
    text.unwrap_or_else(|| "<unknown type>".to_owned())
}

/// A metric that is not of the pods themselves: a value, or one shared out over the pods.
fn total(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(wanted) => {
            let now = current.and_then(|c| c.average_value.as_ref()).map_or(UNKNOWN, |q| quantity(Some(q)));
            format!("{now}/{} (avg)", quantity(Some(wanted)))
        }
        None => {
            let now = current.map_or(UNKNOWN, |c| quantity(c.value.as_ref()));
            format!("{now}/{}", quantity(target.value.as_ref()))
        }
    }
}

fn average(current: Option<&MetricValueStatus>) -> &str {
    current.map_or(UNKNOWN, |c| quantity(c.average_value.as_ref()))
}

/// A resource of pods or containers: an amount, or a share of what they request.
fn usage(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(wanted) = &target.average_value {
        return format!("{}/{}", average(current), quantity(Some(wanted)));
    }
    let percent = |value: Option<i32>, none: &str| value.map_or_else(|| none.to_owned(), |v| format!("{v}%"));
    let now = percent(current.and_then(|c| c.average_utilization), UNKNOWN);
    format!("{now}/{}", percent(target.average_utilization, "<auto>"))
}

#[cfg(test)]
mod tests {
    use api::Quantity;
    use api::autoscaling::v2::{PodsMetricSource, ResourceMetricSource, ResourceMetricStatus};

    use super::*;

    #[test]
    fn metrics_show_what_is_and_what_should_be() {
        let target = MetricTarget { average_utilization: Some(80), ..MetricTarget::default() };
        let resource = ResourceMetricSource { name: "cpu".into(), target };
        let cpu = MetricSpec { r#type: "Resource".into(), resource: Some(resource), ..MetricSpec::default() };
        assert_eq!(metric_text(&cpu, None), "cpu: <unknown>/80%");
        let current = MetricValueStatus { average_utilization: Some(42), ..MetricValueStatus::default() };
        let status = ResourceMetricStatus { current, ..ResourceMetricStatus::default() };
        let status = MetricStatus { resource: Some(status), ..MetricStatus::default() };
        assert_eq!(metric_text(&cpu, Some(&status)), "cpu: 42%/80%");

        let target = MetricTarget { average_value: Some(Quantity::new("1k")), ..MetricTarget::default() };
        let pods = PodsMetricSource { target, ..PodsMetricSource::default() };
        let pods = MetricSpec { r#type: "Pods".into(), pods: Some(pods), ..MetricSpec::default() };
        let mut object = HorizontalPodAutoscaler::default();
        object.spec.metrics = vec![cpu, pods.clone(), pods];
        let cells = horizontal_pod_autoscaler(&object);
        assert_eq!(cells[2], "cpu: <unknown>/80%, <unknown>/1k + 1 more...");
    }
}
