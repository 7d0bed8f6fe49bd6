//! Extensions: added to a machine whose image trusts a key, kept over starts and updates, and left out when damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use disk::{About, EXTENSION_HEAD_BYTES, layout::STATE_NAME};
use http::Method;
use images::signing::SigningKey;
use images::tools;
use serde_json::{Value, json};

use super::Outcome;
use super::network::ask;
use super::scene::{PODS, SAMPLE_IMAGE, SHORTLY, SOON, Scene, remove_pod};
use super::upgrade::{keelson, running, status};
use crate::filesystem;
use crate::flash::Medium;
use crate::observe::Api;
use crate::plan::Machine;
use crate::process;
use crate::wait::until;

const NAME: &str = "probe";
const PROGRAM: &str = "usr/bin/extension-probe";
const FIRMWARE: &str = "usr/lib/firmware/keelson/probe.bin";
/// Where the file is on STATE.
const FILE: &str = "extensions/probe.extension";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let folder = scene.cluster.folder.path().to_owned();
    let [key, other] = [key(&folder, 0x1f)?, key(&folder, 0x2e)?];
    scene.cluster.trust(&scene.request, &key, &scene.progress)?;
    scene.flash(Medium::Disk)?;
    let api = scene.up().await?;
    check_refusals(scene, &master, &other).await?;

    let good = pack(scene, None, Some(&key))?;
    let said = ask(scene, &master, &master, "extension add", &[&shown(&good)]).await?;
    ensure!(said.contains("counts from the next start"), "it is answered with {said:?}");
    is_listed(scene, &master, "from the next start").await?;
    scene.restart(&master.name, false).await?;
    scene.serve().await?;
    is_listed(scene, &master, "in use").await?;
    is_seen(&api, &master).await?;
    scene.say("an extension's firmware and program are there after a start");

    let update = folder.join("machine.update");
    check_signatures(scene, &master, (&update, &other))?;
    let version = scene.cluster.flashed()?.write_signed_update(scene.cluster.image(), "0.7.0", &update, &key)?;
    let mut command = keelson(scene, &master, "upgrade")?;
    command.arg(&update);
    process::run(command).await?;
    running(scene, &master, &version, "b", "proved itself").await?;
    scene.serve().await?;
    is_listed(scene, &master, "in use").await?;
    is_seen(&api, &master).await?;
    scene.say("and after an update");
    check_other_kernel(scene, &master, (&update, &key)).await?;

    check_damage(scene, &master, &good).await?;
    ask(scene, &master, &master, "extension remove", &[NAME]).await?;
    scene.restart(&master.name, false).await?;
    scene.serve().await?;
    let now = status(scene, &master)?;
    ensure!(now["extensions"] == json!([]) && now["conditions"] == json!([]), "it says {now}");
    scene.say("without it all is as before");
    Ok(Outcome::Passed)
}

/// An update that nobody signed, or somebody else, is not taken.
fn check_signatures(scene: &Scene, master: &Machine, (update, other): (&Path, &SigningKey)) -> Result<()> {
    let (flashed, image) = (scene.cluster.flashed()?, scene.cluster.image());
    for (is_signed, told) in [(false, "signature is missing"), (true, "signature is not by")] {
        match is_signed {
            false => flashed.write_update(image, "0.7.0", "", update)?,
            true => flashed.write_signed_update(image, "0.7.0", update, other)?,
        };
        let said = tools::run(keelson(scene, master, "upgrade")?.arg(update));
        let said = said.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(said.contains(told), "instead of {told:?} it is answered with {said:?}");
    }
    scene.say("an update that nobody signed, or somebody else, is refused");
    Ok(())
}

/// A key, as `openssl rand -hex 32` would make one.
fn key(folder: &Path, byte: u8) -> Result<SigningKey> {
    let path = folder.join(format!("{byte}.key"));
    fs::write(&path, format!("{byte:02x}").repeat(32)).context("write a key")?;
    SigningKey::load(&path)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Makes the extension, with a module's folder for this kernel if there is one.
fn pack(scene: &Scene, kernel: Option<&str>, key: Option<&SigningKey>) -> Result<PathBuf> {
    let folder = scene.cluster.folder.path().join("extension");
    let (source, output) = (folder.join("source"), folder.join("probe.extension"));
    if source.exists() {
        fs::remove_dir_all(&source).context("remove the extension's files")?;
    }
    let put = |path: &str, content: &[u8], mode| -> Result<()> {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&source)).context("make the extension's folders")?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
    };
    put(PROGRAM, &fs::read(scene.cluster.sample()).context("read the sample")?, 0o755)?;
    put(FIRMWARE, &[7; 100_000], 0o644)?;
    if let Some(release) = kernel {
        put(&format!("usr/lib/modules/{release}/notes"), b"for this kernel only", 0o644)?;
    }
    let about = About { name: NAME.to_owned(), version: "1.0".to_owned(), ..About::default() };
    let sign = |line: &[u8]| key.map(|key| key.sign(line)).unwrap_or_default();
    images::extension::make((&source, about), (&folder, &output), sign)?;
    Ok(output)
}

async fn refused(scene: &Scene, master: &Machine, path: &Path, told: &str) -> Result<()> {
    let said = ask(scene, master, master, "extension add", &[&shown(path)]).await;
    let said = said.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(said.contains(told), "it is answered with {said:?}, not with {told:?}");
    Ok(())
}

/// What is not signed by the image's key, or is damaged, is not taken.
async fn check_refusals(scene: &Scene, master: &Machine, other: &SigningKey) -> Result<()> {
    refused(scene, master, &pack(scene, None, None)?, "signature is missing").await?;
    let foreign = pack(scene, None, Some(other))?;
    refused(scene, master, &foreign, "not by the key").await?;
    ensure!(status(scene, master)?["extensions"] == json!([]), "something was taken");
    scene.say("unsigned and foreign extensions are refused");
    Ok(())
}

/// One for another kernel waits, and an update that would lose one is refused.
async fn check_other_kernel(scene: &Scene, master: &Machine, (update, key): (&Path, &SigningKey)) -> Result<()> {
    let other = pack(scene, Some("1.2.3-other"), Some(key))?;
    // Of the one that is in use the update takes care, too: this is for the same name.
    ask(scene, master, master, "extension add", &[&shown(&other)]).await?;
    let listed = extensions(scene, master).await?;
    ensure!(listed.as_array().is_some_and(|rows| rows.len() == 2), "there are {listed}");
    // Alone, it goes with no update of this image.
    ask(scene, master, master, "extension remove", &[NAME]).await?;
    ask(scene, master, master, "extension add", &[&shown(&other)]).await?;
    let mut command = keelson(scene, master, "upgrade")?;
    command.arg(update);
    let said = process::run(command).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(said.contains("would lose the extension probe"), "the update is answered with {said:?}");
    ask(scene, master, master, "extension remove", &[NAME]).await?;
    let good = pack(scene, None, Some(key))?;
    ask(scene, master, master, "extension add", &[&shown(&good)]).await?;
    scene.say("an update for which an extension is missing is refused");
    Ok(())
}

/// A damaged one does not keep the machine from starting, and is told.
async fn check_damage(scene: &mut Scene, master: &Machine, good: &Path) -> Result<()> {
    let mut damaged = fs::read(good).context("read the extension")?;
    // Within the start of its file system, which is read first.
    damaged[EXTENSION_HEAD_BYTES + 1024 + 60] ^= 1;
    scene.cluster.stop_machine(&master.name, false).await?;
    filesystem::replace(&scene.cluster.folder.machine(&master.name), STATE_NAME, FILE, &damaged)?;
    scene.start(&master.name).await?;
    let api = scene.serve().await?;
    is_listed(scene, master, "not used").await?;
    let now = status(scene, master)?;
    let told = now["conditions"].as_array().and_then(|all| all.iter().find(|it| it["name"] == "ExtensionNotUsed"));
    let told = told.with_context(|| format!("it tells of no such condition: {}", now["conditions"]))?;
    let helps = told["fix"].as_str().unwrap_or_default();
    ensure!(helps.contains("keelson extension add") && now["ready"] == true, "it tells {told}");
    let (found, _) = look(&api, master).await?;
    ensure!(!found, "what is damaged is there all the same");
    scene.say("a damaged one is left out and told, and the machine serves");
    Ok(())
}

async fn extensions(scene: &Scene, master: &Machine) -> Result<Value> {
    let text = ask(scene, master, master, "extension list", &["--output", "json"]).await?;
    serde_json::from_str(&text).context("read the list of extensions")
}

async fn is_listed(scene: &Scene, master: &Machine, state: &str) -> Result<()> {
    until(&format!("the extension {state}"), SHORTLY, async || {
        let rows = extensions(scene, master).await?;
        ensure!(rows[0]["name"] == NAME && rows[0]["state"] == state, "there are {rows}");
        Ok(())
    })
    .await
}

/// Whether the firmware's file is there, and the program runs.
async fn is_seen(api: &Api, master: &Machine) -> Result<()> {
    let (found, told) = look(api, master).await?;
    ensure!(found, "the extension's files are not there: {told}");
    Ok(())
}

/// A pod that runs the program and wants the firmware's file; whether it could, and its status.
async fn look(api: &Api, master: &Machine) -> Result<(bool, Value)> {
    const POD: &str = "extension-probe";
    remove_pod(api, POD).await?;
    let volume =
        |name: &str, path: &str| json!({ "name": name, "hostPath": { "path": format!("/{path}"), "type": "File" } });
    let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}"), "readOnly": true });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": POD },
        "spec": {
            "restartPolicy": "Never",
            "tolerations": [{ "operator": "Exists" }],
            "nodeSelector": { "kubernetes.io/hostname": master.name },
            "containers": [{
                "name": "probe",
                "image": SAMPLE_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/program", "echo"],
                "volumeMounts": [mount("program"), mount("firmware")],
            }],
            "volumes": [volume("program", PROGRAM), volume("firmware", FIRMWARE)],
        },
    });
    api.call(Method::POST, PODS, Some(&pod)).await?;
    let events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dextension-probe";
    let seen = until("what becomes of the pod", SOON, async || {
        let pod = api.get(&format!("{PODS}/{POD}")).await?;
        match pod["status"]["phase"].as_str() {
            Some("Succeeded") => return Ok((true, pod["status"].clone())),
            Some("Failed") => bail!("the program failed: {}", pod["status"]),
            _ => {}
        }
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let told = api.get(events).await?;
        let is_missing = |event: &Value| {
            let text = event["message"].as_str().unwrap_or_default();
            event["involvedObject"]["uid"] == uid && text.contains("hostPath type check failed")
        };
        let missing = told["items"].as_array().is_some_and(|items| items.iter().any(is_missing));
        if missing { Ok((false, told["items"].clone())) } else { bail!("it is {}", pod["status"]) }
    })
    .await?;
    remove_pod(api, POD).await?;
    Ok(seen)
}
