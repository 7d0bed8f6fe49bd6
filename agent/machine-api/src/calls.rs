//! The service description: every call of the machine API, and who may make it.

use crate::view::View;

/// Who a caller is. The local socket's callers are administrators; over the network the certificate's groups say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May do everything.
    Admin,
    /// Keeps the machine going: looks, starts again, defragments.
    Operator,
    /// Looks, and sees no secrets.
    Reader,
    /// Takes snapshots of etcd, which hold every secret of the cluster, and does nothing else.
    Backup,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Reader, Self::Backup];

    /// The group that a certificate names for the role.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Admin => "system:masters",
            Self::Operator => "keelson:operator",
            Self::Reader => "keelson:reader",
            Self::Backup => "keelson:backup",
        }
    }

    /// The role of a group.
    #[must_use]
    pub fn of_group(group: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.group() == group)
    }

    /// Whether this role may do what needs another one.
    #[must_use]
    pub const fn may(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Admin, _)
            | (Self::Operator, Self::Operator | Self::Reader)
            | (Self::Reader, Self::Reader)
            | (Self::Backup, Self::Backup) => true,
            (Self::Operator | Self::Reader | Self::Backup, _) => false,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Reader => "reader",
            Self::Backup => "backup",
        }
    }
}

/// What is found out about the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Whether a name has addresses.
    Dns,
    /// Which way leads to an address.
    Route,
    /// Whether a port takes connections.
    Port,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Tells the machine's status.
    Status,
    /// Tells the kernel's last lines before the last crash.
    Crash,
    /// Tells something in particular.
    Look(View),
    /// Tells what a service printed, or the kernel.
    Logs,
    /// Tells what a container printed.
    PodLogs,
    /// Streams frames of an interface.
    Capture,
    /// Makes a container to look around in, and joins its terminal.
    Debug,
    /// Starts a service anew.
    RestartService,
    /// Tells the manifest in force, without secrets.
    ShowManifest,
    /// Takes another manifest in, or tells what it would change.
    Apply,
    /// Keeps a manifest that is tried.
    KeepManifest,
    /// Finds something out about the network.
    Check(Checked),
    /// Tells everything that helps to find out what is wrong.
    Support,
    /// Takes an update in.
    Update,
    /// Tells what an update is that is somewhere else.
    LookAtUpdate,
    /// Fetches an update and takes it in.
    FetchUpdate,
    /// Goes back to the system before.
    RollBack,
    /// Starts the machine again.
    Reboot,
    /// Ends the machine.
    ShutDown,
    /// Makes the machine forget.
    Reset,
    /// Gives the recovery keys of encrypted partitions out, once.
    RecoveryKeys,
    /// Tells of etcd's members and of how they are.
    EtcdStatus,
    /// Streams a snapshot.
    EtcdSnapshot,
    /// Puts a snapshot in the place of etcd's data.
    EtcdRestore,
    /// The same with a snapshot that the machine fetches.
    EtcdFetch,
    /// Makes this member a cluster of its own, with the data that it has.
    EtcdRecover,
    /// Gives unused space of all databases back.
    EtcdDefragment,
    /// Takes a member out.
    EtcdRemove,
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// HTTP's method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// What it does.
    pub verb: Verb,
    /// Who may.
    pub needs: Role,
}

const fn call(method: &'static str, path: &'static str, verb: Verb, needs: Role) -> Call {
    Call { method, path, verb, needs }
}

/// Every call that is served once a machine has a manifest. Nothing is served that has no row.
pub const CALLS: &[Call] = &[
    call("GET", "/status", Verb::Status, Role::Reader),
    call("GET", "/crash", Verb::Crash, Role::Reader),
    call("GET", "/services", Verb::Look(View::Services), Role::Reader),
    call("GET", "/processes", Verb::Look(View::Processes), Role::Reader),
    call("GET", "/cgroups", Verb::Look(View::ControlGroups), Role::Reader),
    call("GET", "/disks", Verb::Look(View::Disks), Role::Reader),
    call("GET", "/mounts", Verb::Look(View::Mounts), Role::Reader),
    call("GET", "/interfaces", Verb::Look(View::Interfaces), Role::Reader),
    call("GET", "/routes", Verb::Look(View::Routes), Role::Reader),
    call("GET", "/firewall", Verb::Look(View::Firewall), Role::Reader),
    call("GET", "/connections", Verb::Look(View::Connections), Role::Reader),
    call("GET", "/time", Verb::Look(View::Time), Role::Reader),
    call("GET", "/certificates", Verb::Look(View::Certificates), Role::Reader),
    call("GET", "/images", Verb::Look(View::Images), Role::Reader),
    call("GET", "/pods", Verb::Look(View::Pods), Role::Reader),
    call("GET", "/containers", Verb::Look(View::Containers), Role::Reader),
    call("GET", "/boots", Verb::Look(View::Boots), Role::Reader),
    call("GET", "/logs", Verb::Logs, Role::Reader),
    // Whatever runs in pods decides what it prints: that may be more than a reader is to see.
    call("GET", "/pods/logs", Verb::PodLogs, Role::Operator),
    call("POST", "/capture", Verb::Capture, Role::Admin),
    call("GET", "/debug", Verb::Debug, Role::Admin),
    call("POST", "/services/restart", Verb::RestartService, Role::Operator),
    call("GET", "/support", Verb::Support, Role::Reader),
    call("GET", "/check/dns", Verb::Check(Checked::Dns), Role::Operator),
    call("GET", "/check/route", Verb::Check(Checked::Route), Role::Operator),
    call("GET", "/check/port", Verb::Check(Checked::Port), Role::Operator),
    call("GET", "/manifest", Verb::ShowManifest, Role::Reader),
    call("PUT", "/manifest", Verb::Apply, Role::Admin),
    call("POST", "/manifest/keep", Verb::KeepManifest, Role::Admin),
    call("PUT", "/update", Verb::Update, Role::Admin),
    call("POST", "/update/look", Verb::LookAtUpdate, Role::Admin),
    call("POST", "/update/fetch", Verb::FetchUpdate, Role::Admin),
    call("POST", "/rollback", Verb::RollBack, Role::Admin),
    call("POST", "/reboot", Verb::Reboot, Role::Operator),
    call("POST", "/shutdown", Verb::ShutDown, Role::Operator),
    call("POST", "/reset", Verb::Reset, Role::Admin),
    call("POST", "/recovery-keys", Verb::RecoveryKeys, Role::Admin),
    call("GET", "/etcd/status", Verb::EtcdStatus, Role::Reader),
    call("GET", "/etcd/snapshot", Verb::EtcdSnapshot, Role::Backup),
    call("PUT", "/etcd/restore", Verb::EtcdRestore, Role::Admin),
    call("POST", "/etcd/restore/fetch", Verb::EtcdFetch, Role::Admin),
    call("POST", "/etcd/recover", Verb::EtcdRecover, Role::Admin),
    call("POST", "/etcd/defragment", Verb::EtcdDefragment, Role::Operator),
    call("POST", "/etcd/remove", Verb::EtcdRemove, Role::Admin),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_has_its_call() {
        for (name, view) in View::ALL {
            let path = format!("/{name}");
            assert!(CALLS.iter().any(|call| call.path == path && call.verb == Verb::Look(view)), "{name}");
        }
    }

    #[test]
    fn roles_are_what_their_groups_say() {
        for role in Role::ALL {
            assert_eq!(Role::of_group(role.group()), Some(role));
            assert!(Role::Admin.may(role) && role.may(role));
        }
        assert_eq!(Role::of_group("system:nodes"), None);
        assert!(!Role::Operator.may(Role::Backup) && !Role::Backup.may(Role::Reader));
    }
}
