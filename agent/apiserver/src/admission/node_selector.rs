//! PodNodeSelector: a namespace says on which nodes its pods may run, by an annotation or by the settings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::tolerations::unknown;
use super::{Operation, is_on, namespaces};
use crate::app::Call;
use crate::status::{Failure, FieldError, Result};
use crate::tree;
use crate::validation::names;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// Among the settings, what counts for namespaces that say nothing.
const DEFAULT: &str = "clusterDefaultNodeSelector";

/// Selectors by namespace, and the one of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectors {
    pod_node_selector_plugin_config: BTreeMap<String, String>,
}

impl NodeSelectors {
    fn of(&self, name: &str) -> Result<Labels> {
        parse(self.pod_node_selector_plugin_config.get(name).map_or("", String::as_str))
    }
}

type Labels = BTreeMap<String, String>;

/// Adds the namespace's selector to that of a new pod.
pub(super) async fn admit(call: &Call, pod: &mut Value) -> Result<()> {
    if !is_on(call, "PodNodeSelector") {
        return Ok(());
    }
    let of_namespace = of_namespace(call).await?;
    restrict(call, &of_namespace, pod)?;
    if !of_namespace.is_empty() {
        let own = tree::object_at(&mut pod["spec"], "nodeSelector");
        own.extend(of_namespace.into_iter().map(|(key, value)| (key, value.into())));
    }
    check_allowed(call, pod)
}

/// Refuses a pod that wants to be elsewhere, whoever made it so.
pub(super) async fn check(call: &Call, operation: Operation, pod: &Value) -> Result<()> {
    let is_new_pod = operation == Operation::Create && (call.kind.group, call.kind.plural) == ("", "pods");
    if !is_new_pod || !is_on(call, "PodNodeSelector") {
        return Ok(());
    }
    restrict(call, &of_namespace(call).await?, pod)?;
    check_allowed(call, pod)
}

async fn of_namespace(call: &Call) -> Result<Labels> {
    match namespaces::annotation(call, ANNOTATION).await? {
        Some(text) => parse(&text),
        None => call.app.config.admission.node_selectors.of(DEFAULT),
    }
}

fn restrict(call: &Call, wanted: &Labels, pod: &Value) -> Result<()> {
    let conflicts =
        wanted.iter().any(|(key, value)| pod["spec"]["nodeSelector"].get(key).is_some_and(|own| own != value));
    refuse_if(call, conflicts, pod, "pod node label selector conflicts with its namespace node label selector")
}

fn check_allowed(call: &Call, pod: &Value) -> Result<()> {
    let allowed = call.app.config.admission.node_selectors.of(call.namespace())?;
    let own = pod["spec"]["nodeSelector"].as_object();
    let is_other = |(key, value): (&String, &Value)| allowed.get(key).is_none_or(|allowed| value != allowed);
    let is_beyond = !allowed.is_empty() && own.is_some_and(|own| own.iter().any(is_other));
    refuse_if(call, is_beyond, pod, "pod node label selector labels conflict with its namespace whitelist")
}

fn refuse_if(call: &Call, is_wrong: bool, pod: &Value, why: &str) -> Result<()> {
    if is_wrong { Err(Failure::forbidden(call.subject(), tree::name_given(pod), why)) } else { Ok(()) }
}

/// Reads `key=value,…`.
fn parse(text: &str) -> Result<Labels> {
    let mut labels = Labels::new();
    for pair in text.split(',').filter(|_| !text.is_empty()) {
        let parts: Vec<&str> = pair.split('=').collect();
        let [key, value] = parts[..] else {
            return Err(unknown(format!("invalid selector: [{}]", parts.join(" "))));
        };
        let (key, value) = (key.trim(), value.trim());
        complain("<nil>".to_owned(), key, &names::qualified(key))?;
        complain(format!("[{key}]"), value, &names::label_value(value))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn complain(field: String, text: &str, complaints: &names::Complaints) -> Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    Err(unknown(FieldError::invalid(field, text, complaints.join("; ")).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_pairs() {
        assert_eq!(
            parse(" a = b ,c=").unwrap(),
            Labels::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())])
        );
        assert!(parse("").unwrap().is_empty());
        let told = |text: &str| parse(text).unwrap_err().message().to_owned();
        assert_eq!(told("a"), "invalid selector: [a]");
        assert_eq!(told("a=b=c"), "invalid selector: [a b c]");
        assert!(told("a b=c").starts_with("<nil>: Invalid value: \"a b\": name part must consist of"));
        assert!(told("a=b c").starts_with("[a]: Invalid value: \"b c\": a valid label must be"));
    }
}
