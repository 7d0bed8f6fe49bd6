//! `keelson check` and `keelson support`: finding out what is wrong, from the machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use install::{select, stick};
use machine_api::check_request::{Port, What};
use machine_api::{CheckRequest, CheckResult, Chunk};
use sys::{Linux, System};

use super::look::Asked;
use super::target::{Target, next};
use crate::process;

const WITHIN: Duration = Duration::from_secs(30);
const SUPPORT_WITHIN: Duration = Duration::from_secs(1800);
/// Where the kernel tells the machine's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
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
    /// To a USB stick that is in this machine instead, as at its console.
    #[arg(long, hide = true, conflicts_with = "file")]
    stick: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(check: &Check) -> Result<ExitCode> {
    let (what, asked) = match check {
        Check::Dns { name, asked } => (What::Dns(name.clone()), asked),
        Check::Route { address, asked } => (What::Route(address.clone()), asked),
        Check::Port { host, port, asked } => (What::Port(Port { host: host.clone(), port: u32::from(*port) }), asked),
    };
    let wanted = CheckRequest { what: Some(what) };
    let result = process::ask(WITHIN, asked.target.ask(async |machine| machine.check(wanted).await))?;
    asked.output.show(&result, CheckResult::describe)?;
    Ok(if result.works { ExitCode::SUCCESS } else { ExitCode::from(DOES_NOT_WORK) })
}

pub(crate) fn support(options: &Support) -> Result<()> {
    if options.stick {
        return support_to_stick(&options.target);
    }
    let name = options.file.display();
    let mut draft = options.file.clone().into_os_string();
    draft.push(".part");
    let mut file = std::fs::File::create(&draft).with_context(|| format!("making {name}"))?;
    let mut put = || {
        let bytes = collect(&options.target, &mut file)?;
        std::fs::rename(&draft, &options.file).with_context(|| format!("writing {name}"))?;
        anyhow::Ok(bytes)
    };
    let bytes = put().inspect_err(|_| drop(std::fs::remove_file(&draft)))?;
    println!("{name}: {bytes} bytes; look at it before you hand it on");
    Ok(())
}

/// The same to the stick that somebody put in, for whoever has nothing but the console.
fn support_to_stick(target: &Target) -> Result<()> {
    let devices = sys::block_devices(&Linux);
    let stick = stick::choose(&devices)?;
    println!("collecting, to {}…", select::describe(stick));
    let host = Linux.read(Path::new(HOST_NAME)).unwrap_or_default();
    let now = jiff::Timestamp::try_from(Linux.now()).context("telling the time")?;
    let name = format!("keelson-support-{}-{}", String::from_utf8_lossy(&host).trim(), now.strftime("%Y%m%d-%H%M%S"));
    let mut bytes = 0;
    let written = stick::write(&Linux, stick, (&name, ".tar"), |out| {
        bytes = collect(target, out)?;
        anyhow::Ok(())
    })?;
    println!("{written}: {bytes} bytes; take the stick out, and look at the file before you hand it on");
    Ok(())
}

/// Writes all of it, and answers how much that is.
fn collect(target: &Target, out: &mut dyn Write) -> Result<usize> {
    process::ask(SUPPORT_WITHIN, async {
        let mut body = target.ask(async |machine| machine.collect_support(()).await).await?;
        let mut bytes = 0;
        while let Some(Chunk { data: part }) = next(&mut body).await? {
            bytes += part.len();
            out.write_all(&part).context("writing the archive")?;
        }
        Ok(bytes)
    })
}
