//! How services are, for people and for the machine API.

use std::time::Duration;

/// One service's state in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The state's name.
    pub state: &'static str,
    /// Since when, from boot.
    pub since: Duration,
    /// Its process.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// What it waits for, or why it is not ready; empty when all is well.
    pub why: String,
    /// What it says it is doing.
    pub doing: Option<String>,
    /// The last lines it printed, oldest first.
    pub last_lines: Vec<String>,
    /// Services that it waits for before it starts.
    pub after: Vec<String>,
    /// When it was first started.
    pub started: Option<Duration>,
    /// When it was first ready, or done.
    pub ready: Option<Duration>,
    /// When and how it ended the last time.
    pub last_exit: Option<(Duration, String)>,
}
