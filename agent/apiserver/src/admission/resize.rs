//! PodResizeValidator: a pod that is bound gets no more than its node has to give.

use api::core::v1::{Node, Pod};
use api::quantity::Amount;
use api::quota;
use serde_json::Value;

use super::Operation;
use crate::app::Call;
use crate::codec;
use crate::status::{Failure, Result};
use crate::strategy::Part;
use crate::tree;

/// Label of a node's operating system.
const OS: &str = "kubernetes.io/os";

/// Refuses a resize that the pod's node cannot do.
pub(super) fn check(call: &Call, operation: Operation, new: &Value, old: Option<&Value>) -> Result<()> {
    let name = tree::text(new, "/spec/nodeName");
    // Without another generation nothing is asked for.
    let is_asked = old.is_some_and(|old| old["metadata"]["generation"] != new["metadata"]["generation"]);
    if operation != Operation::Update(Part::Resize) || name.is_empty() || !is_asked {
        return Ok(());
    }
    let refuse = |why: &str| Failure::forbidden(call.subject(), tree::name_given(new), why);
    let Some(node) = call.app.cache.known("", "nodes").get("", name) else {
        return Err(refuse(&format!("node {name:?} not found")));
    };
    let node: Node = api::envelope::decode_message(&node.data).map_err(Failure::internal)?;
    if let Some(os) = node.metadata.labels.get(OS).filter(|os| *os != "linux") {
        let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
        return Err(refuse(&why).because("UnsupportedPlatform"));
    }
    match excess(&codec::typed(call.kind.schema(), new)?, &node) {
        Some(why) => Err(refuse(&why).because("NodeCapacity")),
        None => Ok(()),
    }
}

/// What a pod requests that a node does not have.
fn excess(pod: &Pod, node: &Node) -> Option<String> {
    let over = ["cpu", "memory"].into_iter().filter_map(|resource| {
        let shown = |amount: &Amount| if resource == "cpu" { amount.milli() } else { amount.value() };
        let requested = quota::of_pod(&format!("requests.{resource}"), pod);
        let has = node.status.allocatable.get(resource).map_or_else(|| quota::units(0), api::Quantity::amount);
        let why = format!("{resource}, requested: {}, allocatable: {}", shown(&requested), shown(&has));
        (requested.nanos() > has.nanos()).then_some(why)
    });
    let over: Vec<String> = over.collect();
    (!over.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", over.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_more_is_given_than_there_is() {
        let read = |cpu: &str, memory: &str| -> Option<String> {
            let schema = |name: &str| codec::schema(&format!("k8s.io.api.core.v1.{name}"));
            let requests = json!({"requests": {"cpu": cpu, "memory": memory}});
            let pod = json!({"spec": {"containers": [{"name": "c", "resources": requests}]}});
            let node = json!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
            excess(&codec::typed(schema("Pod"), &pod).unwrap(), &codec::typed(schema("Node"), &node).unwrap())
        };
        assert_eq!(read("2", "1Gi"), None);
        let text = "node didn't have enough allocatable resources: cpu, requested: 2001, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824";
        assert_eq!(read("2001m", "2Gi").as_deref(), Some(text));
    }
}
