//! `keelson init`: PID 1, and the table of what it keeps running.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use init::Environment;
use manifest::Manifest;
use supervisor::{Readiness, ResourceLimits, ServiceSpec};
use sys::CallGroup::{Clock, Mounts, Namespaces};
use sys::{CallGroup, Capabilities, Capability, Confinement};

const AGENT: &str = "/usr/bin/keelson";
const RUNTIME: &str = "containerd";
/// Memory that is kept for what must not starve.
const KEPT_BYTES: u64 = 64 << 20;
/// How readily the kernel ends a service: after every pod, the critical ones (-997) and what holds them (-998) among them.
const LAST: i32 = -999;
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
        support: argv(&[AGENT, "support", "--stick"]),
        is_verbose: options.verbose,
        paths: init::Paths::default(),
    })
}

/// What one service keeps of root's rights.
struct Row {
    service: &'static str,
    keeps: &'static [Capability],
    uses: &'static [CallGroup],
}

const fn row(service: &'static str, keeps: &'static [Capability], uses: &'static [CallGroup]) -> Row {
    Row { service, keeps, uses }
}

/// Services that start no containers. Whoever is not named here has no rights but to its own files.
const CONFINED: [Row; 6] = [
    row(
        "machine",
        &[
            // Addresses, routes, tunnels and the firewall; DHCP's frames and captures; DHCP's and NTP's ports.
            Capability::NetAdmin,
            Capability::NetRaw,
            Capability::NetBindService,
            Capability::SysTime,
            // The kernel's log; whose a connection is; logs that pods wrote as others.
            Capability::Syslog,
            Capability::SysPtrace,
            Capability::DacReadSearch,
        ],
        &[Clock],
    ),
    row("bootstrap", &[], &[]),
    row("etcd", &[], &[]),
    row("control-plane", &[], &[]),
    // An address that comes and goes, and VRRP, ARP and neighbour discovery.
    row("virtual-address", &[Capability::NetAdmin, Capability::NetRaw], &[]),
    row(
        "node",
        &[
            // Volumes: mounted, filled, owned by and taken from whoever pods run as.
            Capability::SysAdmin,
            Capability::Chown,
            Capability::DacOverride,
            Capability::DacReadSearch,
            Capability::Fowner,
            Capability::Fsetid,
            // Pods' groups: what is left in them ends.
            Capability::Kill,
            Capability::SysResource,
            // The pods' network, the services' and their names'.
            Capability::NetAdmin,
            Capability::NetRaw,
            Capability::NetBindService,
        ],
        &[Mounts, Namespaces],
    ),
];

/// What a privileged pod may do, containerd has to be able to. These are the machine's own and given to nobody: a pod that
/// names one of them is refused by the runtime, a privileged one does without. Raw input and output stay, as pods that
/// look after disks talk to them so.
const MACHINE_ONLY: [Capability; 4] =
    [Capability::SysModule, Capability::SysBoot, Capability::MacAdmin, Capability::MacOverride];

/// What a service gives up. Containers inherit from the runtime, and programs in them may change their user.
fn confinement(service: &str) -> Confinement {
    if service == RUNTIME {
        return Confinement { keeps: Capabilities::all_but(&MACHINE_ONLY), uses: None };
    }
    let row = CONFINED.iter().find(|row| row.service == service);
    let (keeps, uses) = row.map_or((&[][..], &[][..]), |row| (row.keeps, row.uses));
    Confinement { keeps: Capabilities::of(keeps), uses: Some(uses.to_vec()) }
}

/// What runs on a machine with this manifest; without one, what is needed to get one.
fn services(manifest: Option<&Manifest>, _environment: Environment) -> Vec<ServiceSpec> {
    let machine = own("machine");
    let Some(manifest) = manifest else { return vec![machine] };
    let prepare = oneshot("bootstrap").after(&["machine"]);
    let containerd = program(RUNTIME, &[AGENT, "runtime"]).after(&["bootstrap"]);
    let node = ServiceSpec { ends_pods: true, ..own("node").after(&["containerd"]) };
    let mut services = vec![machine, prepare, containerd];
    if manifest.machine.role.has_control_plane() {
        services.push(etcd().after(&["bootstrap"]));
        services.push(own("control-plane").after(&["etcd"]));
        if manifest.virtual_address().is_some() {
            // Ends before the API server does, so that nobody calls one that is not there.
            services.push(own("virtual-address").after(&["control-plane"]));
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
    let spec = ServiceSpec::oneshot(role, argv(&[AGENT, role]));
    ServiceSpec { readiness: Readiness::Exit, env: environment(), confinement: confinement(role), ..spec }
}

fn program(name: &str, words: &[&str]) -> ServiceSpec {
    ServiceSpec {
        env: environment(),
        stop_timeout: STOP_TIMEOUT,
        limits: ResourceLimits { memory_min: Some(KEPT_BYTES), oom_score_adj: Some(LAST), ..ResourceLimits::default() },
        confinement: confinement(name),
        ..ServiceSpec::daemon(name, argv(words))
    }
}

/// Its garbage may grow to twice, not once, what it uses. The small heap of its start would be collected again and again:
/// on a slow processor a tenth of the time until a master serves, for 10 MB. Not so containerd, whose shims inherit it.
fn etcd() -> ServiceSpec {
    let mut spec = program("etcd", &[AGENT, "etcd-member"]);
    spec.env.push(("GOGC".to_owned(), "200".to_owned()));
    spec
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

    fn specs(file: &str) -> Vec<ServiceSpec> {
        let path = format!("{}/../../configs/{file}", env!("CARGO_MANIFEST_DIR"));
        let manifest = manifest::parse(file, &std::fs::read_to_string(path).unwrap()).unwrap();
        services(Some(&manifest), Environment::Machine)
    }

    fn names(file: &str) -> Vec<String> {
        specs(file).into_iter().map(|spec| spec.name).collect()
    }

    #[test]
    fn nobody_keeps_what_is_the_machines_own() {
        let all = specs("three-masters/1.toml");
        for spec in &all {
            for capability in MACHINE_ONLY {
                assert!(!spec.confinement.keeps.contains(capability), "{}: {capability:?}", spec.name);
            }
            let is_runtime = spec.name == RUNTIME;
            // Filters and the end of new privileges would go on into containers.
            assert_eq!(spec.confinement.uses.is_none(), is_runtime, "{}", spec.name);
            assert_eq!(spec.confinement.keeps.contains(Capability::SysAdmin), is_runtime || spec.name == "node");
        }
        for row in CONFINED {
            assert!(all.iter().any(|spec| spec.name == row.service), "there is no service {}", row.service);
        }
        let none = ["bootstrap", "etcd", "control-plane"];
        let without = all.iter().filter(|spec| spec.confinement.keeps == Capabilities::NONE);
        assert_eq!(without.map(|spec| spec.name.as_str()).collect::<Vec<_>>(), none);
    }

    #[test]
    fn what_stays_is_ended_after_every_pod() {
        for spec in specs("three-masters/1.toml").iter().filter(|spec| spec.kind == supervisor::Kind::Daemon) {
            assert_eq!((spec.limits.oom_score_adj, spec.limits.memory_min), (Some(LAST), Some(KEPT_BYTES)));
        }
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
