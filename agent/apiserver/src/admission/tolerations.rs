//! What pods tolerate: DefaultTolerationSeconds lets them stay a while on nodes that fall ill,
//! PodTolerationRestriction gives them what their namespace says and holds them to what it allows, and
//! ExtendedResourceToleration lets them on nodes that are kept for the resources they ask for.

use std::collections::BTreeSet;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::toleration::{Toleration, are_allowed, merged};
use super::{Operation, is_on, namespaces};
use crate::app::Call;
use crate::status::{Failure, FieldError, Result};
use crate::strategy::{Part, qos_class};
use crate::validation::resources::is_extended;
use crate::{codec, tree, validation};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// What counts for namespaces that say nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TolerationSettings {
    /// What pods get.
    default: Vec<Toleration>,
    /// What pods may have; anything if this is empty.
    whitelist: Vec<Toleration>,
}

impl TolerationSettings {
    /// What is wrong with them, in upstream's words.
    pub(super) fn errors(&self) -> Vec<FieldError> {
        let lists = [("default", &self.default), ("whitelist", &self.whitelist)];
        let errors = lists.into_iter().flat_map(|(name, list)| {
            let list: Vec<_> = list.iter().map(Toleration::to_api).collect();
            validation::tolerations(["podtolerationrestriction", name], &list)
        });
        errors.collect()
    }
}

/// DefaultTolerationSeconds.
pub(super) fn add_defaults(call: &Call, pod: &mut Value) {
    let (not_ready, unreachable) = call.app.config.conduct.toleration_seconds;
    for (key, seconds) in [("node.kubernetes.io/not-ready", not_ready), ("node.kubernetes.io/unreachable", unreachable)]
    {
        let tolerated = tree::list(pod, "/spec/tolerations").iter().any(|t| {
            let own_key = matches!(t["key"].as_str(), None | Some("")) || t["key"] == key;
            let own_effect = matches!(t["effect"].as_str(), None | Some("" | "NoExecute"));
            own_key && own_effect
        });
        if !tolerated {
            let toleration =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
            tree::list_at(&mut pod["spec"], "tolerations").push(toleration);
        }
    }
}

/// Adds what the namespace gives to its pods, and what comes with resources.
pub(super) async fn add_wanted(call: &Call, operation: Operation, pod: &mut Value) -> Result<()> {
    if is_on(call, "PodTolerationRestriction") {
        let mut extra = Vec::new();
        if operation == Operation::Create {
            extra = of_namespace(call, DEFAULTS).await?.unwrap_or_else(|| settings(call).default.clone());
        }
        if qos_class(pod) != "BestEffort" {
            extra.push(Toleration::of_key(MEMORY_PRESSURE));
        }
        if !extra.is_empty() {
            let all = merged(Toleration::list(tree::list(pod, "/spec/tolerations")), extra);
            pod["spec"]["tolerations"] = all.iter().map(Toleration::to_value).collect();
        }
        restrict(call, pod).await?;
    }
    if is_on(call, "ExtendedResourceToleration") {
        add_for_resources(pod);
    }
    Ok(())
}

/// PodTolerationRestriction: refuses pods that tolerate more than they may.
pub(super) async fn check(call: &Call, operation: Operation, pod: &Value) -> Result<()> {
    let is_pod = (call.kind.group, call.kind.plural) == ("", "pods");
    let is_whole = matches!(operation, Operation::Create | Operation::Update(Part::Main));
    if is_pod && is_whole && is_on(call, "PodTolerationRestriction") { restrict(call, pod).await } else { Ok(()) }
}

async fn restrict(call: &Call, pod: &Value) -> Result<()> {
    let tolerations = Toleration::list(tree::list(pod, "/spec/tolerations"));
    if tolerations.is_empty() {
        return Ok(());
    }
    let (allowed, scope) = match of_namespace(call, ALLOWED).await? {
        Some(own) => (own, "namespace"),
        None => (settings(call).whitelist.clone(), "cluster"),
    };
    if are_allowed(&tolerations, &allowed) {
        return Ok(());
    }
    Err(unknown(format!(
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
    )))
}

fn settings(call: &Call) -> &TolerationSettings {
    &call.app.config.admission.tolerations
}

/// Upstream has no reason for these.
pub(super) fn unknown(text: impl Into<String>) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", text)
}

/// What a namespace says of tolerations, if it says something.
async fn of_namespace(call: &Call, annotation: &str) -> Result<Option<Vec<Toleration>>> {
    match namespaces::annotation(call, annotation).await? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(Some(Vec::new())),
        Some(text) => parse(&text).map(Some).map_err(unknown),
    }
}

/// Reads the list in an annotation, or tells in the words of the decoder that clients know what it is instead.
fn parse(text: &str) -> std::result::Result<Vec<Toleration>, String> {
    let value: Value = serde_json::from_str(text).map_err(|_bad| codec::syntax_complaint(text.as_bytes()))?;
    let items = match &value {
        Value::Null => &[][..],
        Value::Array(items) => items,
        other => {
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type []v1.Toleration",
                codec::json_type(other)
            ));
        }
    };
    items.iter().try_for_each(|item| misfit(item).map_or(Ok(()), Err))?;
    Ok(Toleration::list(items))
}

/// What is wrong with a toleration.
fn misfit(item: &Value) -> Option<String> {
    let Value::Object(fields) = item else {
        return Some(format!("json: cannot unmarshal {} into Go value of type v1.Toleration", codec::json_type(item)));
    };
    fields.iter().find_map(|(key, value)| {
        let (fits, wanted) = match key.as_str() {
            "key" | "operator" | "value" | "effect" => (value.is_string(), "string"),
            "tolerationSeconds" => (value.is_i64(), "int64"),
            _ => return None,
        };
        let field = format!("Go struct field Toleration.{key} of type {wanted}");
        (!fits && !value.is_null()).then(|| format!("json: cannot unmarshal {} into {field}", codec::json_type(value)))
    })
}

/// ExtendedResourceToleration.
fn add_for_resources(pod: &mut Value) {
    let lists = ["/spec/containers", "/spec/initContainers"];
    let containers = lists.into_iter().flat_map(|list| tree::list(pod, list));
    let requests = containers.filter_map(|container| container["resources"]["requests"].as_object());
    let names: BTreeSet<String> =
        requests.flat_map(|asked| asked.keys()).filter(|key| is_extended(key)).cloned().collect();
    for name in names {
        let wanted = Toleration::of_key(&name);
        let list = tree::list_at(&mut pod["spec"], "tolerations");
        let mut is_there = false;
        for (value, old) in Toleration::list(list).iter().zip(list.iter_mut()) {
            if value.is_for_same(&wanted) {
                *old = wanted.to_value();
                is_there = true;
            }
        }
        if !is_there {
            list.push(wanted.to_value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_bring_their_toleration() {
        let container = |name: &str| json!({"name": "a", "resources": {"requests": {name: "1", "cpu": "1"}}});
        let mut pod =
            json!({"spec": {"containers": [container("b.example/x")], "initContainers": [container("a.example/x")]}});
        add_for_resources(&mut pod);
        add_for_resources(&mut pod);
        let of = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        assert_eq!(pod["spec"]["tolerations"], json!([of("a.example/x"), of("b.example/x")]));
    }

    #[test]
    fn annotations_are_lists() {
        let told = |text: &str| parse(text).unwrap_err();
        assert_eq!(told("x"), "invalid character 'x' looking for beginning of value");
        assert_eq!(told("{}"), "json: cannot unmarshal object into Go value of type []v1.Toleration");
        assert_eq!(
            told(r#"[{"key": 1}]"#),
            "json: cannot unmarshal number into Go struct field Toleration.key of type string"
        );
        assert_eq!(parse("null").unwrap(), []);
        assert_eq!(parse(r#"[{"key": null, "effect": "NoSchedule"}]"#).unwrap().len(), 1);
    }
}
