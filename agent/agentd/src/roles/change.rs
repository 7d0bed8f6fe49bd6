//! `keelson apply`, `shutdown`, `reboot` and `reset`: what changes a machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use client::Client;
use machine_api::apply_request::Trial;
use machine_api::{Applied, ApplyRequest, ResetPlan, ResetRequest, StartOptions};

use super::drain;
use super::look::Asked;
use super::target::Target;
use crate::process;

const WITHIN: Duration = Duration::from_secs(60);
/// A master that is to be none any more leaves etcd before.
const APPLY_WITHIN: Duration = Duration::from_secs(180);
/// Between two looks at whether a machine answers, and how long it has for it each time.
const ASKED_EVERY: Duration = Duration::from_secs(2);
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// A member that leaves etcd, and a drain before.
const RESET_WITHIN: Duration = Duration::from_secs(1800);

/// The manifest, and what to do with it.
#[derive(Args)]
pub(crate) struct Apply {
    /// The manifest. Several files are merged, key by key, and later ones win. Not needed to keep one that is tried.
    #[arg(required_unless_present = "keep", conflicts_with = "keep")]
    files: Vec<PathBuf>,
    /// Only tell what would change, and what that takes.
    #[arg(long)]
    dry_run: bool,
    /// Put it in force for this time, such as 2m; then the one before is back, unless this one is kept.
    #[arg(long, value_name = "TIME", value_parser = super::apiserver::duration, conflicts_with = "dry_run")]
    r#try: Option<Duration>,
    /// Put it in force for good, even if it cuts the machine off. Without, a change of the network is tried first, and
    /// kept once the machine answers again.
    #[arg(long, conflicts_with_all = ["dry_run", "try", "keep"])]
    no_try: bool,
    /// Keep the manifest that is tried.
    #[arg(long, conflicts_with_all = ["dry_run", "try"])]
    keep: bool,
    /// Where the machine is no master any more: go on even if etcd is lost, or cannot be left.
    #[arg(long, conflicts_with = "keep")]
    force: bool,
    #[command(flatten)]
    asked: Asked,
}

/// Which machine, and how it goes down.
#[derive(Args)]
pub(crate) struct Down {
    /// Go on even if etcd loses its majority.
    #[arg(long)]
    force: bool,
    /// What pods get to end, such as 30s, at most 10m; without, what the manifest says.
    #[arg(long, value_name = "TIME", value_parser = super::apiserver::duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    target: Target,
}

/// What the machine forgets.
#[derive(Args)]
pub(crate) struct Reset {
    /// The machine's name, which has to be the right one.
    machine: String,
    /// What is made anew: STATE (keys, the manifest, etcd), DATA (images, pods, logs), or both.
    #[arg(long, value_enum)]
    what: What,
    /// Do it. Without, the plan is shown and nothing is done.
    #[arg(long)]
    yes: bool,
    /// Leave the machine's pods where they are. Without a kubeconfig they are left in any case.
    #[arg(long)]
    no_drain: bool,
    /// Seconds for pods to move away, as budgets allow.
    #[arg(long, default_value_t = 300)]
    drain_timeout: u64,
    /// Go on even if etcd is lost, or cannot be left.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    asked: Asked,
}

/// What is made anew.
#[derive(Clone, Copy, ValueEnum)]
enum What {
    State,
    Data,
    All,
}

pub(crate) fn apply(options: &Apply) -> Result<()> {
    let asked = &options.asked;
    if options.keep {
        return asked.target.tell(WITHIN, async |machine| machine.keep_manifest(()).await);
    }
    let manifest = super::manifest::merged(&options.files)?;
    let trial = match options.r#try {
        Some(time) => Some(Trial::TrySeconds(time.as_secs())),
        None => options.no_try.then_some(Trial::Keep(true)),
    };
    let wanted = ApplyRequest { manifest, dry_run: options.dry_run, trial, force: options.force };
    let applied = process::ask(APPLY_WITHIN, asked.target.ask(async |machine| machine.apply_manifest(wanted).await))?;
    asked.output.show(&applied, Applied::describe)?;
    match applied {
        Applied { tried_for: Some(_), tried_seconds: Some(seconds), is_dry: false, .. } => {
            process::ask_all(keep_when_it_answers(&asked.target, Duration::from_secs(seconds)))
        }
        _ => Ok(()),
    }
}

/// Keeps the manifest that is tried as soon as the machine answers by its new network.
async fn keep_when_it_answers(target: &Target, within: Duration) -> Result<()> {
    let deadline = tokio::time::Instant::now() + within;
    let mut last = anyhow::anyhow!("it was not asked");
    while tokio::time::Instant::now() < deadline {
        tokio::time::sleep(ASKED_EVERY).await;
        let asked = target.ask(async |machine| machine.keep_manifest(()).await);
        match process::by(ASKED_WITHIN, asked).await {
            Ok(_) => {
                eprintln!("the machine answers: the manifest is kept");
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last).context(
        "the machine did not answer by its new network, and goes back to the manifest before; where it answers \
         elsewhere now, use --try, then --keep there",
    )
}

/// `keelson shutdown`
pub(crate) fn shut_down(options: &Down) -> Result<()> {
    options.target.tell(WITHIN, async |machine| machine.shut_down(options.wishes()).await)
}

/// `keelson reboot`
pub(crate) fn reboot(options: &Down) -> Result<()> {
    options.target.tell(WITHIN, async |machine| machine.reboot(options.wishes()).await)
}

impl Down {
    fn wishes(&self) -> StartOptions {
        let grace_seconds = self.grace.map(|grace| grace.as_secs());
        StartOptions { force: self.force, grace_seconds, ..StartOptions::default() }
    }
}

pub(crate) fn reset(options: &Reset) -> Result<()> {
    process::ask(RESET_WITHIN, async {
        show(options, &options.ask(true).await?)?;
        if !options.yes {
            eprintln!("nothing was done; --yes does it");
            return Ok(());
        }
        let cluster = if options.no_drain { None } else { options.asked.target.cluster()? };
        if let Some(client) = &cluster {
            options.clear(client).await?;
        }
        options.ask(false).await?;
        eprintln!("the machine starts again");
        Ok(())
    })
}

fn show(options: &Reset, plan: &ResetPlan) -> Result<()> {
    if plan.machine != options.machine {
        bail!("the machine is called {}, not {}", plan.machine, options.machine);
    }
    options.asked.output.show(plan, |plan| plan.steps.iter().map(|step| format!("- {step}\n")).collect())
}

impl Reset {
    /// Moves the machine's pods away. Its node opens once the machine has started again.
    async fn clear(&self, client: &Client) -> Result<()> {
        let status = self.asked.target.ask(async |machine| machine.get_status(()).await).await?;
        let within = Duration::from_secs(self.drain_timeout);
        drain::clear(client, &self.machine, &status.boot_id, within).await.context("nothing was reset")
    }

    async fn ask(&self, dry_run: bool) -> Result<ResetPlan> {
        let wanted = ResetRequest {
            machine: self.machine.clone(),
            state: matches!(self.what, What::State | What::All),
            data: matches!(self.what, What::Data | What::All),
            dry_run,
            force: self.force,
        };
        self.asked.target.ask(async |machine| machine.reset(wanted).await).await
    }
}
