//! `keelson scheduler`: the scheduler alone, with upstream's flags.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{ArgAction, Args};

use crate::process;

/// Upstream's flags. A flag that is not here is refused.
#[derive(Args)]
pub(crate) struct Options {
    /// How the API server is reached.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Whether to lead under a lease.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    leader_elect: bool,
    /// Without effect: there is no server to authenticate for.
    #[arg(long)]
    authentication_kubeconfig: Option<PathBuf>,
    /// Without effect: there is no server to authorize for.
    #[arg(long)]
    authorization_kubeconfig: Option<PathBuf>,
    /// Without effect: log detail is set by KEELSON_LOG.
    #[arg(long, short)]
    v: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let connection = client::Config::from_kubeconfig(&options.kubeconfig)
        .with_context(|| format!("reading {}", options.kubeconfig.display()))?;
    let config = if options.leader_elect {
        scheduler::Config::with_leader_election(&process::identity())
    } else {
        scheduler::Config::default()
    };
    process::run(2, |shutdown| async move {
        for (flag, given) in [
            ("--authentication-kubeconfig", options.authentication_kubeconfig.is_some()),
            ("--authorization-kubeconfig", options.authorization_kubeconfig.is_some()),
            ("--v", options.v.is_some()),
        ] {
            if given {
                tracing::warn!(flag, "this flag has no effect here");
            }
        }
        let client = client::Client::new(connection.with_component("scheduler")).context("making a client")?;
        scheduler::run(config, client, shutdown).await.context("running the scheduler")
    })
}
