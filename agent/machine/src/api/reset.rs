//! Reset: what the machine keeps is made anew at its next start.
//!
//! The partitions are marked as fresh; a start formats those before it mounts them, however often it is cut short.

use bytes::Bytes;
use disk::layout::{DATA_NAME, STATE_NAME};
use http::{Response, StatusCode};
use http_body_util::Full;
use machine_api::{MachineStatus, ResetPlan};
use stdx::chain;
use sys::{Linux, System};

use super::update::Updates;
use super::{NO_SLOTS, Server, respond, text};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wishes {
    volumes: Vec<&'static str>,
    machine: String,
    is_dry: bool,
    is_forced: bool,
}

impl Wishes {
    fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut wishes = Self::default();
        for word in query.unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
            match word {
                "what=state" => wishes.volumes = vec![STATE_NAME],
                "what=data" => wishes.volumes = vec![DATA_NAME],
                "what=all" => wishes.volumes = vec![STATE_NAME, DATA_NAME],
                "dry-run" => wishes.is_dry = true,
                "force" => wishes.is_forced = true,
                other => match other.strip_prefix("machine=") {
                    Some(name) => wishes.machine = name.to_owned(),
                    None => {
                        let known = "what=state, what=data, what=all, machine=NAME, dry-run, force";
                        return Err(format!("{other:?} is not understood; there are {known}\n"));
                    }
                },
            }
        }
        if wishes.volumes.is_empty() {
            return Err("what is made anew: ?what=state, ?what=data or ?what=all\n".to_owned());
        }
        Ok(wishes)
    }

    fn loses_state(&self) -> bool {
        self.volumes.contains(&STATE_NAME)
    }
}

/// What etcd does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    /// There is none, or its data stay.
    Stays,
    /// It leaves the others.
    Leaves,
    /// It is the only one.
    Last,
}

fn plan(wishes: &Wishes, machine: &str, member: Member) -> Result<ResetPlan, String> {
    let mut steps = Vec::new();
    match member {
        Member::Stays => {}
        Member::Leaves => steps.push("its member leaves etcd".to_owned()),
        Member::Last if wishes.is_forced => steps.push("etcd, and with it the whole cluster, is lost".to_owned()),
        Member::Last => {
            return Err(
                "this is the only member of etcd: the whole cluster would be lost; `keelson etcd snapshot` keeps \
                        it, and --force goes on\n"
                    .to_owned(),
            );
        }
    }
    for volume in &wishes.volumes {
        let holds = if *volume == STATE_NAME { "its keys, its manifest, etcd" } else { "images, pods, logs" };
        steps.push(format!("{volume} is marked to be made anew: {holds}"));
    }
    steps.push("the machine starts again, formats what is marked, and takes the manifest that it finds".to_owned());
    Ok(ResetPlan { machine: machine.to_owned(), steps, is_dry: wishes.is_dry })
}

/// Makes a machine forget.
pub(super) async fn reset(server: &Server, query: Option<&str>) -> Response<Full<Bytes>> {
    let wishes = match Wishes::parse(query) {
        Ok(wishes) => wishes,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let Some(updates) = &server.updates else { return text(StatusCode::CONFLICT, NO_SLOTS.to_owned()) };
    let Ok(_turn) = server.turn.try_acquire() else {
        return text(StatusCode::CONFLICT, "an update is being taken in\n".to_owned());
    };
    match try_reset(server, updates, &wishes).await {
        Ok(plan) => match serde_json::to_vec(&plan) {
            Ok(body) => respond(StatusCode::OK, "application/json", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        Err(reason) => text(StatusCode::CONFLICT, reason),
    }
}

async fn try_reset(server: &Server, updates: &Updates, wishes: &Wishes) -> Result<ResetPlan, String> {
    let MachineStatus { hostname, .. } = crate::status::read(&server.run)?;
    let etcd = server.etcd.as_ref().filter(|_| wishes.loses_state());
    let member = match etcd {
        None => Member::Stays,
        Some(etcd) => match etcd.status().await {
            Ok(seen) if seen.members.len() > 1 => Member::Leaves,
            Ok(_) => Member::Last,
            Err(_) if wishes.is_forced => Member::Stays,
            Err(error) => {
                return Err(format!("etcd does not answer, and cannot be left: {}; --force goes on\n", chain(&error)));
            }
        },
    };
    let plan = plan(wishes, &hostname, member)?;
    if wishes.is_dry {
        return Ok(plan);
    }
    if wishes.machine != hostname {
        return Err(format!("the machine is called {hostname}, not {:?}: nothing was done\n", wishes.machine));
    }
    if let (Some(etcd), Member::Leaves) = (etcd, member)
        && let Err(reason) = etcd.remove(&hostname).await
        && !wishes.is_forced
    {
        return Err(format!("its member does not leave etcd: {reason}; --force goes on\n"));
    }
    let (booted, volumes) = (updates.booted.clone(), wishes.volumes.clone());
    let marked = tokio::task::spawn_blocking(move || install::rest::forget(&mut booted.open()?, &volumes)).await;
    marked.map_err(|error| format!("{error}\n"))?.map_err(|error| format!("{}\n", chain(&error)))?;
    let asked = Linux.replace(&server.run.join("inbox/reboot"), b"it is reset", 0o600);
    asked.map_err(|error| format!("{}\n", chain(&error)))?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_says_what_is_lost_and_spares_the_only_member() {
        let wishes = Wishes::parse(Some("what=all&machine=m1&dry-run")).unwrap();
        assert!(wishes.is_dry && wishes.loses_state() && wishes.machine == "m1");
        let told = plan(&wishes, "m1", Member::Leaves).unwrap();
        assert!(told.steps[0].contains("leaves etcd") && told.steps.len() == 4, "{told:?}");
        assert!(plan(&wishes, "m1", Member::Last).unwrap_err().contains("only member"));
        let forced = Wishes { is_forced: true, ..wishes };
        assert!(plan(&forced, "m1", Member::Last).unwrap().steps[0].contains("is lost"));
        for bad in [None, Some("what=disk"), Some("dry-run"), Some("what=state&now")] {
            assert!(Wishes::parse(bad).is_err(), "{bad:?}");
        }
        assert!(!Wishes::parse(Some("what=data")).unwrap().loses_state());
    }
}
