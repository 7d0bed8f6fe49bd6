//! Whether the cluster takes this node for ready, told to the first process: the machine is not ready before.

use std::path::Path;
use std::time::Duration;

use api::core::v1::Node;
use client::{Client, WatchEvent, WatchParams};
use futures::StreamExt;
use lifecycle::Shutdown;
use machine_api::Condition;
use sys::{Linux, System};

use crate::paths;

/// Pause before the API is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Follows the Node until shutdown.
pub(super) async fn follow(name: String, client: Client, shutdown: Shutdown) {
    tell(Some(format!("the Node {name} is not there yet")));
    loop {
        let params = WatchParams { field_selector: format!("metadata.name={name}"), ..WatchParams::default() };
        let watching = async {
            let mut events = client.watch::<Node>(None, &params).await?;
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Added(node) | WatchEvent::Modified(node) => tell(missing(&name, &node)),
                    WatchEvent::Deleted(_) => tell(Some(format!("the Node {name} was deleted"))),
                    WatchEvent::Bookmark { .. } => {}
                }
            }
            Ok::<(), client::Error>(())
        };
        tokio::select! {
            () = shutdown.wait() => return,
            result = watching => if let Err(error) = result {
                let why = stdx::chain(&error);
                tell(Some(format!("the API server does not tell about the Node {name}: {why}")));
            },
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// What keeps a Node from being ready, if anything does.
fn missing(name: &str, node: &Node) -> Option<String> {
    match node.status.conditions.iter().find(|condition| condition.r#type == "Ready") {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(format!("the Node {name} is not Ready: {}", condition.message)),
        None => Some(format!("the Node {name} is not Ready")),
    }
}

fn tell(why: Option<String>) {
    let fix = "`keelson logs node` tells what the kubelet does; `kubectl describe node` what the cluster knows";
    let text = why.map(|why| Condition::new("NodeNotReady", why, fix).to_text()).unwrap_or_default();
    let path = Path::new(paths::NODE_CONDITION);
    if Linux.read(path).is_ok_and(|before| before == text.as_bytes()) {
        return;
    }
    if let Err(error) = Linux.replace(path, text.as_bytes(), 0o644) {
        tracing::warn!(error = %stdx::chain(&error), "the first process was not told about the Node");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::NodeCondition;

    #[test]
    fn a_node_is_ready_when_its_condition_says_so() {
        let mut node = Node::default();
        assert_eq!(missing("n", &node).as_deref(), Some("the Node n is not Ready"));
        let condition = |status: &str| NodeCondition {
            r#type: "Ready".to_owned(),
            status: status.to_owned(),
            message: "no network".to_owned(),
            ..NodeCondition::default()
        };
        node.status.conditions = vec![condition("False")];
        assert_eq!(missing("n", &node).as_deref(), Some("the Node n is not Ready: no network"));
        node.status.conditions = vec![condition("True")];
        assert_eq!(missing("n", &node), None);
    }
}
