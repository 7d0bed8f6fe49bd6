//! The table of calls, made from the service description: who may make which.

use crate::Role;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Where it is on the wire.
    pub path: &'static str,
    /// Who may make it: whoever may what one of these may.
    pub needs: &'static [Role],
    /// Whether everybody may while there is no manifest.
    pub before_manifest: bool,
    /// Whether the caller sends more than one message.
    pub is_upload: bool,
}

include!(concat!(env!("OUT_DIR"), "/calls.rs"));

/// The service description, as whoever asks for it gets it.
pub const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/machine.pb"));

impl Call {
    /// The one at a path.
    #[must_use]
    pub fn of_path(path: &str) -> Option<&'static Self> {
        CALLS.iter().find(|call| call.path == path)
    }

    /// Whether whoever has these roles may make it.
    #[must_use]
    pub fn is_for(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.needs.iter().any(|needed| role.may(*needed)))
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_the_description_says() {
        let call = |name: &str| CALLS.iter().find(|call| call.name == name).unwrap();
        assert_eq!(call("GetStatus").needs, [Role::Reader]);
        assert_eq!(call("ReadPodLog").needs, [Role::Operator]);
        assert_eq!(call("TakeEtcdSnapshot").needs, [Role::Backup]);
        assert_eq!(call("Forward").needs, [Role::Reader, Role::Backup]);
        let early: Vec<&str> = CALLS.iter().filter(|call| call.before_manifest).map(|call| call.name).collect();
        assert_eq!(early, ["GetStatus", "ApplyManifest", "Reset", "Unlock"]);
        assert!(call("Update").is_upload && !call("Reset").is_upload);
        assert_eq!(Call::of_path("/keelson.machine.v1.Machine/Reboot"), Some(call("Reboot")));
        assert_eq!(Call::of_path("/keelson.machine.v1.Machine/reboot"), None);
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
