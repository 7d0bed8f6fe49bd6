//! `cargo image`: a bootable image for one machine, or for a kind of machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use images::{Compression, Image, Options, megabytes};

/// Builds an image that machines can boot.
#[derive(Parser)]
#[command(name = "cargo image")]
struct Arguments {
    /// The machine's manifest, kept in the image; without it the machine waits for one
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// What the image is for
    #[arg(long, value_enum, default_value = "raw")]
    format: Format,
    /// The image; kernel and initramfs are put beside it
    #[arg(short, long, value_name = "FILE", default_value = "keelson.raw")]
    output: PathBuf,
    /// Where Debian's packages are
    #[arg(long, value_name = "URL", default_value = images::DEFAULT_MIRROR)]
    mirror: String,
    /// Use the newest packages, even if some were downloaded within the last days
    #[arg(long)]
    refresh: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The root's file system, to boot with the kernel and initramfs beside it
    Raw,
    /// A disk with boot loader for virtual machines (not yet)
    Qcow2,
    /// A medium to boot from and install (not yet)
    Iso,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    if arguments.format != Format::Raw {
        bail!(
            "only --format raw can be made yet: the root's file system, booted by its kernel and initramfs directly; \
             disks with a boot loader come with installation and updates"
        );
    }
    let start = Instant::now();
    let say = |text: &str| eprintln!("{:6.1} s  {text}", start.elapsed().as_secs_f64());
    let workspace = images::workspace();
    say("building the agent");
    let options = Options {
        work: workspace.join("target/images"),
        cache: images::user_cache()?,
        name: "flashable".to_owned(),
        programs: images::build_programs(&workspace, images::Build::Optimized)?,
        manifest: arguments.manifest,
        mirror: arguments.mirror,
        refresh: arguments.refresh,
        compression: Compression::Small,
    };
    let image = images::build(&options, &say)?;
    deliver(&image, &arguments.output)?;
    say(&format!(
        "{} {:.1} MB: root {:.1} MB, kernel {:.1} MB, initramfs {:.1} MB",
        if image.is_new { "built," } else { "nothing changed," },
        megabytes(image.bytes()?),
        megabytes(fs::metadata(&image.root)?.len()),
        megabytes(fs::metadata(&image.kernel)?.len()),
        megabytes(fs::metadata(&image.initramfs)?.len()),
    ));
    println!("{}", arguments.output.display());
    println!("kernel arguments: console=ttyS0 {}", image.root_argument);
    Ok(())
}

fn deliver(image: &Image, output: &Path) -> Result<()> {
    let beside = |extension: &str| PathBuf::from(format!("{}.{extension}", output.display()));
    let files =
        [(&image.root, output.to_owned()), (&image.kernel, beside("vmlinuz")), (&image.initramfs, beside("initramfs"))];
    for (source, target) in files {
        fs::copy(source, &target).with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}
