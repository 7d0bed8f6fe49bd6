//! What was found out about the network from the machine.

use serde::{Deserialize, Serialize};

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckResult {
    /// Whether it works.
    pub works: bool,
    /// What was found, or why it does not work, line by line.
    pub found: Vec<String>,
    /// How long it took.
    pub millis: f64,
}

impl CheckResult {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let works = if self.works { "works" } else { "does not work" };
        let found: String = self.found.iter().map(|line| format!("  {line}\n")).collect();
        format!("{works}, after {:.1} ms\n{found}", self.millis)
    }
}

/// What a reset does, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetPlan {
    /// The machine.
    pub machine: String,
    /// What happens, in order.
    pub steps: Vec<String>,
    /// Whether nothing was done.
    pub is_dry: bool,
}
