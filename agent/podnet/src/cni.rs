//! The CNI plugin: what the container runtime calls for each pod.
//!
//! [`main`] is handed the environment and standard input, and returns what to print and the exit code; it reads
//! neither itself. Versions 0.3.0 to 1.1.0 of the CNI specification, all commands.

mod attach;
mod request;
mod result;

use std::collections::BTreeMap;

use nft::Nft;
use serde_json::json;

use crate::hostport;
use crate::lease::{Lease, Leases};
pub(crate) use attach::link_name;
use request::{Command, Plugin, Request};
pub use result::CniError;

/// What the plugin's process prints and how it exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub output: String,
    /// For the exit code.
    pub code: u8,
}

/// Does what the container runtime asks for. Blocks; wants no async runtime around it.
#[must_use]
pub fn main(env: &BTreeMap<String, String>, input: &[u8]) -> Outcome {
    match run(env, input) {
        Ok(output) => Outcome { output, code: 0 },
        Err(error) => Outcome { output: error.to_json(), code: 1 },
    }
}

fn run(env: &BTreeMap<String, String>, input: &[u8]) -> Result<String, CniError> {
    let request = Request::parse(env, input)?;
    if request.command == Command::Version {
        return Ok(result::versions(&request.version));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CniError::Runtime { source })?;
    runtime.block_on(async {
        match (&request.plugin, request.command) {
            (Plugin::Loopback, command) => loopback(&request, command).await,
            (Plugin::Pod(_), Command::Add) => add(&request).await,
            (Plugin::Pod(_), Command::Del) => del(&request).await.map(|()| String::new()),
            (Plugin::Pod(_), Command::Check) => check(&request).await.map(|()| String::new()),
            (Plugin::Pod(_), Command::Gc) => gc(&request).await.map(|()| String::new()),
            (Plugin::Pod(_), Command::Status) => status(&request).map(|()| String::new()),
            (Plugin::Pod(_), Command::Version) => Ok(result::versions(&request.version)),
        }
    })
}

async fn add(request: &Request) -> Result<String, CniError> {
    let settings = request.settings()?;
    let attachment = request.attachment()?;
    let lease = {
        let leases = Leases::lock(&settings.state_folder)?;
        let wish = attachment.lease(settings.ports.clone());
        match leases.allocate(wish.clone(), &settings.pod_ranges) {
            Err(crate::lease::LeaseError::Exhausted { .. }) => {
                leases.retain(Lease::is_live)?;
                leases.allocate(wish, &settings.pod_ranges)?
            }
            other => other?,
        }
    };
    let done = async {
        let links = attach::attach(&lease, settings.mtu).await?;
        if !lease.ports.is_empty() {
            attach::allow_loopback(&links.node)?;
            apply_ports(request).await?;
        }
        Ok(links)
    };
    match done.await {
        Ok(links) => Ok(result::success(&request.version, &lease, &links)),
        Err(error) => {
            // The runtime will ask for removal too, but the address should not wait for that.
            if let Err(undo) = del(request).await {
                tracing::warn!(error = %undo, "cannot take back a failed attachment");
            }
            Err(error)
        }
    }
}

async fn del(request: &Request) -> Result<(), CniError> {
    let settings = request.settings()?;
    let (container, interface) = (request.container()?, request.interface()?);
    attach::detach(container, interface).await?;
    let lease = Leases::lock(&settings.state_folder)?.release(container, interface)?;
    if lease.is_some_and(|lease| !lease.ports.is_empty()) {
        apply_ports(request).await?;
    }
    Ok(())
}

async fn check(request: &Request) -> Result<(), CniError> {
    let settings = request.settings()?;
    let (container, interface) = (request.container()?, request.interface()?);
    let lease = Leases::lock(&settings.state_folder)?.get(container, interface)?;
    let lease = lease.ok_or_else(|| CniError::NotAttached { container: container.to_owned() })?;
    attach::check(&lease).await
}

async fn gc(request: &Request) -> Result<(), CniError> {
    let settings = request.settings()?;
    let valid = request.valid_attachments();
    let gone = Leases::lock(&settings.state_folder)?.retain(|lease| {
        valid.iter().any(|(container, interface)| *container == lease.container && *interface == lease.interface)
    })?;
    for lease in &gone {
        attach::detach(&lease.container, &lease.interface).await?;
    }
    if gone.iter().any(|lease| !lease.ports.is_empty()) {
        apply_ports(request).await?;
    }
    Ok(())
}

fn status(request: &Request) -> Result<(), CniError> {
    let settings = request.settings()?;
    Leases::lock(&settings.state_folder)?;
    Ok(())
}

/// Makes the tables of node ports say what the leases say. The lock is held throughout, so that the last one to write
/// is also the last one to have read.
async fn apply_ports(request: &Request) -> Result<(), CniError> {
    let settings = request.settings()?;
    let leases = Leases::lock(&settings.state_folder)?;
    let [ip, ip6] = hostport::plan_tables(&leases.list()?);
    let mut script = ip.replace_script();
    script.append(&ip6.replace_script());
    let nft = settings.nft.as_ref().map_or_else(Nft::default, Nft::at);
    nft.run(&script).await?;
    Ok(())
}

/// The plugin called `loopback` that container runtimes expect beside any other.
async fn loopback(request: &Request, command: Command) -> Result<String, CniError> {
    match command {
        Command::Add => {
            let attachment = request.attachment()?;
            attach::loopback(&attachment.namespace).await?;
            Ok(json!({
                "cniVersion": request.version,
                "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": attachment.namespace}],
                "ips": [{"address": "127.0.0.1/8", "interface": 0}],
                "dns": {},
            })
            .to_string())
        }
        Command::Version => Ok(result::versions(&request.version)),
        Command::Del | Command::Check | Command::Gc | Command::Status => Ok(String::new()),
    }
}
