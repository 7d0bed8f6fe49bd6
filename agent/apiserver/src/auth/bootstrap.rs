//! Objects that an API server makes by itself, and how they are kept up to date.
//!
//! Namespaces, priority classes and flow control are made once. RBAC objects get back, at every start, the rules and
//! subjects they have lost, unless somebody switched that off on the object; nothing anybody added is taken away.

mod reconcile;

use api::Kind;
use api::features::Features;
use api::rbac::v1::PolicyRule;
use serde_json::{Map, Value, json};

use crate::served::Served;

pub use reconcile::{Reconciled, reconcile};

/// On RBAC objects: whether missing rules and subjects are added at start.
const AUTOUPDATE_ANNOTATION: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// On flow control objects: whether the specification is put back at start.
const AUTOUPDATE_SPEC_ANNOTATION: &str = "apf.kubernetes.io/autoupdate-spec";
/// On all RBAC objects made here.
const BOOTSTRAPPING_LABEL: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

const RBAC: &str = "rbac.authorization.k8s.io";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";

/// On what registers group versions that are built in.
pub const MANAGED_LABEL: (&str, &str) = ("kube-aggregator.kubernetes.io/automanaged", "onstart");

/// One file of objects: group, version, resource, and the lines.
struct Table(&'static str, &'static str, &'static str, &'static str);

/// In the order in which they have to be made: what lies in a namespace after it, bindings after roles.
const TABLES: [Table; 9] = [
    Table("", "v1", "namespaces", include_str!("../../bootstrap/namespaces.jsonl")),
    Table("scheduling.k8s.io", "v1", "priorityclasses", include_str!("../../bootstrap/priorityclasses.jsonl")),
    Table(RBAC, "v1", "clusterroles", include_str!("../../bootstrap/clusterroles.jsonl")),
    Table(RBAC, "v1", "clusterrolebindings", include_str!("../../bootstrap/clusterrolebindings.jsonl")),
    Table(RBAC, "v1", "clusterrolebindings", include_str!("../../bootstrap/keelson-clusterrolebindings.jsonl")),
    Table(RBAC, "v1", "roles", include_str!("../../bootstrap/roles.jsonl")),
    Table(RBAC, "v1", "rolebindings", include_str!("../../bootstrap/rolebindings.jsonl")),
    Table(
        FLOW_CONTROL,
        "v1",
        "prioritylevelconfigurations",
        include_str!("../../bootstrap/prioritylevelconfigurations.jsonl"),
    ),
    Table(FLOW_CONTROL, "v1", "flowschemas", include_str!("../../bootstrap/flowschemas.jsonl")),
];

/// An object to make.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it is.
    pub kind: &'static Kind,
    /// Its namespace, empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The whole object, `apiVersion` and `kind` included.
    pub value: Value,
}

impl Object {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

/// All objects, in the order in which they have to be made. `now` is in seconds since the Unix epoch.
///
/// # Panics
/// When the files in this crate are broken, which its tests rule out.
#[must_use]
pub fn objects(features: &Features, now: i64) -> Vec<Object> {
    let time = api::time::format_seconds(now);
    let mut objects: Vec<Object> = TABLES.iter().flat_map(|table| read(table, &time)).collect();
    GATED.lines().filter_map(|line| gated(line, features, &time)).for_each(|change| change.apply(&mut objects));
    objects
}

/// What a feature adds or takes away: whole objects, or rules of those that are there all the same.
const GATED: &str = include_str!("../../bootstrap/gated.jsonl");

enum Gated {
    Added(Object),
    Removed(Object),
}

fn gated(line: &str, features: &Features, time: &str) -> Option<Gated> {
    let mut row: Value = serde_json::from_str(line).ok()?;
    let kind = api::kind_by_resource(RBAC, "v1", row["resource"].as_str()?)?;
    let object = object(kind, row["object"].take(), time);
    let is_on = |key: &str| row[key].as_str().map(|gate| features.is_on(gate));
    match (is_on("gate"), is_on("without")) {
        (Some(true), _) => Some(Gated::Added(object)),
        (_, Some(false)) => Some(Gated::Removed(object)),
        _ => None,
    }
}

impl Gated {
    fn apply(self, objects: &mut Vec<Object>) {
        let (Self::Added(own) | Self::Removed(own)) = &self;
        let at = objects.iter().position(|object| object.kind == own.kind && object.key() == own.key());
        let rules = crate::tree::list(&own.value, "/rules").to_vec();
        match (self, at) {
            (Self::Added(_), Some(at)) => crate::tree::list_at(&mut objects[at].value, "rules").extend(rules),
            (Self::Added(own), None) => objects.push(own),
            (Self::Removed(_), Some(at)) if rules.is_empty() => {
                objects.remove(at);
            }
            (Self::Removed(_), Some(at)) => {
                crate::tree::list_at(&mut objects[at].value, "rules").retain(|rule| !rules.contains(rule));
            }
            (Self::Removed(_), None) => {}
        }
    }
}

/// What registers the group versions that are served here with this server itself.
#[must_use]
pub fn api_services(served: &Served, now: i64) -> Vec<Object> {
    let mut versions: Vec<&'static Kind> = served.kinds().iter().copied().filter(|k| !k.priority.is_empty()).collect();
    versions.dedup_by_key(|kind| (kind.group, kind.version));
    let Some(own) = api::kind_by_name("apiregistration.k8s.io/v1", "APIService") else { return Vec::new() };
    let made = versions.into_iter().map(|kind| {
        let name = format!("{}.{}", kind.version, kind.group);
        let mut value = json!({
            "metadata": {"name": name, "labels": {MANAGED_LABEL.0: MANAGED_LABEL.1}},
            "spec": {
                "group": kind.group, "version": kind.version,
                "groupPriorityMinimum": kind.priority.first(), "versionPriority": kind.priority.get(1),
            },
            "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available"}]},
        });
        if kind.group.is_empty() {
            crate::tree::remove(&mut value["spec"], "group");
        }
        complete(&mut value, own, &api::time::format_seconds(now));
        Object { kind: own, namespace: String::new(), name, value }
    });
    made.collect()
}

fn read<'t>(Table(group, version, resource, lines): &'t Table, time: &'t str) -> impl Iterator<Item = Object> + 't {
    let kind = api::kind_by_resource(group, version, resource);
    lines.lines().filter_map(move |line| Some(object(kind?, serde_json::from_str(line).ok()?, time)))
}

fn object(kind: &'static Kind, mut value: Value, time: &str) -> Object {
    complete(&mut value, kind, time);
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Object { kind, namespace: text("/metadata/namespace"), name: text("/metadata/name"), value }
}

/// Adds what the lines leave out.
fn complete(value: &mut Value, kind: &Kind, time: &str) {
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.into();
    if kind.group == RBAC {
        value["metadata"]["annotations"][AUTOUPDATE_ANNOTATION] = "true".into();
        value["metadata"]["labels"][BOOTSTRAPPING_LABEL.0] = BOOTSTRAPPING_LABEL.1.into();
    }
    let conditions = value.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["lastTransitionTime"] = time.into();
    }
}

/// What all nodes may do: the rules of the cluster role `system:node`, for the node authorizer.
#[must_use]
pub fn node_rules(features: &Features) -> Vec<PolicyRule> {
    let role = objects(features, 0)
        .into_iter()
        .find(|object| object.kind.plural == "clusterroles" && object.name == "system:node");
    role.map(|role| parse_rules(&role.value)).unwrap_or_default()
}

/// The rules in the tree of a role.
#[must_use]
pub fn parse_rules(role: &Value) -> Vec<PolicyRule> {
    let rules = role.get("rules").and_then(Value::as_array).into_iter().flatten();
    rules.filter_map(Value::as_object).map(parse_rule).collect()
}

fn parse_rule(rule: &Map<String, Value>) -> PolicyRule {
    let texts = |field: &str| -> Vec<String> {
        let list = rule.get(field).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    PolicyRule {
        verbs: texts("verbs"),
        api_groups: texts("apiGroups"),
        resources: texts("resources"),
        resource_names: texts("resourceNames"),
        non_resource_urls: texts("nonResourceURLs"),
    }
}

fn empty_list() -> Value {
    json!([])
}

#[cfg(test)]
mod tests {
    use super::{Features, GATED, Served, TABLES, api_services, node_rules, objects};

    /// With every feature that something is made for.
    fn everything() -> Features {
        let gates: Vec<serde_json::Value> = GATED.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let on: Vec<String> =
            gates.iter().filter_map(|row| row["gate"].as_str()).map(|gate| format!("{gate}=true")).collect();
        Features::parse(on.iter().map(String::as_str)).unwrap()
    }

    #[test]
    fn every_line_is_an_object_of_a_known_kind() {
        let lines: usize = TABLES.iter().map(|table| table.3.lines().count()).sum();
        assert_eq!(objects(&Features::default(), 0).len(), lines);
        let objects = objects(&everything(), 0);
        assert!(objects.len() > lines);
        for object in &objects {
            assert!(!object.name.is_empty());
            assert_eq!(object.namespace.is_empty(), !object.kind.namespaced, "{}", object.name);
            let mut report = api::transcode::Report::default();
            let read = api::transcode::value_to_proto(object.kind.schema(), &object.value, &mut report);
            assert!(read.is_ok(), "{}: {read:?}", object.name);
            assert_eq!(report, api::transcode::Report::default(), "{}", object.name);
        }
    }

    #[test]
    fn what_is_served_is_registered() {
        let names = |words: &str| -> Vec<String> {
            let served = Served::try_new(&[words.to_owned()], |_| false, false).unwrap();
            api_services(&served, 0).into_iter().map(|object| object.name).collect()
        };
        assert_eq!(names("").len(), 21);
        assert!(names("").contains(&"v1.".to_owned()) && !names("").contains(&"v1.apiregistration.k8s.io".to_owned()));
        assert!(names("api/beta=true").contains(&"v1beta1.networking.k8s.io".to_owned()));
        assert!(!names("apps/v1=false").contains(&"v1.apps".to_owned()));
    }

    #[test]
    fn bindings_refer_to_roles_that_are_made() {
        let objects = objects(&everything(), 0);
        for binding in objects.iter().filter(|object| object.kind.plural.ends_with("bindings")) {
            let role = &binding.value["roleRef"];
            let namespace = if role["kind"] == "Role" { &binding.namespace } else { "" };
            let is_made = objects.iter().any(|object| {
                object.kind.kind == role["kind"] && object.name == role["name"] && object.namespace == namespace
            });
            assert!(is_made, "{}", binding.name);
        }
    }

    #[test]
    fn nodes_have_rules() {
        let has = |features: &Features, plural: &str| {
            node_rules(features).iter().any(|rule| rule.resources == [plural.to_owned()])
        };
        assert!(has(&Features::default(), "csidrivers") && !has(&Features::default(), "podcertificaterequests"));
        assert!(has(&everything(), "podcertificaterequests"));
        let off = Features::parse(["KubeletServiceAccountTokenForCredentialProviders=false"]).unwrap();
        assert!(has(&Features::default(), "serviceaccounts") && !has(&off, "serviceaccounts"));
        let off = Features::parse(["DRADeviceTaints=false"]).unwrap();
        let name = "system:controller:device-taint-eviction-controller";
        let made = |features: &Features| objects(features, 0).iter().filter(|object| object.name == name).count();
        assert_eq!((made(&Features::default()), made(&off)), (2, 0));
    }
}
