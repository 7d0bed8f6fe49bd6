//! What is known about a cluster between commands.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::plan::Machine;
use crate::process::Process;

/// What machines are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Virtual machines, by KVM where that works
    Qemu,
    /// Namespaces of this machine, at its own speed; needs root
    Netns,
}

/// Ports of the host's loopback.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// The masters' API servers, in the masters' order.
    pub apis: Vec<u16>,
    /// The first master's machine API.
    pub machine: u16,
    /// The sample application.
    pub sample: u16,
}

/// A machine and what keeps it alive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    /// The machine.
    pub machine: Machine,
    /// QEMU, or the keeper of the namespaces.
    pub process: Option<Process>,
}

/// A cluster as it was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Its name; of its bridge namespace and control group, too.
    pub name: String,
    /// What its machines are made of.
    pub provider: Provider,
    /// Its machines.
    pub machines: Vec<Running>,
    /// What runs beside them on the host.
    pub helpers: Vec<Process>,
    /// How to reach it.
    pub ports: Ports,
    /// Whether its agent is the one built quickly.
    #[serde(default)]
    pub is_quick_build: bool,
}

/// Where a cluster's files are.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Of the cluster `name`, in the workspace's `target`.
    #[must_use]
    pub fn of(workspace: &Path, name: &str) -> Self {
        let short = name.strip_prefix("keelson").map_or_else(|| format!("-{name}"), str::to_owned);
        Self(workspace.join(format!("target/cluster{short}")))
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// For kubectl on this host.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// For kubectl on this host, by way of another master than the first; they count from 0.
    #[must_use]
    pub fn kubeconfig_of(&self, master: usize) -> PathBuf {
        self.0.join(format!("kubeconfig.{}", master + 1))
    }

    /// For programs in the cluster's own network.
    #[must_use]
    pub fn inner_kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig.netns")
    }

    /// A machine's files.
    #[must_use]
    pub fn machine(&self, name: &str) -> PathBuf {
        self.0.join("machines").join(name)
    }

    /// A machine's manifest.
    #[must_use]
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.machine(name).join("manifest.toml")
    }

    /// The image that the machines run, apart from what the next build makes.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    fn state(&self) -> PathBuf {
        self.0.join("cluster.json")
    }

    /// What was saved last, if there is a cluster.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn load(&self) -> Result<Option<State>> {
        let text = match fs::read(self.state()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("read {}", self.state().display()))?,
        };
        Ok(Some(serde_json::from_slice(&text).with_context(|| format!("understand {}", self.state().display()))?))
    }

    /// Saves the state, whole or not at all.
    ///
    /// # Errors
    /// The disk is full.
    pub fn save(&self, state: &State) -> Result<()> {
        let draft = self.0.join("cluster.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(state)?).with_context(|| format!("write {}", draft.display()))?;
        fs::rename(&draft, self.state()).context("keep the cluster's state")
    }
}
