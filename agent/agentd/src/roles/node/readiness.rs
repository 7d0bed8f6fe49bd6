//! Whether the cluster takes this node for ready, told to the first process: the machine is not ready before. And a node
//! that was closed for its machine to go down is opened once the machine is back and knows which system it stays with.

use std::path::Path;
use std::time::Duration;

use api::core::v1::Node;
use client::{Client, WatchEvent, WatchParams};
use futures::StreamExt;
use lifecycle::Shutdown;
use machine_api::{Condition, MachineStatus, UpdateState};
use manifest::Role;
use sys::{Linux, System};

use crate::paths;
use crate::roles::drain;

/// Pause before the API is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Follows the Node until shutdown.
pub(super) async fn follow((name, role): (String, Role), client: Client, shutdown: Shutdown) {
    tell(Some(format!("the Node {name} is not there yet")));
    loop {
        let params = WatchParams { field_selector: format!("metadata.name={name}"), ..WatchParams::default() };
        let watching = async {
            let mut events = client.watch::<Node>(None, &params).await?;
            let mut is_closed = false;
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = tokio::time::sleep(PAUSE), if is_closed => {
                        reopen(&client, &name, role).await;
                        continue;
                    }
                };
                match event {
                    Some(Ok(WatchEvent::Added(node) | WatchEvent::Modified(node))) => {
                        is_closed = drain::closed_in(&node).is_some();
                        tell(missing(&name, &node));
                    }
                    Some(Ok(WatchEvent::Deleted(_))) => tell(Some(format!("the Node {name} was deleted"))),
                    Some(Ok(WatchEvent::Bookmark { .. })) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                }
            }
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

/// Opens the node, if it is time.
async fn reopen(client: &Client, name: &str, role: Role) {
    let status: Option<MachineStatus> =
        Linux.read(Path::new(paths::STATUS)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let Some(status) = status else { return };
    let opened = async {
        let node: Node = client.get(None, name).await?;
        if may_open(&node, role, &status) {
            tracing::info!("the machine is back: opening its node");
            drain::open(client, name).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = opened.await {
        tracing::warn!(error = %format!("{error:#}"), "opening the node, will try again");
    }
}

/// Whether the machine has started since its node was closed, is there to stay, and gets no pods that its role, which may
/// be a new one, keeps off it.
fn may_open(node: &Node, role: Role, status: &MachineStatus) -> bool {
    drain::closed_in(node).is_some_and(|start| start != status.boot_id)
        && machine::is_marked(node, role)
        && status.ready
        && status.state_of_update() != Some(UpdateState::Trying)
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
    fn a_node_is_opened_in_a_later_start_that_stays() {
        let mut node = Node::default();
        let status = |boot_id: &str, ready: bool, update_state: Option<UpdateState>| MachineStatus {
            boot_id: boot_id.to_owned(),
            ready,
            update_state: update_state.map(i32::from),
            ..MachineStatus::default()
        };
        let may_open = |node: &Node, status: &MachineStatus| super::may_open(node, Role::Worker, status);
        assert!(!may_open(&node, &status("2", true, None)));
        node.metadata.annotations.insert("keelson.io/closed-in-boot".to_owned(), "1".to_owned());
        assert!(!may_open(&node, &status("1", true, None)));
        assert!(!may_open(&node, &status("2", false, None)));
        assert!(!may_open(&node, &status("2", true, Some(UpdateState::Trying))));
        assert!(may_open(&node, &status("2", true, Some(UpdateState::TakenBack))));
        let as_master = |node: &Node| super::may_open(node, Role::Master, &status("2", true, None));
        assert!(!as_master(&node), "it was a worker, and has no taint yet");
        node.metadata.annotations.insert("keelson.io/marked-as".to_owned(), "master".to_owned());
        assert!(as_master(&node));
    }

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
