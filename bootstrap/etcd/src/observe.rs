//! How the members are.

use machine_api::{EtcdMember, EtcdStatus};
use tokio::task::JoinSet;

use crate::member::{Access, Link};
use crate::{Config, Error, Member};

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
    let mut conditions = conditions(&members, has_quorum);
    conditions.extend(differ(config, &members).map(|why| format!("{DIFFER}: {why}; {DIFFER_FIX}")));
    Ok(EtcdStatus {
        master: config.member.name.clone(),
        has_quorum,
        quota_bytes: config.quota_bytes,
        conditions,
        members,
        snapshots: Vec::new(),
    })
}

/// The name of the condition that [`differ`] tells of, and what helps.
pub const DIFFER: &str = "EtcdMembersDiffer";
/// See [`DIFFER`].
pub const DIFFER_FIX: &str = "`keelson apply` a manifest whose `etcd.members` are the masters that there are; one that \
                              is yet to become a master joins by itself, and `keelson etcd members remove` takes one out \
                              that will not come back";

/// How the members differ from those that this master's manifest names, for people. Nothing else depends on the names
/// while the masters live: they tell a master that has lost its disk whom to ask before it begins anything anew.
#[must_use]
pub fn differ(config: &Config, members: &[EtcdMember]) -> Option<String> {
    let is = |named: &Member, seen: &EtcdMember| {
        seen.name == named.name || (seen.name.is_empty() && seen.peer_urls.contains(&named.peer_url()))
    };
    let gone = config.members.iter().filter(|named| !members.iter().any(|seen| is(named, seen)));
    let gone: Vec<&str> = gone.map(|named| named.name.as_str()).collect();
    let unnamed = members.iter().filter(|seen| !config.members.iter().any(|named| is(named, seen)));
    let unnamed: Vec<&str> = unnamed.map(EtcdMember::label).collect();
    let told = |names: &[&str], what: &str| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
    let told = [
        told(&gone, "the manifest names what is no member of etcd:"),
        told(&unnamed, "the manifest does not name the members of etcd"),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
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
    fn members_that_the_manifest_does_not_know_are_told_and_so_are_those_that_are_gone() {
        let manifest = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";
        let manifest = manifest::parse("m.toml", manifest).unwrap();
        let member = |number: u8| Member { name: format!("m{number}"), address: [10, 0, 0, number].into() };
        let seen = |number: u8, name: &str| EtcdMember {
            name: name.to_owned(),
            peer_urls: vec![member(number).peer_url()],
            ..EtcdMember::default()
        };
        let alone = Config::new(&manifest, member(1).address, std::path::Path::new("/state"));
        let three = Config { members: [1, 2, 3].map(member).into(), ..alone.clone() };
        assert_eq!(differ(&alone, &[seen(1, "m1")]), None);
        // Two have not started yet.
        assert_eq!(differ(&three, &[seen(1, "m1"), seen(2, ""), seen(3, "")]), None);
        let told = differ(&three, &[seen(1, "m1"), seen(3, "m3")]).unwrap();
        assert_eq!(told, "the manifest names what is no member of etcd: m2");
        let told = differ(&alone, &[seen(1, "m1"), seen(2, "m2"), seen(3, "")]).unwrap();
        assert_eq!(told, "the manifest does not name the members of etcd m2, https://10.0.0.3:2380");
        let told = differ(&three, &[seen(1, "m1"), seen(2, "m2"), seen(4, "m4")]).unwrap();
        assert!(told.contains(": m3; ") && told.ends_with(" m4"), "{told}");
    }

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
