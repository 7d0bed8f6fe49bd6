//! Defaults that depend on more than the fields beside them.

use api::Kind;
use base64::prelude::{BASE64_STANDARD as STANDARD, Engine};
use serde_json::{Map, Value, json};

use crate::tree;

const CONTAINER: &str = "k8s.io.api.core.v1.Container";
const EPHEMERAL: &str = "k8s.io.api.core.v1.EphemeralContainer";
const SERVICE_PORT: &str = "k8s.io.api.core.v1.ServicePort";
const POD_SPEC: &str = "k8s.io.api.core.v1.PodSpec";
const NODE_SPEC: &str = "k8s.io.api.core.v1.NodeSpec";
const LIMIT_ITEM: &str = "k8s.io.api.core.v1.LimitRangeItem";
const IMAGE_VOLUME: &str = "k8s.io.api.core.v1.ImageVolumeSource";
const VOLUME: &str = "k8s.io.api.core.v1.Volume";
const SCALING_RULES: &str = "k8s.io.api.autoscaling.v2.HorizontalPodAutoscalerBehavior";

/// Whether a message has a function below.
pub(super) fn has(name: &str) -> bool {
    [CONTAINER, EPHEMERAL, SERVICE_PORT, POD_SPEC, NODE_SPEC, LIMIT_ITEM, IMAGE_VOLUME, VOLUME, SCALING_RULES]
        .contains(&name)
        || is_device_taint(name)
}

/// Whether it is a device's taint, in any version.
fn is_device_taint(name: &str) -> bool {
    name.strip_prefix("k8s.io.api.resource.").is_some_and(|rest| rest.ends_with(".DeviceTaint"))
}

/// Defaults of one message.
pub(super) fn message(name: &str, map: &mut Map<String, Value>) {
    match name {
        CONTAINER | EPHEMERAL => pull_policy(map, ("imagePullPolicy", "image")),
        SERVICE_PORT => target_port(map),
        POD_SPEC => {
            host_ports(map);
            account_alias(map);
        }
        NODE_SPEC => range_alias(map),
        LIMIT_ITEM => limits(map),
        // A volume without any source is an emptyDir.
        VOLUME if map.iter().all(|(k, v)| k == "name" || v.is_null()) => {
            map.insert("emptyDir".into(), json!({}));
        }
        IMAGE_VOLUME => pull_policy(map, ("pullPolicy", "reference")),
        SCALING_RULES => scaling(map),
        name if is_device_taint(name) && map.get("timeAdded").is_none_or(Value::is_null) => {
            map.insert("timeAdded".into(), crate::app::now_text().into());
        }
        _ => {}
    }
}

/// `:latest`, or no tag at all, is pulled anew each time.
fn pull_policy(map: &mut Map<String, Value>, (policy, image): (&str, &str)) {
    if map.get(policy).and_then(Value::as_str).is_some_and(|p| !p.is_empty()) {
        return;
    }
    let image = map.get(image).and_then(Value::as_str).unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = is_image(image) && !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    map.insert(policy.into(), if latest { "Always" } else { "IfNotPresent" }.into());
}

/// Whether the text can be an image's name; what cannot has no tag.
fn is_image(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    let (first, rest) = text.split_once('/').unwrap_or(("", text));
    let is_host = first.contains(['.', ':']) || first == "localhost";
    let path = if is_host { rest } else { text };
    let path = path.split([':', '@']).next().unwrap_or_default();
    // The longest name of a repository there is.
    const MAX_LEN: usize = 255;
    text.chars().all(word)
        && !path.is_empty()
        && path.len() <= MAX_LEN
        && !path.contains(|c: char| c.is_ascii_uppercase())
}

fn target_port(map: &mut Map<String, Value>) {
    let unset = matches!(map.get("targetPort"), None | Some(Value::Null))
        || map.get("targetPort").is_some_and(|t| t == 0 || t == "");
    if let (true, Some(port)) = (unset, map.get("port").cloned()) {
        map.insert("targetPort".into(), port);
    }
}

/// The first range of a node's pods is also called by itself; where they differ, that counts.
fn range_alias(map: &mut Map<String, Value>) {
    let list = map.get("podCIDRs").and_then(Value::as_array).filter(|list| !list.is_empty());
    let first = list.map(|list| list[0].clone());
    match map.get("podCIDR").filter(|own| own.as_str().is_some_and(|text| !text.is_empty())).cloned() {
        Some(own) if first.as_ref() != Some(&own) => {
            map.insert("podCIDRs".into(), json!([own]));
        }
        None => {
            if let Some(first) = first {
                map.insert("podCIDR".into(), first);
            }
        }
        Some(_) => {}
    }
}

fn host_ports(map: &mut Map<String, Value>) {
    if map.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    for list in ["containers", "initContainers"] {
        for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if port["hostPort"].as_i64().unwrap_or(0) == 0 {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
    }
}

/// The old name of `serviceAccountName` follows the new one, or stands in for it.
fn account_alias(map: &mut Map<String, Value>) {
    let text = |key: &str| map.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    if let Some(name) = text("serviceAccountName").or_else(|| text("serviceAccount")) {
        map.insert("serviceAccountName".into(), name.as_str().into());
        map.insert("serviceAccount".into(), name.into());
    }
}

fn limits(map: &mut Map<String, Value>) {
    if map.get("type").and_then(Value::as_str) != Some("Container") {
        return;
    }
    let take =
        |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut default, mut request) = (take(map, "default"), take(map, "defaultRequest"));
    for (resource, max) in take(map, "max") {
        default.entry(resource).or_insert(max);
    }
    for (resource, value) in default.iter().chain(&take(map, "min")) {
        request.entry(resource.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in [("default", default), ("defaultRequest", request)] {
        if !value.is_empty() {
            map.insert(key.into(), Value::Object(value));
        }
    }
}

fn scaling(map: &mut Map<String, Value>) {
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (key, window, policies) in
        [("scaleUp", Some(0), json!([pods, percent.clone()])), ("scaleDown", None, json!([percent]))]
    {
        let rules = map.entry(key).or_insert_with(|| json!({}));
        if rules.is_null() {
            *rules = json!({});
        }
        let Some(rules) = rules.as_object_mut() else { continue };
        let unset = |rules: &Map<String, Value>, key: &str| rules.get(key).is_none_or(Value::is_null);
        if let (true, Some(window)) = (unset(rules, "stabilizationWindowSeconds"), window) {
            rules.insert("stabilizationWindowSeconds".into(), window.into());
        }
        if unset(rules, "selectPolicy") {
            rules.insert("selectPolicy".into(), "Max".into());
        }
        if unset(rules, "policies") {
            rules.insert("policies".into(), policies);
        }
    }
}

/// What has to be known before the rules of the messages.
pub(super) fn before(kind: &Kind, value: &mut Value) {
    if kind.plural == "pods" && kind.group.is_empty() {
        join_addresses(value);
    }
    if kind.plural == "secrets" {
        texts_to_data(value);
    }
    if kind.plural == "services" && tree::text(value, "/spec/type") == "LoadBalancer" {
        balanced_addresses(value);
    }
    if kind.plural == "replicationcontrollers" && !tree::is_filled(value, "/spec/selector") {
        let labels = tree::at(value, "/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels.filter(Value::is_object) {
            value["spec"]["selector"] = labels;
        }
    }
    if matches!(kind.plural, "replicationcontrollers" | "jobs") && !tree::is_filled(value, "/metadata/labels") {
        let labels = tree::at(value, "/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|m| !m.is_empty())) {
            value["metadata"]["labels"] = labels;
        }
    }
}

/// Addresses of a load balancer are virtual ones unless something else is said.
fn balanced_addresses(service: &mut Value) {
    let ingress = service.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
    for address in ingress.into_iter().flatten().filter(|a| !tree::text(a, "/ip").is_empty() && a["ipMode"].is_null()) {
        address["ipMode"] = "VIP".into();
    }
}

/// What a client writes as text is data; it is never shown as text again.
fn texts_to_data(secret: &mut Value) {
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    if texts.is_empty() {
        return;
    }
    let data = tree::object_at(secret, "data");
    for (key, text) in texts {
        data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
    }
}

/// How long clients of a Service stay with the pod they had.
const AFFINITY_SECONDS: &str = "/sessionAffinityConfig/clientIP/timeoutSeconds";

fn service(spec: &mut Value) {
    if tree::text(spec, "/sessionAffinity") == "None" {
        tree::remove(spec, "sessionAffinityConfig");
    }
    // One that says nothing is none.
    if tree::text(spec, "/sessionAffinity") == "ClientIP" && !tree::has(spec, AFFINITY_SECONDS) {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10_800}});
    }
    let is_reachable = spec["type"] == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    if is_reachable && tree::text(spec, "/externalTrafficPolicy").is_empty() {
        spec["externalTrafficPolicy"] = "Cluster".into();
    }
}

/// What follows from the whole object.
pub(super) fn after(kind: &Kind, value: &mut Value) {
    match (kind.group, kind.plural) {
        ("", "pods") => requests_from_limits(value),
        ("apps", "daemonsets") => {
            let annotations = tree::object_at(&mut value["metadata"], "annotations");
            annotations.entry("deprecated.daemonset.template.generation").or_insert_with(|| "0".into());
        }
        ("", "nodes") => {
            let capacity = value["status"]["capacity"].clone();
            let is_said = tree::has(value, "/status/allocatable");
            if !is_said && capacity.as_object().is_some_and(|capacity| !capacity.is_empty()) {
                value["status"]["allocatable"] = capacity;
            }
        }
        ("", "services") => {
            if let Some(spec) = value.get_mut("spec") {
                service(spec);
            }
        }
        ("", "namespaces") => {
            let name = value["metadata"]["name"].clone();
            if !tree::text(value, "/metadata/name").is_empty() {
                tree::object_at(&mut value["metadata"], "labels").insert("kubernetes.io/metadata.name".into(), name);
            }
        }
        ("autoscaling", _) if kind.version == "v1" => {
            let annotations = &value["metadata"]["annotations"];
            let others = tree::has(annotations, "/autoscaling.alpha.kubernetes.io~1metrics");
            if !others && !tree::has(value, "/spec/targetCPUUtilizationPercentage") {
                value["spec"]["targetCPUUtilizationPercentage"] = 80.into();
            }
        }
        ("autoscaling", _) if kind.version == "v2" && tree::list(value, "/spec/metrics").is_empty() => {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            value["spec"]["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        }
        ("apiextensions.k8s.io", _) => {
            let kind_name = tree::text(value, "/spec/names/kind").to_owned();
            let names = tree::object_at(&mut value["spec"], "names");
            for (key, default) in [("singular", kind_name.to_lowercase()), ("listKind", format!("{kind_name}List"))] {
                if names.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() && !kind_name.is_empty() {
                    names.insert(key.into(), default.into());
                }
            }
        }
        _ => {}
    }
}

/// A pod's address and the first of its addresses are one: the single one counts.
fn join_addresses(pod: &mut Value) {
    let single = tree::text(pod, "/status/podIP").to_owned();
    let first = tree::text(pod, "/status/podIPs/0/ip").to_owned();
    if !single.is_empty() && single != first {
        pod["status"]["podIPs"] = json!([{"ip": single}]);
    } else if single.is_empty() && !first.is_empty() {
        pod["status"]["podIP"] = first.into();
    }
}

/// A pod that limits a resource without requesting it requests the limit.
fn requests_from_limits(pod: &mut Value) {
    let of_pods = |resource: &str| matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-");
    let fill = |holder: &mut Value, only: fn(&str) -> bool| {
        let Some(limits) = tree::at(holder, "/resources/limits").and_then(Value::as_object).cloned() else { return };
        let limits = limits.into_iter().filter(|(resource, _)| only(resource)).collect::<Vec<_>>();
        if limits.is_empty() {
            return;
        }
        let requests = tree::object_at(&mut holder["resources"], "requests");
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    };
    for list in ["containers", "initContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            fill(container, |_| true);
        }
    }
    if tree::has(pod, "/spec/resources/limits") {
        fill(&mut pod["spec"], of_pods);
    }
}
