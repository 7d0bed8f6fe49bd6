//! What makes an object valid.

use api::Kind;
use api::labels::Selector;
use api::schema::{FieldType, MESSAGES, Message, Shape};
use serde_json::Value;

use super::{Errors, Part, selectors};
use crate::status::FieldError;
use crate::tree;

/// Kinds whose pods come from a template below `spec`.
const TEMPLATED: &[&str] =
    &["deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "replicationcontrollers"];

/// Errors of an object by itself.
#[must_use]
pub fn validate(kind: &'static Kind, value: &Value) -> Errors {
    let mut errors = Vec::new();
    walk(kind.schema(), value, "", &mut errors);
    match (kind.group, kind.plural) {
        ("", "services") => service(value, &mut errors),
        ("batch", "cronjobs") => {
            pod_spec(
                &value["spec"]["jobTemplate"]["spec"]["template"]["spec"],
                "spec.jobTemplate.spec.template.spec",
                &mut errors,
            );
        }
        (_, plural) if TEMPLATED.contains(&plural) => workload(kind, value, &mut errors),
        _ => {}
    }
    errors
}

/// Walks the schema: enums hold their members, required texts are there. Status is the server's own business.
fn walk(message: &'static Message, value: &Value, path: &str, errors: &mut Errors) {
    let Some(map) = value.as_object() else { return };
    if message.shape != Shape::Struct || selectors::requirement(message.name, value, path, errors) {
        return;
    }
    for field in message.fields {
        if path.is_empty() && matches!(field.json, "metadata" | "status") {
            continue;
        }
        if field.inline {
            if let Some(inner) = field.ty.message() {
                walk(inner, value, path, errors);
            }
            continue;
        }
        let at = if path.is_empty() { field.json.to_owned() } else { format!("{path}.{}", field.json) };
        let found = map.get(field.json).unwrap_or(&Value::Null);
        match (found, field.ty) {
            (Value::String(text), FieldType::String) => {
                if text.is_empty() && field.required && !field.pointer && field.default.is_empty() {
                    errors.push(FieldError::required(at, ""));
                } else if !text.is_empty() && !field.values.is_empty() && !field.values.contains(&text.as_str()) {
                    errors.push(FieldError::not_supported(at, text.as_str(), field.values));
                }
            }
            (Value::Array(items), FieldType::Message(index)) if field.repeated => {
                for (i, item) in items.iter().enumerate() {
                    walk(&MESSAGES[index], item, &format!("{at}[{i}]"), errors);
                }
            }
            (Value::Object(_), FieldType::Message(index)) => walk(&MESSAGES[index], found, &at, errors),
            _ => {}
        }
    }
}

fn workload(kind: &'static Kind, value: &Value, errors: &mut Errors) {
    let template = &value["spec"]["template"];
    if let Some(replicas) = tree::integer(value, "/spec/replicas").filter(|r| *r < 0) {
        errors.push(FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0"));
    }
    selector(kind, value, errors);
    pod_spec(&template["spec"], "spec.template.spec", errors);
    let policy = template["spec"]["restartPolicy"].as_str().unwrap_or_default();
    let field = "spec.template.spec.restartPolicy";
    if kind.plural == "jobs" {
        if policy == "Always" {
            let allowed = ["OnFailure", "Never"];
            errors.push(FieldError::required(field, format!("valid values: {:?}, {:?}", allowed[0], allowed[1])));
        }
    } else if !policy.is_empty() && policy != "Always" {
        errors.push(FieldError::not_supported(field, policy, &["Always"]));
    }
}

fn selector(kind: &'static Kind, value: &Value, errors: &mut Errors) {
    let selector = &value["spec"]["selector"];
    let empty = selector.as_object().is_none_or(serde_json::Map::is_empty);
    let labels = &value["spec"]["template"]["metadata"]["labels"];
    if empty {
        if kind.plural != "jobs" {
            errors.push(FieldError::required("spec.selector", ""));
        }
        return;
    }
    // What is wrong with the selector itself is told where its requirements are.
    let unknown = |e: &Value| !matches!(e["operator"].as_str(), Some("In" | "NotIn" | "Exists" | "DoesNotExist"));
    if tree::list(selector, "/matchExpressions").iter().any(unknown) {
        return;
    }
    let own = labels.as_object().cloned().unwrap_or_default();
    let label = |key: &str| own.get(key).and_then(Value::as_str).map(str::to_owned);
    let matches = if kind.plural == "replicationcontrollers" {
        selector.as_object().into_iter().flatten().all(|(k, v)| label(k).as_deref() == v.as_str())
    } else {
        let object = serde_json::from_value::<SelectorForm>(selector.clone()).ok().and_then(SelectorForm::build);
        let map = own.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
        object.is_some_and(|s| s.matches(&map))
    };
    if !matches {
        let text = if kind.plural == "jobs" {
            "`selector` not auto-generated or does not match template `labels`"
        } else {
            "`selector` does not match template `labels`"
        };
        let shown = labels.clone();
        errors.push(FieldError::invalid("spec.template.metadata.labels", shown, text));
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectorForm {
    #[serde(default)]
    match_labels: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    match_expressions: Option<Vec<Expression>>,
}

#[derive(serde::Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Option<Vec<String>>,
}

impl SelectorForm {
    fn build(self) -> Option<Selector> {
        let expressions =
            self.match_expressions.unwrap_or_default().into_iter().map(|e| api::meta::v1::LabelSelectorRequirement {
                key: e.key,
                operator: e.operator,
                values: e.values.unwrap_or_default(),
            });
        let object = api::meta::v1::LabelSelector {
            match_labels: self.match_labels.unwrap_or_default(),
            match_expressions: expressions.collect(),
        };
        Selector::from_object(Some(&object)).ok()
    }
}

fn pod_spec(spec: &Value, path: &str, errors: &mut Errors) {
    let containers = tree::list(spec, "/containers");
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let volumes: Vec<&str> = tree::list(spec, "/volumes").iter().filter_map(|v| v["name"].as_str()).collect();
    let mut seen: Vec<&str> = Vec::new();
    for (list, items) in [("initContainers", tree::list(spec, "/initContainers")), ("containers", containers)] {
        for (i, container) in items.iter().enumerate() {
            let at = format!("{path}.{list}[{i}]");
            let name = container["name"].as_str().unwrap_or_default();
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
            seen.push(name);
            if container["image"].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(format!("{at}.image"), ""));
            }
            for (m, mount) in tree::list(container, "/volumeMounts").iter().enumerate() {
                let volume = mount["name"].as_str().unwrap_or_default();
                if !volume.is_empty() && !volumes.contains(&volume) {
                    errors.push(FieldError::not_found(format!("{at}.volumeMounts[{m}].name"), volume));
                }
            }
            ports(container, &at, errors);
        }
    }
    ephemeral_containers(spec, path, errors);
}

/// Of a container that is added later only some fields can be set.
fn ephemeral_containers(spec: &Value, path: &str, errors: &mut Errors) {
    let containers = tree::list(spec, "/ephemeralContainers");
    for (i, container) in containers.iter().enumerate() {
        let at = format!("{path}.ephemeralContainers[{i}]");
        if container["image"].as_str().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(format!("{at}.image"), ""));
        }
        for key in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            let set = match &container[key] {
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => key != "lifecycle" || map.keys().any(|k| k != "stopSignal"),
                _ => false,
            };
            if set {
                errors.push(FieldError::forbidden(format!("{at}.{key}"), "cannot be set for an Ephemeral Container"));
            }
        }
    }
    if !containers.is_empty() && path != "spec" {
        let text = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{path}.ephemeralContainers"), text));
    }
}

fn ports(container: &Value, at: &str, errors: &mut Errors) {
    for (i, port) in tree::list(container, "/ports").iter().enumerate() {
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            let field = format!("{at}.ports[{i}].containerPort");
            if number == 0 {
                errors.push(FieldError::required(field, ""));
            } else {
                errors.push(FieldError::invalid(field, number, "must be between 1 and 65535, inclusive"));
            }
        }
    }
}

fn service(value: &Value, errors: &mut Errors) {
    let spec = &value["spec"];
    let kind = tree::text(spec, "/type");
    let ports = tree::list(spec, "/ports");
    let headless = tree::text(spec, "/clusterIP") == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" && tree::text(spec, "/externalName").is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    for (i, port) in ports.iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            let text = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(format!("spec.ports[{i}].port"), number, text));
        }
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(format!("spec.ports[{i}].name"), ""));
        } else if !name.is_empty() && ports.iter().take(i).any(|p| p["name"] == name) {
            errors.push(FieldError::duplicate(format!("spec.ports[{i}].name"), name));
        }
    }
}

/// Fields that never change once set: group, plural, pointer, path.
const IMMUTABLE: &[(&str, &str, &str)] = &[
    ("apps", "deployments", "spec.selector"),
    ("apps", "replicasets", "spec.selector"),
    ("apps", "daemonsets", "spec.selector"),
    ("batch", "jobs", "spec.selector"),
    ("batch", "jobs", "spec.completionMode"),
    ("batch", "jobs", "spec.template.spec.containers"),
    ("rbac.authorization.k8s.io", "rolebindings", "roleRef"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "roleRef"),
    ("storage.k8s.io", "storageclasses", "provisioner"),
    ("storage.k8s.io", "storageclasses", "parameters"),
    ("storage.k8s.io", "storageclasses", "reclaimPolicy"),
    ("storage.k8s.io", "storageclasses", "volumeBindingMode"),
    ("scheduling.k8s.io", "priorityclasses", "value"),
    ("scheduling.k8s.io", "priorityclasses", "preemptionPolicy"),
    ("discovery.k8s.io", "endpointslices", "addressType"),
    ("networking.k8s.io", "ipaddresses", "spec.parentRef"),
    ("node.k8s.io", "runtimeclasses", "handler"),
    ("apps", "controllerrevisions", "data"),
];

/// Errors of the change from `old` to `new`.
#[must_use]
pub fn validate_update(kind: &'static Kind, part: Part, new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    if part != Part::Main {
        return errors;
    }
    for (_, _, path) in IMMUTABLE.iter().filter(|(g, p, _)| *g == kind.group && *p == kind.plural) {
        let pointer = format!("/{}", path.replace('.', "/"));
        let (before, after) = (old.pointer(&pointer), new.pointer(&pointer));
        let null = Value::Null;
        if !tree::same(before.unwrap_or(&null), after.unwrap_or(&null)) {
            errors.push(FieldError::invalid(*path, after.cloned().unwrap_or_default(), "field is immutable"));
        }
    }
    errors
}
