//! `/metrics` and `/metrics/resource` in the Prometheus text format.

use std::collections::BTreeMap;

use cri::v1;
use http::{Response, StatusCode};
use stdx::exposition::{MEDIA_TYPE, Text};

use super::Server;
use super::body::{Answer, whole};
use super::machine::Machine;
use super::usage::PodUsage;
use crate::clock;
use crate::observed::Nanos;
use crate::probe_counts::{Counts, Series};

pub(super) fn answer(text: Text) -> Response<Answer> {
    whole(StatusCode::OK, MEDIA_TYPE, text.finish().into())
}

/// A metric with its values; nothing where there are none.
fn readings<'a, const N: usize>(
    text: &mut Text,
    (name, kind, help): (&str, &str, &str),
    readings: impl IntoIterator<Item = ([(&'static str, &'a str); N], (f64, Nanos))>,
) {
    for (n, (labels, (value, at))) in readings.into_iter().enumerate() {
        if n == 0 {
            text.family(name, kind, help);
        }
        text.sample_at(name, &labels, value, millis(at));
    }
}

pub(super) fn millis(at: Nanos) -> i64 {
    at / 1_000_000
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
fn whole_seconds(seconds: i64) -> f64 {
    number(u64::try_from(seconds).unwrap_or(0))
}

impl Server {
    pub(super) fn metrics(&self) -> Response<Answer> {
        let mut text = Text::default();
        let pods = self.table.list();
        let running = pods.iter().filter(|(_, status)| status.phase == "Running").count();
        let containers = pods.iter().flat_map(|(_, s)| &s.container_statuses).filter(|c| c.state.running.is_some());
        text.single(("kubelet_running_pods", "gauge"), "Number of pods that have a running pod sandbox", running);
        text.family("kubelet_running_containers", "gauge", "Number of containers currently running");
        text.sample("kubelet_running_containers", &[("container_state", "running")], containers.count());
        text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
        text.sample("kubelet_node_name", &[("node", &self.node.config.node_name)], 1);
        let help = "The number of pods the kubelet is being instructed to run";
        text.single(("kubelet_desired_pods", "gauge"), help, self.table.len());
        answer(text)
    }

    /// How probes went and how long they took.
    pub(super) fn probe_metrics(&self) -> Response<Answer> {
        let mut text = Text::default();
        self.node.probe_counts.read(|all| probes(&mut text, all));
        answer(text)
    }

    /// What metrics servers and autoscalers read.
    pub(super) async fn resource_metrics(&self) -> Response<Answer> {
        let mut text = Text::default();
        let usage = self.pod_usage().await;
        let (failed, usage) = match usage {
            Ok(usage) => (0, usage),
            Err(error) => {
                tracing::warn!(%error, "the runtime does not tell what pods use");
                (1, Vec::new())
            }
        };
        resources(&mut text, &usage, &Machine::observe(), clock::now());
        let help = "1 if there was an error while getting container metrics, 0 otherwise";
        text.single(("resource_scrape_error", "gauge"), help, failed);
        answer(text)
    }
}

fn probes(text: &mut Text, all: &BTreeMap<Series, Counts>) {
    const TOOK: &str = "prober_probe_duration_seconds";
    const TOTAL: &str = "prober_probe_total";
    if all.is_empty() {
        return;
    }
    text.family(TOOK, "histogram", "Duration in seconds for a probe response.");
    for (Series { kind, container, namespace, pod, .. }, counts) in all {
        let labels = [("container", &**container), ("namespace", namespace), ("pod", pod), ("probe_type", kind)];
        text.histogram(TOOK, &labels, &counts.took);
    }
    let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
    text.family(TOTAL, "counter", help);
    for (Series { kind, container, namespace, pod, uid }, counts) in all {
        for (result, count) in [("failed", counts.failed), ("successful", counts.successful)] {
            let of_pod = [("namespace", &**namespace), ("pod", pod), ("pod_uid", uid)];
            let labels = [&[("container", &**container)], &of_pod[..], &[("probe_type", *kind), ("result", result)]];
            if count > 0 {
                text.sample(TOTAL, &labels.concat(), count);
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

fn resources(text: &mut Text, usage: &[PodUsage], machine: &Machine, now: Nanos) {
    for (name, kind, help, read) in OF_CONTAINERS {
        let found = usage.iter().flat_map(|pod| {
            pod.containers().filter_map(move |(name, started, stats)| {
                let [namespace, pod] = pod_labels(pod);
                Some(([("container", name), namespace, pod], read(started, stats, now)?))
            })
        });
        readings(text, (name, kind, help), found);
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
        readings(text, (name, kind, help), [([], (value, now))]);
    }
    for (name, kind, help, read) in OF_PODS {
        let found = usage.iter().filter_map(|pod| Some((pod_labels(pod), read(pod)?)));
        readings(text, (name, kind, help), found);
    }
}

fn pod_labels(pod: &PodUsage) -> [(&'static str, &str); 2] {
    let meta = &pod.pod.metadata;
    [("namespace", &meta.namespace), ("pod", &meta.name)]
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
        [0.01, 0.02, 11.0].into_iter().for_each(|took| counts.took.observe(took));
        let mut text = Text::default();
        probes(&mut text, &BTreeMap::from([(series, counts)]));
        let text = text.finish();
        for line in [
            "prober_probe_duration_seconds_bucket{container=\"c\",namespace=\"n\",pod=\"p\",probe_type=\"Readiness\",le=\"0.005\"} 0",
            "prober_probe_duration_seconds_count{container=\"c\",namespace=\"n\",pod=\"p\",probe_type=\"Readiness\"} 3",
            "prober_probe_total{container=\"c\",namespace=\"n\",pod=\"p\",pod_uid=\"u\",probe_type=\"Readiness\",result=\"successful\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn readings_have_upstream_s_names_and_their_own_time() {
        let mut text = Text::default();
        resources(&mut text, &[usage()], &Machine::default(), 3_000_000_000);
        let text = text.finish();
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 2000",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 2.5 2000",
            "node_memory_working_set_bytes 0 3000",
        ] {
            assert!(lines.contains(&line), "{line} is not in {text}");
        }
        assert!(!text.contains("pod_memory_working_set_bytes"), "nothing is said of what was not measured");
    }
}
