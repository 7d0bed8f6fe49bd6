//! `/metrics/cadvisor`: what the cgroups of pods and containers use, under the names that cAdvisor made known.
//!
//! Only what the kernel and the runtime measure is told; series of cAdvisor's that they do not measure are absent, not
//! zero. Labels are upstream's: `container`, `id`, `image`, `name`, `namespace`, `pod`.

use std::collections::BTreeMap;
use std::path::Path;

use cgroups::{Controller, Group, Version};
use cri::v1;
use http::{Response, StatusCode};
use stdx::exposition::Text;

use super::Server;
use super::body::{Answer, text};
use super::machine::{Interface, Machine};
use super::metrics::{answer, millis, number, seconds};
use super::usage::{PodUsage, count};
use crate::clock;
use crate::config::CgroupDriver;
use crate::node::facts;
use crate::observed::Nanos;
use crate::pod_cgroup::{pod_group, pods_group};
use crate::resources::qos_of;

/// What is the kernel's word for "no limit".
const UNLIMITED: u64 = 1 << 62;
/// The period of processor shares that weights are told in.
const SHARES_OF_WEIGHT_ONE: u64 = 2;

/// One cgroup with what identifies it.
struct Subject {
    identity: Identity,
    started: i64,
    counters: Counters,
}

/// What tells a cgroup's series apart; empty where a word does not fit, as upstream tells it.
#[derive(Clone, Default)]
struct Identity {
    container: String,
    id: String,
    image: String,
    name: String,
    namespace: String,
    pod: String,
}

impl Identity {
    fn of(path: &str) -> Self {
        Self { id: format!("/{path}"), ..Self::default() }
    }

    fn labels(&self) -> [(&str, &str); 6] {
        [
            ("container", &self.container),
            ("id", &self.id),
            ("image", &self.image),
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("pod", &self.pod),
        ]
    }

    fn labels_and<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [&self.labels(), more].concat()
    }
}

/// What a cgroup's files say; absent where a file or line is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters(BTreeMap<&'static str, u64>);

/// A metric: name, type, help, labels of its own, how its counter is called, and how that becomes the metric's value.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    extra: &'static [(&'static str, &'static str)],
    of: &'static str,
    scale: fn(u64) -> f64,
}

const fn metric(
    name: &'static str,
    kind: &'static str,
    of: &'static str,
    scale: fn(u64) -> f64,
    help: &'static str,
) -> Metric {
    Metric { name, kind, help, extra: &[], of, scale }
}

/// The table. Rows of one name follow one another.
const METRICS: &[Metric] = &[
    metric(
        "container_cpu_cfs_periods_total",
        "counter",
        "periods",
        number,
        "Number of elapsed enforcement period intervals.",
    ),
    metric(
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        "throttled",
        number,
        "Number of throttled period intervals.",
    ),
    metric(
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "throttled_nanos",
        seconds,
        "Total time duration the container has been throttled.",
    ),
    metric(
        "container_cpu_system_seconds_total",
        "counter",
        "system_nanos",
        seconds,
        "Cumulative system cpu time consumed in seconds.",
    ),
    Metric {
        extra: &[("cpu", "total")],
        ..metric(
            "container_cpu_usage_seconds_total",
            "counter",
            "cpu_nanos",
            seconds,
            "Cumulative cpu time consumed in seconds.",
        )
    },
    metric(
        "container_cpu_user_seconds_total",
        "counter",
        "user_nanos",
        seconds,
        "Cumulative user cpu time consumed in seconds.",
    ),
    metric("container_memory_cache", "gauge", "cache", number, "Number of bytes of page cache memory."),
    metric("container_memory_failcnt", "counter", "failures", number, "Number of memory usage hits limits"),
    Metric {
        extra: &[("failure_type", "pgfault"), ("scope", "hierarchy")],
        ..metric(
            "container_memory_failures_total",
            "counter",
            "faults",
            number,
            "Cumulative count of memory allocation failures.",
        )
    },
    Metric {
        extra: &[("failure_type", "pgmajfault"), ("scope", "hierarchy")],
        ..metric(
            "container_memory_failures_total",
            "counter",
            "major_faults",
            number,
            "Cumulative count of memory allocation failures.",
        )
    },
    metric("container_memory_mapped_file", "gauge", "mapped", number, "Size of memory mapped files in bytes."),
    metric(
        "container_memory_max_usage_bytes",
        "gauge",
        "memory_peak",
        number,
        "Maximum memory usage recorded in bytes",
    ),
    metric("container_memory_rss", "gauge", "rss", number, "Size of RSS in bytes."),
    metric("container_memory_swap", "gauge", "swap", number, "Container swap usage in bytes."),
    metric(
        "container_memory_usage_bytes",
        "gauge",
        "memory",
        number,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
    ),
    metric("container_memory_working_set_bytes", "gauge", "working_set", number, "Current working set in bytes."),
    metric(
        "container_oom_events_total",
        "counter",
        "ooms",
        number,
        "Count of out of memory events observed for the container",
    ),
    metric("container_spec_cpu_period", "gauge", "quota_period", number, "CPU period of the container."),
    metric("container_spec_cpu_quota", "gauge", "quota", number, "CPU quota of the container."),
    metric("container_spec_cpu_shares", "gauge", "shares", number, "CPU share of the container."),
    metric("container_spec_memory_limit_bytes", "gauge", "memory_limit", number, "Memory limit for the container."),
    metric("container_threads", "gauge", "tasks", number, "Number of threads running inside the container"),
    metric(
        "container_threads_max",
        "gauge",
        "tasks_limit",
        number,
        "Maximum number of threads allowed inside the container, infinity if value is zero",
    ),
];

impl Counters {
    fn read(group: &Group, version: Version) -> Self {
        let mut counters = Self::default();
        match version {
            Version::Unified => counters.unified(group),
            Version::Legacy => counters.legacy(group),
        }
        if let (Some(memory), Some(inactive)) = (counters.0.get("memory").copied(), counters.0.remove("inactive")) {
            let working_set = memory.saturating_sub(inactive);
            counters.put("working_set", Some(working_set));
        }
        counters
    }

    fn put(&mut self, name: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.0.insert(name, value);
        }
    }

    /// Lines `key value` of a file.
    fn lines(&mut self, text: &str, names: &[(&str, &'static str, u64)]) {
        for (key, name, factor) in names {
            let found =
                text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
            self.put(name, found.map(|value| value * factor));
        }
    }

    fn unified(&mut self, group: &Group) {
        let text = |controller, file| file_of(group, controller, file);
        let cpu = [
            ("usage_usec", "cpu_nanos", 1000),
            ("user_usec", "user_nanos", 1000),
            ("system_usec", "system_nanos", 1000),
            ("nr_periods", "periods", 1),
            ("nr_throttled", "throttled", 1),
            ("throttled_usec", "throttled_nanos", 1000),
        ];
        self.lines(&text(Controller::Cpu, "cpu.stat"), &cpu);
        let memory = [
            ("file", "cache", 1),
            ("file_mapped", "mapped", 1),
            ("anon", "rss", 1),
            ("pgfault", "faults", 1),
            ("pgmajfault", "major_faults", 1),
            ("inactive_file", "inactive", 1),
        ];
        self.lines(&text(Controller::Memory, "memory.stat"), &memory);
        self.lines(&text(Controller::Memory, "memory.events"), &[("max", "failures", 1), ("oom_kill", "ooms", 1)]);
        self.put("memory", whole(&text(Controller::Memory, "memory.current")));
        self.put("memory_peak", whole(&text(Controller::Memory, "memory.peak")));
        self.put("swap", whole(&text(Controller::Memory, "memory.swap.current")));
        self.put("memory_limit", limit(&text(Controller::Memory, "memory.max")));
        self.put("tasks", whole(&text(Controller::Pids, "pids.current")));
        self.put("tasks_limit", limit(&text(Controller::Pids, "pids.max")));
        let quota = text(Controller::Cpu, "cpu.max");
        let mut words = quota.split_whitespace();
        self.put("quota", words.next().and_then(|word| word.parse().ok()));
        self.put("quota_period", words.next().and_then(|word| word.parse().ok()));
        self.put("shares", whole(&text(Controller::Cpu, "cpu.weight")).map(shares));
    }

    fn legacy(&mut self, group: &Group) {
        let text = |controller, file| file_of(group, controller, file);
        let ticks = 1_000_000_000 / 100;
        self.lines(
            &text(Controller::CpuAccounting, "cpuacct.stat"),
            &[("user", "user_nanos", ticks), ("system", "system_nanos", ticks)],
        );
        self.put("cpu_nanos", whole(&text(Controller::CpuAccounting, "cpuacct.usage")));
        let cpu =
            [("nr_periods", "periods", 1), ("nr_throttled", "throttled", 1), ("throttled_time", "throttled_nanos", 1)];
        self.lines(&text(Controller::Cpu, "cpu.stat"), &cpu);
        let memory = [
            ("total_cache", "cache", 1),
            ("total_mapped_file", "mapped", 1),
            ("total_rss", "rss", 1),
            ("total_swap", "swap", 1),
            ("total_pgfault", "faults", 1),
            ("total_pgmajfault", "major_faults", 1),
            ("total_inactive_file", "inactive", 1),
        ];
        self.lines(&text(Controller::Memory, "memory.stat"), &memory);
        self.lines(&text(Controller::Memory, "memory.oom_control"), &[("oom_kill", "ooms", 1)]);
        self.put("memory", whole(&text(Controller::Memory, "memory.usage_in_bytes")));
        self.put("memory_peak", whole(&text(Controller::Memory, "memory.max_usage_in_bytes")));
        self.put("failures", whole(&text(Controller::Memory, "memory.failcnt")));
        self.put("memory_limit", limit(&text(Controller::Memory, "memory.limit_in_bytes")));
        self.put("tasks", whole(&text(Controller::Pids, "pids.current")));
        self.put("tasks_limit", limit(&text(Controller::Pids, "pids.max")));
        self.put("quota", whole(&text(Controller::Cpu, "cpu.cfs_quota_us")));
        self.put("quota_period", whole(&text(Controller::Cpu, "cpu.cfs_period_us")));
        self.put("shares", whole(&text(Controller::Cpu, "cpu.shares")));
    }
}

fn file_of(group: &Group, controller: Controller, file: &str) -> String {
    let path = group.folder(controller).map(|folder| folder.join(file));
    path.and_then(|path: std::path::PathBuf| std::fs::read_to_string(Path::new(&path)).ok()).unwrap_or_default()
}

fn whole(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// No limit is told as zero.
fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(0),
        number => number.parse().ok().map(|limit: u64| if limit >= UNLIMITED { 0 } else { limit }),
    }
}

/// Shares that a weight stands for, by the kernel's own mapping of the two ranges.
fn shares(weight: u64) -> u64 {
    SHARES_OF_WEIGHT_ONE + weight.saturating_sub(1) * 262_142 / 9999
}

fn render(text: &mut Text, subjects: &[Subject], now: Nanos) {
    let mut last = "";
    for metric in METRICS {
        for subject in subjects {
            let Some(value) = subject.counters.0.get(metric.of) else { continue };
            if metric.name != last {
                text.family(metric.name, metric.kind, metric.help);
                last = metric.name;
            }
            let labels = subject.identity.labels_and(metric.extra);
            text.sample_at(metric.name, &labels, (metric.scale)(*value), millis(now));
        }
    }
    for (name, help) in [
        ("container_last_seen", "Last time a container was seen by the exporter"),
        ("container_start_time_seconds", "Start time of the container since unix epoch in seconds."),
    ] {
        text.family(name, "gauge", help);
        for subject in subjects {
            let value = if name == "container_last_seen" { clock::seconds(now) } else { subject.started };
            text.sample_at(name, &subject.identity.labels(), value.max(0), millis(now));
        }
    }
}

/// One series of counters by interface: the name's middle, its help, and how it is read of a pod's interface and of
/// the machine's.
type OfInterface = (&'static str, &'static str, fn(&v1::NetworkInterfaceUsage) -> Option<u64>, fn(&Interface) -> u64);

const INTERFACES: [OfInterface; 4] = [
    ("receive_bytes", "Cumulative count of bytes received", |i| count(i.rx_bytes.as_ref()), |i| i.rx_bytes),
    (
        "receive_errors",
        "Cumulative count of errors encountered while receiving",
        |i| count(i.rx_errors.as_ref()),
        |i| i.rx_errors,
    ),
    ("transmit_bytes", "Cumulative count of bytes transmitted", |i| count(i.tx_bytes.as_ref()), |i| i.tx_bytes),
    (
        "transmit_errors",
        "Cumulative count of errors encountered while transmitting",
        |i| count(i.tx_errors.as_ref()),
        |i| i.tx_errors,
    ),
];

fn render_networks(text: &mut Text, pods: &[(Identity, &PodUsage)], machine: &Machine, now: Nanos) {
    for (part, help, of_pod, of_machine) in INTERFACES {
        let name = format!("container_network_{part}_total");
        text.family(&name, "counter", help);
        let root = Identity::of("");
        let of_node = machine.interfaces.iter().map(|found| (&root, &found.name, Some(of_machine(found))));
        let of_pods = pods.iter().flat_map(|(identity, usage)| {
            let network = usage.linux.network.as_ref();
            let all = network.into_iter().flat_map(|n| n.default_interface.iter().chain(&n.interfaces));
            all.map(move |found| (identity, &found.name, of_pod(found)))
        });
        for (identity, interface, value) in of_node.chain(of_pods) {
            if let Some(value) = value {
                text.sample_at(&name, &identity.labels_and(&[("interface", interface)]), value, millis(now));
            }
        }
    }
}

fn render_machine(text: &mut Text, machine: &Machine, now: Nanos) {
    let gauges = [
        ("machine_cpu_cores", "Number of logical CPU cores.", Machine::processors()),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", machine.memory.total),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", machine.memory.swap_total),
    ];
    let (boot, machine, system) = (facts::boot_id(), facts::machine_id(), facts::system_uuid());
    let labels = [("boot_id", &*boot), ("machine_id", &machine), ("system_uuid", &system)];
    for (name, help, value) in gauges {
        text.family(name, "gauge", help);
        text.sample_at(name, &labels, value, millis(now));
    }
    let version = "cadvisor_version_info";
    text.family(version, "gauge", "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.");
    let (kernel, os) = (facts::kernel_release(), facts::os_image());
    let none = ["cadvisorRevision", "cadvisorVersion", "dockerVersion"].map(|name| (name, ""));
    text.sample(version, &[&none[..], &[("kernelVersion", &*kernel), ("osVersion", &os)]].concat(), 1);
    for (name, help) in [
        ("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise"),
        ("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise."),
    ] {
        text.single((name, "gauge"), help, 0);
    }
}

impl Server {
    /// The page.
    pub(super) async fn cadvisor(&self) -> Response<Answer> {
        let Some(tree) = &self.node.hierarchy else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the machine has no cgroups\n");
        };
        let usage = match self.pod_usage().await {
            Ok(usage) => usage,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        };
        let (driver, root) = (self.node.config.cgroup_driver, &self.node.config.cgroup_root);
        let machine = Machine::observe();
        let subject = |path: &str, identity: Identity, started: i64| {
            let counters = Counters::read(&tree.group(path), tree.version());
            Subject { identity, started, counters }
        };
        let pods = pods_group(driver, root);
        let mut subjects =
            vec![subject("", Identity::of(""), machine.booted), subject(&pods, Identity::of(&pods), machine.booted)];
        let mut networks = Vec::new();
        for one in &usage {
            let meta = &one.pod.metadata;
            let path = pod_group(driver, root, qos_of(&one.pod), &meta.uid).path;
            let started = one.status.start_time.as_ref().and_then(api::meta::v1::Time::unix).unwrap_or(0);
            let (namespace, pod) = (meta.namespace.clone(), meta.name.clone());
            let of_pod = Identity { namespace, pod, ..Identity::of(&path) };
            subjects.push(subject(&path, of_pod.clone(), started));
            for (name, started, stats) in one.containers() {
                let id = stats.attributes.as_ref().map(|a| a.id.as_str()).unwrap_or_default();
                let path = format!("{path}/{}", folder(driver, id));
                let of_container = Identity {
                    container: name.to_owned(),
                    id: format!("/{path}"),
                    image: image(one, name),
                    name: id.to_owned(),
                    ..of_pod.clone()
                };
                subjects.push(subject(&path, of_container, started));
            }
            networks.push((of_pod, one));
        }
        let (mut page, now) = (Text::default(), clock::now());
        render(&mut page, &subjects, now);
        render_networks(&mut page, &networks, &machine, now);
        render_machine(&mut page, &machine, now);
        answer(page)
    }
}

/// The folder that containerd makes for a container.
fn folder(driver: CgroupDriver, id: &str) -> String {
    match driver {
        CgroupDriver::Cgroupfs => id.to_owned(),
        CgroupDriver::Systemd => format!("cri-containerd-{id}.scope"),
    }
}

fn image(usage: &PodUsage, container: &str) -> String {
    let spec = &usage.pod.spec;
    let mut all = spec.containers.iter().chain(&spec.init_containers);
    all.find(|c| c.name == container).map(|c| c.image.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(subjects: &[Subject]) -> String {
        let mut text = Text::default();
        render(&mut text, subjects, 5_000_000_000);
        text.finish()
    }

    #[test]
    fn groups_of_both_generations_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 2500000\nuser_usec 1\nnr_periods 3\n");
        write("memory.stat", "anon 10\nfile 20\ninactive_file 5\n");
        write("memory.current", "100\n");
        write("memory.max", "max\n");
        write("cpu.weight", "1\n");
        let tree = cgroups::Hierarchy::Unified { root: folder.path().to_owned() };
        let found = Counters::read(&tree.group(""), Version::Unified).0;
        assert_eq!((found["cpu_nanos"], found["working_set"], found["memory_limit"]), (2_500_000_000, 95, 0));
        assert_eq!((found["shares"], found.get("swap")), (2, None));
        write("cpuacct.usage", "7\n");
        write("memory.usage_in_bytes", "50\n");
        write("memory.limit_in_bytes", "9223372036854771712\n");
        let roots = [Controller::CpuAccounting, Controller::Memory].map(|c| (c, folder.path().to_owned())).into();
        let tree = cgroups::Hierarchy::Legacy { roots };
        let found = Counters::read(&tree.group(""), Version::Legacy).0;
        assert_eq!((found["cpu_nanos"], found["memory"], found["memory_limit"]), (7, 50, 0));
    }

    #[test]
    fn series_have_upstream_s_names_and_labels() {
        let counters = Counters([("cpu_nanos", 1_500_000_000), ("faults", 2), ("major_faults", 1)].into());
        let [container, image, name] = ["c", "registry/a:1", "1"].map(str::to_owned);
        let (namespace, pod) = ("ns".to_owned(), "p".to_owned());
        let identity = Identity { container, image, name, namespace, pod, ..Identity::of("kubepods/podx/1") };
        let text = page(&[Subject { identity, started: 4, counters }]);
        let lines: Vec<&str> = text.lines().collect();
        let of = "container=\"c\",id=\"/kubepods/podx/1\",image=\"registry/a:1\",name=\"1\",namespace=\"ns\",pod=\"p\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{of},cpu=\"total\"}} 1.5 5000"),
            format!("container_memory_failures_total{{{of},failure_type=\"pgmajfault\",scope=\"hierarchy\"}} 1 5000"),
            format!("container_start_time_seconds{{{of}}} 4 5000"),
        ] {
            assert!(lines.contains(&line.as_str()), "{line} is not in {text}");
        }
        assert_eq!(text.matches("# TYPE container_memory_failures_total").count(), 1);
        assert!(!text.contains("container_memory_rss"), "nothing is said of what was not measured");
    }
}
