//! `/metrics` and `/metrics/resource` in the Prometheus text format.

use std::collections::BTreeMap;

use cri::v1;
use http::{Response, StatusCode};
use stdx::exposition::MEDIA_TYPE;

use super::Server;
use super::body::{Answer, whole};
use super::machine::Machine;
use super::usage::PodUsage;
use crate::clock;
use crate::observed::Nanos;
use crate::probe_counts::{BUCKETS_MILLIS, Counts, Series};

/// A page of metrics.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a metric; its values follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP {name} {help}"));
        self.line(&format!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    pub(super) fn value(&mut self, name: &str, labels: &str, value: f64) {
        self.line(&format!("{name}{labels} {value}"));
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// A value with the time it was measured at.
    pub(super) fn value_at(&mut self, name: &str, labels: &str, value: f64, at: Nanos) {
        self.line(&format!("{name}{labels} {value} {}", at / 1_000_000));
    }

    /// A metric with its values; nothing where there are none.
    fn readings(&mut self, (name, kind, help): (&str, &str, &str), readings: Vec<(String, (f64, Nanos))>) {
        if !readings.is_empty() {
            self.family(name, kind, help);
        }
        for (labels, (value, at)) in readings {
            self.value_at(name, &labels, value, at);
        }
    }

    pub(super) fn answer(self) -> Response<Answer> {
        whole(StatusCode::OK, MEDIA_TYPE, self.0.into())
    }
}

pub(super) fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

/// A count as the format has it; beyond 2^53 the last digits do not matter to anybody.
#[allow(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

/// A time in seconds since 1970.
pub(super) fn whole_seconds(seconds: i64) -> f64 {
    number(u64::try_from(seconds).unwrap_or(0))
}

impl Server {
    pub(super) fn metrics(&self) -> Response<Answer> {
        let mut page = Page::default();
        let pods = self.table.list();
        let running = pods.iter().filter(|(_, status)| status.phase == "Running").count();
        let containers = pods.iter().flat_map(|(_, s)| &s.container_statuses).filter(|c| c.state.running.is_some());
        page.family("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
        page.value("kubelet_running_pods", "", number(running as u64));
        page.family("kubelet_running_containers", "gauge", "Number of containers currently running");
        page.value("kubelet_running_containers", "{container_state=\"running\"}", number(containers.count() as u64));
        page.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
        page.value("kubelet_node_name", &format!("{{node=\"{}\"}}", self.node.config.node_name), 1.0);
        page.family("kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run");
        page.value("kubelet_desired_pods", "", number(self.table.len() as u64));
        page.answer()
    }

    /// How probes went and how long they took.
    pub(super) fn probe_metrics(&self) -> Response<Answer> {
        let mut page = Page::default();
        probe_page(&mut page, &self.node.probe_counts.snapshot());
        page.answer()
    }

    /// What metrics servers and autoscalers read.
    pub(super) async fn resource_metrics(&self) -> Response<Answer> {
        let mut page = Page::default();
        let usage = self.pod_usage().await;
        let (failed, usage) = match usage {
            Ok(usage) => (0.0, usage),
            Err(error) => {
                tracing::warn!(%error, "the runtime does not tell what pods use");
                (1.0, Vec::new())
            }
        };
        resource_page(&mut page, &usage, &Machine::observe(), clock::now());
        page.family(
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
        );
        page.value("resource_scrape_error", "", failed);
        page.answer()
    }
}

fn probe_page(page: &mut Page, all: &BTreeMap<Series, Counts>) {
    let labels = |series: &Series| {
        let Series { kind, container, namespace, pod, .. } = series;
        format!("container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",probe_type=\"{kind}\"")
    };
    const TOOK: &str = "prober_probe_duration_seconds";
    if !all.is_empty() {
        page.family(TOOK, "histogram", "Duration in seconds for a probe response.");
    }
    for (series, counts) in all {
        let (labels, total) = (labels(series), number(counts.successful + counts.failed));
        for (count, end) in counts.buckets.iter().zip(BUCKETS_MILLIS) {
            let labels = format!("{{{labels},le=\"{}\"}}", number(end) / 1000.0);
            page.value(&format!("{TOOK}_bucket"), &labels, number(*count));
        }
        page.value(&format!("{TOOK}_bucket"), &format!("{{{labels},le=\"+Inf\"}}"), total);
        page.value(&format!("{TOOK}_sum"), &format!("{{{labels}}}"), counts.took.as_secs_f64());
        page.value(&format!("{TOOK}_count"), &format!("{{{labels}}}"), total);
    }
    const TOTAL: &str = "prober_probe_total";
    let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
    if !all.is_empty() {
        page.family(TOTAL, "counter", help);
    }
    for (series, counts) in all {
        for (result, count) in [("failed", counts.failed), ("successful", counts.successful)] {
            let Series { kind, container, namespace, pod, uid } = series;
            let labels = format!(
                "{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",pod_uid=\"{uid}\",\
                 probe_type=\"{kind}\",result=\"{result}\"}}"
            );
            if count > 0 {
                page.value(TOTAL, &labels, number(count));
            }
        }
    }
}

/// A value with the time it was measured at; none where the runtime does not measure it.
type Reading = Option<(f64, Nanos)>;
/// Name, type, help and how it is read: of the container's start, its statistics and the present.
type OfContainer = (&'static str, &'static str, &'static str, fn(i64, &v1::ContainerStats, Nanos) -> Reading);
/// The same of a pod.
type OfPod = (&'static str, &'static str, &'static str, fn(&PodUsage) -> Reading);

const OF_CONTAINERS: [OfContainer; 4] = [
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        |_, stats, _| cpu(stats.cpu.as_ref()),
    ),
    ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", |_, stats, _| {
        working_set(stats.memory.as_ref())
    }),
    (
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        |started, _, now| Some((whole_seconds(started), now)),
    ),
    (
        "container_swap_usage_bytes",
        "gauge",
        "Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        |_, stats, _| swap(stats.swap.as_ref()),
    ),
];

const OF_PODS: [OfPod; 2] = [
    ("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", |pod| {
        cpu(pod.linux.cpu.as_ref())
    }),
    ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", |pod| {
        working_set(pod.linux.memory.as_ref())
    }),
];

fn cpu(usage: Option<&v1::CpuUsage>) -> Reading {
    let usage = usage?;
    Some((seconds(usage.usage_core_nano_seconds.as_ref()?.value), usage.timestamp))
}

fn working_set(usage: Option<&v1::MemoryUsage>) -> Reading {
    let usage = usage?;
    Some((number(usage.working_set_bytes.as_ref()?.value), usage.timestamp))
}

fn swap(usage: Option<&v1::SwapUsage>) -> Reading {
    let usage = usage?;
    Some((number(usage.swap_usage_bytes.as_ref()?.value), usage.timestamp))
}

fn resource_page(page: &mut Page, usage: &[PodUsage], machine: &Machine, now: Nanos) {
    for (name, kind, help, read) in OF_CONTAINERS {
        let readings = usage.iter().flat_map(|pod| {
            pod.containers().filter_map(move |(name, started, stats)| {
                Some((container_labels(pod, name), read(started, stats, now)?))
            })
        });
        page.readings((name, kind, help), readings.collect());
    }
    let memory = &machine.memory;
    let of_node = [
        (
            "node_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the node in core-seconds",
            seconds(machine.cpu_nanos),
        ),
        (
            "node_memory_working_set_bytes",
            "gauge",
            "Current working set of the node in bytes",
            number(memory.total.saturating_sub(memory.available)),
        ),
        (
            "node_swap_usage_bytes",
            "gauge",
            "Current swap usage of the node in bytes. Reported only on non-windows systems",
            number(memory.swap_total.saturating_sub(memory.swap_free)),
        ),
    ];
    for (name, kind, help, value) in of_node {
        page.readings((name, kind, help), vec![(String::new(), (value, now))]);
    }
    for (name, kind, help, read) in OF_PODS {
        let readings = usage.iter().filter_map(|pod| Some((pod_labels(pod), read(pod)?)));
        page.readings((name, kind, help), readings.collect());
    }
}

fn container_labels(pod: &PodUsage, name: &str) -> String {
    let meta = &pod.pod.metadata;
    format!("{{container=\"{name}\",namespace=\"{}\",pod=\"{}\"}}", meta.namespace, meta.name)
}

fn pod_labels(pod: &PodUsage) -> String {
    let meta = &pod.pod.metadata;
    format!("{{namespace=\"{}\",pod=\"{}\"}}", meta.namespace, meta.name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::core::v1::{Pod, PodStatus};

    use super::*;

    pub(super) fn usage() -> PodUsage {
        let mut pod = Pod::default();
        (pod.metadata.namespace, pod.metadata.name) = ("ns".to_owned(), "p".to_owned());
        let cpu = |nanos| {
            Some(v1::CpuUsage {
                timestamp: 2_000_000_000,
                usage_core_nano_seconds: Some(v1::UInt64Value { value: nanos }),
                ..v1::CpuUsage::default()
            })
        };
        let metadata = Some(v1::ContainerMetadata { name: "c".to_owned(), ..v1::ContainerMetadata::default() });
        let attributes = Some(v1::ContainerAttributes { metadata, ..v1::ContainerAttributes::default() });
        let container = v1::ContainerStats { attributes, cpu: cpu(1_500_000_000), ..v1::ContainerStats::default() };
        let linux = v1::LinuxPodSandboxStats {
            cpu: cpu(2_500_000_000),
            containers: vec![container],
            ..v1::LinuxPodSandboxStats::default()
        };
        PodUsage { pod: Arc::new(pod), status: PodStatus::default(), linux }
    }

    #[test]
    fn probes_have_upstream_s_names() {
        let pod = |text: &str| text.to_owned();
        let series =
            Series { kind: "Readiness", container: pod("c"), namespace: pod("n"), pod: pod("p"), uid: pod("u") };
        let counts = Counts { successful: 2, failed: 1, ..Counts::default() };
        let mut page = Page::default();
        probe_page(&mut page, &BTreeMap::from([(series, counts)]));
        for line in [
            "prober_probe_duration_seconds_bucket{container=\"c\",namespace=\"n\",pod=\"p\",probe_type=\"Readiness\",le=\"0.005\"} 0",
            "prober_probe_duration_seconds_count{container=\"c\",namespace=\"n\",pod=\"p\",probe_type=\"Readiness\"} 3",
            "prober_probe_total{container=\"c\",namespace=\"n\",pod=\"p\",pod_uid=\"u\",probe_type=\"Readiness\",result=\"successful\"} 2",
        ] {
            assert!(page.0.lines().any(|found| found == line), "{line} is not in {}", page.0);
        }
    }

    #[test]
    fn readings_have_upstream_s_names_and_their_own_time() {
        let mut page = Page::default();
        resource_page(&mut page, &[usage()], &Machine::default(), 3_000_000_000);
        let lines: Vec<&str> = page.0.lines().collect();
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 2000",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 2.5 2000",
            "node_memory_working_set_bytes 0 3000",
        ] {
            assert!(lines.contains(&line), "{line} is not in {}", page.0);
        }
        assert!(!page.0.contains("pod_memory_working_set_bytes"), "nothing is said of what was not measured");
    }
}
