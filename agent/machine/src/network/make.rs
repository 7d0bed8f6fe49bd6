//! Makes the manifest's VLANs, bonds and bridges, and removes those of an earlier manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use manifest::Network;
use netlink::{Link, Netlink};

use crate::network::apply::apply_step;
use crate::network::links::{LinkStep, plan_links};
use crate::network::owned::Owned;

/// Each interface is removed, made and joined at most, and every round does one of these things.
const ROUNDS_PER_INTERFACE: usize = 3;

/// Goes on until nothing is left that can be done. Answers the links then, and what failed, by name.
///
/// # Errors
/// When links cannot be looked at.
pub(crate) async fn make_links(
    netlink: &Netlink,
    network: &Network,
    owned: &mut Owned,
    run: &Path,
) -> netlink::Result<(Vec<Link>, BTreeMap<String, String>)> {
    let mut failures = BTreeMap::new();
    for _round in 0..=(network.interfaces.len() + owned.links.len()) * ROUNDS_PER_INTERFACE {
        let links = netlink.links().await?;
        let before = owned.clone();
        owned.forget_missing(&links.iter().map(|link| link.name.as_str()).collect::<BTreeSet<_>>());
        let steps = plan_links(network, &links, owned);
        owned.expect(&steps);
        if *owned != before {
            owned.save(run);
        }
        failures.clear();
        let mut is_done = true;
        for step in &steps {
            match attempt(netlink, step).await {
                Ok(()) => {
                    is_done = false;
                    owned.done(step);
                }
                Err(reason) => drop(failures.insert(step.name().to_owned(), reason)),
            }
        }
        if is_done {
            break;
        }
    }
    Ok((netlink.links().await?, failures))
}

async fn attempt(netlink: &Netlink, step: &LinkStep) -> Result<(), String> {
    if let LinkStep::Blocked { name } = step {
        return Err(format!("a link of another sort is called {name} already"));
    }
    apply_step(netlink, step).await.map_err(|error| stdx::chain(&error).to_string())?;
    tracing::info!(?step, "link");
    Ok(())
}
