//! `keelson secret`: secrets that a manifest refers to, handed to the machine that needs them.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Subcommand;
use machine_api::{PutSecretRequest, RemoveSecretRequest, SealRequest};

use super::target::Target;
use crate::process;

/// A TPM takes seconds.
const WITHIN: Duration = Duration::from_secs(60);

/// What to do with a secret.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Seals a secret, read from standard input, by a machine's TPM, and prints what stands for it in that machine's
    /// manifest. No other machine, and no other key of the manifest, is given it.
    Seal {
        /// The key that it is for, such as `cluster.token` or `outbound.servers."r.example.com".password`.
        key: String,
        /// Registers of the TPM that must be as they are now. 7 is Secure Boot with its keys, which updates of the system
        /// leave as they are, and those of firmware may not: then the secret has to be sealed again.
        #[arg(long, value_delimiter = ',', default_values_t = [7])]
        pcrs: Vec<u32>,
        #[command(flatten)]
        target: Target,
    },
    /// Keeps a secret, read from standard input, on a machine's STATE partition, and prints what stands for it in that
    /// machine's manifest. A manifest that does already takes it at once.
    Put {
        /// Its name.
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Lets a machine forget a secret that it was given to keep.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Seal { key, pcrs, target } => {
            let meant = || manifest::suggest_key(&key).map(|it| format!("; did you mean `{it}`?")).unwrap_or_default();
            ensure!(manifest::key_of_secret(&key).is_some(), "`{key}` is no key of a secret{}", meant());
            let asked = SealRequest { key, secret: given()?, pcrs };
            let told = process::ask(WITHIN, target.ask(async |machine| machine.seal_secret(asked).await))?;
            println!("{}", manifest::Reference::Sealed(told.text));
        }
        Command::Put { name, target } => {
            let asked = PutSecretRequest { name, secret: given()? };
            let told = process::ask(WITHIN, target.ask(async |machine| machine.put_secret(asked).await))?;
            println!("{}", manifest::Reference::File(told.text));
        }
        Command::Remove { name, target } => {
            let asked = RemoveSecretRequest { name };
            target.tell(WITHIN, async |machine| machine.remove_secret(asked).await)?;
        }
    }
    Ok(())
}

/// What is piped in, and one byte more than a machine takes if it is too long.
fn given() -> Result<Bytes> {
    let mut given = Vec::new();
    let most = u64::try_from(manifest::SECRET_BYTES).unwrap_or(u64::MAX) + 1;
    std::io::stdin().take(most).read_to_end(&mut given).context("reading the secret from standard input")?;
    Ok(given.into())
}
