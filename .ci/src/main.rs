//! `cargo ci`: everything that is checked before a change lands, as one program.
//!
//! Each step is a row of [`STEPS`]; `cargo ci` runs all of them in order, `cargo ci NAME…` only those named.

mod deps;
mod docs;
mod layers;
mod packages;
mod sizes;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;

/// One check.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Path) -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "packages", about: "the Debian packages that building and testing need", run: packages::install },
    Step { name: "format", about: "rustfmt", run: |_| cargo(&["fmt", "--all", "--check"]) },
    Step { name: "layers", about: "which crate may use which", run: layers::check },
    Step { name: "sizes", about: "lengths of files and functions", run: sizes::check },
    Step { name: "docs", about: "links of texts, and merges left half done", run: docs::check },
    Step { name: "deps", about: "licences, sources and banned crates", run: deps::check },
    Step {
        name: "lint",
        about: "clippy, warnings denied",
        run: |_| cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    },
    Step {
        name: "test",
        about: "unit and component tests",
        run: |_| cargo(&["test", "--workspace", "--no-fail-fast"]),
    },
    Step { name: "boot", about: "a real cluster, booted and asked", run: |_| cargo(&["cluster", "test", "boot"]) },
    Step { name: "image", about: "the image as released, which is to be small", run: image },
    Step {
        name: "ignored",
        about: "the tests that want a real etcd, with that of the image, loop devices, or what makes an image",
        run: test_the_ignored,
    },
];

/// Everything that CI checks.
#[derive(Parser)]
#[command(name = "cargo ci")]
struct Arguments {
    /// Steps to run; all of them where none is named.
    steps: Vec<String>,
    /// Tells the steps and runs none.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo ci: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        STEPS.iter().for_each(|step| println!("{:10} {}", step.name, step.about));
        return Ok(());
    }
    if let Some(unknown) = arguments.steps.iter().find(|name| STEPS.iter().all(|s| s.name != name.as_str())) {
        bail!("there is no step {unknown:?}; `cargo ci --list` shows them");
    }
    let root = workspace_root()?;
    std::env::set_current_dir(&root).context("entering the workspace")?;
    let mut report = Vec::new();
    for step in STEPS.iter().filter(|s| arguments.steps.is_empty() || arguments.steps.iter().any(|n| n == s.name)) {
        println!("--- {}: {}", step.name, step.about);
        let start = Instant::now();
        (step.run)(&root).with_context(|| format!("step {} failed", step.name))?;
        report.push((step.name, start.elapsed()));
    }
    for (name, elapsed) in report {
        println!("{name:10} {:7.1} s", elapsed.as_secs_f64());
    }
    Ok(())
}

fn workspace_root() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec().context("reading the workspace")?;
    Ok(metadata.workspace_root.into_std_path_buf())
}

/// The agent is the one that the step boot built.
fn image(root: &Path) -> Result<()> {
    const MEGABYTES: &str = "150";
    let output = root.join("target/images/keelson.update");
    let options = ["image", "--format", "update", "--most", MEGABYTES, "--output"];
    succeed(Command::new("cargo").args(options).arg(output))
}

/// Those that are ignored elsewhere, as they want an etcd, loop devices, or what makes an image. The selection of crates is that of the step
/// `test`, as another one would build them again with other features.
fn test_the_ignored(root: &Path) -> Result<()> {
    const LOOPS: &str = "/dev/loop-control";
    let etcd = root.join("target/images/base/root/usr/bin/etcd");
    if !etcd.exists() {
        bail!("there is no {}: the step boot makes it", etcd.display());
    }
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace", "--lib", "--test=etcd", "--test=clusters", "--", "--ignored"]);
    if !Path::new(LOOPS).exists() {
        println!("there is no {LOOPS}: tests on a loop device are left out");
        command.arg("--skip=on_a_loop_device");
    }
    succeed(command.env("KEELSON_TEST_ETCD", &etcd))
}

/// Runs cargo with these arguments, its output as it comes.
fn cargo(arguments: &[&str]) -> Result<()> {
    succeed(Command::new("cargo").args(arguments))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().context("starting cargo")?;
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    if status.success() { Ok(()) } else { bail!("cargo {} ended with {status}", arguments.join(" ")) }
}
