//! `keelson check` and `keelson support`: finding out what is wrong, from the machine.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use machine_api::CheckResult;

use super::look::Asked;
use super::target::Target;
use super::token::Output;
use crate::process;

const WITHIN: Duration = Duration::from_secs(30);
const SUPPORT_WITHIN: Duration = Duration::from_secs(1800);
/// The machine answered, and what was checked does not work.
const DOES_NOT_WORK: u8 = 2;

/// What to check. Ends with 0 if it works, with 2 if it does not.
#[derive(Subcommand)]
pub(crate) enum Check {
    /// Whether a name has addresses, for the machine.
    Dns {
        /// The name.
        name: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Which way the machine takes to an address.
    Route {
        /// The address.
        address: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Whether a port takes the machine's connections.
    Port {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Where the archive goes.
#[derive(Args)]
pub(crate) struct Support {
    /// The file; it appears when it is whole.
    #[arg(default_value = "keelson-support.tar")]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(check: &Check) -> Result<ExitCode> {
    let (path, asked) = match check {
        Check::Dns { name, asked } => (format!("/check/dns?to={name}"), asked),
        Check::Route { address, asked } => (format!("/check/route?to={address}"), asked),
        Check::Port { host, port, asked } => (format!("/check/port?to={host}&port={port}"), asked),
    };
    let answer = process::ask(WITHIN, asked.target.ask(Method::GET, &path, Bytes::new()))?;
    let result: CheckResult = serde_json::from_slice(&answer).context("reading the machine's answer")?;
    match asked.output {
        Output::Json => println!("{}", String::from_utf8_lossy(&answer).trim_end()),
        Output::Text => print!("{}", result.describe()),
    }
    Ok(if result.works { ExitCode::SUCCESS } else { ExitCode::from(DOES_NOT_WORK) })
}

pub(crate) fn support(options: &Support) -> Result<()> {
    let name = options.file.display();
    let mut draft = options.file.clone().into_os_string();
    draft.push(".part");
    process::ask(SUPPORT_WITHIN, async {
        let mut body = options.target.download("/support").await?;
        let mut file = std::fs::File::create(&draft).with_context(|| format!("making {name}"))?;
        let mut bytes = 0;
        while let Some(part) = body.next().await? {
            bytes += part.len();
            file.write_all(&part).with_context(|| format!("writing {name}"))?;
        }
        std::fs::rename(&draft, &options.file).with_context(|| format!("writing {name}"))?;
        println!("{name}: {bytes} bytes; look at it before you hand it on");
        Ok(())
    })
}
