//! `cargo image`: a bootable image for one machine, or for a kind of machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use images::disk::{Flashable, Loader, convert_to_qcow2};
use images::signing::SigningKey;
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
    /// The image
    #[arg(short, long, value_name = "FILE", default_value = "keelson.raw")]
    output: PathBuf,
    /// Where Debian's packages are
    #[arg(long, value_name = "URL", default_value = images::DEFAULT_MIRROR)]
    mirror: String,
    /// Use the newest packages, even if some were downloaded within the last days
    #[arg(long)]
    refresh: bool,
    /// Sign updates with this key, and make images that take no others: a file with 64 hexadecimal digits, as
    /// `openssl rand -hex 32` makes
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Build the agent in a fraction of the time, several times larger and slower
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A disk to flash, for UEFI firmware
    Raw,
    /// The same for virtual machines
    Qcow2,
    /// For `keelson upgrade` of a machine that runs
    Update,
    /// The root's file system, with kernel and initramfs beside it, to be started directly
    Direct,
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
    if arguments.format == Format::Iso {
        bail!("--format iso cannot be made yet: flash --format raw to a medium");
    }
    let start = Instant::now();
    let say = |text: &str| eprintln!("{:6.1} s  {text}", start.elapsed().as_secs_f64());
    let workspace = images::workspace();
    say("building the agent");
    let build = if arguments.quick { images::Build::Quick } else { images::Build::Optimized };
    let key = arguments.signing_key.as_deref().map(SigningKey::load).transpose()?;
    // On a disk the manifest has a place of its own, so that the root is the same for all machines.
    let embedded = arguments.manifest.clone().filter(|_| arguments.format == Format::Direct);
    let options = Options {
        work: workspace.join("target/images"),
        cache: images::user_cache()?,
        name: "flashable".to_owned(),
        programs: images::build_programs(&workspace, build)?,
        manifest: embedded,
        update_key: key.as_ref().map(SigningKey::public),
        mirror: arguments.mirror.clone(),
        refresh: arguments.refresh,
        compression: if arguments.quick { Compression::Fast } else { Compression::Small },
    };
    let image = images::build(&options, &say)?;
    deliver(&image, &arguments, key.as_ref(), &say)?;
    say(&format!(
        "{} {:.1} MB: root {:.1} MB, kernel {:.1} MB, initramfs {:.1} MB",
        if image.is_new { "built," } else { "nothing changed," },
        megabytes(image.bytes()?),
        megabytes(fs::metadata(&image.root)?.len()),
        megabytes(fs::metadata(&image.kernel)?.len()),
        megabytes(fs::metadata(&image.initramfs)?.len()),
    ));
    println!("{}", arguments.output.display());
    if arguments.format == Format::Direct {
        println!("kernel arguments: console=ttyS0 {}", image.checked_root_arguments());
    }
    Ok(())
}

fn deliver(image: &Image, arguments: &Arguments, key: Option<&SigningKey>, say: &dyn Fn(&str)) -> Result<()> {
    let output = &arguments.output;
    if arguments.format == Format::Direct {
        return deliver_direct(image, output);
    }
    if arguments.format == Format::Update && arguments.manifest.is_some() {
        bail!("--manifest: an update leaves the machine's manifest as it is");
    }
    let loader = Loader::fetch(&images::user_cache()?, &arguments.mirror, say)?;
    let flashable = Flashable { image, loader: &loader, version: images::VERSION, arguments: "" };
    let manifest = arguments.manifest.as_deref();
    match arguments.format {
        Format::Raw => flashable.write_disk(output, manifest),
        Format::Qcow2 => {
            let raw = PathBuf::from(format!("{}.raw", output.display()));
            flashable.write_disk(&raw, manifest)?;
            let converted = convert_to_qcow2(&raw, output);
            fs::remove_file(&raw).with_context(|| format!("remove {}", raw.display()))?;
            converted
        }
        Format::Update => {
            flashable.write_update(output, |metadata| key.map(|key| key.sign(metadata)).unwrap_or_default())
        }
        Format::Direct | Format::Iso => bail!("this format is made in another way"),
    }
}

fn deliver_direct(image: &Image, output: &Path) -> Result<()> {
    let beside = |extension: &str| PathBuf::from(format!("{}.{extension}", output.display()));
    let files =
        [(&image.root, output.to_owned()), (&image.kernel, beside("vmlinuz")), (&image.initramfs, beside("initramfs"))];
    for (source, target) in files {
        fs::copy(source, &target).with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}
