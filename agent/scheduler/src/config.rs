//! What the scheduler is told, and how it fails.

use reconcile::LeaseConfig;

/// Settings of the scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// Schedules only while holding this lease; without one, always.
    pub leader_election: Option<LeaseConfig>,
    /// How many of the nodes to find before scoring, in percent; 0 for a share that shrinks with the cluster.
    pub percentage_of_nodes_to_score: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned(), leader_election: None, percentage_of_nodes_to_score: 0 }
    }
}

impl Config {
    /// The default with leader election under upstream's lease name.
    #[must_use]
    pub fn with_leader_election(identity: &str) -> Self {
        let lease = LeaseConfig::new("kube-system", "kube-scheduler", identity);
        Self { leader_election: Some(lease), ..Self::default() }
    }
}

/// Why the scheduler ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another scheduler leads now, or the server could not be reached for too long.
    #[error("scheduler leadership")]
    Leadership(#[from] reconcile::LeaseError),
}
