//! Pods and containers of one machine, as its container runtime has them.

use crate::table::{Row, span};
use crate::{ContainerStatus, PodStatus};

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
