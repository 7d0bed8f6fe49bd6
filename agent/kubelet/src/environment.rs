//! A container's environment: services, references to other objects, expansion. Pure over what was fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Quantity;
use api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Secret, Service};

use crate::expand::expand;
use crate::fields::{LiveFields, pod_field};
use crate::pod::PodView;
use crate::resources::resource_field;

/// Objects a pod refers to, by name, in the pod's namespace; `None` for those that do not exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referenced {
    pub(crate) config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    pub(crate) secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

impl Referenced {
    pub(crate) fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(name)?.as_deref()
    }

    pub(crate) fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name)?.as_deref()
    }
}

/// Everything an environment is made from.
pub(crate) struct EnvironmentInput<'a> {
    pub(crate) view: &'a PodView,
    pub(crate) container: &'a Container,
    pub(crate) referenced: &'a Referenced,
    pub(crate) services: &'a [Arc<Service>],
    pub(crate) live: &'a LiveFields,
    pub(crate) allocatable: &'a BTreeMap<String, Quantity>,
}

/// The variables in the order in which they are handed over, or why the container cannot be made.
pub(crate) fn environment(input: &EnvironmentInput<'_>) -> Result<Vec<(String, String)>, String> {
    let mut result: Vec<(String, String)> = Vec::new();
    for from in &input.container.env_from {
        add_all_from(input, from, &mut result)?;
    }
    let services = service_variables(input);
    for variable in &input.container.env {
        let value = match &variable.value_from {
            Some(source) => match resolve(input, source)? {
                Some(value) => value,
                None => continue,
            },
            None => {
                let lookup = |name: &str| {
                    result
                        .iter()
                        .find(|(known, _)| known == name)
                        .map(|(_, v)| v.clone())
                        .or_else(|| services.get(name).cloned())
                };
                expand(&variable.value, &lookup)
            }
        };
        set(&mut result, &variable.name, value);
    }
    for (name, value) in services {
        if !result.iter().any(|(known, _)| *known == name) {
            result.push((name, value));
        }
    }
    Ok(result)
}

fn set(result: &mut Vec<(String, String)>, name: &str, value: String) {
    match result.iter_mut().find(|(known, _)| known == name) {
        Some(entry) => entry.1 = value,
        None => result.push((name.to_owned(), value)),
    }
}

fn add_all_from(
    input: &EnvironmentInput<'_>,
    from: &api::core::v1::EnvFromSource,
    result: &mut Vec<(String, String)>,
) -> Result<(), String> {
    if let Some(source) = &from.config_map_ref {
        let name = &source.local_object_reference.name;
        match input.referenced.config_map(name) {
            Some(map) => {
                map.data.iter().for_each(|(key, value)| set(result, &format!("{}{key}", from.prefix), value.clone()));
            }
            None if source.optional == Some(true) => {}
            None => return Err(format!("configmap \"{name}\" not found")),
        }
    }
    if let Some(source) = &from.secret_ref {
        let name = &source.local_object_reference.name;
        match input.referenced.secret(name) {
            Some(secret) => secret.data.iter().for_each(|(key, value)| {
                set(result, &format!("{}{key}", from.prefix), String::from_utf8_lossy(value).into_owned());
            }),
            None if source.optional == Some(true) => {}
            None => return Err(format!("secret \"{name}\" not found")),
        }
    }
    Ok(())
}

/// The value of a reference; `None` for an optional one that leads nowhere.
fn resolve(input: &EnvironmentInput<'_>, source: &EnvVarSource) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return pod_field(&input.view.pod, &field.field_path, input.live).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        let container = match field.container_name.as_str() {
            "" => input.container,
            name => {
                let named = input.view.container(name);
                &named.ok_or_else(|| format!("container {name} not found"))?.spec
            }
        };
        let value = resource_field(container, &field.resource, &field.divisor, input.allocatable);
        return value.map(Some).ok_or_else(|| format!("unsupported container resource : {}", field.resource));
    }
    if let Some(key) = &source.config_map_key_ref {
        let name = &key.local_object_reference.name;
        let is_optional = key.optional == Some(true);
        return match input.referenced.config_map(name) {
            None if is_optional => Ok(None),
            None => Err(format!("configmap \"{name}\" not found")),
            Some(map) => match map.data.get(&key.key) {
                Some(value) => Ok(Some(value.clone())),
                None if is_optional => Ok(None),
                None => Err(missing_key(input, &key.key, "ConfigMap", name)),
            },
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let name = &key.local_object_reference.name;
        let is_optional = key.optional == Some(true);
        return match input.referenced.secret(name) {
            None if is_optional => Ok(None),
            None => Err(format!("secret \"{name}\" not found")),
            Some(secret) => match secret.data.get(&key.key) {
                Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
                None if is_optional => Ok(None),
                None => Err(missing_key(input, &key.key, "Secret", name)),
            },
        };
    }
    Err("the variable has a valueFrom without a source that this node knows".to_owned())
}

fn missing_key(input: &EnvironmentInput<'_>, key: &str, kind: &str, name: &str) -> String {
    format!("couldn't find key {key} in {kind} {}/{name}", input.view.namespace())
}

/// Names of the config maps and secrets that a container's environment refers to.
pub(crate) fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in &container.env_from {
        maps.extend(from.config_map_ref.iter().map(|r| r.local_object_reference.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.local_object_reference.name.clone()));
    }
    let sources = container.env.iter().filter_map(|EnvVar { value_from, .. }| value_from.as_ref());
    for source in sources {
        maps.extend(source.config_map_key_ref.iter().map(|r| r.local_object_reference.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.local_object_reference.name.clone()));
    }
    (maps, secrets)
}

/// The variables that tell of services: those of the pod's namespace, and of the API server everywhere.
fn service_variables(input: &EnvironmentInput<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let links = input.view.spec().enable_service_links.unwrap_or(true);
    let has_address = |s: &Service| !s.spec.cluster_ip.is_empty() && s.spec.cluster_ip != "None";
    let is_master = |s: &Service| s.metadata.namespace == "default" && s.metadata.name == "kubernetes";
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in input.services.iter().filter(|s| has_address(s)) {
        let is_own = service.metadata.namespace == input.view.namespace();
        if (is_own && links) || (is_master(service) && !chosen.contains_key("kubernetes")) {
            chosen.insert(&service.metadata.name, service);
        }
    }
    for service in chosen.values() {
        add_service(service, &mut variables);
    }
    variables
}

fn add_service(service: &Service, variables: &mut BTreeMap<String, String>) {
    let prefix = service.metadata.name.replace('-', "_").to_uppercase();
    let ip = &service.spec.cluster_ip;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.clone());
    let Some(first) = service.spec.ports.first() else { return };
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in service.spec.ports.iter().enumerate() {
        if !port.name.is_empty() {
            let name = port.name.replace('-', "_").to_uppercase();
            variables.insert(format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
        }
        let upper = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        let url = format!("{}://{host}:{}", upper.to_lowercase(), port.port);
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let base = format!("{prefix}_PORT_{}_{upper}", port.port);
        variables.insert(base.clone(), url);
        variables.insert(format!("{base}_PROTO"), upper.to_lowercase());
        variables.insert(format!("{base}_PORT"), port.port.to_string());
        variables.insert(format!("{base}_ADDR"), ip.clone());
    }
}
