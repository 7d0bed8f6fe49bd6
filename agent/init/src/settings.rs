//! Kernel parameters, the host name and the small files that programs expect.

use std::path::{Path, PathBuf};

use manifest::Manifest;
use sys::{Error, ModuleIndex, System};

use crate::config::Paths;
use crate::environment::Environment;

/// Kernel parameters of every machine, before the manifest's, which win: what Kubernetes asks for, and what keeps a crash
/// loud.
const MACHINE: [(&str, &str); 12] = [
    ("kernel.printk", "4 4 1 7"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("vm.max_map_count", "262144"),
    ("fs.inotify.max_user_instances", "8192"),
    ("fs.inotify.max_user_watches", "524288"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
];

/// What keeps processes from what is not theirs, on every machine, before the manifest's. Not here, as pods need it: user
/// namespaces, io_uring and the loading of programs (BPF) by those who may.
const HARDENED: [(&str, &str); 16] = [
    // A terminal's line discipline is a module that anybody could have loaded, and typing for others is no feature.
    ("dev.tty.ldisc_autoload", "0"),
    ("dev.tty.legacy_tiocsti", "0"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_symlinks", "1"),
    ("fs.protected_fifos", "2"),
    ("fs.protected_regular", "2"),
    // What changed its user leaves no image of its memory.
    ("fs.suid_dumpable", "0"),
    ("kernel.dmesg_restrict", "1"),
    // Not 2: what pods with the right to (CAP_SYSLOG) measure and trace has names only where there are addresses.
    ("kernel.kptr_restrict", "1"),
    ("kernel.perf_event_paranoid", "3"),
    ("kernel.randomize_va_space", "2"),
    // Whoever stands at the keyboard.
    ("kernel.sysrq", "0"),
    // Not 2: a debugger in a pod may still start what it looks at.
    ("kernel.yama.ptrace_scope", "1"),
    ("net.core.bpf_jit_harden", "2"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.all.accept_source_route", "0"),
];

/// What cannot be taken back until the next start, and is therefore set after the manifest's, and only where it says nothing
/// of it.
const FOR_GOOD: [(&str, &str); 2] = [("kernel.kexec_load_disabled", "1"), ("kernel.unprivileged_bpf_disabled", "1")];

/// A container may only set what belongs to its own namespaces.
const CONTAINER: [(&str, &str); 2] = [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];

/// Sets the parameters every machine has. Answers what failed.
pub(crate) fn apply_defaults(system: &dyn System, environment: Environment) -> Vec<Error> {
    match environment {
        Environment::Machine => set_known(system, MACHINE.iter().chain(&HARDENED)),
        Environment::Container => set_known(system, CONTAINER.iter()),
    }
}

/// Sets what this kernel has: one without IPv6 has none of its parameters, which is fine.
fn set_known<'a>(system: &dyn System, rows: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Vec<Error> {
    let set = rows.map(|(name, value)| set(system, name, value));
    set.filter_map(Result::err).filter(|error| !error.is_not_found()).collect()
}

/// Sets the manifest's parameters. In a container, where most belong to the host, only those of the network.
pub(crate) fn apply_sysctls(system: &dyn System, environment: Environment, manifest: &Manifest) -> Vec<Error> {
    let wanted = manifest.sysctls.iter().map(|(name, value)| (name.to_string(), value));
    let allowed = wanted.filter(|(name, _)| environment == Environment::Machine || name.starts_with("net."));
    let mut failures: Vec<Error> = allowed.filter_map(|(name, value)| set(system, &name, value).err()).collect();
    if environment == Environment::Machine {
        let is_open = |(name, _): &&(&str, &str)| !manifest.sysctls.iter().any(|(named, _)| named.to_string() == *name);
        failures.extend(set_known(system, FOR_GOOD.iter().filter(is_open)));
    }
    failures
}

fn set(system: &dyn System, name: &str, value: &str) -> Result<(), Error> {
    system.write(&parameter_file(name), value.as_bytes())
}

/// `net.ipv4.conf.eth0/1.forwarding` is `net/ipv4/conf/eth0.1/forwarding`: dots and slashes trade places.
fn parameter_file(name: &str) -> PathBuf {
    let swap = |character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    Path::new("/proc/sys").join(name.chars().map(swap).collect::<String>())
}

/// Sets the host name and writes the files that `/etc` links to.
pub(crate) fn apply_names(system: &dyn System, paths: &Paths, hostname: &str) -> Vec<Error> {
    const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
    let files = [("hostname", format!("{hostname}\n")), ("hosts", HOSTS.to_owned())];
    let mut failures: Vec<Error> = system.set_hostname(hostname).err().into_iter().collect();
    for (name, content) in files {
        failures.extend(system.replace(&paths.run.join(name), content.as_bytes(), 0o644).err());
    }
    failures
}

/// Gives the machine the identity that it keeps: made once, remembered in STATE, shown to everybody in `run`.
pub(crate) fn apply_machine_id(system: &dyn System, paths: &Paths) -> Result<(), Error> {
    let remembered = paths.state.join("machine-id");
    let id = match system.read(&remembered) {
        Ok(id) if id.len() > 32 => id,
        Ok(_) | Err(_) => {
            let random = system.read(Path::new("/proc/sys/kernel/random/uuid"))?;
            let id = String::from_utf8_lossy(&random).trim().replace('-', "") + "\n";
            system.replace(&remembered, id.as_bytes(), 0o444)?;
            id.into_bytes()
        }
    };
    system.replace(&paths.run.join("machine-id"), &id, 0o444)
}

/// Loads the modules that the manifest names, and those that its interfaces need. Answers what failed.
pub(crate) fn load_modules(system: &dyn System, manifest: &Manifest) -> Vec<String> {
    let mut index = ModuleIndex::read(system);
    let mut failures = Vec::new();
    let named = manifest.modules.load.iter().map(manifest::ModuleName::as_str);
    for name in named.chain(manifest.network.modules()) {
        let given = manifest.modules.parameters.iter().find(|(module, _)| module.as_str() == name);
        let parameters = given.map_or_else(|| own_parameters(name).to_owned(), |(_, given)| given.to_string());
        match index.load(system, name, &parameters) {
            Ok(true) => {}
            Ok(false) => failures.push(format!("this kernel has no module {name}")),
            Err(error) => failures.push(stdx::chain(&error).to_string()),
        }
    }
    failures
}

/// Parameters of modules for which the manifest has none.
fn own_parameters(module: &str) -> &'static str {
    match module {
        // By itself it makes a first bond that nobody asked for.
        "bonding" => "max_bonds=0",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::{Call, FakeSystem};

    #[test]
    fn dots_and_slashes_trade_places() {
        assert_eq!(parameter_file("vm.panic_on_oom"), Path::new("/proc/sys/vm/panic_on_oom"));
        assert_eq!(parameter_file("net.ipv4.conf.eth0/1.x"), Path::new("/proc/sys/net/ipv4/conf/eth0.1/x"));
    }

    #[test]
    fn a_container_leaves_the_hosts_parameters_alone() {
        let system = FakeSystem::new();
        assert!(apply_defaults(&system, Environment::Container).is_empty());
        let all_network = system.calls().into_iter().all(|call| match call {
            Call::Write(path, _) => path.starts_with("/proc/sys/net"),
            _ => false,
        });
        assert!(all_network);
    }

    #[test]
    fn a_machine_is_hardened_and_its_manifest_has_the_last_word() {
        let text = "version = 1\nmachine = { hostname = \"m\", role = \"single\" }\n[sysctls]\n\
                    \"kernel.kptr_restrict\" = \"0\"\n\"kernel.kexec_load_disabled\" = \"0\"\n";
        let manifest = manifest::parse("m.toml", text).unwrap_or_else(|error| panic!("{error}"));
        let system = FakeSystem::new();
        assert!(apply_defaults(&system, Environment::Machine).is_empty());
        assert!(apply_sysctls(&system, Environment::Machine, &manifest).is_empty());
        let last = |name: &str| {
            let mut written = system.calls().into_iter().filter_map(|call| match call {
                Call::Write(path, value) if path == parameter_file(name) => String::from_utf8(value).ok(),
                _ => None,
            });
            written.next_back()
        };
        assert_eq!(last("kernel.kptr_restrict").as_deref(), Some("0"));
        assert_eq!(last("kernel.kexec_load_disabled").as_deref(), Some("0"));
        assert_eq!(last("kernel.unprivileged_bpf_disabled").as_deref(), Some("1"));
        assert_eq!(last("kernel.dmesg_restrict").as_deref(), Some("1"));
        // Pods with users of their own, and programs that wait for many files, stay possible.
        assert_eq!(last("user.max_user_namespaces"), None);
    }

    #[test]
    fn interfaces_bring_the_modules_that_they_need() {
        let system = FakeSystem::new();
        let modules = "kernel/bonding.ko:\nkernel/8021q.ko:\nkernel/tun.ko:\n";
        system.file("/lib/modules/6.12-fake/modules.dep", modules);
        let text = "version = 1\nmachine = { hostname = \"m\", role = \"single\" }\nmodules.load = [\"tun\"]\n\
                    [[network.interfaces]]\nname = \"eth0\"\n\
                    [[network.interfaces]]\nname = \"bond0\"\nbond = { members = [\"eth0\"] }\n\
                    [[network.interfaces]]\nname = \"v\"\nvlan = { link = \"bond0\", id = 5 }\n\
                    [[network.interfaces]]\nname = \"br0\"\nbridge = {}\n";
        let failures = load_modules(&system, &manifest::parse("m.toml", text).unwrap());
        assert_eq!(failures, ["this kernel has no module bridge"]);
        let loaded: Vec<String> = system
            .calls()
            .into_iter()
            .filter_map(|call| match call {
                Call::LoadModule(file, parameters) => Some(format!("{} {parameters}", file.display())),
                _ => None,
            })
            .collect();
        let folder = "/lib/modules/6.12-fake/kernel";
        let expected =
            [format!("{folder}/tun.ko "), format!("{folder}/8021q.ko "), format!("{folder}/bonding.ko max_bonds=0")];
        assert_eq!(loaded, expected);
    }

    #[test]
    fn the_machine_keeps_its_identity() {
        let system = FakeSystem::new();
        system.file("/proc/sys/kernel/random/uuid", "7f1c1d0e-6f3a-4f43-9d4d-0a4d7c4f5a11\n");
        let paths = Paths::default();
        apply_machine_id(&system, &paths).unwrap();
        let first = system.text("/run/keelson/machine-id");
        assert_eq!(first, "7f1c1d0e6f3a4f439d4d0a4d7c4f5a11\n");
        system.file("/proc/sys/kernel/random/uuid", "00000000-0000-0000-0000-000000000000\n");
        apply_machine_id(&system, &paths).unwrap();
        assert_eq!(system.text("/run/keelson/machine-id"), first);
    }
}
