//! The controllers: what makes the cluster's state follow its objects.
//!
//! ```text
//!   shared caches ──events──▶ one queue per controller ──▶ reconcile(key): observe → plan (pure) → apply (API)
//! ```
//!
//! Each controller is one module that says which kinds wake it ([`Controller::watch`]) and what it does about one
//! key. Caches are shared, so a kind is watched once however many controllers look at it. Everything goes through
//! the API server as anybody else's requests do; no controller knows storage.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod caches;
mod clusterrole;
mod config;
mod controller;
mod cronjob;
mod csr;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod error;
mod expectations;
mod garbage;
mod history;
mod job;
mod kinds;
mod namespace;
mod node_fit;
mod nodeipam;
mod nodelifecycle;
mod owned_pods;
mod owner;
mod podgc;
mod pods;
mod policycheck;
mod protection;
mod quota;
mod replicas;
mod serviceaccount;
mod servicecidr;
mod statefulset;
mod tokens;
mod tolerations;

pub use config::{Config, Signer};
pub use error::Error;

use client::Client;
use lifecycle::{Shutdown, Tasks};
use reconcile::{LeaderLease, LeaseConfig};

use crate::controller::Starter;

/// Runs all controllers until `shutdown`, under the lease `kube-controller-manager` where `config` asks for one.
///
/// # Errors
/// When leadership was lost: the process has to start anew, since others act now.
pub async fn run(config: Config, client: Client, shutdown: Shutdown) -> Result<(), Error> {
    match config.leader_identity.clone() {
        None => lead(config, client, shutdown).await,
        Some(identity) => {
            let lease = LeaseConfig::new("kube-system", "kube-controller-manager", &identity);
            let work = client.clone();
            LeaderLease::new(client, lease).run(shutdown, |until| lead(config, work, until)).await?;
        }
    }
    Ok(())
}

async fn lead(config: Config, client: Client, shutdown: Shutdown) {
    let tasks = Tasks::new();
    let objects = garbage::Objects::new(&client);
    let mut starter = Starter::new(config, objects.clone(), client, shutdown.clone(), tasks.clone());
    starter.add::<replicas::ReplicaSets>();
    starter.add::<replicas::ReplicationControllers>();
    starter.add::<deployment::Deployments>();
    starter.add::<daemonset::DaemonSets>();
    starter.add::<job::Jobs>();
    starter.add::<job::Orphans>();
    starter.add::<job::Expiry>();
    starter.add::<statefulset::StatefulSets>();
    starter.add::<cronjob::CronJobs>();
    starter.add::<disruption::Budgets>();
    starter.add::<disruption::StaleDisruptions>();
    starter.add::<clusterrole::Aggregation>();
    starter.add::<podgc::PodCollector>();
    starter.add::<protection::Claims>();
    starter.add::<protection::Volumes>();
    starter.add::<protection::Classes>();
    starter.add::<endpoints::Mirrors>();
    starter.add::<quota::Quotas>();
    starter.add::<servicecidr::ServiceRanges>();
    starter.add::<tokens::AccountTokens>();
    starter.add::<tokens::BootstrapTokens>();
    starter.add::<endpoints::EndpointSlices>();
    starter.add::<endpoints::EndpointsObjects>();
    starter.add::<namespace::Namespaces>();
    starter.add::<serviceaccount::DefaultAccounts>();
    starter.add::<serviceaccount::RootCertificates>();
    starter.add::<nodeipam::PodRanges>();
    starter.add::<nodelifecycle::NodeHealth>();
    starter.add::<csr::Requests>();
    starter.add::<policycheck::PolicyTypes>();
    starter.start();
    objects.collect(&tasks, &shutdown);
    shutdown.wait().await;
    let stuck = tasks.drain(std::time::Duration::from_secs(10)).await;
    if !stuck.is_empty() {
        tracing::warn!(?stuck, "controllers that did not stop in time");
    }
}
