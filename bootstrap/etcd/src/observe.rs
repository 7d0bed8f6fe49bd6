//! How the members are.

use machine_api::{EtcdMember, EtcdStatus};
use tokio::task::JoinSet;

use crate::member::{Access, Link};
use crate::{Config, Error};

/// Asks this master's own member, then the others, and puts together what they say.
///
/// # Errors
/// When no member answers.
pub async fn observe(config: &Config, access: &Access) -> Result<EtcdStatus, Error> {
    let mut silent = Vec::new();
    let mut known = None;
    for url in config.client_urls() {
        let link = access.link(&url).await?;
        match link.members().await {
            Ok(members) => {
                known = Some((link, members));
                break;
            }
            Err(error) => silent.push(stdx::chain(&error).to_string()),
        }
    }
    let (link, members) = known.ok_or_else(|| Error::Nobody(silent.join("; ")))?;
    let mut asked = JoinSet::new();
    for (index, member) in members.into_iter().enumerate() {
        let access = access.clone();
        asked.spawn(async move { (index, look(&access, member).await) });
    }
    let mut members = asked.join_all().await;
    members.sort_by_key(|(index, _)| *index);
    let mut members: Vec<EtcdMember> = members.into_iter().map(|(_, member)| member).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let has_quorum = has_quorum(&link, &members, access).await;
    let conditions = conditions(&members, has_quorum);
    Ok(EtcdStatus {
        master: config.member.name.clone(),
        has_quorum,
        quota_bytes: config.quota_bytes,
        conditions,
        members,
        snapshots: Vec::new(),
    })
}

async fn has_quorum(link: &Link, members: &[EtcdMember], access: &Access) -> bool {
    if link.prove_quorum().await.is_ok() {
        return true;
    }
    // The one that answered may be the one that is cut off.
    for url in members.iter().filter(|member| member.state.is_some()).flat_map(|member| member.client_urls.first()) {
        if let Ok(link) = access.link(url).await
            && link.prove_quorum().await.is_ok()
        {
            return true;
        }
    }
    false
}

async fn look(access: &Access, mut member: EtcdMember) -> EtcdMember {
    let Some(url) = member.client_urls.first() else {
        member.trouble = Some("it has not started yet".to_owned());
        return member;
    };
    let asked = match access.link(url).await {
        Ok(link) => link.state().await,
        Err(error) => Err(error),
    };
    match asked {
        Ok((id, _, _)) if member.number() != Some(id) => {
            member.trouble = Some(format!("the member {id:x} answers in its place"));
        }
        Ok((_, state, _)) => {
            member.trouble = (!state.alarms.is_empty()).then(|| format!("alarm {}", state.alarms.join(", ")));
            member.state = Some(state);
        }
        Err(error) => member.trouble = Some(stdx::chain(&error).to_string()),
    }
    member
}

/// What is wrong, by name, and what to do about it.
fn conditions(members: &[EtcdMember], has_quorum: bool) -> Vec<String> {
    let mut conditions = Vec::new();
    if !has_quorum {
        conditions.push(
            "EtcdQuorumLost: too few members take part for reads and writes; start the missing masters, or, if they \
             are lost, `keelson etcd recover` on the master with the highest index"
                .to_owned(),
        );
    }
    let alarmed = |alarm: &str| -> Vec<&str> {
        let has = |member: &&EtcdMember| {
            member.state.as_ref().is_some_and(|state| state.alarms.iter().any(|other| other == alarm))
        };
        members.iter().filter(has).map(EtcdMember::label).collect()
    };
    let full = alarmed("NOSPACE");
    if !full.is_empty() {
        conditions.push(format!(
            "EtcdNoSpace: the database of {} has reached its quota and takes no writes but deletions; delete what is \
             not needed, then `keelson etcd defrag`, or set a larger `etcd.quota`",
            full.join(", ")
        ));
    }
    let corrupt = alarmed("CORRUPT");
    if !corrupt.is_empty() {
        conditions.push(format!(
            "EtcdCorrupt: the data of {} differ from the others'; `keelson etcd members remove` it and let the machine \
             join again blank",
            corrupt.join(", ")
        ));
    }
    for member in members {
        let (label, id) = (member.label(), &member.id);
        if member.is_learner {
            conditions.push(format!("EtcdLearner: {label} ({id}) has no vote until it has caught up"));
        } else if let (None, Some(trouble)) = (&member.state, &member.trouble) {
            conditions.push(format!("EtcdMemberDown: {label} ({id}) does not take part: {trouble}"));
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use machine_api::EtcdMemberState;

    use super::*;

    #[test]
    fn what_is_wrong_has_a_name() {
        let full = EtcdMemberState { alarms: vec!["NOSPACE".to_owned()], ..EtcdMemberState::default() };
        let member = |name: &str| EtcdMember { name: name.to_owned(), ..EtcdMember::default() };
        let members = [
            EtcdMember { state: Some(full), ..member("m1") },
            EtcdMember { trouble: Some("no answer".to_owned()), ..member("m2") },
            EtcdMember { is_learner: true, ..member("m3") },
        ];
        let names: Vec<String> =
            conditions(&members, false).iter().filter_map(|text| text.split(':').next().map(str::to_owned)).collect();
        assert_eq!(names, ["EtcdQuorumLost", "EtcdNoSpace", "EtcdMemberDown", "EtcdLearner"]);
        assert!(conditions(&[], true).is_empty());
    }
}
