//! The `cargo cluster` command.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use vm_tests::cluster::{Cluster, Request, down};
use vm_tests::observe::Api;
use vm_tests::process::{Process, last_lines};
use vm_tests::progress::Progress;
use vm_tests::scenarios::{Outcome, SCENARIOS, Scenario, Scene};
use vm_tests::state::{Folder, Provider, State};
use vm_tests::wait::Watcher;
use vm_tests::{container, forward, leftovers, switch};

/// Clusters on this machine, for trial and tests.
#[derive(Parser)]
#[command(name = "cargo cluster")]
struct Arguments {
    /// Tells clusters apart that are up at the same time
    #[arg(long, global = true, default_value = "keelson")]
    name: String,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Builds all that is needed, boots machines and waits until they serve
    Up(Up),
    /// Ends the cluster and removes its files
    Down,
    /// Tells what runs
    Status,
    /// Shows a machine's console, and its services' logs where they can be read
    Logs {
        /// Such as master-1
        machine: String,
        /// How many lines of each
        #[arg(long, default_value_t = 200)]
        lines: usize,
    },
    /// Stops a machine and starts it again
    Restart {
        /// Such as worker-1
        machine: String,
        /// Cuts the power instead of asking the machine to stop
        #[arg(long)]
        power_cut: bool,
    },
    /// Runs scenarios, each on a cluster of its own
    Test {
        /// All, if none is named
        scenarios: Vec<String>,
        #[command(flatten)]
        up: Up,
        #[command(flatten)]
        options: TestOptions,
    },
    #[command(hide = true)]
    Machine { folder: PathBuf, tree: PathBuf, network: PathBuf, group: String },
    #[command(hide = true)]
    MachineRoot { folder: PathBuf, tree: PathBuf },
    #[command(hide = true)]
    Switch { socket: PathBuf },
    #[command(hide = true)]
    Forward {
        namespace: PathBuf,
        #[arg(value_parser = route)]
        routes: Vec<forward::Route>,
    },
}

#[derive(Args)]
struct TestOptions {
    /// Leaves the cluster up when a scenario fails, and tries no other
    #[arg(long)]
    keep: bool,
    /// The kubectl to test with; Debian's newest, if none is named
    #[arg(long, value_name = "FILE")]
    kubectl: Option<PathBuf>,
    /// Upstream's kube-scheduler and kube-controller-manager are in this folder; without, they are not tested with
    #[arg(long, value_name = "FOLDER")]
    upstream: Option<PathBuf>,
}

#[derive(Args)]
struct Up {
    /// What machines are made of
    #[arg(long, value_enum, default_value = "qemu")]
    provider: Provider,
    /// How many masters
    #[arg(long, default_value_t = 1)]
    masters: u8,
    /// How many workers; a lone master without any runs pods, too
    #[arg(long, default_value_t = 1)]
    workers: u8,
    /// A plain HTTP registry that stands for all usual ones
    #[arg(long, value_name = "ADDRESS:PORT")]
    registry_mirror: Option<String>,
    /// Where Debian's packages are
    #[arg(long, value_name = "URL", default_value = images::DEFAULT_MIRROR)]
    mirror: String,
    /// Builds the agent quickly, not to be quick: for those who change it
    #[arg(long)]
    quick_build: bool,
}

fn route(text: &str) -> Result<forward::Route> {
    let (at, to) = text.split_once('=').context("not ADDRESS:PORT=ADDRESS:PORT")?;
    Ok((at.parse::<SocketAddr>()?, to.parse::<SocketAddr>()?))
}

fn main() -> ExitCode {
    images::tools::conclude(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> Result<()> {
    // Namespaces are made by processes of one thread, so these run before there is a runtime.
    match &arguments.command {
        Action::Machine { folder, tree, network, group } => return container::keep(folder, tree, network, group),
        Action::MachineRoot { folder, tree } => return container::enter(folder, tree),
        Action::Switch { socket } => return switch::run(socket).context("the switch"),
        Action::Forward { namespace, routes } => return forward::run(namespace, routes),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    runtime.block_on(command(arguments))
}

async fn command(arguments: Arguments) -> Result<()> {
    let name = &arguments.name;
    let folder = Folder::of(&images::workspace(), name);
    match arguments.command {
        Action::Up(options) => up(&options.request(name)).await,
        Action::Down => {
            let progress = Progress::start();
            down(&folder).await?;
            progress.say("down; nothing is left");
            Ok(())
        }
        Action::Status => status(&folder).await,
        Action::Logs { machine, lines } => logs(&folder, &machine, lines),
        Action::Restart { machine, power_cut } => restart(name, &machine, power_cut).await,
        Action::Test { scenarios, up, options } => {
            test(&scenarios, &options, up.request(&format!("{name}-test"))).await
        }
        Action::Machine { .. } | Action::MachineRoot { .. } | Action::Switch { .. } | Action::Forward { .. } => Ok(()),
    }
}

impl Up {
    fn request(&self, name: &str) -> Request {
        Request {
            name: name.to_owned(),
            provider: self.provider,
            masters: self.masters,
            workers: self.workers,
            registry_mirror: self.registry_mirror.clone(),
            external: Vec::new(),
            mirror: self.mirror.clone(),
            is_quick_build: self.quick_build,
            is_built: false,
        }
    }
}

async fn up(request: &Request) -> Result<()> {
    let progress = Progress::start();
    let mut cluster = Cluster::prepare(request, &progress).await?;
    let folder = cluster.folder.clone();
    let served = tokio::select! {
        served = serve(&mut cluster, &progress) => served.map(drop),
        signal = tokio::signal::ctrl_c() => {
            signal.context("listen for Ctrl-C")?;
            progress.say("interrupted; ending what was started");
            down(&folder).await?;
            bail!("interrupted");
        }
    };
    served.context(
        "the cluster does not serve; look at it with `cargo cluster logs MACHINE`, end it with `cargo cluster down`",
    )?;
    print_hints(&cluster);
    Ok(())
}

async fn serve(cluster: &mut Cluster, progress: &Progress) -> Result<Api> {
    cluster.start(progress)?;
    Watcher { cluster, progress }.serve().await
}

fn print_hints(cluster: &Cluster) {
    let kubeconfig = cluster.folder.kubeconfig();
    println!("\nkubeconfig: {}", kubeconfig.display());
    if cluster.state.provider == Provider::Netns {
        println!(
            "network namespace: {} (kubeconfig there: {})",
            cluster.state.name,
            cluster.folder.inner_kubeconfig().display()
        );
    }
    println!("\nTry:");
    println!("  export KUBECONFIG={}; kubectl get nodes,pods -A -o wide", kubeconfig.display());
    println!("  curl http://127.0.0.1:{}/", cluster.state.ports.sample);
    let last = cluster.names().pop().unwrap_or_default();
    println!("  cargo cluster logs {last}");
    println!("\nEnd it with: cargo cluster down");
}

async fn status(folder: &Folder) -> Result<()> {
    let Some(state) = folder.load()? else {
        println!("down");
        return Ok(());
    };
    let nodes = match Api::new(&folder.kubeconfig()) {
        Ok(api) => {
            api.nodes().await.inspect_err(|error| println!("the API does not answer: {error:#}")).unwrap_or_default()
        }
        Err(_) => Vec::new(),
    };
    println!("{:<12} {:<16} {:<9} NODE", "MACHINE", "ADDRESS", "STATE");
    for running in &state.machines {
        let node = nodes.iter().find(|node| node.name == running.machine.name);
        let node = match node {
            Some(node) if node.is_ready => "Ready".to_owned(),
            Some(node) => format!("not Ready: {}", node.message),
            None => "unknown".to_owned(),
        };
        let is_running = running.process.as_ref().is_some_and(Process::is_alive);
        let machine = &running.machine;
        println!(
            "{:<12} {:<16} {:<9} {node}",
            machine.name,
            machine.address,
            if is_running { "running" } else { "stopped" }
        );
    }
    for helper in state.helpers.iter().filter(|helper| !helper.is_alive()) {
        println!("the {} has ended", helper.name);
    }
    Ok(())
}

fn logs(folder: &Folder, machine: &str, lines: usize) -> Result<()> {
    let state = folder.load()?.context("no cluster is up; start one: cargo cluster up")?;
    if !state.machines.iter().any(|running| running.machine.name == machine) {
        let names: Vec<&str> = state.machines.iter().map(|running| running.machine.name.as_str()).collect();
        bail!("no machine is called {machine}; there are {}", names.join(", "));
    }
    for path in log_files(folder, &state, machine) {
        println!("--- {}\n{}", path.display(), last_lines(&path, lines));
    }
    Ok(())
}

/// The console last: it is what is looked for first, and a terminal shows the end.
fn log_files(folder: &Folder, state: &State, machine: &str) -> Vec<PathBuf> {
    let own = folder.machine(machine);
    let mut files = Vec::new();
    if state.provider == Provider::Netns {
        let services = container::Layout::new(&own).kept().join("var/log/keelson");
        files.extend(fs::read_dir(services).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
        files.sort();
    }
    files.push(own.join("console.log"));
    files
}

async fn restart(name: &str, machine: &str, is_power_cut: bool) -> Result<()> {
    let progress = Progress::start();
    let mut cluster = Cluster::open(name).await?;
    cluster.stop_machine(machine, is_power_cut).await?;
    progress.say(&format!("{machine} has stopped"));
    cluster.start_machine(machine)?;
    progress.say(&format!("{machine} starts"));
    Ok(())
}

async fn test(names: &[String], options: &TestOptions, mut request: Request) -> Result<()> {
    let all: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    if let Some(unknown) = names.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("no scenario is called {unknown}; there are {}", all.join(", "));
    }
    let chosen = SCENARIOS.iter().filter(|scenario| names.is_empty() || names.iter().any(|name| name == scenario.name));
    let mut results: Vec<(&str, Result<Outcome>)> = Vec::new();
    for scenario in chosen {
        let progress = Progress::start();
        progress.say(&format!("scenario {}: {}", scenario.name, scenario.about));
        let mut result = try_scenario(scenario, options, &mut request, progress).await;
        if !options.keep && result.as_ref().is_err_and(is_stall) {
            progress.say(
                "a processor of an emulated machine stood still, as its kernel says: the scenario is tried again, once",
            );
            result = try_scenario(scenario, options, &mut request, progress).await;
        }
        match &result {
            Ok(Outcome::Passed) => progress.say(&format!("scenario {}: passed", scenario.name)),
            Ok(Outcome::Skipped(why)) => progress.say(&format!("scenario {}: SKIPPED: {why}", scenario.name)),
            Err(error) => progress.say(&format!("scenario {}: FAILED: {error:#}", scenario.name)),
        }
        let is_failure = result.is_err();
        results.push((scenario.name, result));
        if is_failure && options.keep {
            break;
        }
    }
    let count = |is_one: fn(&Result<Outcome>) -> bool| results.iter().filter(|(_, result)| is_one(result)).count();
    let passed = count(|result| matches!(result, Ok(Outcome::Passed)));
    let skipped = count(|result| matches!(result, Ok(Outcome::Skipped(_))));
    println!("{passed} passed, {skipped} skipped, {} failed", count(Result::is_err));
    let failed: Vec<&str> = results.iter().filter(|(_, result)| result.is_err()).map(|(name, _)| *name).collect();
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Whether a machine's own kernel tells that it was not run: now and then an emulator forgets a timer of one of its
/// processors, and nothing in the machine goes on.
fn is_stall(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("rcu_preempt kthread")
}

/// On a cluster of its own, of which nothing must be left afterwards.
async fn try_scenario(
    scenario: &Scenario,
    options: &TestOptions,
    common: &mut Request,
    progress: Progress,
) -> Result<Outcome> {
    const DEADLINE: Duration = Duration::from_secs(3600);
    if !scenario.providers.contains(&common.provider) {
        return Ok(Outcome::Skipped("it needs machines made of another provider: --provider netns".to_owned()));
    }
    let masters = if scenario.masters == 0 { common.masters } else { scenario.masters };
    let request = Request { masters, workers: common.workers.max(scenario.workers), ..common.clone() };
    let cluster = Cluster::prepare(&request, &progress).await?;
    common.is_built = true;
    let folder = cluster.folder.clone();
    let mut scene =
        Scene { cluster, request, kubectl: options.kubectl.clone(), upstream: options.upstream.clone(), progress };
    let result = tokio::select! {
        result = tokio::time::timeout(DEADLINE, (scenario.run)(&mut scene)) => result.context("it took too long").flatten(),
        signal = tokio::signal::ctrl_c() => {
            signal.context("listen for Ctrl-C")?;
            down(&folder).await?;
            // The scenarios that would follow are not wanted either.
            eprintln!("interrupted");
            std::process::exit(130);
        }
    };
    if result.is_err() && options.keep {
        return result;
    }
    // What went wrong first is what matters.
    let ended = down(&folder).await.and_then(|()| {
        let left = leftovers::find(&scene.request.name, folder.path())?;
        if left.is_empty() { Ok(()) } else { bail!("these are left:\n{}", left.join("\n")) }
    });
    result.and_then(|outcome| ended.map(|()| outcome))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_sound() {
        Arguments::command().debug_assert();
    }
}
