//! What may be done without risking the quorum. Pure; the refusals say why and what to do.

use machine_api::{EtcdMember, EtcdStatus};

fn own(status: &EtcdStatus) -> Option<&EtcdMember> {
    status.members.iter().find(|member| member.name == status.master)
}

/// Whether this master may become a cluster of its own with the data that it has.
///
/// # Errors
/// Why not.
pub fn may_recover(status: &EtcdStatus) -> Result<(), String> {
    if status.has_quorum {
        return Err(
            "etcd has a quorum, so there is nothing to recover; a member that is lost for good is taken out by \
                    `keelson etcd members remove`"
                .to_owned(),
        );
    }
    let index = |member: &EtcdMember| member.state.as_ref().map_or(0, |state| state.raft_index);
    let here = own(status).map_or(0, index);
    match status.members.iter().find(|member| member.name != status.master && index(member) > here) {
        Some(ahead) => Err(format!(
            "{} has more of what was written ({} against {here} of {}): recover there",
            ahead.label(),
            index(ahead),
            status.master
        )),
        None => Ok(()),
    }
}

/// Whether a snapshot may take the place of what this cluster holds.
///
/// # Errors
/// Why not.
pub fn may_replace(status: &EtcdStatus) -> Result<(), String> {
    if status.has_quorum {
        return Err("etcd has a quorum, and all that it holds would be replaced by the snapshot: say so by --force, \
                    which takes the other members out and lets them join again"
            .to_owned());
    }
    Ok(())
}

/// The member of this name or number, if it may be taken out.
///
/// # Errors
/// Why not.
pub fn may_remove<'a>(status: &'a EtcdStatus, which: &str) -> Result<&'a EtcdMember, String> {
    let is_it = |member: &&EtcdMember| member.name == which || member.id == which;
    let Some(member) = status.members.iter().find(is_it) else {
        let names: Vec<String> =
            status.members.iter().map(|member| format!("{} ({})", member.label(), member.id)).collect();
        return Err(format!("there is no member {which:?}; there are {}", names.join(", ")));
    };
    if !status.has_quorum {
        return Err("etcd has no quorum, so its members cannot be changed: `keelson etcd recover`".to_owned());
    }
    let rest = status.members.iter().filter(|other| other.id != member.id && !other.is_learner);
    let (voters, healthy) =
        rest.fold((0, 0), |(all, healthy), other| (all + 1, healthy + usize::from(other.state.is_some())));
    if voters == 0 {
        return Err(format!("{} is the only member with a vote", member.label()));
    }
    if !member.is_learner && healthy < voters / 2 + 1 {
        return Err(format!(
            "of the {voters} members that remain only {healthy} would take part, which is no majority: bring them back \
             first"
        ));
    }
    Ok(member)
}

/// All members in the order in which their databases may be defragmented: the leader last, so that at most one
/// election is risked.
///
/// # Errors
/// Why none may be.
pub fn defragmentation_order(status: &EtcdStatus) -> Result<Vec<&EtcdMember>, String> {
    if !status.has_quorum {
        return Err("etcd has no quorum".to_owned());
    }
    // An alarm is no reason against it, but mostly the reason for it.
    if let Some(member) = status.members.iter().find(|member| member.state.is_none()) {
        let trouble = member.trouble.as_deref().unwrap_or("no answer");
        return Err(format!(
            "{} does not take part ({trouble}), and a member that defragments answers nobody meanwhile: bring it back \
             or take it out first",
            member.label()
        ));
    }
    let mut members: Vec<&EtcdMember> = status.members.iter().collect();
    members.sort_by_key(|member| member.is_leader());
    Ok(members)
}

#[cfg(test)]
mod tests {
    use machine_api::EtcdMemberState;

    use super::*;

    /// Members by name and index; those of index 0 are down, the first one leads.
    fn status(has_quorum: bool, members: &[(&str, u64)]) -> EtcdStatus {
        let members = members.iter().enumerate().map(|(number, (name, index))| EtcdMember {
            id: format!("{number:x}"),
            name: (*name).to_owned(),
            state: (*index > 0).then(|| EtcdMemberState {
                is_leader: number == 0,
                raft_index: *index,
                ..EtcdMemberState::default()
            }),
            ..EtcdMember::default()
        });
        EtcdStatus { master: "m1".to_owned(), has_quorum, members: members.collect(), ..EtcdStatus::default() }
    }

    #[test]
    fn a_quorum_that_lives_is_not_recovered() {
        assert!(may_recover(&status(true, &[("m1", 5), ("m2", 5), ("m3", 0)])).is_err());
        assert!(may_replace(&status(true, &[("m1", 5)])).is_err());
        assert_eq!(may_recover(&status(false, &[("m1", 5), ("m2", 0), ("m3", 0)])), Ok(()));
        assert_eq!(may_recover(&status(false, &[("m1", 0), ("m2", 0), ("m3", 0)])), Ok(()));
        let refused = may_recover(&status(false, &[("m1", 5), ("m2", 6), ("m3", 0)])).unwrap_err();
        assert!(refused.contains("m2"), "{refused}");
    }

    #[test]
    fn a_member_goes_only_if_a_majority_remains() {
        let three = status(true, &[("m1", 5), ("m2", 5), ("m3", 0)]);
        assert_eq!(may_remove(&three, "m3").unwrap().id, "2");
        assert_eq!(may_remove(&three, "2").unwrap().name, "m3");
        assert!(may_remove(&three, "m1").unwrap_err().contains("no majority"));
        assert!(may_remove(&three, "m4").unwrap_err().contains("m1 (0)"));
        assert!(may_remove(&status(true, &[("m1", 5)]), "m1").unwrap_err().contains("only member"));
        assert!(may_remove(&status(false, &[("m1", 5), ("m2", 0)]), "m2").is_err());
    }

    #[test]
    fn the_leader_is_defragmented_last_and_nobody_while_one_is_down() {
        let healthy = status(true, &[("m1", 5), ("m2", 5), ("m3", 5)]);
        let names: Vec<&str> = defragmentation_order(&healthy).unwrap().iter().map(|member| member.label()).collect();
        assert_eq!(names, ["m2", "m3", "m1"]);
        assert!(defragmentation_order(&status(true, &[("m1", 5), ("m2", 5), ("m3", 0)])).unwrap_err().contains("m3"));
        assert!(defragmentation_order(&status(false, &[("m1", 5)])).is_err());
    }
}
