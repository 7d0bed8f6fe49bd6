//! What the API server costs beside upstream's, and whether that is what this project promises: start, memory, and work
//! done in a second of the server's processor time.
//!
//! ```text
//! cargo bench -p apiserver --bench load -- --ours BINARY [--upstream FOLDER] [--etcd BINARY] [--pods 1000,10000,30000]
//!                                          [--watchers 1000] [--crds 500] [--seconds 2] [WORD…]
//! ```
//!
//! `--ours` is the optimized `keelson`; upstream's folder has `kube-apiserver` and `etcd`. Each stage starts both servers
//! one after the other, each on a fresh etcd and with the same flags, so nothing else has to run. Where words are given,
//! only figures with one of them in their names are taken. Work is repeated until the server has used `--seconds` of
//! processor time for it. The program fails if a goal is not met.
//!
//! Processor time and memory are read from `/proc`, and are those of the server alone, without its etcd. Other work on
//! the machine makes little difference to them.
#![allow(clippy::unwrap_used, reason = "the parts that are shared with tests do so")]

#[allow(dead_code, reason = "shared with tests, which do more with it")]
#[path = "../../tests/support/etcd.rs"]
mod etcd;
mod figures;
#[allow(dead_code, reason = "shared with tests, which do more with it")]
#[path = "../../tests/support/launched.rs"]
mod launched;
mod memory;
mod options;
mod report;
mod subject;
mod watches;
mod wire;
mod work;

use std::process::ExitCode;

use figures::{Figure, Found, Whose};
use options::Options;
use subject::Subject;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What is done on servers of their own.
enum Stage {
    Starts,
    Definitions,
    IdleWatchers,
    Pods(usize),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    if options.upstream.is_none() {
        println!("without --upstream ours is measured alone, and what should be a ratio is not judged");
    }
    let alone = [Stage::Starts, Stage::Definitions, Stage::IdleWatchers];
    let stages = alone.into_iter().chain(options.pods.iter().copied().map(Stage::Pods));
    let mut found = Vec::new();
    for stage in stages {
        for whose in options.servers() {
            let figures = stage.run(&options, whose).await?;
            figures.iter().for_each(|figure| eprintln!("{whose:?}: {figure}"));
            found.extend(figures.into_iter().map(|figure| (whose, figure)));
        }
    }
    Ok(if report::print(&found) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Stage {
    async fn run(&self, options: &Options, whose: Whose) -> Result<Vec<Found>> {
        match self {
            Self::Starts if !options.wants(Figure::Start) => Ok(Vec::new()),
            Self::Definitions if !options.wants(Figure::Idle) && !options.wants(Figure::Definition) => Ok(Vec::new()),
            Self::IdleWatchers if !options.wants(Figure::IdleWatcher) => Ok(Vec::new()),
            Self::Starts => Ok(vec![Found::new(Figure::Start, subject::starts(options, whose).await?)]),
            Self::Definitions => memory::definitions(options, &Subject::start(options, whose).await?).await,
            Self::IdleWatchers => watches::idle(options, &Subject::start(options, whose).await?).await,
            Self::Pods(count) => {
                let subject = Subject::start(options, whose).await?;
                let mut found = work::pods(options, &subject, *count).await?;
                found.extend(watches::events(options, &subject, *count).await?);
                found.iter_mut().for_each(|figure| figure.pods = Some(*count));
                Ok(found)
            }
        }
    }
}
