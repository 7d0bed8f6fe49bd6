//! `/stats/summary`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cri::v1;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Server;
use super::body::{Answer, json, text};
use super::disk::{self, Used, VolumeUse};
use super::machine::{Interface, Machine};
use super::usage::{PodUsage, count};
use crate::clock;
use crate::node::facts::{self, Disk};
use crate::observed::Nanos;
use crate::pod_cgroup::pods_group;

/// What lies on disk for one pod.
#[derive(Default)]
struct PodDisk {
    volumes: Vec<VolumeUse>,
    /// By container.
    logs: BTreeMap<String, Used>,
}

/// The file system that pods and logs lie on, and the time.
struct Ground {
    disk: Disk,
    now: String,
}

/// containerd does not say when it read networks: that is now.
fn time_or_now(nanos: Nanos) -> String {
    time(if nanos == 0 { clock::now() } else { nanos })
}

fn time(nanos: Nanos) -> String {
    api::time::format_seconds(clock::seconds(nanos))
}

/// Absent fields are left out, as upstream does.
fn slim(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, field| !field.is_null());
    }
    value
}

fn cpu(usage: Option<&v1::CpuUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    slim(json!({
        "time": time(usage.timestamp),
        "usageNanoCores": count(usage.usage_nano_cores.as_ref()),
        "usageCoreNanoSeconds": count(usage.usage_core_nano_seconds.as_ref()),
    }))
}

fn memory(usage: Option<&v1::MemoryUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    slim(json!({
        "time": time(usage.timestamp),
        "availableBytes": count(usage.available_bytes.as_ref()).filter(|bytes| *bytes > 0),
        "usageBytes": count(usage.usage_bytes.as_ref()),
        "workingSetBytes": count(usage.working_set_bytes.as_ref()),
        "rssBytes": count(usage.rss_bytes.as_ref()),
        "pageFaults": count(usage.page_faults.as_ref()),
        "majorPageFaults": count(usage.major_page_faults.as_ref()),
    }))
}

fn swap(usage: Option<&v1::SwapUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    slim(json!({
        "time": time(usage.timestamp),
        "swapAvailableBytes": count(usage.swap_available_bytes.as_ref()),
        "swapUsageBytes": count(usage.swap_usage_bytes.as_ref()),
    }))
}

fn network(usage: Option<&v1::NetworkUsage>) -> Value {
    let Some(usage) = usage else { return Value::Null };
    let interface = |found: &v1::NetworkInterfaceUsage| {
        slim(json!({
            "name": found.name,
            "rxBytes": count(found.rx_bytes.as_ref()),
            "rxErrors": count(found.rx_errors.as_ref()),
            "txBytes": count(found.tx_bytes.as_ref()),
            "txErrors": count(found.tx_errors.as_ref()),
        }))
    };
    let first = usage.default_interface.as_ref();
    let all = first.into_iter().chain(usage.interfaces.iter().filter(|i| first.is_none_or(|f| f.name != i.name)));
    let mut value = first.map_or_else(|| json!({}), interface);
    value["time"] = time_or_now(usage.timestamp).into();
    value["interfaces"] = all.map(interface).collect();
    value
}

impl Ground {
    fn usage(&self, disk: &Disk, used: Used) -> Value {
        json!({
            "time": self.now,
            "availableBytes": disk.available,
            "capacityBytes": disk.total,
            "usedBytes": used.bytes,
            "inodesFree": disk.inodes_free,
            "inodes": disk.inodes,
            "inodesUsed": used.inodes,
        })
    }

    fn container(&self, (name, started, item): (&str, i64, &v1::ContainerStats), logs: Used) -> Value {
        let layer = item.writable_layer.as_ref().map_or_else(Used::default, layer_use);
        slim(json!({
            "name": name,
            "startTime": api::time::format_seconds(started),
            "cpu": cpu(item.cpu.as_ref()),
            "memory": memory(item.memory.as_ref()),
            "rootfs": self.usage(&self.disk, layer),
            "logs": self.usage(&self.disk, logs),
            "swap": swap(item.swap.as_ref()),
        }))
    }

    fn pod(&self, usage: &PodUsage, on_disk: &PodDisk) -> Value {
        let meta = &usage.pod.metadata;
        let started = usage.status.start_time.as_ref().and_then(api::meta::v1::Time::unix).unwrap_or(0);
        let logs = |name: &str| on_disk.logs.get(name).copied().unwrap_or_default();
        let containers: Vec<Value> = usage.containers().map(|item| self.container(item, logs(item.0))).collect();
        let volumes: Vec<Value> = on_disk
            .volumes
            .iter()
            .map(|volume| {
                let mut value = self.usage(&volume.disk, volume.used);
                value["name"] = volume.name.clone().into();
                value
            })
            .collect();
        let processes = usage.linux.process.as_ref().and_then(|p| count(p.process_count.as_ref()));
        slim(json!({
            "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "startTime": api::time::format_seconds(started),
            "containers": containers,
            "cpu": cpu(usage.linux.cpu.as_ref()),
            "memory": memory(usage.linux.memory.as_ref()),
            "network": network(usage.linux.network.as_ref()),
            "volume": Some(volumes).filter(|volumes| !volumes.is_empty()),
            "ephemeral-storage": self.usage(&self.disk, ephemeral(usage, on_disk)),
            "process_stats": processes.map(|processes| json!({"process_count": processes})),
            "swap": Value::Null,
        }))
    }

    fn node(&self, name: &str, machine: &Machine, nano_cores: Option<u64>) -> Value {
        let memory = &machine.memory;
        let disk = &self.disk;
        let used = Used { bytes: disk.total.saturating_sub(disk.available), inodes: disk.inodes - disk.inodes_free };
        json!({
            "nodeName": name,
            "startTime": api::time::format_seconds(machine.booted),
            "cpu": slim(json!({
                "time": self.now, "usageNanoCores": nano_cores, "usageCoreNanoSeconds": machine.cpu_nanos,
            })),
            "memory": {
                "time": self.now,
                "availableBytes": memory.available,
                "usageBytes": memory.total.saturating_sub(memory.free),
                "workingSetBytes": memory.total.saturating_sub(memory.available),
                "rssBytes": memory.rss,
                "pageFaults": memory.page_faults,
                "majorPageFaults": memory.major_page_faults,
            },
            "network": self.node_network(machine),
            "fs": self.usage(disk, used),
            "rlimit": slim(json!({"time": self.now, "maxpid": machine.max_pid, "curproc": machine.processes})),
            "swap": {
                "time": self.now,
                "swapAvailableBytes": memory.swap_free,
                "swapUsageBytes": memory.swap_total.saturating_sub(memory.swap_free),
            },
        })
    }

    fn node_network(&self, machine: &Machine) -> Value {
        let interface = |found: &Interface| {
            json!({
                "name": found.name, "rxBytes": found.rx_bytes, "rxErrors": found.rx_errors,
                "txBytes": found.tx_bytes, "txErrors": found.tx_errors,
            })
        };
        let first = machine.interfaces.iter().find(|found| Some(&found.name) == machine.default_interface.as_ref());
        let mut value = first.map_or_else(|| json!({}), interface);
        value["time"] = self.now.clone().into();
        value["interfaces"] = machine.interfaces.iter().map(interface).collect();
        value
    }
}

fn layer_use(layer: &v1::FilesystemUsage) -> Used {
    Used {
        bytes: count(layer.used_bytes.as_ref()).unwrap_or(0),
        inodes: count(layer.inodes_used.as_ref()).unwrap_or(0),
    }
}

/// What counts against the pod's ephemeral storage: writable layers, logs and volumes on the node's own disk.
fn ephemeral(usage: &PodUsage, on_disk: &PodDisk) -> Used {
    let layers = usage.containers().filter_map(|(_, _, item)| item.writable_layer.as_ref().map(layer_use));
    let volumes = on_disk.volumes.iter().filter(|volume| volume.is_local).map(|volume| volume.used);
    layers
        .chain(volumes)
        .chain(on_disk.logs.values().copied())
        .fold(Used::default(), |sum, one| Used { bytes: sum.bytes + one.bytes, inodes: sum.inodes + one.inodes })
}

impl Server {
    /// What the node, its pods and their containers use.
    pub(super) async fn summary(&self, only_cpu_and_memory: bool) -> Response<Answer> {
        let (usage, images) = tokio::join!(self.pod_usage(), self.node.runtime.image_fs_info());
        let usage = match usage {
            Ok(usage) => usage,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        };
        let ground = Ground { disk: facts::disk(&self.node.config.root_dir), now: time(clock::now()) };
        let machine = Machine::observe();
        let nano_cores = self.node_nano_cores(clock::now(), machine.cpu_nanos);
        let mut node = ground.node(&self.node.config.node_name, &machine, nano_cores);
        if let Ok(images) = images {
            let sum = |list: &[v1::FilesystemUsage]| list.first().map_or_else(Used::default, layer_use);
            node["runtime"] = json!({
                "imageFs": ground.usage(&ground.disk, sum(&images.image_filesystems)),
                "containerFs": ground.usage(&ground.disk, sum(&images.container_filesystems)),
            });
        }
        node["systemContainers"] = json!([self.pods_container(&ground, &machine)]);
        let on_disk = if only_cpu_and_memory { Vec::new() } else { self.pod_disks(&usage).await };
        let nothing = PodDisk::default();
        let pods = usage.iter().enumerate().map(|(at, pod)| ground.pod(pod, on_disk.get(at).unwrap_or(&nothing)));
        let mut pods: Vec<Value> = pods.collect();
        if only_cpu_and_memory {
            pods.iter_mut().chain([&mut node]).for_each(keep_cpu_and_memory);
        }
        json(&json!({"node": node, "pods": pods}))
    }

    /// Folders are added up off the threads that serve.
    async fn pod_disks(&self, usage: &[PodUsage]) -> Vec<PodDisk> {
        let folders: Vec<(PathBuf, PathBuf, Vec<String>)> = usage
            .iter()
            .map(|one| {
                let names = one.containers().map(|(name, _, _)| name.to_owned()).collect();
                (self.node.pod_dir(&one.pod.metadata.uid), self.log_dir(&one.pod), names)
            })
            .collect();
        let measured = tokio::task::spawn_blocking(move || {
            let measure = |(pod, logs, names): (PathBuf, PathBuf, Vec<String>)| PodDisk {
                volumes: disk::volumes(&pod),
                logs: names
                    .into_iter()
                    .map(|name| {
                        let used = disk::used(&logs.join(&name));
                        (name, used)
                    })
                    .collect(),
            };
            folders.into_iter().map(measure).collect()
        });
        measured.await.unwrap_or_default()
    }

    /// All pods together.
    fn pods_container(&self, ground: &Ground, machine: &Machine) -> Value {
        let config = &self.node.config;
        let group = pods_group(config.cgroup_driver, &config.cgroup_root);
        let used = self.node.hierarchy.as_ref().map(|tree| tree.group(&group).usage(self.node.system.as_ref()));
        let used = used.unwrap_or_default();
        json!({
            "name": "pods",
            "startTime": api::time::format_seconds(machine.booted),
            "cpu": {"time": ground.now, "usageCoreNanoSeconds": used.cpu_nanos},
            "memory": {
                "time": ground.now, "usageBytes": used.memory_bytes, "workingSetBytes": used.working_set_bytes,
                "rssBytes": used.rss_bytes,
            },
        })
    }

    /// Processor time per second since the reading before; none at the first.
    fn node_nano_cores(&self, now: Nanos, cpu_nanos: u64) -> Option<u64> {
        let mut before = self.node_cpu.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = before.replace((now, cpu_nanos));
        let (then, cpu_then) = last?;
        let elapsed = u64::try_from(now - then).ok().filter(|elapsed| *elapsed > 0)?;
        let used = u128::from(cpu_nanos.saturating_sub(cpu_then)) * 1_000_000_000 / u128::from(elapsed);
        u64::try_from(used).ok()
    }
}

/// For `only_cpu_and_memory=true`, which autoscalers use.
fn keep_cpu_and_memory(value: &mut Value) {
    const KEPT: [&str; 8] =
        ["nodeName", "podRef", "name", "startTime", "cpu", "memory", "containers", "systemContainers"];
    let Value::Object(map) = value else { return };
    map.retain(|name, _| KEPT.contains(&name.as_str()));
    for list in ["containers", "systemContainers"] {
        if let Some(Value::Array(items)) = map.get_mut(list) {
            items.iter_mut().for_each(keep_cpu_and_memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_measurements_are_left_out() {
        let value = v1::UInt64Value { value: 7 };
        let usage = v1::CpuUsage { usage_core_nano_seconds: Some(value), ..v1::CpuUsage::default() };
        let found = cpu(Some(&usage));
        assert_eq!(found["usageCoreNanoSeconds"], 7);
        assert!(found.get("usageNanoCores").is_none());
    }

    #[test]
    fn a_short_summary_has_no_disks() {
        let mut pod = json!({"podRef": {}, "network": {}, "containers": [{"name": "a", "cpu": {}, "logs": {}}]});
        keep_cpu_and_memory(&mut pod);
        assert_eq!(pod, json!({"podRef": {}, "containers": [{"name": "a", "cpu": {}}]}));
    }
}
