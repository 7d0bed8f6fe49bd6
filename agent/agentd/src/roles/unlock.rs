//! `keelson unlock` and `recovery-key`: what opens a machine's encrypted partitions.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use machine_api::UnlockRequest;

use super::target::Target;
use crate::process;

const WITHIN: Duration = Duration::from_secs(60);
/// A passphrase takes seconds, on a slow machine and for each partition.
const OPENED_WITHIN: Duration = Duration::from_secs(300);
const ASKED_EVERY: Duration = Duration::from_millis(500);
const GIVEN_BYTES: u64 = 514;
/// What a machine lacks while its partitions are closed.
const LOCKED: &str = "Locked";

/// Which machine.
#[derive(Args)]
pub(crate) struct Unlock {
    #[command(flatten)]
    target: Target,
}

pub(crate) fn unlock(options: &Unlock) -> Result<()> {
    let mut given = String::new();
    std::io::stdin()
        .take(GIVEN_BYTES)
        .read_to_string(&mut given)
        .context("reading the passphrase from standard input")?;
    let given = given.lines().next().unwrap_or_default().to_owned();
    ensure!(!given.is_empty(), "no passphrase came from standard input");
    let target = &options.target;
    let wanted = UnlockRequest { passphrase: given.into() };
    let before = process::ask(WITHIN, target.ask(async |machine| machine.get_status(()).await))?.keys_tried;
    process::ask(WITHIN, target.ask(async |machine| machine.unlock(wanted).await))?;
    process::ask(OPENED_WITHIN, opened(target, before))?;
    println!("the disk is open");
    Ok(())
}

/// Waits until a machine is no longer locked, or says no to one key more than it had tried before: until then it tells what
/// came of another one.
async fn opened(target: &Target, tried_before: u32) -> Result<()> {
    for _ in 0..OPENED_WITHIN.as_millis() / ASKED_EVERY.as_millis() {
        tokio::time::sleep(ASKED_EVERY).await;
        // Once it is open, the machine asks for a certificate.
        let Ok(status) = target.ask(async |machine| machine.get_status(()).await).await else { return Ok(()) };
        if status.keys_tried == tried_before {
            continue;
        }
        match status.conditions.iter().find(|condition| condition.name == LOCKED) {
            None => return Ok(()),
            Some(locked) if locked.why.contains("does not fit") => bail!("{}", locked.why),
            Some(_) => {}
        }
    }
    bail!("the disk is still locked")
}

pub(crate) fn recovery_key(target: &Target) -> Result<()> {
    let given = process::ask(WITHIN, target.ask(async |machine| machine.take_recovery_keys(()).await))?;
    for (name, key) in given.keys {
        println!("{name}: {key}");
    }
    eprintln!("keep it where the machine is not: it is not given out again");
    Ok(())
}
