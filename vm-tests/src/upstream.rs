//! Upstream's scheduler and controller manager, which others run beside a cluster of namespaces in place of ours: with
//! the flags that kubeadm gives them, and with the cluster's own keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use images::tools;

use crate::cluster::{API_PORT, Cluster, with_server, write_private};
use crate::container::Layout;

/// What [`crate::manifests`] leaves at its default.
const POD_RANGE: &str = "10.244.0.0/16";
const SERVICE_RANGE: &str = "10.96.0.0/16";

/// A part of the control plane that others can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Upstream's `kube-scheduler`.
    Scheduler,
    /// Upstream's `kube-controller-manager`.
    ControllerManager,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Scheduler, Self::ControllerManager];

    /// In a manifest, and of its certificate.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::ControllerManager => "controller-manager",
        }
    }

    /// Upstream's program, and the Lease that whoever does the work holds.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Scheduler => "kube-scheduler",
            Self::ControllerManager => "kube-controller-manager",
        }
    }

    /// What the program has said.
    #[must_use]
    pub fn log(self, cluster: &Cluster) -> PathBuf {
        cluster.folder.path().join(format!("{}.log", self.program()))
    }

    /// Starts the program of the folder `programs` in the cluster's network, once the first master has made its keys.
    ///
    /// # Errors
    /// There is no such program, or it does not start.
    pub fn start(self, cluster: &mut Cluster, programs: &Path) -> Result<()> {
        let program = programs.join(self.program());
        ensure!(program.is_file(), "{} is no file", program.display());
        let master = cluster.master().context("the cluster has no master")?;
        let keys = Layout::new(&cluster.folder.machine(&master.name)).kept().join("state/pki");
        let path = keys.join(format!("{}.conf", self.name()));
        let kubeconfig = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let kubeconfig = with_server(&kubeconfig, &format!("https://{}:{API_PORT}", master.address));
        let path = cluster.folder.path().join(format!("{}.conf", self.name()));
        write_private(&path, &kubeconfig)?;
        let mut command: Command = tools::command("ip");
        command.args(["netns", "exec", &cluster.state.name]).arg(program).args(self.flags(&path, &keys));
        cluster.start_helper(self.program(), command)
    }

    fn flags(self, kubeconfig: &Path, keys: &Path) -> Vec<String> {
        let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
        let key = |flag: &str, name: &str| file(flag, &keys.join(name));
        let mut flags = vec![
            file("kubeconfig", kubeconfig),
            file("authentication-kubeconfig", kubeconfig),
            file("authorization-kubeconfig", kubeconfig),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=true".to_owned(),
        ];
        if self == Self::ControllerManager {
            flags.extend([
                "--allocate-node-cidrs=true".to_owned(),
                format!("--cluster-cidr={POD_RANGE}"),
                format!("--service-cluster-ip-range={SERVICE_RANGE}"),
                key("client-ca-file", "ca.crt"),
                key("root-ca-file", "ca.crt"),
                key("cluster-signing-cert-file", "ca.crt"),
                key("cluster-signing-key-file", "ca.key"),
                key("requestheader-client-ca-file", "front-proxy-ca.crt"),
                key("service-account-private-key-file", "sa.key"),
                "--controllers=*,bootstrapsigner,tokencleaner".to_owned(),
                "--use-service-account-credentials=true".to_owned(),
            ]);
        }
        flags
    }
}
