//! What can be looked at: a row each, from which the calls, the command line and the tables come.

use serde::Serialize;

use crate::table::{Row, table};
use crate::{
    Boots, CertificateList, CertificateStatus, Connection, ConnectionList, ContainerList, ContainerStatus,
    ControlGroup, ControlGroupList, Disk, DiskList, ExtensionList, ExtensionStatus, FirewallRule, FirewallRuleList,
    ImageList, ImageStatus, Interface, InterfaceList, KeyList, KeyStatus, MachineStatus, MountList, MountStatus,
    PodList, PodStatus, Process, ProcessList, RouteList, RouteStatus, Service, TimeStatus,
};

/// Something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The services and how they are.
    Services,
    /// All processes.
    Processes,
    /// The tree of control groups.
    ControlGroups,
    /// Disks and partitions.
    Disks,
    /// Mounts and the space left there.
    Mounts,
    /// Interfaces of the network.
    Interfaces,
    /// Routes.
    Routes,
    /// The host's firewall, and what it blocked.
    Firewall,
    /// Sockets and who has them.
    Connections,
    /// The clock.
    Time,
    /// Certificates and when they expire.
    Certificates,
    /// Container images.
    Images,
    /// Pods, as the container runtime has them.
    Pods,
    /// Containers of pods.
    Containers,
    /// How the last starts went.
    Boots,
    /// The keys of the manifest in force, and who set them.
    Manifest,
    /// Extensions of the system.
    Extensions,
}

impl View {
    /// All of them, with the names that people type.
    pub const ALL: [(&'static str, Self); 17] = [
        ("services", Self::Services),
        ("processes", Self::Processes),
        ("cgroups", Self::ControlGroups),
        ("disks", Self::Disks),
        ("mounts", Self::Mounts),
        ("interfaces", Self::Interfaces),
        ("routes", Self::Routes),
        ("firewall", Self::Firewall),
        ("connections", Self::Connections),
        ("time", Self::Time),
        ("certificates", Self::Certificates),
        ("images", Self::Images),
        ("pods", Self::Pods),
        ("containers", Self::Containers),
        ("boots", Self::Boots),
        ("manifest", Self::Manifest),
        ("extensions", Self::Extensions),
    ];

    /// The one of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, view)| view)
    }
}

/// An answer to look at.
pub trait Shown: Serialize {
    /// For people.
    fn text(&self) -> String;
}

macro_rules! lists {
    ($($list:ident of $row:ident,)*) => {$(
        impl Shown for $list {
            fn text(&self) -> String {
                table(&self.items)
            }
        }

        impl From<Vec<$row>> for $list {
            fn from(items: Vec<$row>) -> Self {
                Self { items }
            }
        }
    )*};
}

lists! {
    ProcessList of Process,
    ControlGroupList of ControlGroup,
    DiskList of Disk,
    MountList of MountStatus,
    InterfaceList of Interface,
    RouteList of RouteStatus,
    FirewallRuleList of FirewallRule,
    ConnectionList of Connection,
    CertificateList of CertificateStatus,
    ImageList of ImageStatus,
    PodList of PodStatus,
    ContainerList of ContainerStatus,
    KeyList of KeyStatus,
    ExtensionList of ExtensionStatus,
}

impl Shown for MachineStatus {
    fn text(&self) -> String {
        services(self)
    }
}

impl Shown for TimeStatus {
    fn text(&self) -> String {
        self.describe()
    }
}

impl Shown for Boots {
    fn text(&self) -> String {
        self.describe()
    }
}

/// The services of a status.
fn services(status: &MachineStatus) -> String {
    struct Line<'a>(&'a Service, f64);
    impl Row for Line<'_> {
        const HEAD: &'static [&'static str] = &["SERVICE", "STATE", "FOR", "PID", "RESTARTS", "LAST EXIT", "WHY"];

        fn cells(&self) -> Vec<String> {
            let Self(service, now) = self;
            let why =
                if service.why.is_empty() { service.doing.clone().unwrap_or_default() } else { service.why.clone() };
            vec![
                service.name.clone(),
                service.state.clone(),
                crate::table::span(now - service.since_seconds),
                service.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                service.restarts.to_string(),
                service.last_exit.clone().unwrap_or_default(),
                why,
            ]
        }
    }
    let lines: Vec<Line<'_>> = status.services.iter().map(|service| Line(service, status.uptime_seconds)).collect();
    table(&lines)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_tables_for_people_and_arrays_for_programs() {
        for (name, view) in View::ALL {
            assert_eq!(View::of_name(name), Some(view));
        }
        let route = RouteStatus { destination: "default".to_owned(), metric: Some(7), ..RouteStatus::default() };
        let list = RouteList::from(vec![route]);
        assert!(list.text().contains("default"), "{}", list.text());
        let json = serde_json::to_value(&list).unwrap();
        assert_eq!((&json[0]["destination"], &json[0]["gateway"]), (&"default".into(), &serde_json::Value::Null));
        assert_eq!(json[0]["metric"], 7);
    }
}
