//! `cargo image`: a bootable image for one machine, or for a kind of machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use images::disk::{Flashable, Loader, convert_to_qcow2};
use images::secure_boot::SecureBoot;
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
    /// The image; without it `keelson` with the format's usual ending. What it holds is told beside it, in a file with
    /// the ending `.sbom.json`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where Debian's packages are
    #[arg(long, value_name = "URL", default_value = images::DEFAULT_MIRROR)]
    mirror: String,
    /// Put firmware for devices, or microcode for processors, into the image, out of these packages of Debian's component
    /// for it: `firmware-bnx2`, `intel-microcode`… Their licences are not those of free software
    #[arg(long, value_name = "PACKAGE,…", value_delimiter = ',')]
    firmware: Vec<String>,
    /// Make these extensions, as `cargo extension` makes them, a part of the image. With a signing key they must be signed
    /// by it
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    extension: Vec<PathBuf>,
    /// Use the newest packages, even if some were downloaded within the last days
    #[arg(long)]
    refresh: bool,
    /// Sign updates with this key, and make images that take no others: a file with 64 hexadecimal digits, as
    /// `openssl rand -hex 32` makes
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Sign what the firmware starts, for Secure Boot, with this key (PEM). The machine's owner has to put its
    /// certificate into the firmware
    #[arg(long, value_name = "FILE", requires = "secure_boot_certificate")]
    secure_boot_key: Option<PathBuf>,
    /// The certificate of that key (PEM)
    #[arg(long, value_name = "FILE", requires = "secure_boot_key")]
    secure_boot_certificate: Option<PathBuf>,
    /// Fail if root, kernel and initramfs together have more than so many megabytes; the image is there all the same
    #[arg(long, value_name = "MB")]
    most: Option<u32>,
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
    /// An optical medium to start from and install, which can be flashed as well
    Iso,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Update => "update",
            Self::Direct => "erofs",
            Self::Iso => "iso",
        }
    }
}

/// What is asked for, once the files that were named have been read.
struct Task {
    format: Format,
    output: PathBuf,
    manifest: Option<PathBuf>,
    mirror: String,
    firmware: Vec<String>,
    extensions: Vec<PathBuf>,
    signing_key: Option<SigningKey>,
    secure_boot: Option<SecureBoot>,
}

fn main() -> ExitCode {
    images::tools::conclude(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> Result<()> {
    let start = Instant::now();
    let say = |text: &str| eprintln!("{:6.1} s  {text}", start.elapsed().as_secs_f64());
    let workspace = images::workspace();
    let work = workspace.join("target/images");
    let (refresh, is_quick, most) = (arguments.refresh, arguments.quick, arguments.most);
    let task = examine(arguments, &work)?;
    say("building the agent");
    let build = if is_quick { images::Build::Quick } else { images::Build::Optimized };
    // On a disk the manifest has a place of its own, so that the root is the same for all machines.
    let embedded = task.manifest.clone().filter(|_| task.format == Format::Direct);
    let options = Options {
        work,
        cache: images::user_cache()?,
        name: "flashable".to_owned(),
        programs: images::build_programs(&workspace, build)?,
        manifest: embedded,
        update_key: task.signing_key.as_ref().map(SigningKey::public),
        firmware: task.firmware.clone(),
        extensions: task.extensions.clone(),
        mirror: task.mirror.clone(),
        refresh,
        compression: if is_quick { Compression::Fast } else { Compression::Small },
    };
    let image = images::build(&options, &say)?;
    deliver(&image, &task, &say)?;
    let parts = image.parts()?.map(|(name, bytes)| format!("{name} {:.1} MB", megabytes(bytes))).join(", ");
    let (what, bytes) = (if image.is_new { "built," } else { "nothing changed," }, image.bytes()?);
    say(&format!("{what} {:.1} MB: {parts}", megabytes(bytes)));
    println!("{}", task.output.display());
    if task.format == Format::Direct {
        println!("kernel arguments: console=ttyS0 {} {}", images::HARDENED, image.checked_root_arguments());
    }
    check_size(bytes, most)
}

/// Whether an image is as small as it is to be.
fn check_size(bytes: u64, most: Option<u32>) -> Result<()> {
    match most {
        Some(most) if bytes > u64::from(most) * 1_000_000 => {
            bail!("the image has {:.1} MB, more than the {most} MB that it is to have", megabytes(bytes))
        }
        _ => Ok(()),
    }
}

/// Finds out what is wrong with the arguments before anything is built.
fn examine(arguments: Arguments, work: &Path) -> Result<Task> {
    if arguments.format == Format::Update && arguments.manifest.is_some() {
        bail!("--manifest: an update leaves the machine's manifest as it is");
    }
    if arguments.format == Format::Direct && arguments.secure_boot_key.is_some() {
        bail!("--secure-boot-key: what is started directly is started by no firmware");
    }
    images::firmware::check_names(&arguments.firmware)?;
    let output = arguments.output.unwrap_or_else(|| PathBuf::from(format!("keelson.{}", arguments.format.ending())));
    let signer = arguments.secure_boot_key.zip(arguments.secure_boot_certificate);
    Ok(Task {
        format: arguments.format,
        output,
        manifest: arguments.manifest,
        mirror: arguments.mirror,
        firmware: arguments.firmware,
        extensions: arguments.extension,
        signing_key: arguments.signing_key.as_deref().map(SigningKey::load).transpose()?,
        secure_boot: signer.map(|(key, certificate)| SecureBoot::new(&key, &certificate, work)).transpose()?,
    })
}

fn deliver(image: &Image, task: &Task, say: &dyn Fn(&str)) -> Result<()> {
    let (output, manifest) = (task.output.as_path(), task.manifest.as_deref());
    let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", output.display()));
    let loader = Loader::fetch(&images::user_cache()?, &task.mirror, say)?;
    let secure_boot = task.secure_boot.as_ref();
    let flashable = Flashable { image, loader: &loader, version: images::VERSION, arguments: "", secure_boot };
    match task.format {
        Format::Raw => flashable.write_disk(output, manifest)?,
        Format::Iso => flashable.write_iso(output, manifest)?,
        Format::Qcow2 => {
            let raw = beside("raw");
            flashable.write_disk(&raw, manifest)?;
            let converted = convert_to_qcow2(&raw, output);
            fs::remove_file(&raw).with_context(|| format!("remove {}", raw.display()))?;
            converted?;
        }
        Format::Update => {
            let sign = |metadata: &[u8]| task.signing_key.as_ref().map(|key| key.sign(metadata)).unwrap_or_default();
            flashable.write_update(output, sign)?;
        }
        Format::Direct => deliver_direct(image, output)?,
    }
    let list = beside("sbom.json");
    fs::write(&list, flashable.contents()?).with_context(|| format!("write {}", list.display()))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_too_large_is_told() {
        check_size(150_000_000, Some(150)).unwrap();
        check_size(u64::MAX, None).unwrap();
        let told = check_size(150_100_000, Some(150)).unwrap_err().to_string();
        assert_eq!(told, "the image has 150.1 MB, more than the 150 MB that it is to have");
    }
}
