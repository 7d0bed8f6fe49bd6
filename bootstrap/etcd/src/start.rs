//! What the next start of etcd is.
//!
//! A member that has data goes on, unless the others say that it is not one of them any more: then its data are set
//! aside and it joins anew. One without data joins the cluster that the others form, as a learner, or, if nobody
//! answers, forms the first one with them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use machine_api::EtcdMember;
use tokio::task::JoinSet;

use crate::Error;
use crate::config::{Config, Member, Start};
use crate::leave::remember;
use crate::member::{Access, Link};
use crate::snapshot::{NEW, RESTORED, remove_folder, sync_parent};

/// An order to recover; it counts for one start.
pub(crate) const RECOVER: &str = "etcd.recover";
/// How long other members may be without a leader before this machine tries again from the beginning.
const ELECTION: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(500);
/// Data that were set aside.
pub(crate) const OLD: &str = "etcd.old";

/// What this machine has of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing that counts.
    None,
    /// A snapshot's, and a log that begins after it. A member that joined now would get that log and not the data, as
    /// long as etcd has not put both together in a snapshot of its own.
    Restored,
    /// A member's.
    Member,
}

impl Data {
    pub(crate) fn observe(folder: &Path) -> Self {
        let member = folder.join("member");
        let has_log = fs::read_dir(member.join("wal")).is_ok_and(|mut entries| entries.next().is_some());
        let snapshots = fs::read_dir(member.join("snap")).into_iter().flatten().flatten();
        let snapshots = snapshots.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "snap"));
        match (member.join(RESTORED).exists(), has_log) {
            (true, true) if snapshots.count() >= SETTLED => Self::Member,
            (true, _) => Self::Restored,
            (false, true) => Self::Member,
            (false, false) => Self::None,
        }
    }
}

/// The last of etcd's own snapshots may have been cut short; the one before it is whole.
const SETTLED: usize = 2;

/// What is to be done before etcd starts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing.
    GoOn,
    /// The others are told the new address.
    Move { id: u64 },
    /// Join: the member that this machine was is removed first, if it is one still; then it is added, if it is not.
    Join { remove: Option<u64>, is_added: bool },
}

/// Decides; `members` are those of a cluster that lives without this machine.
fn decide(own: &Member, data: Data, members: &[EtcdMember]) -> Decision {
    let peer_url = own.peer_url();
    let named = members.iter().find(|member| member.name == own.name);
    // Added, and not started yet.
    let nameless = || members.iter().find(|member| member.name.is_empty() && member.peer_urls.contains(&peer_url));
    match (data, named.or_else(nameless)) {
        (Data::Member, Some(known)) => match known.number() {
            Some(id) if !known.peer_urls.contains(&peer_url) => Decision::Move { id },
            _ => Decision::GoOn,
        },
        // Its disk is another one, or its data are those of a cluster that is no more.
        (Data::None, Some(known)) if !known.client_urls.is_empty() => {
            Decision::Join { remove: known.number(), is_added: false }
        }
        (Data::None, Some(known)) if known.name.is_empty() => Decision::Join { remove: None, is_added: true },
        // One of the first members, and the others were faster.
        (Data::None, Some(_)) | (Data::Restored, _) => Decision::GoOn,
        (Data::Member | Data::None, None) => Decision::Join { remove: None, is_added: false },
    }
}

/// Makes everything ready for the next start of etcd, and writes into `config` what kind of start it is. Answers what
/// was done, for people.
///
/// # Errors
/// When the disk fails, the members do not let this machine join, or it must not.
pub async fn prepare(config: &mut Config, state: &Path, access: &Access) -> Result<Option<String>, Error> {
    remember(config, state)?;
    take_restored(config, state)?;
    let data = Data::observe(&config.data_dir);
    let order = state.join(RECOVER);
    if order.exists() {
        // Before etcd starts: a second start with it would throw out members that have joined since.
        fs::remove_file(&order).map_err(Error::file("remove", &order))?;
        sync_parent(&order)?;
        if data == Data::Member {
            config.start = Start::Recovery;
            return Ok(Some("goes on alone with the data that it has".to_owned()));
        }
    }
    if data == Data::Restored {
        config.start = Start::Restored;
        return Ok(Some("starts from a snapshot".to_owned()));
    }
    settle(config)?;
    let Some((link, members)) = find_cluster(config, access, data).await? else { return Ok(None) };
    let own = config.member.clone();
    match decide(&own, data, &members) {
        Decision::GoOn => Ok(None),
        Decision::Move { id } => {
            link.move_to(id, &own.peer_url()).await?;
            Ok(Some(format!("its address is {} now", own.address)))
        }
        Decision::Join { remove, is_added } => {
            if data == Data::Member {
                if link.is_dismissed(&own.name).await? {
                    return Err(Error::Dismissed { name: own.name });
                }
                set_aside(&config.data_dir, state)?;
            }
            if let Some(id) = remove {
                link.remove(id).await?;
            }
            if !is_added {
                link.add_learner(&own.peer_url()).await?;
            }
            link.welcome(&own.name).await?;
            config.start = Start::Joining(link.members().await?);
            let what = if data == Data::Member { "set its old data aside and joins" } else { "joins" };
            Ok(Some(format!("{what} as a learner")))
        }
    }
}

/// Gives this master's learner its vote, if it has caught up; answers whether it has it now.
///
/// # Errors
/// When the members do not agree.
pub async fn promote(config: &Config, access: &Access, id: u64) -> Result<bool, Error> {
    match ask_others(&config.member, &config.members, access).await? {
        Some((link, _)) => link.promote(id).await,
        None => Ok(false),
    }
}

/// Whether a cluster lives that this master's member, which has data, is no part of, and which it may join.
///
/// # Errors
/// When the members do not agree.
pub async fn is_left_behind(config: &Config, access: &Access) -> Result<bool, Error> {
    let data = Data::observe(&config.data_dir);
    let Some((link, members)) = ask_others(&config.member, &config.members, access).await? else { return Ok(false) };
    let is_left = data == Data::Member && matches!(decide(&config.member, data, &members), Decision::Join { .. });
    Ok(is_left && !link.is_dismissed(&config.member.name).await?)
}

/// Orders that the next start of etcd makes this member a cluster of its own.
///
/// # Errors
/// When there are no data to go on with, or the disk fails.
pub fn order_recovery(data: &Path, state: &Path) -> Result<(), Error> {
    if Data::observe(data) != Data::Member {
        let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "there are no data to go on with");
        return Err(Error::file("look into", data)(missing));
    }
    let order = state.join(RECOVER);
    fs::File::create(&order).and_then(|file| file.sync_all()).map_err(Error::file("write", &order))?;
    sync_parent(&order)
}

/// Puts data that were restored in their place.
fn take_restored(config: &Config, state: &Path) -> Result<(), Error> {
    let new = state.join(NEW);
    if !new.exists() {
        return Ok(());
    }
    set_aside(&config.data_dir, state)?;
    fs::rename(&new, &config.data_dir).map_err(Error::file("rename", &new))?;
    sync_parent(&new)
}

/// Forgets that data were restored, once nothing depends on it any more.
fn settle(config: &Config) -> Result<(), Error> {
    let marker = config.data_dir.join("member").join(RESTORED);
    if marker.exists() {
        fs::remove_file(&marker).map_err(Error::file("remove", &marker))?;
    }
    Ok(())
}

/// Whether this master's member keeps to itself because it has just been restored. It needs a new start then.
#[must_use]
pub fn is_secluded(config: &Config) -> bool {
    config.data_dir.join("member").join(RESTORED).exists()
}

/// Keeps what is there beside it, in the place of what was kept before.
pub(crate) fn set_aside(data: &Path, state: &Path) -> Result<(), Error> {
    let old = state.join(OLD);
    if !data.exists() {
        return Ok(());
    }
    remove_folder(&old)?;
    fs::rename(data, &old).map_err(Error::file("rename", data))?;
    sync_parent(&old)
}

/// The cluster that the other masters form. Without data nothing is begun anew beside members that are there and have
/// only lost their leader.
async fn find_cluster(config: &Config, access: &Access, data: Data) -> Result<Option<(Link, Vec<EtcdMember>)>, Error> {
    let end = tokio::time::Instant::now() + ELECTION;
    loop {
        let found = ask_others(&config.member, &config.members, access).await?;
        if found.is_some() || data != Data::None {
            return Ok(found);
        }
        let mut known = None;
        for other in config.members.iter().filter(|other| **other != config.member) {
            known = known.or(access.link(&other.client_url()).await?.members().await.ok());
        }
        match known {
            Some(members) if decide(&config.member, data, &members) != Decision::GoOn => {}
            _ => return Ok(None),
        }
        if tokio::time::Instant::now() > end {
            return Err(Error::Undecided);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The first of the other masters that is part of a cluster that lives, and that cluster's members.
pub(crate) async fn ask_others(
    own: &Member,
    members: &[Member],
    access: &Access,
) -> Result<Option<(Link, Vec<EtcdMember>)>, Error> {
    let mut asked = JoinSet::new();
    for other in members.iter().filter(|other| *other != own) {
        let link = access.link(&other.client_url()).await?;
        asked.spawn(async move {
            link.prove_quorum().await?;
            let members = link.members().await?;
            Ok::<_, Error>((link, members))
        });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Ok(found)) = answer {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8) -> Member {
        Member { name: format!("m{number}"), address: format!("10.0.0.{number}").parse().unwrap() }
    }

    fn seen(number: u8) -> EtcdMember {
        let member = member(number);
        EtcdMember {
            id: format!("{number:x}"),
            peer_urls: vec![member.peer_url()],
            client_urls: vec![member.client_url()],
            name: member.name,
            ..EtcdMember::default()
        }
    }

    #[test]
    fn a_start_is_what_the_others_say() {
        let added = EtcdMember { name: String::new(), client_urls: Vec::new(), is_learner: true, ..seen(1) };
        let first = EtcdMember { client_urls: Vec::new(), ..seen(1) };
        let moved = EtcdMember { peer_urls: vec!["https://10.9.9.9:2380".to_owned()], ..seen(1) };
        let join = |remove, is_added| Decision::Join { remove, is_added };
        let table = [
            // A machine of old.
            (Data::Member, seen(1), Decision::GoOn),
            (Data::Member, moved, Decision::Move { id: 1 }),
            // A learner that was cut short between its first start and its name.
            (Data::Member, added.clone(), Decision::GoOn),
            // The others went on without it.
            (Data::Member, seen(3), join(None, false)),
            // One that is new, one whose disk is new, one that was cut short after it was added.
            (Data::None, seen(3), join(None, false)),
            (Data::None, seen(1), join(Some(1), false)),
            (Data::None, added, join(None, true)),
            // The slowest of the first ones.
            (Data::None, first, Decision::GoOn),
        ];
        for (data, known, wanted) in table {
            assert_eq!(decide(&member(1), data, &[seen(2), known.clone()]), wanted, "{data:?} {known:?}");
        }
    }

    #[test]
    fn only_a_log_makes_a_member_and_only_a_marker_a_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        assert_eq!(Data::observe(folder.path()), Data::None);
        // What a first start leaves that was cut short.
        make("member/snap/db");
        assert_eq!(Data::observe(folder.path()), Data::None);
        make("member/restored");
        assert_eq!(Data::observe(folder.path()), Data::Restored);
        make("member/wal/0.wal");
        make("member/snap/1.snap");
        assert_eq!(Data::observe(folder.path()), Data::Restored);
        make("member/snap/2.snap");
        assert_eq!(Data::observe(folder.path()), Data::Member);
        fs::remove_file(folder.path().join("member/restored")).unwrap();
        assert_eq!(Data::observe(folder.path()), Data::Member);
    }
}
