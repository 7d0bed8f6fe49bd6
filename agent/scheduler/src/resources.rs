//! Amounts of resources, and how much of them a pod asks for.

use std::collections::BTreeMap;

use api::Quantity;
use api::core::v1::{Container, PodSpec};

/// What a container without a request counts as when nodes are compared.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Thousandths of a core.
    pub(crate) cpu: i64,
    /// Bytes.
    pub(crate) memory: i64,
    /// Bytes.
    pub(crate) ephemeral_storage: i64,
    /// Everything else by name: huge pages and extended resources.
    pub(crate) scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list; `pods` is not an amount and left out.
    pub(crate) fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => resources.cpu = quantity.amount().milli(),
                "memory" => resources.memory = quantity.amount().value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.amount().value(),
                "pods" => {}
                _ => {
                    resources.scalars.insert(name.clone(), quantity.amount().value());
                }
            }
        }
        resources
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.scalars {
            *self.scalars.entry(name.clone()).or_default() += amount;
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.cpu -= other.cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.scalars {
            if let Some(have) = self.scalars.get_mut(name) {
                *have -= amount;
                if *have == 0 {
                    self.scalars.remove(name);
                }
            }
        }
    }

    fn raise_to(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            let have = self.scalars.entry(name.clone()).or_default();
            *have = (*have).max(*amount);
        }
    }

    /// Takes over what pod-level requests may say: CPU, memory, huge pages.
    fn override_with(&mut self, list: &BTreeMap<String, Quantity>) {
        let given = Self::from_list(list);
        for name in list.keys() {
            match name.as_str() {
                "cpu" => self.cpu = given.cpu,
                "memory" => self.memory = given.memory,
                name if name.starts_with("hugepages-") => {
                    self.scalars.insert(name.to_owned(), given.scalars.get(name).copied().unwrap_or(0));
                }
                _ => {}
            }
        }
    }
}

/// What a pod needs of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// What is asked for.
    pub(crate) exact: Resources,
    /// CPU with a default for containers that ask for none; only for scoring.
    pub(crate) assumed_cpu: i64,
    /// Memory with a default for containers that ask for none; only for scoring.
    pub(crate) assumed_memory: i64,
}

impl Requests {
    pub(crate) fn of(spec: &PodSpec) -> Self {
        let exact = total(spec, |container| Resources::from_list(&container.resources.requests));
        let assumed = total(spec, |container| {
            let requests = &container.resources.requests;
            Resources {
                cpu: requests.get("cpu").map_or(DEFAULT_CPU, |cpu| cpu.amount().milli()),
                memory: requests.get("memory").map_or(DEFAULT_MEMORY, |memory| memory.amount().value()),
                ..Resources::default()
            }
        });
        Self { exact, assumed_cpu: assumed.cpu, assumed_memory: assumed.memory }
    }
}

/// Containers and sidecars run together; each init container runs beside the sidecars before it.
fn total(spec: &PodSpec, requests_of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&requests_of(container));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let request = requests_of(container);
        if is_sidecar(container) {
            running.add(&request);
            sidecars.add(&request);
            peak.raise_to(&sidecars);
        } else {
            let mut during = sidecars.clone();
            during.add(&request);
            peak.raise_to(&during);
        }
    }
    running.raise_to(&peak);
    if let Some(resources) = &spec.resources {
        running.override_with(&resources.requests);
    }
    running.add(&Resources::from_list(&spec.overhead));
    running
}

/// Whether an init container keeps running.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, memory: &str, sidecar: bool) -> Container {
        let mut container = Container::default();
        for (name, text) in [("cpu", cpu), ("memory", memory)] {
            if !text.is_empty() {
                container.resources.requests.insert(name.to_owned(), Quantity::new(text));
            }
        }
        container.restart_policy = sidecar.then(|| "Always".to_owned());
        container
    }

    #[test]
    fn init_containers_sidecars_and_overhead_count_as_they_run() {
        let mut spec = PodSpec {
            containers: vec![container("100m", "1Gi", false), container("1", "", false)],
            init_containers: vec![
                container("2", "10Mi", false),
                container("300m", "", true),
                container("1200m", "2Gi", false),
            ],
            ..PodSpec::default()
        };
        spec.overhead.insert("cpu".to_owned(), Quantity::new("10m"));
        let requests = Requests::of(&spec);
        // Together 1.1 + 0.3 sidecar; the first init container alone needs 2.
        assert_eq!(requests.exact.cpu, 2010);
        assert_eq!(requests.exact.memory, 2 << 30);
        assert_eq!(requests.assumed_memory, (2 << 30) + DEFAULT_MEMORY);
    }

    #[test]
    fn pod_level_requests_win() {
        let mut spec = PodSpec { containers: vec![container("3", "1Gi", false)], ..PodSpec::default() };
        let mut resources = api::core::v1::ResourceRequirements::default();
        resources.requests.insert("cpu".to_owned(), Quantity::new("500m"));
        spec.resources = Some(resources);
        let requests = Requests::of(&spec);
        assert_eq!((requests.exact.cpu, requests.exact.memory), (500, 1 << 30));
    }
}
