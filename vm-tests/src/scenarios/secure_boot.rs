//! Firmware that starts only what its owner has signed; and a BIOS, which starts none of it.

use anyhow::{Context, Result, ensure};

use super::scene::{SHORTLY, SOON, Scene};
use super::{Outcome, upgrade};

use crate::firmware::Firmware;
use crate::flash::{self, Medium};
use crate::qemu;
use crate::wait::until;

/// What the loader says of a program that the firmware refuses.
const REFUSED: [&str; 2] = ["Access denied", "Security violation"];
const KERNEL: &str = "Linux version";

pub(super) async fn run(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.clone();
    scene.flash_for(Medium::Disk, Firmware::SecureBoot)?;
    scene.up().await?;
    let status = upgrade::status(scene, &master)?;
    ensure!(status["secureBoot"] == true, "the status says {} of Secure Boot", status["secureBoot"]);
    scene.say("what is signed starts, and the machine says that nothing else would");

    let folder = scene.cluster.folder.machine(&master.name);
    let unsigned = scene.cluster.flashed()?.unsigned_kernel_image(scene.cluster.image())?;
    let others = [("one bit of it differs", None), ("it is not signed", Some(unsigned))];
    for (what, other) in others {
        scene.cluster.stop_machine(&master.name, true).await?;
        let signed = flash::exchange_kernel(&folder, |signed| match &other {
            Some(unsigned) => unsigned.clone(),
            None => damaged(signed),
        })?;
        is_refused(scene, &master.name).await.with_context(|| what.to_owned())?;
        scene.say(&format!("a kernel image is refused: {what}"));
        flash::exchange_kernel(&folder, |_refused| signed.clone())?;
    }
    scene.start(&master.name).await?;
    scene.serve().await?;
    scene.say("the signed one starts again");
    Ok(Outcome::Passed)
}

/// One bit of the initramfs, which lies before the kernel and long before the signature.
fn damaged(signed: &[u8]) -> Vec<u8> {
    let mut damaged = signed.to_vec();
    damaged[signed.len() / 3] ^= 1;
    damaged
}

/// Starts the machine and waits until its firmware has refused; then its power is cut.
async fn is_refused(scene: &mut Scene, master: &str) -> Result<()> {
    let seen = scene.console(master)?.len();
    scene.cluster.start_machine(master)?;
    let since =
        |scene: &Scene| Ok::<_, anyhow::Error>(scene.console(master)?.get(seen..).unwrap_or_default().to_owned());
    let refusal = until("a refusal", SOON, async || {
        let console = since(scene)?;
        ensure!(!console.contains(KERNEL), "the kernel was started");
        ensure!(REFUSED.iter().any(|words| console.contains(words)), "the console says: {console}");
        Ok(())
    });
    refusal.await.or_else(|error| Err(error.context(qemu::registers(&scene.cluster.folder.machine(master))?)))?;
    scene.cluster.stop_machine(master, true).await
}

pub(super) async fn run_bios(scene: &mut Scene) -> Result<Outcome> {
    let master = scene.cluster.master().context("the cluster has no master")?.name.clone();
    scene.flash_for(Medium::Disk, Firmware::Bios)?;
    scene.cluster.start(&scene.progress)?;
    until("the disk's word to a BIOS", SHORTLY, async || {
        let console = scene.console(&master)?;
        ensure!(console.contains("started by UEFI firmware only"), "the console says: {console}");
        Ok(())
    })
    .await?;
    scene.say("started by a BIOS, the disk says what is wrong");
    Ok(Outcome::Passed)
}
