//! The manifest of a machine that has one: shown without secrets, changed with its consequences told before.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use machine_api::{Applied, KeyChange};
use manifest::Impact;
use stdx::chain;
use sys::{Linux, System};

use super::{BODY, Server, respond, text};

/// How long a manifest can be tried: long enough to notice, short enough to wait for.
const TRIED: std::ops::RangeInclusive<u64> = 10..=3600;

/// For so long a change that may cut the machine off is tried when nobody says anything else: enough for a new lease,
/// for switches to learn, and for a person to find out that the machine does not answer.
const FIRST_TRIED: Duration = Duration::from_secs(120);

/// Whether the manifest is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trial {
    /// If it may cut the machine off from whoever hands it in.
    #[default]
    WhereItMayCutOff,
    /// For this time.
    For(Duration),
    /// Not at all.
    Never,
}

/// What is asked for beside the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wishes {
    is_dry: bool,
    trial: Trial,
}

impl Wishes {
    fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut wishes = Self::default();
        for word in query.unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None if word == "dry-run" => wishes.is_dry = true,
                None if word == "keep" => wishes.trial = Trial::Never,
                Some(("try", seconds)) => {
                    let seconds = seconds.parse().ok().filter(|seconds| TRIED.contains(seconds));
                    let (least, most) = (TRIED.start(), TRIED.end());
                    let wrong = || format!("{word:?}: a manifest is tried for {least} to {most} seconds\n");
                    wishes.trial = Trial::For(Duration::from_secs(seconds.ok_or_else(wrong)?));
                }
                _ => return Err(format!("{word:?} is not understood; there are dry-run, keep, try=SECONDS\n")),
            }
        }
        Ok(wishes)
    }
}

/// The manifest in force.
pub(super) fn show(server: &Server) -> Response<Full<Bytes>> {
    match in_force(&server.run) {
        Ok(shown) => respond(StatusCode::OK, "application/toml", manifest::without_secrets(&shown).into_bytes()),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

fn in_force(run: &Path) -> Result<String, String> {
    let content = Linux.read(&run.join("manifest.toml")).map_err(|error| format!("{}\n", chain(&error)))?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Takes another manifest in.
pub(super) async fn apply(server: &Server, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let wishes = match Wishes::parse(request.uri().query()) {
        Ok(wishes) => wishes,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    let body = Limited::new(request.into_body(), manifest::MANIFEST_BYTES).collect();
    let body = match tokio::time::timeout(BODY, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, format!("the manifest was not read: {error}\n"));
        }
        Err(_elapsed) => return text(StatusCode::REQUEST_TIMEOUT, "the manifest did not come\n".to_owned()),
    };
    match take(&server.run, &body, wishes) {
        Ok(applied) => match serde_json::to_vec(&applied) {
            Ok(body) => respond(StatusCode::OK, "application/json", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        Err((code, reason)) => text(code, reason),
    }
}

/// Tells what would change and, unless that is all, hands the manifest to the first process.
fn take(run: &Path, body: &[u8], wishes: Wishes) -> Result<Applied, (StatusCode, String)> {
    let unusable = |reason: String| (StatusCode::UNPROCESSABLE_ENTITY, reason);
    let content = std::str::from_utf8(body).map_err(|_no| unusable("the manifest is not UTF-8 text\n".to_owned()))?;
    let (good, findings) = manifest::check("manifest.toml", content);
    if good.is_none() {
        return Err(unusable(format!("{findings}\n")));
    }
    let before = in_force(run).map_err(|reason| (StatusCode::SERVICE_UNAVAILABLE, reason))?;
    let mut applied = compare(&before, content, &services(run));
    applied.warnings = (!findings.is_empty()).then(|| findings.to_string());
    applied.is_dry = wishes.is_dry;
    let changes = manifest::diff(&before, content);
    let tried = match wishes.trial {
        Trial::For(time) => Some(time),
        Trial::Never => None,
        // What counts from the next start changes nothing now.
        Trial::WhereItMayCutOff if applied.needs_reboot => None,
        Trial::WhereItMayCutOff => {
            applied.tried_for = changes.into_iter().find(manifest::Change::may_cut_off).map(|change| change.key);
            applied.tried_for.is_some().then_some(FIRST_TRIED)
        }
    };
    applied.tried_seconds = tried.map(|tried| tried.as_secs());
    if tried.is_some()
        && let Some(key) = obstacle(&before, content)
    {
        let why =
            applied.tried_for.map(|key| format!(", and {key} is not changed without: it may cut the machine off"));
        let why = why.unwrap_or_default();
        let reason = format!("it cannot be tried: {key} takes a new start, here or on the way back{why}\n");
        return Err((StatusCode::CONFLICT, reason));
    }
    if wishes.is_dry {
        return Ok(applied);
    }
    let handed_in = match tried {
        Some(tried) => {
            let content = format!("{}\n{content}", tried.as_secs());
            Linux.replace(&run.join("inbox/manifest.try"), content.as_bytes(), 0o600)
        }
        None => Linux.replace(&run.join("inbox/manifest.toml"), body, 0o600),
    };
    handed_in.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))))?;
    Ok(applied)
}

/// The services that the machine has.
fn services(run: &Path) -> Vec<String> {
    crate::status::read(run).unwrap_or_default().services.into_iter().map(|service| service.name).collect()
}

/// A key for which a machine has to start again when it changes, or changes back.
fn obstacle(before: &str, after: &str) -> Option<String> {
    let changes = manifest::diff(before, after).into_iter().chain(manifest::diff(after, before));
    changes.into_iter().find(|change| change.impact == Impact::Reboot).map(|change| change.key)
}

fn compare(before: &str, after: &str, services: &[String]) -> Applied {
    let mut applied = Applied::default();
    for change in manifest::diff(before, after) {
        applied.needs_reboot |= change.impact == Impact::Reboot;
        if let Impact::Restart(names) = change.impact {
            applied.restarts.extend(names.iter().map(|name| (*name).to_owned()));
        }
        let impact = change.impact.describe();
        applied.changes.push(KeyChange { key: change.key, before: change.before, after: change.after, impact });
    }
    applied.restarts.retain(|name| services.contains(name) && !applied.needs_reboot);
    applied.restarts.sort_unstable();
    applied.restarts.dedup();
    applied
}

/// Keeps the manifest that is tried.
pub(super) fn keep(server: &Server) -> Response<Full<Bytes>> {
    let status = crate::status::read(&server.run).unwrap_or_default();
    if status.manifest_tried_until.is_none() {
        return text(StatusCode::CONFLICT, "no manifest is tried\n".to_owned());
    }
    // Whoever says so reached the machine by the network as it was, if it is not yet as the manifest has it.
    if !is_network_in_force(server) {
        return text(StatusCode::CONFLICT, "the network is not yet as the manifest has it: try again\n".to_owned());
    }
    match Linux.replace(&server.run.join("inbox/keep"), b"", 0o600) {
        Ok(()) => text(StatusCode::OK, "the manifest is kept\n".to_owned()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))),
    }
}

/// Whether this process has made the network what the manifest in force says.
fn is_network_in_force(server: &Server) -> bool {
    let wanted = in_force(&server.run).ok().and_then(|text| manifest::parse("manifest.toml", &text).ok());
    let is_same = wanted.is_some_and(|wanted| server.network == Some(wanted.network));
    is_same && server.network_status.borrow().ready
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inbox")).unwrap();
        std::fs::write(folder.path().join("manifest.toml"), BEFORE).unwrap();
        let status = r#"{"services": [{"name": "node"}, {"name": "machine"}]}"#;
        std::fs::write(folder.path().join("status.json"), status).unwrap();
        folder
    }

    fn inbox(folder: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(folder.join("inbox").join(name)).ok()
    }

    #[test]
    fn a_dry_run_tells_and_does_nothing() {
        let folder = folder();
        let wishes = Wishes::parse(Some("dry-run")).unwrap();
        let after = format!("{BEFORE}[kubelet]\nmax-pods = 9\n");
        let applied = take(folder.path(), after.as_bytes(), wishes).unwrap();
        assert_eq!((applied.restarts.as_slice(), applied.needs_reboot), (["node".to_owned()].as_slice(), false));
        assert_eq!((applied.changes[0].key.as_str(), applied.is_dry), ("kubelet.max-pods", true));
        assert_eq!(inbox(folder.path(), "manifest.toml"), None);
        take(folder.path(), after.as_bytes(), Wishes::default()).unwrap();
        assert_eq!(inbox(folder.path(), "manifest.toml"), Some(after.clone()));
        take(folder.path(), after.as_bytes(), Wishes::parse(Some("try=60")).unwrap()).unwrap();
        assert_eq!(inbox(folder.path(), "manifest.try"), Some(format!("60\n{after}")));
    }

    #[test]
    fn a_change_of_the_network_is_tried_first() {
        let folder = folder();
        let after = format!("{BEFORE}[[network.interfaces]]\nname = \"eth0\"\ndhcp = \"ipv4\"\n");
        let applied = take(folder.path(), after.as_bytes(), Wishes::default()).unwrap();
        assert_eq!(applied.tried_for.as_deref(), Some("network.interfaces[0].dhcp"));
        assert_eq!(applied.tried_seconds, Some(120));
        assert_eq!(inbox(folder.path(), "manifest.try"), Some(format!("120\n{after}")));
        assert_eq!(inbox(folder.path(), "manifest.toml"), None);
        let kept = take(folder.path(), after.as_bytes(), Wishes::parse(Some("keep")).unwrap()).unwrap();
        assert_eq!((kept.tried_for, kept.tried_seconds), (None, None));
        assert_eq!(inbox(folder.path(), "manifest.toml"), Some(after.clone()));
        // Nothing of it counts before the next start, when there is nothing to try.
        let later = take(folder.path(), after.replace("m1", "m2").as_bytes(), Wishes::default()).unwrap();
        assert_eq!((later.needs_reboot, later.tried_seconds), (true, None));
    }

    #[tokio::test]
    async fn a_manifest_is_kept_only_once_the_network_is_as_it_says() {
        let folder = folder();
        let status = r#"{"manifestTriedUntil": 5.0, "services": []}"#;
        std::fs::write(folder.path().join("status.json"), status).unwrap();
        let parsed = |text: &str| Some(manifest::parse("m.toml", text).unwrap());
        let server = |text: &str, ready: bool| {
            let config = crate::Config {
                run: folder.path().to_owned(),
                ..crate::Config::new(parsed(text), std::time::UNIX_EPOCH)
            };
            let network = machine_api::NetworkStatus { ready, ..machine_api::NetworkStatus::default() };
            Server::with_network(&config, network)
        };
        let other = format!("{BEFORE}[network]\ndns-servers = [\"10.0.0.1\"]\n");
        for (server, code) in [
            (server(&other, true), StatusCode::CONFLICT),
            (server(BEFORE, false), StatusCode::CONFLICT),
            (server(BEFORE, true), StatusCode::OK),
        ] {
            assert_eq!(inbox(folder.path(), "keep"), None);
            assert_eq!(keep(&server).status(), code);
        }
        assert!(inbox(folder.path(), "keep").is_some());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let folder = folder();
        let refused = |text: &str, query: &str| {
            let wishes = Wishes::parse(Some(query)).unwrap();
            take(folder.path(), text.as_bytes(), wishes).unwrap_err()
        };
        let (code, reason) = refused("version = 1\n[machine]\nhostnam = \"m1\"\n", "");
        assert!(code == StatusCode::UNPROCESSABLE_ENTITY && reason.contains("did you mean"), "{reason}");
        let (code, reason) = refused(&BEFORE.replace("m1", "m2"), "try=60");
        assert!(code == StatusCode::CONFLICT && reason.contains("machine.hostname"), "{reason}");
        let (code, reason) = refused(&format!("{BEFORE}[sysctls]\n\"vm.swappiness\" = 1\n"), "try=60");
        assert!(code == StatusCode::CONFLICT && reason.contains("vm.swappiness"), "{reason}");
        let network = format!("{BEFORE}[[network.interfaces]]\nname = \"eth0\"\ndhcp = \"ipv4\"\n");
        std::fs::write(folder.path().join("manifest.toml"), format!("{BEFORE}[modules]\nload = [\"tun\"]\n")).unwrap();
        let (code, reason) =
            refused(&format!("{network}[sysctls]\n\"vm.swappiness\" = 1\n[modules]\nload = [\"tun\"]\n"), "");
        assert!(code == StatusCode::CONFLICT && reason.contains("may cut the machine off"), "{reason}");
        for bad in ["try=5", "try=99999", "try", "dry-run=1", "stage"] {
            assert!(Wishes::parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
