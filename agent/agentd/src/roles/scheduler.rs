//! `keelson scheduler`: the scheduler alone, with upstream's flags.

use anyhow::{Context, Result};
use api::features::Component;

use super::leading;
use crate::features;
use crate::flags::Shape::Text;
use crate::flags::{Flag, Surface, Words, refused};
use crate::process;

const SURFACE: Surface = Surface {
    role: "scheduler",
    about: "The scheduler alone, with upstream's flags.",
    tables: &[leading::FLAGS, FLAGS],
};

/// The flags that only the scheduler has.
const FLAGS: &[Flag] = &[
    refused("config", Text, "there is one profile, upstream's default"),
    refused(
        "pod-max-in-unschedulable-pods-duration",
        Text,
        "what no node could take is tried again when something changes",
    ),
    refused("write-config-to", Text, "defaults are not written to a file"),
];

pub(crate) fn run(words: Words) -> Result<()> {
    let Some(given) = SURFACE.read(words)? else { return Ok(()) };
    features::check(given.all("feature-gates"), Component::Scheduler)?;
    let connection = leading::connection(&given)?;
    let identity = leading::identity(&given);
    let config = identity.map_or_else(scheduler::Config::default, |id| scheduler::Config::with_leader_election(&id));
    process::run(process::FOR_A_CLUSTER, |shutdown| async move {
        given.tell();
        let client = client::Client::new(connection.with_component("scheduler")).context("making a client")?;
        scheduler::run(config, client, shutdown).await.context("running the scheduler")
    })
}
