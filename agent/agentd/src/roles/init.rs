//! `keelson init`: PID 1, and the table of what it keeps running.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use init::Environment;
use manifest::Manifest;
use supervisor::{Readiness, ResourceLimits, ServiceSpec};

const AGENT: &str = "/usr/bin/keelson";
/// Memory that is kept for what must not starve.
const KEPT_BYTES: u64 = 64 << 20;
/// Of a service that starts anew. On the way out of the machine all of them get less.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Options of PID 1.
#[derive(Args)]
pub(crate) struct Options {
    /// A manifest that comes before every other source.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Shows every line of every service on the console.
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(options: Options) -> ! {
    init::run(init::Config {
        environment: None,
        manifest: options.manifest,
        services: Box::new(services),
        network_test: argv(&[AGENT, "check"]),
        is_verbose: options.verbose,
        paths: init::Paths::default(),
    })
}

/// What runs on a machine with this manifest; without one, what is needed to get one.
fn services(manifest: Option<&Manifest>, _environment: Environment) -> Vec<ServiceSpec> {
    let machine = important(own("machine"));
    let Some(manifest) = manifest else { return vec![machine] };
    let prepare = oneshot("bootstrap").after(&["machine"]);
    let containerd = important(program("containerd", &[AGENT, "runtime"])).after(&["bootstrap"]);
    let node = important(own("node")).after(&["containerd"]);
    let mut services = vec![machine, prepare, containerd];
    if manifest.machine.role.has_control_plane() {
        services.push(important(etcd()).after(&["bootstrap"]));
        services.push(important(own("control-plane")).after(&["etcd"]));
        if manifest.virtual_address().is_some() {
            // Ends before the API server does, so that nobody calls one that is not there.
            services.push(important(own("virtual-address")).after(&["control-plane"]));
        }
        services.push(node.after(&["containerd", "control-plane"]));
    } else {
        services.push(node);
    }
    services
}

fn own(role: &str) -> ServiceSpec {
    program(role, &[AGENT, role])
}

fn oneshot(role: &str) -> ServiceSpec {
    ServiceSpec { readiness: Readiness::Exit, env: environment(), ..ServiceSpec::oneshot(role, argv(&[AGENT, role])) }
}

fn program(name: &str, words: &[&str]) -> ServiceSpec {
    ServiceSpec { env: environment(), stop_timeout: STOP_TIMEOUT, ..ServiceSpec::daemon(name, argv(words)) }
}

/// Its garbage may grow to twice, not once, what it uses. The small heap of its start would be collected again and again:
/// on a slow processor a tenth of the time until a master serves, for 10 MB. Not so containerd, whose shims inherit it.
fn etcd() -> ServiceSpec {
    let mut spec = program("etcd", &[AGENT, "etcd-member"]);
    spec.env.push(("GOGC".to_owned(), "200".to_owned()));
    spec
}

fn important(spec: ServiceSpec) -> ServiceSpec {
    ServiceSpec { limits: ResourceLimits { memory_min: Some(KEPT_BYTES), ..spec.limits }, ..spec }
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn environment() -> Vec<(String, String)> {
    [("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/root")].map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &str) -> Vec<String> {
        let path = format!("{}/../../configs/{file}", env!("CARGO_MANIFEST_DIR"));
        let manifest = manifest::parse(file, &std::fs::read_to_string(path).unwrap()).unwrap();
        services(Some(&manifest), Environment::Machine).into_iter().map(|s| s.name).collect()
    }

    #[test]
    fn a_worker_has_no_control_plane_and_a_master_is_a_node_too() {
        assert_eq!(names("worker.toml"), ["machine", "bootstrap", "containerd", "node"]);
        assert!(names("master.toml").contains(&"control-plane".to_owned()));
        assert!(names("master.toml").contains(&"node".to_owned()));
        assert!(!names("master.toml").contains(&"virtual-address".to_owned()));
        assert!(names("three-masters/1.toml").contains(&"virtual-address".to_owned()));
        assert_eq!(services(None, Environment::Machine).len(), 1);
    }
}
