//! The manifest of a machine that has one: shown without secrets, changed with its consequences told before.

mod role;

use std::path::Path;
use std::time::Duration;

use install::Purpose;
use install::volume::Made;
use machine_api::apply_request::Trial as Wished;
use machine_api::{Applied, ApplyRequest, KeyChange};
use manifest::{Change as Differs, Impact, Manifest};
use secrets::{Checked, Found, Search};
use stdx::chain;
use sys::{Linux, System};
use tonic::Status;
use tpm::MachineTpm;

use super::refusal::{away, bad, conflict, failed};
use super::update::REBOOT;
use super::{Server, volumes};
use role::Change;

/// How long a manifest can be tried: long enough to notice, short enough to wait for.
const TRIED: std::ops::RangeInclusive<u64> = 10..=3600;

/// For so long a change that may cut the machine off is tried when nobody says anything else: enough for a new lease,
/// for switches to learn, and for a person to find out that the machine does not answer.
const FIRST_TRIED: Duration = Duration::from_secs(120);

/// Keys whose changes may make something of a disk.
const VOLUMES: &str = "storage.volumes";

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

impl Trial {
    fn parse(wished: Option<Wished>) -> Result<Self, Status> {
        match wished {
            None | Some(Wished::Keep(false)) => Ok(Self::WhereItMayCutOff),
            Some(Wished::Keep(true)) => Ok(Self::Never),
            Some(Wished::TrySeconds(seconds)) if TRIED.contains(&seconds) => {
                Ok(Self::For(Duration::from_secs(seconds)))
            }
            Some(Wished::TrySeconds(_)) => {
                Err(bad(format!("a manifest is tried for {} to {} seconds", TRIED.start(), TRIED.end())))
            }
        }
    }
}

/// The manifest in force.
pub(super) fn show(server: &Server) -> Result<String, Status> {
    in_force(&server.run).map(|shown| manifest::without_secrets(&shown)).map_err(away)
}

/// The text of the manifest in force.
pub(crate) fn in_force(run: &Path) -> Result<String, String> {
    let content = Linux.read(&run.join("manifest.toml")).map_err(|error| chain(&error).to_string())?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// The same with the network that was set at the console, if one was: whoever calls comes by that, and another manifest
/// ends it.
fn counting(run: &Path) -> Result<String, String> {
    let in_force = in_force(run)?;
    let mended = Linux.read(&run.join("mended.toml")).ok();
    Ok(mended.map_or(in_force, |text| String::from_utf8_lossy(&text).into_owned()))
}

/// Takes another manifest in; the first one, where there is none.
pub(super) async fn apply(server: &Server, asked: ApplyRequest, is_first: bool) -> Result<Applied, Status> {
    let known = secrets::published(&Linux, &server.run).map_err(|error| away(chain(&error).to_string()))?;
    let checked = check(asked.manifest.clone(), is_first).await?;
    let (findings, secrets) = (checked.diagnostics, checked.secrets);
    let is_lacking =
        |found: &&Found| found.outcome.is_err() && !known.iter().any(|it| it.key == found.key && it.outcome.is_err());
    let Some(good) = checked.manifest.filter(|_| !secrets.iter().any(|found| is_lacking(&found))) else {
        return Err(bad(findings.to_string()));
    };
    let warnings = (!findings.is_empty()).then(|| findings.to_string());
    let applied = Applied { warnings, is_dry: asked.dry_run, ..Applied::default() };
    if is_first {
        let steps = if asked.dry_run { installation(server, good).await? } else { Vec::new() };
        let handed_in = if asked.dry_run { Ok(()) } else { hand_in(&server.run, "manifest.toml", &asked.manifest) };
        return handed_in.map(|()| Applied { is_first, steps, ..applied });
    }
    take(server, &asked, (&good, &secrets::changed(&known, &secrets)), applied).await
}

/// What becomes of the disks of a machine by its first manifest.
async fn installation(server: &Server, wanted: Manifest) -> Result<Vec<String>, Status> {
    let Some(updates) = &server.updates else { return Ok(Vec::new()) };
    let booted = updates.booted.clone();
    volumes::look(move || {
        let plan = (b"a plan".as_slice(), Purpose::Look);
        let proposed = install::propose(&Linux, &booted, &wanted.install, plan);
        let steps = proposed.as_ref().map(|proposed| proposed.steps(&booted, &wanted.install));
        let target = proposed.as_ref().ok().and_then(install::Proposal::disk);
        // A disk that is missing may yet come, so that this is no refusal.
        let mut told = match steps {
            Ok(Ok(steps)) => steps,
            Ok(Err(error)) => vec![format!("nothing is installed as it is now: {}", chain(&error))],
            Err(error) => vec![format!("nothing is installed as it is now: {}", chain(error))],
        };
        let (machine, all) = (wanted.machine.hostname.to_string(), &wanted.storage.volumes);
        told.extend(volumes::told(all, &machine, Ok(&Made::default()), target));
        told
    })
    .await
}

/// Looks at a manifest, and for its secrets. Before the first one there is no STATE that they may be on.
async fn check(text: String, is_first: bool) -> Result<Checked, Status> {
    let check = move || match is_first {
        true => {
            let (manifest, diagnostics) = manifest::check("manifest.toml", &text);
            Checked { manifest, diagnostics, secrets: Vec::new() }
        }
        false => Search::new(&Linux, &MachineTpm).check("manifest.toml", &text),
    };
    tokio::task::spawn_blocking(check).await.map_err(|error| failed(error.to_string()))
}

/// What differs, and keys whose secrets are others where the manifest says the same of them.
fn changes(before: &str, after: &str, secrets: &[String]) -> Vec<Differs> {
    let of_secret = |key: &String| Differs {
        key: key.clone(),
        before: Some("a secret".to_owned()),
        after: Some("another one in the same place".to_owned()),
        impact: Impact::of(key, false),
    };
    manifest::diff(before, after).into_iter().chain(secrets.iter().map(of_secret)).collect()
}

/// Hands something to the first process, which decides.
fn hand_in(run: &Path, name: &str, content: &str) -> Result<(), Status> {
    order(run, &format!("inbox/{name}"), content)
}

fn order(run: &Path, name: &str, content: &str) -> Result<(), Status> {
    let put = Linux.replace(&run.join(name), content.as_bytes(), 0o600);
    put.map_err(|error| failed(chain(&error).to_string()))
}

/// Tells what would change and, unless that is all, hands the manifest to the first process.
async fn take(
    server: &Server,
    asked: &ApplyRequest,
    (after, secrets): (&Manifest, &[String]),
    applied: Applied,
) -> Result<Applied, Status> {
    let (run, content) = (server.run.as_path(), asked.manifest.as_str());
    let trial = Trial::parse(asked.trial)?;
    let before = counting(run).map_err(away)?;
    let changes = changes(&before, content, secrets);
    let changes_volumes = changes.iter().any(|change| change.key.starts_with(VOLUMES));
    let mut applied = compare(&changes, &services(run), applied);
    let tried = match trial {
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
        && let Some(key) = obstacle(&before, content, secrets)
    {
        let why =
            applied.tried_for.map(|key| format!(", and {key} is not changed without: it may cut the machine off"));
        let why = why.unwrap_or_default();
        let reason = format!("it cannot be tried: {key} takes a new start, here or on the way back{why}");
        return Err(conflict(reason));
    }
    let before = secrets::in_force(&Linux, run).map_err(|error| failed(chain(&error).to_string()))?;
    let change = Change::look(server, (&before, after), asked.force).await.map_err(conflict)?;
    applied.steps = change.steps(asked.force).map_err(conflict)?;
    if changes_volumes {
        applied.steps.extend(volumes::steps(server, after).await?);
    }
    applied.starts_again = change.starts_again();
    if asked.dry_run {
        return Ok(applied);
    }
    change.leave(server, &before, asked.force).await.map_err(conflict)?;
    match tried {
        Some(tried) => hand_in(run, "manifest.try", &format!("{}\n{content}", tried.as_secs()))?,
        None => hand_in(run, "manifest.toml", content)?,
    }
    if applied.starts_again {
        order(run, REBOOT, "it is no master any more")?;
    }
    Ok(applied)
}

/// The services that the machine has.
fn services(run: &Path) -> Vec<String> {
    crate::status::read(run).unwrap_or_default().services.into_iter().map(|service| service.name).collect()
}

/// A key for which a machine has to start again when it changes, or changes back.
fn obstacle(before: &str, after: &str, secrets: &[String]) -> Option<String> {
    let changes = changes(before, after, secrets).into_iter().chain(manifest::diff(after, before));
    changes.into_iter().find(|change| change.impact == Impact::Reboot).map(|change| change.key)
}

fn compare(changes: &[Differs], services: &[String], mut applied: Applied) -> Applied {
    for change in changes.iter().cloned() {
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
pub(super) fn keep(server: &Server) -> Result<String, Status> {
    let status = crate::status::read(&server.run).unwrap_or_default();
    if status.manifest_tried_until.is_none() {
        return Err(conflict("no manifest is tried"));
    }
    // Whoever says so reached the machine by the network as it was, if it is not yet as the manifest has it.
    if !is_network_in_force(server) {
        return Err(conflict("the network is not yet as the manifest has it: try again"));
    }
    hand_in(&server.run, "keep", "")?;
    Ok("the manifest is kept".to_owned())
}

/// Whether this process has made the network what the manifest in force says.
fn is_network_in_force(server: &Server) -> bool {
    let wanted = secrets::in_force(&Linux, &server.run).ok();
    let is_same = wanted.is_some_and(|wanted| server.network == Some(wanted.network));
    is_same && server.network_status.borrow().ready
}

#[cfg(test)]
mod tests {
    use tonic::Code;

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

    /// Hands a manifest in.
    fn put(folder: &Path, text: &str, dry_run: bool, trial: Option<Wished>) -> Result<Applied, Status> {
        ask(folder, ApplyRequest { manifest: text.to_owned(), dry_run, trial, force: false })
    }

    /// The same, on a master that cannot reach etcd.
    fn ask(folder: &Path, asked: ApplyRequest) -> Result<Applied, Status> {
        let manifest = manifest::parse("m.toml", BEFORE).unwrap();
        let pki = folder.join("pki");
        let config =
            crate::Config { run: folder.to_owned(), pki, ..crate::Config::new(Some(manifest), std::time::UNIX_EPOCH) };
        let server = Server::with_etcd(&config, crate::etcd::Etcd::of_nothing(folder));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(apply(&server, asked, false))
    }

    #[test]
    fn a_master_becomes_a_worker_only_once_it_has_left_or_somebody_insists() {
        let folder = folder();
        let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"worker\"\n[cluster]\n\
                    endpoint = \"https://10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\nca-hash = \
                    \"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n";
        let asked = ApplyRequest { manifest: text.to_owned(), ..ApplyRequest::default() };
        for dry_run in [true, false] {
            let refused = ask(folder.path(), ApplyRequest { dry_run, ..asked.clone() }).unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("etcd does not answer"), "{refused}");
        }
        assert_eq!((inbox(folder.path(), "manifest.toml"), inbox(folder.path(), "reboot")), (None, None));
        let forced = ApplyRequest { force: true, ..asked };
        let dry = ask(folder.path(), ApplyRequest { dry_run: true, ..forced.clone() }).unwrap();
        assert!(dry.starts_again && dry.needs_reboot && dry.steps[0].contains("as a worker"), "{dry:?}");
        assert_eq!(inbox(folder.path(), "reboot"), None);
        ask(folder.path(), forced).unwrap();
        assert_eq!(inbox(folder.path(), "manifest.toml").as_deref(), Some(text));
        assert!(inbox(folder.path(), "reboot").is_some());
    }

    #[test]
    fn a_dry_run_tells_and_does_nothing() {
        let folder = folder();
        let after = format!("{BEFORE}[kubelet]\nmax-pods = 9\n");
        let applied = put(folder.path(), &after, true, None).unwrap();
        assert_eq!((applied.restarts.as_slice(), applied.needs_reboot), (["node".to_owned()].as_slice(), false));
        assert_eq!((applied.changes[0].key.as_str(), applied.is_dry), ("kubelet.max-pods", true));
        assert_eq!(inbox(folder.path(), "manifest.toml"), None);
        put(folder.path(), &after, false, None).unwrap();
        assert_eq!(inbox(folder.path(), "manifest.toml"), Some(after.clone()));
        put(folder.path(), &after, false, Some(Wished::TrySeconds(60))).unwrap();
        assert_eq!(inbox(folder.path(), "manifest.try"), Some(format!("60\n{after}")));
    }

    #[test]
    fn a_manifest_without_its_secrets_is_refused_at_once_and_its_references_are_shown() {
        let folder = folder();
        let after = format!("{BEFORE}[cluster]\ntoken = {{ file = \"/state/secrets/of-no-test\" }}\n");
        for dry_run in [true, false] {
            let refused = put(folder.path(), &after, dry_run, None).unwrap_err();
            let told = refused.message();
            assert!(refused.code() == Code::InvalidArgument && told.contains("there is no such file"), "{told}");
            assert!(told.contains("manifest.toml:6:9") && told.contains("cluster.token"), "{told}");
        }
        assert_eq!(inbox(folder.path(), "manifest.toml"), None);
        // What is lacking already is no reason to refuse anything else.
        let secrets = secrets::Search::new(&Linux, &MachineTpm).check("m", &after).secrets;
        secrets::publish(&Linux, folder.path(), &secrets, &[]).unwrap();
        let applied = put(folder.path(), &after, true, None).unwrap();
        let change = &applied.changes[0];
        assert_eq!((change.key.as_str(), change.before.as_deref()), ("cluster.token", None));
        assert_eq!(change.after.as_deref(), Some("{ file = \"/state/secrets/of-no-test\" }"));
        // The same text with another secret behind it.
        std::fs::write(folder.path().join("manifest.toml"), &after).unwrap();
        let mut known = secrets;
        known[0].outcome = Ok(manifest::SecretText::new("abcdef.0123456789abcdef".to_owned()));
        assert_eq!(secrets::changed(&known, &known), Vec::<String>::new());
        let changes = changes(&after, &after, &["cluster.token".to_owned()]);
        let applied = compare(&changes, &["node".to_owned()], Applied::default());
        assert_eq!((applied.changes[0].key.as_str(), applied.restarts), ("cluster.token", vec!["node".to_owned()]));
    }

    #[test]
    fn a_change_of_the_network_is_tried_first() {
        let folder = folder();
        let after = format!("{BEFORE}[[network.interfaces]]\nname = \"eth0\"\ndhcp = \"ipv4\"\n");
        let applied = put(folder.path(), &after, false, None).unwrap();
        assert_eq!(applied.tried_for.as_deref(), Some("network.interfaces[0].dhcp"));
        assert_eq!(applied.tried_seconds, Some(120));
        assert_eq!(inbox(folder.path(), "manifest.try"), Some(format!("120\n{after}")));
        assert_eq!(inbox(folder.path(), "manifest.toml"), None);
        let kept = put(folder.path(), &after, false, Some(Wished::Keep(true))).unwrap();
        assert_eq!((kept.tried_for, kept.tried_seconds), (None, None));
        assert_eq!(inbox(folder.path(), "manifest.toml"), Some(after.clone()));
        // The network that was set at the console ends with any other manifest, which may cut off as well.
        std::fs::write(folder.path().join("mended.toml"), &after).unwrap();
        let applied = put(folder.path(), &format!("{BEFORE}[kubelet]\nmax-pods = 9\n"), false, None).unwrap();
        assert_eq!(applied.tried_for.as_deref(), Some("network.interfaces[0].dhcp"));
        assert_eq!(put(folder.path(), &after, false, None).unwrap().tried_seconds, None);
        std::fs::remove_file(folder.path().join("mended.toml")).unwrap();
        // Nothing of it counts before the next start, when there is nothing to try.
        let later = put(folder.path(), &after.replace("m1", "m2"), false, None).unwrap();
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
        for server in [server(&other, true), server(BEFORE, false)] {
            assert_eq!(keep(&server).unwrap_err().code(), Code::FailedPrecondition);
            assert_eq!(inbox(folder.path(), "keep"), None);
        }
        keep(&server(BEFORE, true)).unwrap();
        assert!(inbox(folder.path(), "keep").is_some());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let folder = folder();
        let refused = |text: &str, trial: Option<Wished>| {
            let refused = put(folder.path(), text, false, trial).unwrap_err();
            (refused.code(), refused.message().to_owned())
        };
        let tried = Some(Wished::TrySeconds(60));
        let (code, reason) = refused("version = 1\n[machine]\nhostnam = \"m1\"\n", None);
        assert!(code == Code::InvalidArgument && reason.contains("did you mean"), "{reason}");
        let (code, reason) = refused(&BEFORE.replace("m1", "m2"), tried);
        assert!(code == Code::FailedPrecondition && reason.contains("machine.hostname"), "{reason}");
        let (code, reason) = refused(&format!("{BEFORE}[sysctls]\n\"vm.swappiness\" = 1\n"), tried);
        assert!(code == Code::FailedPrecondition && reason.contains("vm.swappiness"), "{reason}");
        let network = format!("{BEFORE}[[network.interfaces]]\nname = \"eth0\"\ndhcp = \"ipv4\"\n");
        std::fs::write(folder.path().join("manifest.toml"), format!("{BEFORE}[modules]\nload = [\"tun\"]\n")).unwrap();
        let (code, reason) =
            refused(&format!("{network}[sysctls]\n\"vm.swappiness\" = 1\n[modules]\nload = [\"tun\"]\n"), None);
        assert!(code == Code::FailedPrecondition && reason.contains("may cut the machine off"), "{reason}");
        for seconds in [5, 99_999] {
            let (code, reason) = refused(BEFORE, Some(Wished::TrySeconds(seconds)));
            assert!(code == Code::InvalidArgument && reason.contains("10 to 3600"), "{reason}");
        }
    }
}
