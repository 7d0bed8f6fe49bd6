//! Cells of Tables: a function per kind that has more to say than name and age.

use serde_json::{Value, json};

use crate::app::now;
use crate::tree;

/// Name, type, format and priority of a column.
pub type Column = (&'static str, &'static str, &'static str, i64);

const NAME: Column = ("Name", "string", "name", 0);
const AGE: Column = ("Age", "string", "", 0);

const fn text(name: &'static str) -> Column {
    (name, "string", "", 0)
}

const fn wide(name: &'static str) -> Column {
    (name, "string", "", 1)
}

const fn number(name: &'static str) -> Column {
    (name, "integer", "", 0)
}

const POD: &[Column] = &[NAME, text("Ready"), text("Status"), text("Restarts"), AGE, wide("IP"), wide("Node")];
const NODE: &[Column] = &[NAME, text("Status"), text("Roles"), AGE, text("Version"), wide("Internal-IP")];
const SERVICE: &[Column] =
    &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE, wide("Selector")];
const DEPLOYMENT: &[Column] = &[NAME, text("Ready"), text("Up-to-date"), text("Available"), AGE];
const REPLICA_SET: &[Column] = &[NAME, number("Desired"), number("Current"), number("Ready"), AGE];
const NAMESPACE: &[Column] = &[NAME, text("Status"), AGE];
const DATA: &[Column] = &[NAME, number("Data"), AGE];
const PLAIN: &[Column] = &[NAME, AGE];

/// The columns of a kind.
#[must_use]
pub fn columns(group: &str, plural: &str) -> &'static [Column] {
    match (group, plural) {
        ("", "pods") => POD,
        ("", "nodes") => NODE,
        ("", "services") => SERVICE,
        ("apps", "deployments") => DEPLOYMENT,
        ("apps", "replicasets") | ("", "replicationcontrollers") => REPLICA_SET,
        ("", "namespaces") => NAMESPACE,
        ("", "configmaps") => DATA,
        _ => PLAIN,
    }
}

/// The cells of an object, as many as its kind has columns.
#[must_use]
pub fn cells(group: &str, plural: &str, object: &Value) -> Vec<Value> {
    let name = object["metadata"]["name"].clone();
    let age = Value::from(age(object));
    let count = |pointer: &str| Value::from(tree::integer(object, pointer).unwrap_or(0));
    match (group, plural) {
        ("", "pods") => pod(object, name, age),
        ("", "nodes") => node(object, name, age),
        ("", "services") => service(object, name, age),
        ("apps", "deployments") => {
            let ready = format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"));
            let text = |v: Value| Value::from(v.to_string());
            vec![
                name,
                ready.into(),
                text(count("/status/updatedReplicas")),
                text(count("/status/availableReplicas")),
                age,
            ]
        }
        ("apps", "replicasets") | ("", "replicationcontrollers") => {
            vec![name, count("/spec/replicas"), count("/status/replicas"), count("/status/readyReplicas"), age]
        }
        ("", "namespaces") => vec![name, object["status"]["phase"].clone(), age],
        ("", "configmaps") => {
            let len = |key: &str| object[key].as_object().map_or(0, serde_json::Map::len);
            vec![name, json!(len("data") + len("binaryData")), age]
        }
        _ => vec![name, age],
    }
}

fn age(object: &Value) -> String {
    match api::time::parse(tree::text(object, "/metadata/creationTimestamp")) {
        Some((seconds, _)) => span((now() - seconds).max(0)),
        None => "<unknown>".to_owned(),
    }
}

/// A length of time as people read it: two units at most.
fn span(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn pod(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let statuses = tree::list(object, "/status/containerStatuses");
    let ready = statuses.iter().filter(|s| s["ready"] == true).count();
    let restarts: i64 = statuses.iter().filter_map(|s| s["restartCount"].as_i64()).sum();
    let phase = tree::text(object, "/status/phase");
    let mut status = match tree::text(object, "/status/reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    for container in statuses.iter().rev() {
        for state in ["waiting", "terminated"] {
            let reason = tree::text(container, &format!("/state/{state}/reason"));
            if !reason.is_empty() {
                reason.clone_into(&mut status);
            }
        }
    }
    if tree::has(object, "/metadata/deletionTimestamp") {
        "Terminating".clone_into(&mut status);
    }
    let total = tree::list(object, "/spec/containers").len();
    vec![
        name,
        format!("{ready}/{total}").into(),
        status.into(),
        restarts.to_string().into(),
        age,
        or_none(tree::text(object, "/status/podIP")),
        or_none(tree::text(object, "/spec/nodeName")),
    ]
}

fn node(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = tree::list(object, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).collect();
    let addresses = tree::list(object, "/status/addresses");
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP").and_then(|a| a["address"].as_str());
    vec![
        name,
        status.into(),
        or_none(&roles.join(",")),
        age,
        tree::text(object, "/status/nodeInfo/kubeletVersion").into(),
        or_none(internal.unwrap_or_default()),
    ]
}

fn service(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let port = |p: &Value| match p["nodePort"].as_i64().unwrap_or(0) {
        0 => format!("{}/{}", p["port"], tree::text(p, "/protocol")),
        node => format!("{}:{node}/{}", p["port"], tree::text(p, "/protocol")),
    };
    let ports: Vec<String> = tree::list(object, "/spec/ports").iter().map(port).collect();
    let kind = tree::text(object, "/spec/type");
    let ingress = tree::list(object, "/status/loadBalancer/ingress").iter().filter_map(|i| i["ip"].as_str());
    let mut external: Vec<&str> =
        ingress.chain(tree::list(object, "/spec/externalIPs").iter().filter_map(Value::as_str)).collect();
    if kind == "ExternalName" {
        external.push(tree::text(object, "/spec/externalName"));
    }
    let external = match external.join(",") {
        none if none.is_empty() && kind == "LoadBalancer" => "<pending>".into(),
        text => or_none(&text),
    };
    let selector = object["spec"]["selector"].as_object().into_iter().flatten();
    let selector: Vec<String> = selector.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    vec![
        name,
        kind.into(),
        or_none(tree::text(object, "/spec/clusterIP")),
        external,
        or_none(&ports.join(",")),
        age,
        or_none(&selector.join(",")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_fills_its_columns() {
        let object = json!({"metadata": {"name": "a"}, "spec": {}, "status": {}});
        for kind in api::kinds() {
            let cells = cells(kind.group, kind.plural, &object);
            assert_eq!(cells.len(), columns(kind.group, kind.plural).len(), "{}", kind.plural);
        }
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (seconds, text) in
            [(5, "5s"), (119, "119s"), (125, "2m5s"), (3_600, "60m"), (10_860, "3h1m"), (90_000, "25h")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
