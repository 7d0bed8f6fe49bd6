//! A master that is to be none any more, or not this one: what becomes of its member of etcd.

use machine_api::EtcdStatus;
use stdx::chain;

use crate::etcd::Etcd;

/// What its member does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// There is none, it has left already, or nobody can be asked and that does not matter.
    Stays,
    /// It leaves the others.
    Leaves,
    /// It is the only one.
    Last,
}

impl Member {
    /// What happens to it, for people.
    ///
    /// # Errors
    /// When the cluster would be lost and nobody said that this is meant.
    pub(super) fn step(self, is_forced: bool) -> Result<Option<String>, String> {
        match self {
            Self::Stays => Ok(None),
            Self::Leaves => Ok(Some("its member leaves etcd".to_owned())),
            Self::Last if is_forced => Ok(Some("etcd, and with it the whole cluster, is lost".to_owned())),
            Self::Last => Err("this is the only member of etcd: the whole cluster would be lost; `keelson etcd \
                               snapshot` keeps it, and --force goes on"
                .to_owned()),
        }
    }
}

/// Looks at what a machine's member would do. There is none where `etcd` is none.
///
/// # Errors
/// When it cannot leave, or the others would have no quorum without it, unless that is said not to matter.
pub(super) async fn look(etcd: Option<&Etcd>, machine: &str, is_forced: bool) -> Result<Member, String> {
    let Some(etcd) = etcd else { return Ok(Member::Stays) };
    match etcd.status().await {
        Ok(seen) => plan(&seen, machine, is_forced),
        Err(_) if is_forced => Ok(Member::Stays),
        Err(error) => Err(format!("etcd does not answer, and cannot be left: {}; --force goes on", chain(&error))),
    }
}

fn plan(seen: &EtcdStatus, machine: &str, is_forced: bool) -> Result<Member, String> {
    if !seen.members.iter().any(|member| member.name == machine) {
        return Ok(Member::Stays);
    }
    if seen.members.len() == 1 {
        return Ok(Member::Last);
    }
    match etcd::may_remove(seen, machine) {
        Err(reason) if !is_forced => Err(not_left(&reason)),
        Ok(_) | Err(_) => Ok(Member::Leaves),
    }
}

fn not_left(reason: &str) -> String {
    format!("its member does not leave etcd: {reason}; --force goes on")
}

/// Takes the member out, if that is what it does.
///
/// # Errors
/// When the others do not agree, unless that is said not to matter.
pub(super) async fn leave(etcd: Option<&Etcd>, member: Member, machine: &str, is_forced: bool) -> Result<(), String> {
    let (Some(etcd), Member::Leaves) = (etcd, member) else { return Ok(()) };
    match etcd.remove(machine).await {
        Err(reason) if !is_forced => Err(not_left(&reason)),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use machine_api::{EtcdMember, EtcdMemberState};

    use super::*;

    fn seen(has_quorum: bool, members: &[(&str, bool)]) -> EtcdStatus {
        let member = |(name, is_up): &(&str, bool)| EtcdMember {
            id: (*name).to_owned(),
            name: (*name).to_owned(),
            state: is_up.then(EtcdMemberState::default),
            ..EtcdMember::default()
        };
        EtcdStatus { has_quorum, members: members.iter().map(member).collect(), ..EtcdStatus::default() }
    }

    #[test]
    fn a_member_leaves_only_those_who_go_on_without_it() {
        let three = [("m1", true), ("m2", true), ("m3", true)];
        assert_eq!(plan(&seen(true, &three), "m1", false), Ok(Member::Leaves));
        assert_eq!(plan(&seen(true, &three[..2]), "m1", false), Ok(Member::Leaves));
        assert_eq!(plan(&seen(true, &three[..1]), "m1", false), Ok(Member::Last));
        // It has left already, and was cut off before anything else was done.
        assert_eq!(plan(&seen(true, &three[1..]), "m1", false), Ok(Member::Stays));
        let one_down = seen(true, &[("m1", true), ("m2", true), ("m3", false)]);
        let refused = plan(&one_down, "m1", false).unwrap_err();
        assert!(refused.contains("no majority") && refused.contains("--force"), "{refused}");
        assert_eq!(plan(&one_down, "m1", true), Ok(Member::Leaves));
        assert!(plan(&seen(false, &three), "m1", false).unwrap_err().contains("no quorum"));
    }

    #[test]
    fn the_only_member_goes_only_when_somebody_says_so() {
        assert!(Member::Last.step(false).unwrap_err().contains("only member"));
        assert!(Member::Last.step(true).unwrap().unwrap().contains("is lost"));
        assert_eq!(Member::Stays.step(false), Ok(None));
    }
}
