//! The roles, one file each.

mod apiserver;
mod bootstrap;
mod capture;
mod change;
mod check;
mod cni;
mod control_plane;
mod controller_manager;
mod debug;
mod dev;
mod drain;
mod etcd;
mod etcd_member;
mod events;
mod extension;
mod init;
mod kubeconfig;
mod kubelet;
mod leading;
mod look;
mod machine;
mod manifest;
mod modprobe;
mod node;
mod proxy;
mod runtime;
mod sample;
mod scheduler;
mod secret;
mod status;
mod target;
mod token;
mod unlock;
mod upgrade;
mod virtual_address;
mod wipe;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::flags::Words;

/// What the process is.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// API server, controllers and scheduler in one process, for a trial.
    Dev(dev::Options),
    /// Checks and explains manifests.
    #[command(subcommand)]
    Manifest(manifest::Command),
    /// PID 1 of a machine or of namespaces.
    Init(init::Options),
    /// The network and the clock of the machine.
    Machine,
    /// Certificates and configuration files, before the programs that need them.
    Bootstrap,
    /// etcd's member of a master.
    #[command(hide = true)]
    EtcdMember,
    /// The container runtime of a machine.
    #[command(hide = true)]
    Runtime,
    /// API server, scheduler and controllers of a master.
    ControlPlane,
    /// The address of the API that one master has at a time.
    VirtualAddress,
    /// Kubelet, service proxy, pod network and DNS of a machine.
    Node,
    /// What a machine says of itself.
    Status(status::Options),
    /// Lists what a machine has and does: services, processes, disks, connections and more.
    Get(look::Get),
    /// What a service of a machine prints.
    Logs(look::Logs),
    /// What the kernel of a machine prints.
    Dmesg(look::Part),
    /// What happened on a machine: services that start and end, conditions that come and go, manifests taken in.
    Events(events::Options),
    /// How the last starts of a machine went: each phase and service, and what everything else waited for.
    #[command(alias = "boot")]
    BootReport(look::Asked),
    /// One service of a machine.
    #[command(subcommand)]
    Service(look::Service),
    /// Gives a machine another manifest, and tells what that changes and takes.
    Apply(change::Apply),
    /// Finds something out about the network from a machine.
    #[command(subcommand)]
    Check(check::Check),
    /// Captures frames of a machine's interface, as a file for Wireshark or tcpdump.
    Capture(capture::Options),
    /// Makes a container on a machine to look around in, with a terminal. Who did, when and how it ended is told to the
    /// machine's events.
    Debug(debug::Options),
    /// Writes everything that helps to find out what is wrong with a machine to a file, without secrets.
    Support(check::Support),
    /// The kernel's last lines before a machine's last crash.
    Crash(target::Target),
    /// What monitoring reads of a machine, in Prometheus' text format; Prometheus itself asks port 50000 for `/metrics`,
    /// with a certificate of the group keelson:reader.
    Metrics(target::Target),
    /// Puts another version of the system on a machine and lets it prove itself there.
    Upgrade(upgrade::Options),
    /// Lets a machine go back to the version that it ran before.
    Rollback(upgrade::RollbackOptions),
    /// Extensions of a machine's system: layers of further files, as `cargo extension` makes them.
    #[command(subcommand)]
    Extension(extension::Command),
    /// Lets a machine start again.
    Reboot(change::Down),
    /// Ends a machine.
    Shutdown(change::Down),
    /// Lets a machine forget its state, its data or both.
    Reset(change::Reset),
    /// Wipes a disk, or a partition, that a machine does not use, so that nothing is found there any more.
    Wipe(wipe::Wipe),
    /// Gives a machine whose disk is locked a passphrase or the recovery key, read from standard input, or one that runs the
    /// passphrase that its manifest has come to ask for. To a locked one it travels in the clear, as everything does before a
    /// machine knows its keys; the form at the console is the other way.
    Unlock(unlock::Unlock),
    /// Takes the recovery keys of a machine's encrypted partitions, which it gives out once.
    RecoveryKey(target::Target),
    /// Loads modules of the kernel, as it asks for them itself.
    #[command(hide = true)]
    Modprobe(modprobe::Options),
    /// Secrets that a manifest refers to: sealed by a machine's TPM, or kept on its STATE.
    #[command(subcommand)]
    Secret(secret::Command),
    /// The members of etcd, their snapshots, and what mends them.
    #[command(subcommand)]
    Etcd(etcd::Command),
    /// Bootstrap tokens, with which machines join.
    #[command(subcommand)]
    Token(token::Command),
    /// Prints an administrator's kubeconfig.
    Kubeconfig(kubeconfig::Options),
    /// The API server alone, with upstream's flags.
    Apiserver(Box<apiserver::Options>),
    /// The controllers alone, with upstream's flags.
    ControllerManager(Words),
    /// The scheduler alone, with upstream's flags.
    Scheduler(Words),
    /// The kubelet alone, with upstream's flags and configuration file.
    Kubelet(Words),
    /// The service proxy alone, with upstream's flags and configuration file.
    Proxy(Words),
    /// The CNI plugin; the container runtime calls it.
    #[command(hide = true)]
    Cni,
    /// A small web server that answers with its host's name, for trying a cluster.
    #[command(hide = true)]
    SampleServer(sample::Options),
}

impl Role {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Dev(options) => done(dev::run(options)),
            Self::Manifest(command) => manifest::run(command),
            Self::Init(options) => init::run(options),
            Self::Machine => done(machine::run()),
            Self::Bootstrap => done(bootstrap::run()),
            Self::Etcd(command) => done(etcd::run(command)),
            Self::EtcdMember => done(etcd_member::run()),
            Self::Runtime => done(runtime::run()),
            Self::ControlPlane => done(control_plane::run()),
            Self::VirtualAddress => done(virtual_address::run()),
            Self::Node => done(node::run()),
            Self::Kubeconfig(options) => done(kubeconfig::run(&options)),
            Self::Apiserver(options) => done(apiserver::run(*options)),
            Self::ControllerManager(words) => done(controller_manager::run(words)),
            Self::Scheduler(words) => done(scheduler::run(words)),
            Self::Kubelet(words) => done(kubelet::run(words)),
            Self::Proxy(words) => done(proxy::run(words)),
            Self::Status(options) => status::run(&options),
            Self::Token(command) => done(token::run(command)),
            Self::Get(options) => done(look::get(&options)),
            Self::Logs(options) => done(look::logs(&options)),
            Self::Dmesg(part) => done(look::dmesg(&part)),
            Self::Events(options) => done(events::run(&options)),
            Self::BootReport(asked) => done(look::boot_report(&asked)),
            Self::Apply(options) => done(change::apply(&options)),
            Self::Check(check) => check::run(&check),
            Self::Capture(options) => done(capture::run(&options)),
            Self::Debug(options) => done(debug::run(&options)),
            Self::Support(options) => done(check::support(&options)),
            Self::Shutdown(options) => done(change::shut_down(&options)),
            Self::Reset(options) => done(change::reset(&options)),
            Self::Wipe(options) => done(wipe::wipe(&options)),
            Self::Unlock(options) => done(unlock::unlock(&options)),
            Self::Modprobe(options) => done(modprobe::run(&options)),
            Self::Secret(command) => done(secret::run(command)),
            Self::RecoveryKey(target) => done(unlock::recovery_key(&target)),
            Self::Service(command) => done(look::service(&command)),
            Self::Crash(target) => done(status::crash(&target)),
            Self::Metrics(target) => done(status::metrics(&target)),
            Self::Upgrade(options) => done(upgrade::run(&options)),
            Self::Rollback(options) => done(upgrade::roll_back(&options)),
            Self::Extension(command) => done(extension::run(command)),
            Self::Reboot(options) => done(change::reboot(&options)),
            Self::Cni => cni::run(),
            Self::SampleServer(options) => done(sample::run(&options)),
        }
    }
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
