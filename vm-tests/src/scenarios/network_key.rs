//! Partitions whose key a server of the network gives back, and keys that change on a running machine.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::Outcome;
use super::encryption::{give, locked};
use super::network::apply;
use super::scene::{SHORTLY, Scene};
use super::upgrade::keelson;
use crate::flash::Medium;
use crate::plan::Machine;
use crate::process;
use crate::tang::Tang;
use crate::wait::until;

const PASSPHRASE: &str = "correct horse battery";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    let server = Tang::start(scene.cluster.folder.machine(&master.name).join("tang"))?;
    let path = scene.cluster.folder.manifest(&master.name);
    let plain = fs::read_to_string(&path).context("read the manifest")?;
    let by_network = format!(
        "{plain}\n[[install.encryption]]\nvolumes = [\"state\", \"data\"]\nnetwork = [{{ url = \"{}\", thumbprints = \
         [\"{}\"] }}]\n",
        server.url, server.thumbprint
    );
    fs::write(&path, &by_network)?;
    scene.flash(Medium::Disk)?;
    scene.cluster.start(&scene.progress)?;
    locked(scene, &master, "has not come yet").await?;
    locked(scene, &master, "NetworkKeyMissing").await?;
    server.set_up(true);
    scene.serve().await?;
    scene.say("its partitions were made once the key server answered; the cluster serves");

    scene.cluster.stop_machine(&master.name, false).await?;
    server.set_up(false);
    scene.cluster.start_machine(&master.name)?;
    locked(scene, &master, "no key has come from the network yet").await?;
    server.set_up(true);
    scene.serve().await?;
    has_keys(scene, &master, &["recovery", "network http"], &["passphrase"]).await?;
    scene.say("started again, it waits for the key server, and opens by itself");

    let by_passphrase =
        format!("{plain}\n[[install.encryption]]\nvolumes = [\"state\", \"data\"]\npassphrase = \"{PASSPHRASE}\"\n");
    apply(scene, &master, &master, &by_passphrase).await.context("apply other keys")?;
    has_keys(scene, &master, &["recovery", "passphrase"], &["network http"]).await?;
    scene.cluster.stop_machine(&master.name, false).await?;
    scene.cluster.start_machine(&master.name)?;
    locked(scene, &master, "it needs a passphrase").await?;
    give(scene, &master, PASSPHRASE, true).await?;
    scene.serve().await?;
    scene.say("with another manifest its keys are others, and the server's is gone");
    Ok(Outcome::Passed)
}

/// Waits until both partitions have some kinds of keys, and others not.
async fn has_keys(scene: &Scene, master: &Machine, wanted: &[&str], gone: &[&str]) -> Result<()> {
    until("the keys that the manifest asks for", SHORTLY, async || {
        let told = process::run(keelson(scene, master, "status")?).await?;
        let volumes: Vec<&str> = told.lines().filter(|line| line.contains("encrypted, keys:")).collect();
        let is_it = |line: &&str| wanted.iter().all(|it| line.contains(it)) && !gone.iter().any(|it| line.contains(it));
        ensure!(volumes.len() == 2 && volumes.iter().all(is_it), "it says {told}");
        Ok(())
    })
    .await
}
