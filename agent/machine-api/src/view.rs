//! What can be looked at: a row each, from which the calls, the command line and the tables come.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boot::Boots;
use crate::facts::{CertificateStatus, ImageStatus, TimeStatus};
use crate::network::{Connection, FirewallRule, Interface, RouteStatus};
use crate::pods::{ContainerStatus, PodStatus};
use crate::system::{ControlGroup, Disk, MountStatus, Process};
use crate::table::{Row, table};
use crate::{MachineStatus, Service};

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
}

impl View {
    /// All of them, with the names that people type.
    pub const ALL: [(&'static str, Self); 15] = [
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
    ];

    /// The one of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, view)| view)
    }

    /// What a machine answers, as text for people.
    ///
    /// # Errors
    /// When the answer is none of this view.
    pub fn render(self, answer: &[u8]) -> Result<String, serde_json::Error> {
        match self {
            Self::Services => serde_json::from_slice::<MachineStatus>(answer).map(|status| services(&status)),
            Self::Processes => rows::<Process>(answer),
            Self::ControlGroups => rows::<ControlGroup>(answer),
            Self::Disks => rows::<Disk>(answer),
            Self::Mounts => rows::<MountStatus>(answer),
            Self::Interfaces => rows::<Interface>(answer),
            Self::Routes => rows::<RouteStatus>(answer),
            Self::Firewall => rows::<FirewallRule>(answer),
            Self::Connections => rows::<Connection>(answer),
            Self::Certificates => rows::<CertificateStatus>(answer),
            Self::Images => rows::<ImageStatus>(answer),
            Self::Pods => rows::<PodStatus>(answer),
            Self::Containers => rows::<ContainerStatus>(answer),
            Self::Time => serde_json::from_slice::<TimeStatus>(answer).map(|time| time.describe()),
            Self::Boots => serde_json::from_slice::<Boots>(answer).map(|boots| boots.describe()),
        }
    }
}

fn rows<R: Row + DeserializeOwned + Serialize>(answer: &[u8]) -> Result<String, serde_json::Error> {
    serde_json::from_slice::<Vec<R>>(answer).map(|rows| table(&rows))
}

/// The services of a status.
#[must_use]
pub fn services(status: &MachineStatus) -> String {
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
    fn answers_of_another_version_are_shown_as_far_as_they_are_known() {
        for (name, view) in View::ALL {
            assert_eq!(View::of_name(name), Some(view));
            let answer = match view {
                View::Time | View::Services | View::Boots => "{\"added\": 1}",
                _ => "[{\"added\": 1}]",
            };
            assert!(view.render(answer.as_bytes()).unwrap().ends_with('\n'), "{name}");
            assert!(view.render(b"no").is_err(), "{name}");
        }
    }
}
