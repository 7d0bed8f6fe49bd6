//! What becomes of a running machine when a key changes.

use serde::Serialize;

/// What it takes for a changed key to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Impact {
    /// Nothing: it counts at once.
    Live,
    /// These services start anew, as far as the machine has them.
    Restart(&'static [&'static str]),
    /// The machine starts again.
    Reboot,
    /// A running machine does not look at it any more, because of this.
    Later(&'static str),
}

use Impact::{Later, Live, Reboot, Restart};

/// Whoever holds certificates, or trusts those of others, from its start on.
const CERTIFICATES: Impact = Restart(&["bootstrap", "control-plane", "etcd", "node", "virtual-address"]);

/// Impacts by the beginnings of paths; the longest one counts.
const IMPACTS: &[(&str, Impact)] = &[
    ("version", Reboot),
    ("machine", Reboot),
    ("machine.labels", Restart(&["node"])),
    ("machine.taints", Later("a Node gets its taints when it registers for the first time")),
    ("machine.watchdog", Live),
    ("machine.shutdown-grace", Live),
    ("install", Later("it counts when a machine is installed")),
    ("install.encryption", Live),
    // What is mounted stays so until the next start.
    ("storage", Live),
    ("network", Restart(&["machine"])),
    ("cluster", Reboot),
    ("cluster.virtual-address.interface", Restart(&["virtual-address"])),
    ("cluster.virtual-address.router-id", Restart(&["virtual-address"])),
    ("cluster.virtual-address.priority", Restart(&["virtual-address"])),
    ("cluster.virtual-address.preempt", Restart(&["virtual-address"])),
    ("cluster.token", Restart(&["control-plane", "node"])),
    ("cluster.ca", Restart(&["node"])),
    ("cluster.ca-hash", Restart(&["node"])),
    ("cluster.accepted-ca-hash", Restart(&["node"])),
    ("control-plane", Restart(&["bootstrap", "control-plane"])),
    ("control-plane.secret", CERTIFICATES),
    ("control-plane.accepted-secret", CERTIFICATES),
    ("etcd", Restart(&["etcd"])),
    ("etcd.members", Restart(&["machine"])),
    ("etcd.snapshots", Restart(&["machine"])),
    ("kubelet", Restart(&["node"])),
    ("kubelet.node-addresses", Reboot),
    ("pod-network", Reboot),
    ("registries", Restart(&["bootstrap", "machine", "node"])),
    ("outbound", Restart(&["bootstrap", "machine", "node"])),
    ("outbound.proxy", Restart(&["containerd", "machine"])),
    // What is not set or loaded any more is undone by the next start only.
    ("sysctls", Live),
    ("modules", Live),
    ("modules.parameters", Reboot),
    ("time", Restart(&["machine"])),
];

/// Sections of which a removed key takes a start, whatever a changed one takes.
const KEPT_BY_THE_KERNEL: [&str; 2] = ["sysctls", "modules"];
/// The same of tables in a list: each goes with its name.
const KEPT_WITH_THEIR_NAMES: &str = "storage.volumes";

/// Sections of which a change may cut the machine off from whoever makes it, and what in them never does.
const CUTS_OFF: [&str; 1] = ["network"];
const NEVER_CUTS_OFF: [&str; 6] = [
    "network.dns-servers",
    "network.dns-ca",
    "network.dns-domains",
    "network.dns-cache",
    "network.search-domains",
    "network.ntp-servers",
];

/// Whether `path` is that of `above`, or of something inside.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a change to the key with this path may cut the machine off from whoever makes it.
pub(crate) fn may_cut_off(path: &str) -> bool {
    let is_in = |sections: &[&str]| sections.iter().any(|above| is_below(path, above));
    is_in(&CUTS_OFF) && !is_in(&NEVER_CUTS_OFF)
}

impl Impact {
    /// That of a change to the key with this path.
    #[must_use]
    pub fn of(path: &str, is_removed: bool) -> Self {
        let is_name = is_below(path, KEPT_WITH_THEIR_NAMES) && path.ends_with(".name");
        if is_removed && (is_name || KEPT_BY_THE_KERNEL.iter().any(|section| is_below(path, section))) {
            return Reboot;
        }
        let rows = IMPACTS.iter().filter(|(above, _)| is_below(path, above));
        rows.max_by_key(|(above, _)| above.len()).map_or(Reboot, |(_, impact)| *impact)
    }

    /// For people.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Live => "counts at once".to_owned(),
            Restart(services) => format!("restarts {}", services.join(" and ")),
            Reboot => "needs a new start of the machine".to_owned(),
            Later(reason) => format!("changes nothing now: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    #[test]
    fn every_section_says_what_a_change_takes() {
        for key in keys::children("") {
            assert!(IMPACTS.iter().any(|(above, _)| *above == key.path), "{}", key.path);
        }
        for (above, _) in IMPACTS {
            assert!(keys::find(above).is_some(), "{above} is no key");
        }
    }

    #[test]
    fn the_longest_beginning_counts() {
        assert_eq!(Impact::of("kubelet.max-pods", false), Restart(&["node"]));
        assert_eq!(Impact::of("kubelet.node-addresses", false), Reboot);
        assert_eq!(Impact::of("network.interfaces[0].mtu", true), Restart(&["machine"]));
        assert_eq!(Impact::of("sysctls.\"vm.x\"", false), Live);
        assert_eq!(Impact::of("sysctls.\"vm.x\"", true), Reboot);
        assert_eq!(Impact::of("storage.volumes[1].name", false), Live);
        assert_eq!(Impact::of("storage.volumes[1].wipe", true), Live);
        assert_eq!(Impact::of("etcd.snapshots.keep", false), Restart(&["machine"]));
        assert_eq!(Impact::of("outbound.proxy.url", true), Restart(&["containerd", "machine"]));
        assert_eq!(
            Impact::of("outbound.servers.\"r.example.com\".ca", false),
            Restart(&["bootstrap", "machine", "node"])
        );
    }

    #[test]
    fn a_volume_comes_at_once_and_goes_with_the_next_start() {
        let text = |names: &[&str]| -> String {
            names
                .iter()
                .map(|name| format!("[[storage.volumes]]\nname = \"{name}\"\ndisk = \"serial:{name}\"\n"))
                .collect()
        };
        let impacts = |before: &[&str], after: &[&str]| {
            let changes = crate::diff(&text(before), &text(after)).into_iter().map(|change| change.impact);
            changes.collect::<Vec<_>>()
        };
        assert_eq!(impacts(&["a"], &["a", "b"]), [Live, Live]);
        assert_eq!(impacts(&[], &["a"]), [Live, Live]);
        assert!(impacts(&["a"], &[]).contains(&Reboot) && impacts(&["a", "b"], &["b"]).contains(&Reboot));
    }

    #[test]
    fn changes_of_the_network_may_cut_off_and_those_of_servers_do_not() {
        assert!(may_cut_off("network.interfaces[0].mtu") && may_cut_off("network.interfaces"));
        assert!(!may_cut_off("network.dns-domains[0].servers[1]"));
        assert!(!may_cut_off("network.dns-servers") && !may_cut_off("kubelet.max-pods"));
        assert!(NEVER_CUTS_OFF.iter().all(|path| keys::find(path).is_some()));
    }
}
