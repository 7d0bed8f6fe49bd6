//! `keelson capture`: frames of a machine's interface, as a file for Wireshark or tcpdump.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use machine_api::{CaptureRequest, Chunk};

use super::target::{Target, next};
use crate::process;

/// What the machine needs to begin and to end, beside the time of the capture.
const MARGIN: Duration = Duration::from_secs(60);

/// What to capture.
#[derive(Args)]
pub(crate) struct Options {
    /// The interface, as `keelson get interfaces` names it.
    interface: String,
    /// Which frames, in words that tcpdump understands, too: `tcp port 6443 and not host 10.0.0.1`. There are ip, ip6,
    /// arp, icmp, icmp6, tcp, udp, host, net, port, src, dst, not, and, or, and parentheses. The connection of this
    /// command is left out in any case.
    #[arg(long, default_value = "")]
    filter: String,
    /// For how long, at most an hour.
    #[arg(long, default_value = "1m0s", value_name = "TIME", value_parser = super::apiserver::duration)]
    duration: Duration,
    /// Ends with a file of this size, such as 500Ki or 64Mi, at most 1Gi.
    #[arg(long, default_value = "16Mi")]
    size: manifest::ByteSize,
    /// How much of each frame. Headers are in the first 128 bytes; more than 262144 there is never.
    #[arg(long, default_value_t = CaptureRequest::MOST_FRAME_BYTES, value_name = "BYTES")]
    snap: u32,
    /// The file, in the form pcapng; `-` is standard output.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let asked = CaptureRequest {
        interface: options.interface.clone(),
        filter: options.filter.clone(),
        seconds: options.duration.as_secs(),
        bytes: options.size.bytes(),
        frame_bytes: options.snap,
    };
    process::ask(options.duration.saturating_add(MARGIN), async {
        let mut frames = options.target.ask(async |machine| machine.capture(asked).await).await?;
        let (path, is_printed) = (options.output.display(), options.output == Path::new("-"));
        let mut out: Box<dyn Write> = if is_printed {
            Box::new(std::io::stdout().lock())
        } else {
            Box::new(File::create(&options.output).with_context(|| format!("making {path}"))?)
        };
        let mut bytes = 0;
        while let Some(Chunk { data: part }) = next(&mut frames).await? {
            bytes += part.len();
            // Whoever reads standard output may have seen enough.
            match out.write_all(&part).and_then(|()| out.flush()) {
                Err(_gone) if is_printed => return Ok(()),
                written => written.with_context(|| format!("writing {path}"))?,
            }
        }
        eprintln!("{bytes} bytes; the last block of the file tells why it ends, and whether frames were lost");
        Ok(())
    })
}
