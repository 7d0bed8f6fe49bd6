//! From the membership that is to the one that should be, one safe step at a time. Pure.
//!
//! A member joins as a learner, which has no vote, and is promoted once it has caught up. A member is removed only if
//! those that remain and are healthy have the majority, and before any is added in its place. Nothing is done while the
//! present quorum is in doubt.

use std::collections::BTreeSet;

use crate::config::Member;

/// A member as etcd reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedMember {
    /// etcd's number of the member.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
    /// Whether it answers.
    pub is_healthy: bool,
    /// For learners: whether it has nearly everything that the leader has.
    pub has_caught_up: bool,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipStep {
    /// The membership is as it should be.
    Nothing,
    /// Let a member join without a vote.
    AddLearner(Member),
    /// Give a learner its vote.
    Promote {
        /// Which member.
        id: u64,
    },
    /// Take a member out.
    Remove {
        /// Which member.
        id: u64,
    },
    /// Tell the others a member's new address.
    UpdatePeerUrl {
        /// Which member.
        id: u64,
        /// Its new URL.
        peer_url: String,
    },
    /// Do nothing now.
    Wait(WaitReason),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// No majority of the voting members answers.
    Quorum,
    /// A learner has not caught up.
    Learner,
    /// Removing the member would leave too few that answer.
    Removal,
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

fn is_same(observed: &ObservedMember, wanted: &Member) -> bool {
    // A member that has never started has no name, only the address that it was added with.
    if observed.name.is_empty() {
        observed.peer_urls.contains(&wanted.peer_url())
    } else {
        observed.name == wanted.name
    }
}

/// Says the next step from `observed` to `desired`.
#[must_use]
pub fn plan_membership(observed: &[ObservedMember], desired: &[Member]) -> MembershipStep {
    let voters: Vec<&ObservedMember> = observed.iter().filter(|member| !member.is_learner).collect();
    let healthy = voters.iter().filter(|member| member.is_healthy).count();
    if voters.is_empty() || healthy < majority(voters.len()) {
        return MembershipStep::Wait(WaitReason::Quorum);
    }
    if let Some(surplus) = surplus(observed, desired) {
        let rest = voters.iter().filter(|member| member.id != surplus.id);
        let healthy_rest = rest.clone().filter(|member| member.is_healthy).count();
        let is_safe = surplus.is_learner || healthy_rest >= majority(rest.count());
        return if is_safe && healthy_rest > 0 {
            MembershipStep::Remove { id: surplus.id }
        } else {
            MembershipStep::Wait(WaitReason::Removal)
        };
    }
    if let Some(learner) = observed.iter().find(|member| member.is_learner) {
        return match learner.has_caught_up && learner.is_healthy {
            true => MembershipStep::Promote { id: learner.id },
            false => MembershipStep::Wait(WaitReason::Learner),
        };
    }
    for wanted in desired {
        match observed.iter().find(|member| is_same(member, wanted)) {
            None => return MembershipStep::AddLearner(wanted.clone()),
            Some(member) if !member.peer_urls.contains(&wanted.peer_url()) => {
                return MembershipStep::UpdatePeerUrl { id: member.id, peer_url: wanted.peer_url() };
            }
            Some(_) => {}
        }
    }
    MembershipStep::Nothing
}

/// A member that nobody wants: one that does not answer first, and no member before its replacement has a vote if it
/// does answer.
fn surplus<'a>(observed: &'a [ObservedMember], desired: &[Member]) -> Option<&'a ObservedMember> {
    let unwanted = |member: &&ObservedMember| !desired.iter().any(|wanted| is_same(member, wanted));
    let surplus: BTreeSet<(bool, u64)> =
        observed.iter().filter(unwanted).map(|member| (member.is_healthy, member.id)).collect();
    let (is_healthy, id) = *surplus.first()?;
    let complete =
        desired.iter().all(|wanted| observed.iter().any(|member| is_same(member, wanted) && !member.is_learner));
    let waits_for_replacement = is_healthy && !complete;
    observed.iter().find(|member| member.id == id && !waits_for_replacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(number: u8) -> Member {
        Member { name: format!("m{number}"), address: format!("10.0.0.{number}").parse().unwrap() }
    }

    fn seen(number: u8) -> ObservedMember {
        ObservedMember {
            id: u64::from(number),
            name: format!("m{number}"),
            peer_urls: vec![wanted(number).peer_url()],
            is_learner: false,
            is_healthy: true,
            has_caught_up: true,
        }
    }

    fn down(number: u8) -> ObservedMember {
        ObservedMember { is_healthy: false, ..seen(number) }
    }

    fn learner(number: u8, has_caught_up: bool) -> ObservedMember {
        ObservedMember { is_learner: true, has_caught_up, ..seen(number) }
    }

    #[test]
    fn the_next_step_is_safe() {
        let started = |number| ObservedMember { name: String::new(), ..learner(number, false) };
        let moved = ObservedMember { peer_urls: vec!["https://10.9.9.9:2380".to_owned()], ..seen(2) };
        let table = [
            (vec![seen(1)], vec![1], MembershipStep::Nothing),
            (vec![seen(1)], vec![1, 2], MembershipStep::AddLearner(wanted(2))),
            (vec![seen(1), started(2)], vec![1, 2], MembershipStep::Wait(WaitReason::Learner)),
            (vec![seen(1), learner(2, true)], vec![1, 2, 3], MembershipStep::Promote { id: 2 }),
            (vec![seen(1), learner(2, false)], vec![1], MembershipStep::Remove { id: 2 }),
            (vec![seen(1), down(2)], vec![1], MembershipStep::Wait(WaitReason::Quorum)),
            (vec![seen(1), seen(2), down(3)], vec![1, 2], MembershipStep::Remove { id: 3 }),
            (vec![seen(1), seen(2), down(3)], vec![1, 3], MembershipStep::Wait(WaitReason::Removal)),
            (vec![seen(1), seen(2), down(3)], vec![1, 2, 4], MembershipStep::Remove { id: 3 }),
            (vec![seen(1), seen(2), seen(3)], vec![1, 2, 4], MembershipStep::AddLearner(wanted(4))),
            (vec![seen(1), seen(2), seen(3), seen(4)], vec![1, 2, 4], MembershipStep::Remove { id: 3 }),
            (vec![down(1), down(2), seen(3)], vec![3], MembershipStep::Wait(WaitReason::Quorum)),
            (vec![seen(1), moved], vec![1, 2], MembershipStep::UpdatePeerUrl { id: 2, peer_url: wanted(2).peer_url() }),
            (vec![], vec![1], MembershipStep::Wait(WaitReason::Quorum)),
        ];
        for (observed, desired, step) in table {
            let desired: Vec<Member> = desired.into_iter().map(wanted).collect();
            assert_eq!(plan_membership(&observed, &desired), step, "{observed:?} to {desired:?}");
        }
    }
}
