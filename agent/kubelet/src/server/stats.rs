//! `/stats/summary`.

use std::collections::HashMap;

use cri::v1;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Server;
use super::body::{Answer, json, text};
use crate::clock;
use crate::node::facts;
use crate::observed::keys;

fn time(nanos: i64) -> String {
    api::time::format_seconds(clock::seconds(nanos))
}

fn cpu(usage: Option<&v1::CpuUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    json!({
        "time": time(usage.timestamp),
        "usageNanoCores": usage.usage_nano_cores.as_ref().map_or(0, |v| v.value),
        "usageCoreNanoSeconds": usage.usage_core_nano_seconds.as_ref().map_or(0, |v| v.value),
    })
}

fn memory(usage: Option<&v1::MemoryUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    let value = |field: &Option<v1::UInt64Value>| field.as_ref().map_or(0, |v| v.value);
    json!({
        "time": time(usage.timestamp),
        "usageBytes": value(&usage.usage_bytes),
        "workingSetBytes": value(&usage.working_set_bytes),
        "rssBytes": value(&usage.rss_bytes),
        "pageFaults": value(&usage.page_faults),
        "majorPageFaults": value(&usage.major_page_faults),
    })
}

impl Server {
    /// What the node, its pods and their containers use.
    pub(super) async fn summary(&self) -> Response<Answer> {
        let stats = match self.node.runtime.container_stats(HashMap::new()).await {
            Ok(stats) => stats,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        };
        let now = time(clock::now());
        let mut pods: HashMap<String, Vec<&v1::ContainerStats>> = HashMap::new();
        for item in &stats {
            let uid = item.attributes.as_ref().and_then(|a| a.labels.get(keys::POD_UID));
            pods.entry(uid.cloned().unwrap_or_default()).or_default().push(item);
        }
        let list: Vec<Value> = self
            .table
            .list()
            .into_iter()
            .filter_map(|(pod, status)| {
                let containers = pods.get(&pod.metadata.uid)?;
                let meta = &pod.metadata;
                let started = status.start_time.as_ref().and_then(api::meta::v1::Time::unix).unwrap_or(0);
                Some(json!({
                    "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                    "startTime": api::time::format_seconds(started),
                    "cpu": sum_cpu(containers, &now),
                    "memory": sum_memory(containers, &now),
                    "containers": containers.iter().map(|c| container(c)).collect::<Vec<_>>(),
                }))
            })
            .collect();
        let (ram, disk) = (facts::memory(), facts::disk(&self.node.config.root_dir));
        json(&json!({
            "node": {
                "nodeName": self.node.config.node_name,
                "startTime": now,
                "cpu": sum_cpu(&stats.iter().collect::<Vec<_>>(), &now),
                "memory": {
                    "time": now,
                    "availableBytes": ram.available,
                    "usageBytes": ram.total.saturating_sub(ram.available),
                    "workingSetBytes": ram.total.saturating_sub(ram.available),
                },
                "fs": {
                    "time": now,
                    "availableBytes": disk.available,
                    "capacityBytes": disk.total,
                    "usedBytes": disk.total.saturating_sub(disk.available),
                    "inodes": disk.inodes,
                    "inodesFree": disk.inodes_free,
                },
            },
            "pods": list,
        }))
    }
}

fn container(item: &v1::ContainerStats) -> Value {
    let name = item.attributes.as_ref().and_then(|a| a.metadata.as_ref()).map(|m| m.name.clone());
    json!({
        "name": name,
        "startTime": time(clock::now()),
        "cpu": cpu(item.cpu.as_ref()),
        "memory": memory(item.memory.as_ref()),
        "rootfs": item.writable_layer.as_ref().map(|layer| json!({
            "time": time(layer.timestamp),
            "usedBytes": layer.used_bytes.as_ref().map_or(0, |v| v.value),
            "inodesUsed": layer.inodes_used.as_ref().map_or(0, |v| v.value),
        })),
    })
}

fn sum_cpu(items: &[&v1::ContainerStats], now: &str) -> Value {
    let sum = |of: fn(&v1::CpuUsage) -> u64| items.iter().filter_map(|i| i.cpu.as_ref()).map(of).sum::<u64>();
    json!({
        "time": now,
        "usageNanoCores": sum(|c| c.usage_nano_cores.as_ref().map_or(0, |v| v.value)),
        "usageCoreNanoSeconds": sum(|c| c.usage_core_nano_seconds.as_ref().map_or(0, |v| v.value)),
    })
}

fn sum_memory(items: &[&v1::ContainerStats], now: &str) -> Value {
    let sum = |of: fn(&v1::MemoryUsage) -> u64| items.iter().filter_map(|i| i.memory.as_ref()).map(of).sum::<u64>();
    json!({
        "time": now,
        "usageBytes": sum(|m| m.usage_bytes.as_ref().map_or(0, |v| v.value)),
        "workingSetBytes": sum(|m| m.working_set_bytes.as_ref().map_or(0, |v| v.value)),
    })
}
