//! `/metrics` and `/metrics/resource` in the Prometheus text format.

use std::collections::HashMap;

use http::{Response, StatusCode};

use super::Server;
use super::body::{Answer, text, whole};
use crate::node::facts;
use crate::observed::keys;

/// The format's media type.
pub(super) const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP {name} {help}"));
        self.line(&format!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn value(&mut self, name: &str, labels: &str, value: f64) {
        self.line(&format!("{name}{labels} {value}"));
    }

    fn answer(self) -> Response<Answer> {
        whole(StatusCode::OK, KIND, self.0.into())
    }
}

fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

/// A count as the format has it; beyond 2^53 the last digits do not matter to anybody.
#[allow(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
fn number(value: u64) -> f64 {
    value as f64
}

impl Server {
    pub(super) fn metrics(&self) -> Response<Answer> {
        let mut page = Page(String::new());
        let pods = self.table.list();
        let running = pods.iter().filter(|(_, status)| status.phase == "Running").count();
        let containers = pods.iter().flat_map(|(_, s)| &s.container_statuses).filter(|c| c.state.running.is_some());
        page.head("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
        page.value("kubelet_running_pods", "", number(running as u64));
        page.head("kubelet_running_containers", "gauge", "Number of containers currently running");
        page.value("kubelet_running_containers", "{container_state=\"running\"}", number(containers.count() as u64));
        page.head("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
        page.value("kubelet_node_name", &format!("{{node=\"{}\"}}", self.node.config.node_name), 1.0);
        page.head("kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run");
        page.value("kubelet_desired_pods", "", number(self.table.len() as u64));
        page.answer()
    }

    pub(super) async fn resource_metrics(&self) -> Response<Answer> {
        let stats = match self.node.runtime.container_stats(HashMap::new()).await {
            Ok(stats) => stats,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        };
        let mut page = Page(String::new());
        let rows: Vec<(String, u64, u64)> = stats
            .iter()
            .filter_map(|item| {
                let attributes = item.attributes.as_ref()?;
                let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
                let labels = format!(
                    "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
                    label(keys::CONTAINER_NAME),
                    label(keys::POD_NAMESPACE),
                    label(keys::POD_NAME)
                );
                let cpu = item.cpu.as_ref()?.usage_core_nano_seconds.as_ref()?.value;
                let memory = item.memory.as_ref()?.working_set_bytes.as_ref()?.value;
                Some((labels, cpu, memory))
            })
            .collect();
        const CPU: &str = "container_cpu_usage_seconds_total";
        page.head(CPU, "counter", "Cumulative cpu time consumed by the container in core-seconds");
        rows.iter().for_each(|(labels, cpu, _)| page.value(CPU, labels, seconds(*cpu)));
        const MEMORY: &str = "container_memory_working_set_bytes";
        page.head(MEMORY, "gauge", "Current working set of the container in bytes");
        rows.iter().for_each(|(labels, _, memory)| page.value(MEMORY, labels, number(*memory)));
        let ram = facts::memory();
        page.head("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
        page.value("node_memory_working_set_bytes", "", number(ram.total.saturating_sub(ram.available)));
        page.head(
            "node_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the node in core-seconds",
        );
        page.value("node_cpu_usage_seconds_total", "", seconds(rows.iter().map(|(_, cpu, _)| cpu).sum()));
        page.head(
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
        );
        page.value("resource_scrape_error", "", 0.0);
        page.answer()
    }
}
