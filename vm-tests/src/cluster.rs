//! A cluster's life: up, watched, down.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use images::signing::SigningKey;
use images::{Build, Compression, Image, Programs, tools};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::container::{self, Layout};
use crate::firmware::Firmware;
use crate::flash::{Flashed, Medium};
use crate::manifests::{Card, Settings};
use crate::plan::{self, Machine};
use crate::process::{self, Process};
use crate::progress::Progress;
use crate::qemu::{self, Accelerator, Virtual};
use crate::state::{Folder, Ports, Provider, Running, State};
use crate::upstream::Part;
use crate::{network, wait};

/// What `up` was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The cluster's name.
    pub name: String,
    /// What machines are made of.
    pub provider: Provider,
    /// How many masters.
    pub masters: u8,
    /// How many workers.
    pub workers: u8,
    /// A registry that stands for all others.
    pub registry_mirror: Option<String>,
    /// Parts of the control plane that the masters leave to others.
    pub external: Vec<Part>,
    /// Where Debian's packages are.
    pub mirror: String,
    /// Whether the agent is built quickly rather than to be quick.
    pub is_quick_build: bool,
    /// Whether agent and image were built a moment ago, so that what is there is taken.
    pub is_built: bool,
}

impl Request {
    fn build(&self) -> Build {
        if self.is_quick_build { Build::Quick } else { Build::Optimized }
    }
}

/// The API server's port, and others, on the machines.
pub(crate) const API_PORT: u16 = 6443;
pub(crate) const MACHINE_PORT: u16 = 50000;
const SAMPLE_PORT: u16 = 30080;
/// A machine stops its services within this.
const STOP_DEADLINE: Duration = Duration::from_secs(100);
/// Kubelets and container runtimes of several machines watch more than the usual limit for one user.
const INOTIFY_INSTANCES: u32 = 1024;

const NETNS_TOOLS: &[tools::Tool] = &[("ip", "iproute2")];
const QEMU_TOOLS: &[tools::Tool] = &[("qemu-system-x86_64", "qemu-system-x86")];

/// A cluster and its files.
pub struct Cluster {
    /// Its files.
    pub folder: Folder,
    /// As saved.
    pub state: State,
    programs: Programs,
    image: Image,
    accelerator: Accelerator,
    flashed: Option<Flashed>,
}

impl Cluster {
    /// Builds what machines need and writes down the plan; nothing runs yet.
    ///
    /// # Errors
    /// There is a cluster of this name, or something cannot be built.
    pub async fn prepare(request: &Request, progress: &Progress) -> Result<Self> {
        let workspace = images::workspace();
        let folder = Folder::of(&workspace, &request.name);
        check_host(request)?;
        if let Some(state) = folder.load()? {
            let is_up = state.machines.iter().flat_map(|running| &running.process).any(Process::is_alive);
            if is_up {
                bail!("the cluster {} is up already; end it first: cargo cluster down", request.name);
            }
            down(&folder).await?;
        }
        let (programs, built) = build(request, &workspace, progress)?;
        fs::create_dir_all(folder.path()).with_context(|| format!("make {}", folder.path().display()))?;
        progress.say(&format!("image: {:.1} MB", images::megabytes(built.bytes()?)));
        let accelerator = match request.provider {
            Provider::Qemu => qemu::choose_accelerator(&built, folder.path()).await?,
            Provider::Netns => Accelerator::Kvm,
        };
        if accelerator == Accelerator::Emulation {
            built.unpack().context("unpack the image")?;
        }
        let image = built.link(&folder.image())?;
        let machines = plan::plan_machines(request.masters, request.workers);
        let apis = machines.iter().filter(|machine| machine.is_master()).map(|_| free_port()).collect::<Result<_>>()?;
        let ports = Ports { apis, machine: free_port()?, sample: free_port()? };
        write_manifests(request, &folder, &machines, &programs)?;
        let machines = machines.into_iter().map(|machine| Running { machine, process: None }).collect();
        let state = State {
            name: request.name.clone(),
            provider: request.provider,
            machines,
            helpers: Vec::new(),
            ports,
            is_quick_build: request.is_quick_build,
        };
        folder.save(&state)?;
        Ok(Self { folder, state, programs, image, accelerator, flashed: None })
    }

    /// Takes over the cluster that is up.
    ///
    /// # Errors
    /// There is none.
    pub async fn open(name: &str) -> Result<Self> {
        let workspace = images::workspace();
        let folder = Folder::of(&workspace, name);
        let state = folder.load()?.context("no cluster is up; start one: cargo cluster up")?;
        let image = Image::open(&folder.image())?;
        let accelerator = match state.provider {
            Provider::Qemu => qemu::choose_accelerator(&image, folder.path()).await?,
            Provider::Netns => Accelerator::Kvm,
        };
        let build = if state.is_quick_build { Build::Quick } else { Build::Optimized };
        Ok(Self { folder, state, programs: images::programs(&workspace, build), image, accelerator, flashed: None })
    }

    /// Starts the network and all machines.
    ///
    /// # Errors
    /// Something does not start; what did is left to [`down`].
    pub fn start(&mut self, progress: &Progress) -> Result<()> {
        match self.state.provider {
            Provider::Netns => self.start_netns_network()?,
            Provider::Qemu => {
                progress.say(&format!("virtual machines by {}", self.accelerator.name()));
                self.start_switch()?;
            }
        }
        for name in self.names() {
            self.start_machine(&name)?;
        }
        progress.say(&format!("started {}", self.names().join(", ")));
        Ok(())
    }

    /// Makes the image anew, as one that takes only what this key has signed.
    pub(crate) fn trust(&mut self, request: &Request, key: &SigningKey, progress: &Progress) -> Result<()> {
        const NAME: &str = "cluster-signed";
        let options = options(request, &images::workspace(), (NAME, self.programs.clone()))?;
        let options = images::Options { update_key: Some(key.public()), ..options };
        self.image = images::build(&options, &|text| progress.say(text))?.link(&self.folder.image())?;
        Ok(())
    }

    /// Makes another image, the same but for its agent, which is this program.
    pub(crate) fn image_with_agent(&self, request: &Request, agent: &Path, progress: &Progress) -> Result<Image> {
        const NAME: &str = "cluster-other-agent";
        let programs = Programs { keelson: agent.to_owned(), ..self.programs.clone() };
        let options = options(request, &images::workspace(), (NAME, programs))?;
        images::build(&options, &|text| progress.say(text))
    }

    /// The sample application as a program.
    pub(crate) fn sample(&self) -> &Path {
        &self.programs.sample
    }

    /// Makes a disk of the image and lets every machine start from this medium with it, by firmware and boot loader.
    ///
    /// # Errors
    /// The disk cannot be made, or the provider has no disks.
    pub fn flash(&mut self, how: (Medium, Firmware), mirror: &str, progress: &Progress) -> Result<()> {
        let flashed = Flashed::make(&self.image, self.folder.path(), how, mirror, progress)?;
        for name in self.names() {
            flashed.flash(&self.image, self.folder.path(), &self.folder.machine(&name))?;
        }
        self.flashed = Some(flashed);
        Ok(())
    }

    /// What machines start from where they were flashed.
    pub(crate) fn flashed(&self) -> Result<&Flashed> {
        self.flashed.as_ref().context("the machines were not flashed")
    }

    /// The image that machines are made from.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// The agent's program, as an operator's tool.
    pub(crate) fn keelson(&self) -> &Path {
        &self.programs.keelson
    }

    /// The machines' names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state.machines.iter().map(|running| running.machine.name.clone()).collect()
    }

    fn own_command() -> Result<Command> {
        Ok(Command::new(std::env::current_exe().context("find this program")?))
    }

    fn start_netns_network(&mut self) -> Result<()> {
        raise_inotify_limit()?;
        let name = self.state.name.clone();
        network::make_bridge(&name)?;
        for running in &self.state.machines {
            network::make_card(&name, &running.machine)?;
        }
        let to = |port, machine: Option<&Machine>, at| {
            let address = machine.map_or(plan::gateway(), |machine| machine.address);
            format!("{}={}", SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((address, at)))
        };
        let ports = &self.state.ports;
        let mut command = Self::own_command()?;
        command.arg("forward").arg(network::path(&name)).arg(to(ports.machine, self.master(), MACHINE_PORT));
        command.args(self.apis().map(|(port, master)| to(port, Some(master), API_PORT)));
        command.arg(to(ports.sample, self.pods_machine(), SAMPLE_PORT));
        self.start_helper("forwarder", command)
    }

    fn start_switch(&mut self) -> Result<()> {
        let socket = self.switch_socket()?;
        fs::remove_file(&socket).ok();
        let mut command = Self::own_command()?;
        command.arg("switch").arg(&socket);
        self.start_helper("switch", command)?;
        // A machine that starts before the socket is there has no network.
        const TRIES: u32 = 500;
        for _ in 0..TRIES {
            if socket.exists() {
                return Ok(());
            }
            wait::pause_blocking();
        }
        bail!("the switch did not start: {}", process::last_lines(&self.folder.path().join("switch.log"), 5))
    }

    /// Socket paths are short by nature; one below the workspace may not be.
    pub(crate) fn switch_socket(&self) -> Result<PathBuf> {
        const LIMIT: usize = 100;
        let path = self.folder.path().join("switch.sock");
        if path.as_os_str().len() > LIMIT {
            bail!("{} is too long for a socket; move the workspace to a shorter path", path.display());
        }
        Ok(path)
    }

    /// Starts a process that belongs to the cluster and runs beside its machines.
    pub(crate) fn start_helper(&mut self, name: &str, mut command: Command) -> Result<()> {
        let log = self.folder.path().join(format!("{name}.log"));
        self.state.helpers.push(process::start_detached(name, &mut command, &log)?);
        self.folder.save(&self.state)
    }

    /// The first master.
    #[must_use]
    pub fn master(&self) -> Option<&Machine> {
        self.state.machines.iter().map(|running| &running.machine).find(|machine| machine.is_master())
    }

    /// The masters, with the host's ports that lead to their API servers.
    pub fn apis(&self) -> impl Iterator<Item = (u16, &Machine)> {
        let machines = self.state.machines.iter().map(|running| &running.machine);
        self.state.ports.apis.iter().copied().zip(machines.filter(|machine| machine.is_master()))
    }

    /// The first machine that runs ordinary pods.
    fn pods_machine(&self) -> Option<&Machine> {
        let mut machines = self.state.machines.iter().map(|running| &running.machine);
        machines.find(|machine| machine.role != plan::Role::Master).or_else(|| self.master())
    }

    /// Starts one machine, for the first time or again.
    ///
    /// # Errors
    /// It runs, there is no such machine, or it does not start.
    pub fn start_machine(&mut self, name: &str) -> Result<()> {
        let running = self.running(name)?.clone();
        if running.process.as_ref().is_some_and(Process::is_alive) {
            bail!("{name} runs already");
        }
        let process = match self.state.provider {
            Provider::Netns => self.start_container(&running.machine)?,
            Provider::Qemu => self.start_virtual(&running.machine)?,
        };
        for running in self.state.machines.iter_mut().filter(|running| running.machine.name == name) {
            running.process = Some(process.clone());
        }
        self.folder.save(&self.state)
    }

    fn start_container(&self, machine: &Machine) -> Result<Process> {
        let folder = self.folder.machine(&machine.name);
        let layout = Layout::new(&folder);
        layout.prepare()?;
        fs::remove_file(layout.pid_file()).ok();
        let embedded = layout.layer().join("usr/share/keelson");
        fs::create_dir_all(&embedded).with_context(|| format!("make {}", embedded.display()))?;
        fs::copy(self.folder.manifest(&machine.name), embedded.join("manifest.toml"))
            .context("hand in the manifest")?;
        let mut command = Self::own_command()?;
        command.arg("machine").arg(&folder).arg(&self.image.tree);
        command.arg(network::path(&network::namespace(&self.state.name, machine)));
        command.arg(format!("{}/{}", self.state.name, machine.name));
        process::start_detached(&machine.name, &mut command, &folder.join("console.log"))
    }

    fn start_virtual(&self, machine: &Machine) -> Result<Process> {
        let ports = &self.state.ports;
        let is = |other: Option<&Machine>| other.is_some_and(|other| other.name == machine.name);
        let mut forwarded: Vec<(u16, u16)> =
            self.apis().filter(|(_, master)| is(Some(master))).map(|(port, _)| (port, API_PORT)).collect();
        if is(self.master()) {
            forwarded.push((ports.machine, MACHINE_PORT));
        }
        if is(self.pods_machine()) {
            forwarded.push((ports.sample, SAMPLE_PORT));
        }
        let folder = self.folder.machine(&machine.name);
        let switch = self.switch_socket()?;
        let virtual_machine = Virtual {
            machine,
            folder: &folder,
            image: &self.image,
            accelerator: self.accelerator,
            switch: &switch,
            ports: &forwarded,
            flashed: self.flashed.as_ref(),
        };
        virtual_machine.start()
    }

    /// Stops a machine: by asking it to, or by cutting its power.
    ///
    /// # Errors
    /// There is no such machine, or it does not stop in time.
    pub async fn stop_machine(&mut self, name: &str, is_power_cut: bool) -> Result<()> {
        let Some(process) = self.running(name)?.process.clone() else { return Ok(()) };
        let folder = self.folder.machine(name);
        match (self.state.provider, is_power_cut) {
            (Provider::Qemu, true) => process.signal(Signal::SIGKILL),
            (Provider::Qemu, false) => qemu::control(&folder, "system_powerdown")?,
            (Provider::Netns, _) => {
                let signal = if is_power_cut { Signal::SIGKILL } else { Signal::SIGTERM };
                let pid = fs::read_to_string(Layout::new(&folder).pid_file()).context("find the machine's process")?;
                nix::sys::signal::kill(Pid::from_raw(pid.parse()?), signal).context("signal the machine")?;
            }
        }
        process.gone(STOP_DEADLINE).await
    }

    fn running(&self, name: &str) -> Result<&Running> {
        let found = self.state.machines.iter().find(|running| running.machine.name == name);
        found.with_context(|| format!("no machine is called {name}; there are {}", self.names().join(", ")))
    }

    /// Writes the kubeconfigs once the first master has made its certificates. `None` as long as it has not.
    ///
    /// # Errors
    /// The agent refuses its own manifest.
    pub fn write_kubeconfig(&self) -> Result<Option<PathBuf>> {
        let master = self.master().context("the cluster has no master")?;
        let text = match self.state.provider {
            Provider::Netns => {
                let path = Layout::new(&self.folder.machine(&master.name)).kept().join("state/pki/admin.conf");
                let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
                text
            }
            Provider::Qemu => {
                let mut command = Command::new(&self.programs.keelson);
                command.arg("kubeconfig").arg("--manifest").arg(self.folder.manifest(&master.name));
                tools::run(&mut command).context("make the administrator's kubeconfig")?
            }
        };
        for (index, (port, _)) in self.apis().enumerate() {
            let path = if index == 0 { self.folder.kubeconfig() } else { self.folder.kubeconfig_of(index) };
            write_private(&path, &with_server(&text, &format!("https://127.0.0.1:{port}")))?;
        }
        if self.state.provider == Provider::Netns {
            let inner = format!("https://{}:{API_PORT}", master.address);
            write_private(&self.folder.inner_kubeconfig(), &with_server(&text, &inner))?;
        }
        Ok(Some(self.folder.kubeconfig()))
    }
}

/// The text of a kubeconfig with another server.
pub(crate) fn with_server(text: &str, server: &str) -> String {
    let line = |line: &str| match line.split_once("server:") {
        Some((before, _)) => format!("{before}server: {server}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// The agent and the image that machines boot.
fn build(request: &Request, workspace: &Path, progress: &Progress) -> Result<(Programs, Image)> {
    const NAME: &str = "cluster";
    let work = workspace.join("target/images");
    if request.is_built {
        return Ok((images::programs(workspace, request.build()), Image::open(&work.join(NAME))?));
    }
    progress.say("building the agent");
    let programs = images::build_programs(workspace, request.build())?;
    let options = options(request, workspace, (NAME, programs.clone()))?;
    let built = images::build(&options, &|text| progress.say(text))?;
    Ok((programs, built))
}

/// How an image is built, of this name.
fn options(request: &Request, workspace: &Path, (name, programs): (&str, Programs)) -> Result<images::Options> {
    Ok(images::Options {
        work: workspace.join("target/images"),
        cache: images::user_cache()?,
        name: name.to_owned(),
        programs,
        manifest: None,
        update_key: None,
        firmware: Vec::new(),
        extensions: Vec::new(),
        mirror: request.mirror.clone(),
        refresh: false,
        compression: Compression::Fast,
    })
}

fn check_host(request: &Request) -> Result<()> {
    if !(1..=plan::LIMIT).contains(&request.masters) || request.workers > plan::LIMIT {
        bail!("a cluster has 1 to {0} masters and up to {0} workers", plan::LIMIT);
    }
    match request.provider {
        Provider::Qemu => tools::require(QEMU_TOOLS),
        Provider::Netns if !nix::unistd::geteuid().is_root() => {
            bail!("--provider netns makes namespaces and must be root; --provider qemu need not be")
        }
        Provider::Netns => tools::require(NETNS_TOOLS),
    }
}

fn write_manifests(request: &Request, folder: &Folder, machines: &[Machine], programs: &Programs) -> Result<()> {
    let configs = images::workspace().join("configs");
    let card = match request.provider {
        Provider::Netns => Card::Eth0,
        Provider::Qemu => Card::WithUplink,
    };
    let registry_mirror = request.registry_mirror.as_deref();
    let settings = Settings { configs: &configs, machines, card, registry_mirror, external: &request.external };
    let mut check = Command::new(&programs.keelson);
    check.args(["manifest", "check"]);
    for machine in machines {
        let path = folder.manifest(&machine.name);
        let parent = folder.machine(&machine.name);
        fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
        fs::write(&path, settings.manifest(machine)?).with_context(|| format!("write {}", path.display()))?;
        check.arg(path);
    }
    tools::run(&mut check).context("check the manifests").map(drop)
}

/// Free now; taken a moment later.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

fn raise_inotify_limit() -> Result<()> {
    const FILE: &str = "/proc/sys/fs/inotify/max_user_instances";
    let current: u32 = fs::read_to_string(FILE).context("read a kernel setting")?.trim().parse()?;
    if current < INOTIFY_INSTANCES {
        fs::write(FILE, INOTIFY_INSTANCES.to_string()).context("raise fs.inotify.max_user_instances")?;
    }
    Ok(())
}

/// Ends everything that belongs to a cluster and removes its files. Does as much as it can, then tells what it could
/// not.
///
/// # Errors
/// Something is left.
pub async fn down(folder: &Folder) -> Result<()> {
    let mut failures = Vec::new();
    if let Some(state) = folder.load()? {
        let machines = state.machines.iter().flat_map(|running| &running.process);
        for process in machines.chain(&state.helpers) {
            failures.extend(process.end().await.err());
        }
        if state.provider == Provider::Netns {
            // The last of a machine's processes go a moment after the first.
            let group = state.name.clone();
            failures.extend(wait::until_ok(STOP_DEADLINE, || container::remove_groups(&group)).await.err());
            let own = state.machines.iter().map(|running| network::namespace(&state.name, &running.machine));
            failures.extend(own.chain([state.name.clone()]).filter_map(|name| network::remove(&name).err()));
        }
    }
    if failures.is_empty() && folder.path().exists() {
        failures.extend(fs::remove_dir_all(folder.path()).context("remove the cluster's files").err());
    }
    match failures.into_iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        left => bail!("not everything could be ended: {}", left.join("; ")),
    }
}
