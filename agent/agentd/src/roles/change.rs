//! `keelson apply`, `shutdown`, `reboot` and `reset`: what changes a machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use machine_api::apply_request::Trial;
use machine_api::{Applied, ApplyRequest, Plan, ResetRequest, StartOptions, Text};
use tonic::{Response, Status};

use super::drain::Drain;
use super::look::Asked;
use super::target::{Machine, Target};
use crate::process;

const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at whether a machine answers, and how long it has for it each time.
const ASKED_EVERY: Duration = Duration::from_secs(2);
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// A member that leaves etcd, and a drain before.
const DRAINED_WITHIN: Duration = Duration::from_secs(1800);

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
    drain: Drain,
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
    drain: Drain,
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
    #[command(flatten)]
    drain: Drain,
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
    let wanted = ApplyRequest { manifest, dry_run: true, trial, force: options.force };
    let applied = process::ask(DRAINED_WITHIN, options.take(wanted))?;
    asked.output.show(&applied, Applied::describe)?;
    match applied {
        Applied { tried_for: Some(_), tried_seconds: Some(seconds), is_dry: false, .. } => {
            process::ask_all(keep_when_it_answers(&asked.target, Duration::from_secs(seconds)))
        }
        _ => Ok(()),
    }
}

impl Apply {
    /// Hands a manifest in, of which it is asked first what that takes.
    async fn take(&self, dry: ApplyRequest) -> Result<Applied> {
        let target = &self.asked.target;
        let give =
            async |asked: &ApplyRequest| target.ask(async |machine| machine.apply_manifest(asked.clone()).await).await;
        let would = give(&dry).await?;
        let first = if would.starts_again { self.drain.step(target)? } else { None };
        let told = |applied: Applied| Applied { steps: first.into_iter().chain(applied.steps).collect(), ..applied };
        if self.dry_run {
            return Ok(told(would));
        }
        let wanted = ApplyRequest { dry_run: false, ..dry };
        let go = async || give(&wanted).await;
        let applied = if would.starts_again {
            self.drain.then(target, "the manifest was not taken in", go).await?
        } else {
            go().await?
        };
        Ok(told(applied))
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
    options.go(async |machine, wishes| machine.shut_down(wishes).await)
}

/// `keelson reboot`
pub(crate) fn reboot(options: &Down) -> Result<()> {
    options.go(async |machine, wishes| machine.reboot(wishes).await)
}

impl Down {
    /// Lets the machine go, once its pods have.
    fn go<F>(&self, order: F) -> Result<()>
    where
        F: AsyncFn(&mut Machine, StartOptions) -> Result<Response<Text>, Status>,
    {
        process::ask(DRAINED_WITHIN, async {
            let ask = async |wishes| self.target.ask(async |machine| order(machine, wishes).await).await;
            // No pod moves for what is refused.
            ask(StartOptions { dry_run: true, ..self.wishes() }).await?;
            let go = async || ask(self.wishes()).await;
            let told = self.drain.then(&self.target, "the machine stays up", go).await?;
            println!("{}", told.text.trim_end());
            Ok(())
        })
    }

    fn wishes(&self) -> StartOptions {
        let grace_seconds = self.grace.map(|grace| grace.as_secs());
        StartOptions { force: self.force, grace_seconds, ..StartOptions::default() }
    }
}

pub(crate) fn reset(options: &Reset) -> Result<()> {
    process::ask(DRAINED_WITHIN, async {
        let target = &options.asked.target;
        let mut plan = options.ask(true).await?;
        plan.steps.splice(..0, options.drain.step(target)?);
        show(&plan, &options.machine, &options.asked)?;
        if !options.yes {
            eprintln!("nothing was done; --yes does it");
            return Ok(());
        }
        options.drain.then(target, "nothing was reset", async || options.ask(false).await).await?;
        eprintln!("the machine starts again");
        Ok(())
    })
}

/// Shows a plan, if it is for the machine that is meant.
pub(super) fn show(plan: &Plan, machine: &str, asked: &Asked) -> Result<()> {
    if plan.machine != machine {
        bail!("the machine is called {}, not {machine}", plan.machine);
    }
    asked.output.show(plan, |plan| plan.steps.iter().map(|step| format!("- {step}\n")).collect())
}

impl Reset {
    async fn ask(&self, dry_run: bool) -> Result<Plan> {
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
