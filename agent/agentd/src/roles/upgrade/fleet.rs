//! An update of every machine of a cluster, one at a time.
//!
//! Masters come first, since no node may be newer than its API server. Each machine must be ready again, on the new
//! system, before the next one goes down; where one is not, the others stay as they are.

use std::cmp::Reverse;

use anyhow::{Context, Result, bail};
use api::core::v1::Node;
use client::{Client, ListParams};
use machine_api::{MachineStatus, UpdateState};
use manifest::CONTROL_PLANE_KEY;

use super::{Options, Order, UPDATE_WITHIN, Update, WITHIN, change, observe, until_decided};
use crate::process::by;

/// One machine of the cluster.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    name: String,
    is_master: bool,
}

/// What an update means for a machine.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    /// It runs the version.
    Nothing,
    /// It runs the version, and has not proved itself yet.
    Proof,
    /// It runs another one.
    Change,
}

pub(super) async fn upgrade(options: &Options) -> Result<()> {
    let cluster = options.target.cluster()?.context("--all needs a kubeconfig")?;
    let machines = by(WITHIN, machines(&cluster)).await?;
    let first = machines.first().context("the cluster has no nodes")?;
    // Once for all of them: they take the same, whatever is there later.
    let update = &by(WITHIN, options.image.look(&options.target.at(&first.name), options)).await?;
    // Nobody goes down for an update that somebody else refuses.
    for machine in &machines {
        by(WITHIN, try_on(options, update, machine)).await.with_context(|| machine.name.clone())?;
    }
    for (done, Machine { name, .. }) in machines.iter().enumerate() {
        let changed = by(UPDATE_WITHIN, upgrade_one(options, update, name)).await;
        changed.with_context(|| {
            let left = machines.len() - done;
            format!("{name}: the update stops here, with {left} of {} machines to go", machines.len())
        })?;
    }
    Ok(())
}

async fn try_on(options: &Options, update: &Update, machine: &Machine) -> Result<()> {
    let target = options.target.at(&machine.name);
    // A worker goes with masters that have taken the same update, which they will have by then.
    let any_kubernetes = options.any_kubernetes || !machine.is_master;
    match need(&observe(&target).await?, &update.version) {
        Need::Change => update.try_on(&target, options, any_kubernetes).await,
        Need::Nothing | Need::Proof => Ok(()),
    }
}

async fn upgrade_one(options: &Options, update: &Update, name: &str) -> Result<()> {
    let target = options.target.at(name);
    match need(&observe(&target).await?, &update.version) {
        Need::Nothing => eprintln!("{name} runs {} already", update.version),
        Need::Proof => {
            eprintln!("{name} is trying {} already", update.version);
            match until_decided(&target, "").await? {
                (UpdateState::Good, text) => println!("{name}: {text}"),
                (_, text) => bail!("{text}"),
            }
        }
        Need::Change => {
            eprintln!("{name}:");
            change(&target, &options.start, Order::Update(update, options)).await?;
        }
    }
    Ok(())
}

fn need(status: &MachineStatus, version: &str) -> Need {
    match (status.version.as_deref() == Some(version), status.state_of_update()) {
        (true, Some(UpdateState::Trying)) => Need::Proof,
        (true, _) => Need::Nothing,
        (false, _) => Need::Change,
    }
}

/// The machines of a cluster.
async fn machines(client: &Client) -> Result<Vec<Machine>> {
    let nodes = client.list::<Node>(None, &ListParams::default()).await.context("listing the nodes")?.items;
    Ok(in_order(nodes))
}

/// In the order in which they are updated.
fn in_order(nodes: Vec<Node>) -> Vec<Machine> {
    let machine = |node: Node| Machine {
        is_master: node.metadata.labels.contains_key(CONTROL_PLANE_KEY),
        name: node.metadata.name,
    };
    let mut machines: Vec<Machine> = nodes.into_iter().map(machine).collect();
    machines.sort_by_key(|machine| (Reverse(machine.is_master), machine.name.clone()));
    machines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_run_the_version_are_left_alone() {
        let status = |version: &str, update_state: Option<UpdateState>| MachineStatus {
            version: Some(version.to_owned()),
            update_state: update_state.map(i32::from),
            ..MachineStatus::default()
        };
        assert_eq!(need(&status("2", None), "2"), Need::Nothing);
        assert_eq!(need(&status("2", Some(UpdateState::Good)), "2"), Need::Nothing);
        assert_eq!(need(&status("2", Some(UpdateState::Trying)), "2"), Need::Proof);
        assert_eq!(need(&status("1", Some(UpdateState::TakenBack)), "2"), Need::Change);
        assert_eq!(need(&MachineStatus::default(), "2"), Need::Change);
    }

    #[test]
    fn masters_come_first() {
        let node = |name: &str, is_master: bool| {
            let mut node = Node::default();
            node.metadata.name = name.to_owned();
            node.metadata.labels.extend(is_master.then(|| (CONTROL_PLANE_KEY.to_owned(), String::new())));
            node
        };
        let machines = in_order(vec![node("a", false), node("n", true), node("m", true)]);
        let told: Vec<(&str, bool)> = machines.iter().map(|it| (it.name.as_str(), it.is_master)).collect();
        assert_eq!(told, [("m", true), ("n", true), ("a", false)]);
    }
}
