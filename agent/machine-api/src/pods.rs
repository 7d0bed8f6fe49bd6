//! Pods and containers of one machine, as its container runtime has them.

use serde::{Deserialize, Serialize};

use crate::table::{Row, span};

/// A pod that the machine has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What tells it from others of that name.
    pub uid: String,
    /// `ready`, or `not-ready`: its network and its namespaces are gone or going.
    pub state: String,
    /// How often its sandbox was made anew.
    pub attempt: u32,
    /// How long ago the sandbox was made, in seconds.
    pub age_seconds: f64,
    /// Its containers that run, and all of them.
    pub running: usize,
    /// All of them that the runtime knows.
    pub containers: usize,
    /// The runtime's name of the sandbox.
    pub id: String,
}

impl Row for PodStatus {
    const HEAD: &'static [&'static str] = &["NAMESPACE", "POD", "STATE", "RUNNING", "ATTEMPT", "AGE", "SANDBOX"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.state.clone(),
            format!("{}/{}", self.running, self.containers),
            self.attempt.to_string(),
            span(self.age_seconds),
            short(&self.id),
        ]
    }
}

/// A container that the machine has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its name in the pod.
    pub name: String,
    /// `created`, `running`, `exited` or `unknown`.
    pub state: String,
    /// How it ended, if it did: `Completed (0)`, `OOMKilled (137)`.
    pub exit: Option<String>,
    /// What the runtime says to that.
    pub message: Option<String>,
    /// How often it was started again.
    pub attempt: u32,
    /// How long ago it was made, in seconds.
    pub age_seconds: f64,
    /// Its image, as the pod names it.
    pub image: String,
    /// The runtime's name of it.
    pub id: String,
}

impl Row for ContainerStatus {
    const HEAD: &'static [&'static str] =
        &["NAMESPACE", "POD", "CONTAINER", "STATE", "EXIT", "ATTEMPT", "AGE", "IMAGE", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.pod.clone(),
            self.name.clone(),
            self.state.clone(),
            self.exit.clone().unwrap_or_default(),
            self.attempt.to_string(),
            span(self.age_seconds),
            self.image.clone(),
            short(&self.id),
        ]
    }
}

/// As much of an id as the runtime's own tools show.
fn short(id: &str) -> String {
    id.chars().take(13).collect()
}
