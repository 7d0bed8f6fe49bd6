//! A machine that is no master any more: what becomes of the member that it was.
//!
//! ```text
//!  others live, member among them ── taken out ──┐
//!  others live, it is none of them ──────────────┴─▶ data removed
//!  nobody lives, the cluster was given up ─────────▶ data set aside
//!  nobody lives otherwise ─────────────────────────▶ error, and nothing is touched
//! ```
//!
//! The manifest that named the members is gone by then, so each start of etcd writes them down. Whatever is cut short is
//! found again by the next look.

use std::fs;
use std::path::Path;

use machine_api::EtcdMember;

use crate::Error;
use crate::config::{Config, Member};
use crate::member::Access;
use crate::snapshot::{NEW, remove_folder, sync_parent};
use crate::start::{Data, OLD, RECOVER, ask_others, set_aside};

/// Who the members were, a name and an address each, the own one first.
const MEMBERS: &str = "etcd.members";
/// An operator knows that nobody else has what etcd holds, and gives it up.
const GIVEN_UP: &str = "etcd.given-up";

/// What became of the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// There is none.
    Nothing,
    /// The others go on without it, and its data are no more.
    Others,
    /// There are no others; its data lie aside.
    GivenUp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// Its data go, once the member of this number is taken out.
    Leave {
        remove: Option<u64>,
    },
    SetAside,
    /// Nobody else has what it has.
    Only,
    /// There are others, who may come back.
    Wait,
}

/// Decides; `living` are the members of a cluster that has a quorum without this machine.
fn decide(own: &Member, has_others: bool, is_given_up: bool, living: Option<&[EtcdMember]>) -> Decision {
    match (living, is_given_up) {
        (Some(members), _) => {
            let peer_url = own.peer_url();
            // One that was added and never started has no name yet.
            let is_own = |member: &&EtcdMember| {
                member.name == own.name || (member.name.is_empty() && member.peer_urls.contains(&peer_url))
            };
            Decision::Leave { remove: members.iter().find(is_own).and_then(EtcdMember::number) }
        }
        (None, true) => Decision::SetAside,
        (None, false) if has_others => Decision::Wait,
        (None, false) => Decision::Only,
    }
}

/// Whether the machine has anything of a member.
#[must_use]
pub fn has_member(state: &Path) -> bool {
    [MEMBERS, GIVEN_UP, "etcd/member"].iter().any(|name| state.join(name).exists())
}

/// Notes that etcd, of which nobody else has anything, is given up when the machine is no master any more.
///
/// # Errors
/// When the disk fails.
pub fn give_up(state: &Path) -> Result<(), Error> {
    write(&state.join(GIVEN_UP), "")
}

/// Writes down who the members are, for when the manifest does not say so any more. A master gives nothing up.
pub(crate) fn remember(config: &Config, state: &Path) -> Result<(), Error> {
    let (path, given_up) = (state.join(MEMBERS), state.join(GIVEN_UP));
    if given_up.exists() {
        fs::remove_file(&given_up).map_err(Error::file("remove", &given_up))?;
    }
    let others = config.members.iter().filter(|member| **member != config.member);
    let lines = std::iter::once(&config.member).chain(others);
    let text: String = lines.map(|member| format!("{} {}\n", member.name, member.address)).collect();
    if fs::read_to_string(&path).is_ok_and(|known| known == text) { Ok(()) } else { write(&path, &text) }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension("part");
    let put = || {
        fs::write(&new, text)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path)
    };
    put().map_err(Error::file("write", path))?;
    sync_parent(path)
}

/// The members as they were written down: the own one, and the others.
fn parse(text: &str) -> Option<(Member, Vec<Member>)> {
    let member = |line: &str| {
        let (name, address) = line.split_once(' ')?;
        Some(Member { name: name.to_owned(), address: address.parse().ok()? })
    };
    let mut members = text.lines().map(member).collect::<Option<Vec<_>>>()?.into_iter();
    Some((members.next()?, members.collect()))
}

/// Leaves etcd, whose member does not run any more. What is done already is not done again.
///
/// # Errors
/// When a file cannot be read or written, the others do not agree, or what the member has would be lost with it.
pub async fn leave(state: &Path, access: &Access) -> Result<Left, Error> {
    if !has_member(state) {
        return Ok(Left::Nothing);
    }
    let path = state.join(MEMBERS);
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let damaged = || std::io::Error::new(std::io::ErrorKind::InvalidData, "these are no members");
    let (own, others) = parse(&text).ok_or_else(damaged).map_err(Error::file("read", &path))?;
    let living = ask_others(&own, &others, access).await?;
    let known = living.as_ref().map(|(_, members)| members.as_slice());
    let data = state.join("etcd");
    let left = match decide(&own, !others.is_empty(), state.join(GIVEN_UP).exists(), known) {
        Decision::Leave { remove } => {
            if let (Some(id), Some((link, _))) = (remove, &living) {
                link.remove(id).await?;
            }
            for name in ["etcd", NEW, OLD] {
                remove_folder(&state.join(name))?;
            }
            Left::Others
        }
        // A member that never had data has nothing that could be lost.
        Decision::Only if Data::observe(&data) == Data::None && !state.join(NEW).exists() => Left::GivenUp,
        Decision::SetAside => {
            set_aside(&data, state)?;
            Left::GivenUp
        }
        Decision::Only => return Err(Error::OnlyMember { name: own.name }),
        Decision::Wait => {
            let names = others.iter().map(|other| other.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::NotLeft { name: own.name, others: names });
        }
    };
    // The list last: without it nobody knows whom to ask.
    for name in [RECOVER, GIVEN_UP, MEMBERS] {
        let path = state.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    sync_parent(&path)?;
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8) -> Member {
        Member { name: format!("m{number}"), address: format!("10.0.0.{number}").parse().unwrap() }
    }

    #[test]
    fn only_what_others_have_is_forgotten() {
        let seen = |number: u8, name: &str| EtcdMember {
            id: format!("{number:x}"),
            name: name.to_owned(),
            peer_urls: vec![member(number).peer_url()],
            ..EtcdMember::default()
        };
        let table = [
            (true, false, Some(vec![seen(1, "m1"), seen(2, "m2")]), Decision::Leave { remove: Some(1) }),
            (true, false, Some(vec![seen(1, ""), seen(2, "m2")]), Decision::Leave { remove: Some(1) }),
            (true, true, Some(vec![seen(2, "m2")]), Decision::Leave { remove: None }),
            (true, true, None, Decision::SetAside),
            (true, false, None, Decision::Wait),
            (false, true, None, Decision::SetAside),
            (false, false, None, Decision::Only),
        ];
        for (has_others, is_given_up, living, wanted) in table {
            assert_eq!(decide(&member(1), has_others, is_given_up, living.as_deref()), wanted, "{living:?}");
        }
    }

    #[test]
    fn members_are_remembered_and_nothing_else_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";
        let manifest = manifest::parse("m.toml", text).unwrap();
        let config = Config {
            members: vec![member(2), member(1), member(3)],
            ..Config::new(&manifest, member(1).address, folder.path())
        };
        give_up(folder.path()).unwrap();
        remember(&config, folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join(MEMBERS)).unwrap();
        assert_eq!(parse(&text).unwrap(), (member(1), vec![member(2), member(3)]));
        assert!(!folder.path().join(GIVEN_UP).exists(), "a master gives nothing up");
        for bad in ["", "m1", "m1 x\n", "m1 10.0.0.1\n\n"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
