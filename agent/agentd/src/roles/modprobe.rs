//! `keelson modprobe`: modules of the kernel that something needs now, such as a file system that somebody mounts. The kernel
//! runs it itself, as `/sbin/modprobe -q -- NAME`.

use anyhow::{Result, bail};
use clap::Args;
use sys::{Linux, ModuleIndex};

/// What to load.
#[derive(Args)]
pub(crate) struct Options {
    /// Says nothing of a module that there is not.
    #[arg(short, long)]
    quiet: bool,
    /// Modules by their names, or by what they are for, such as `fs-vfat`.
    #[arg(required = true)]
    names: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut index = ModuleIndex::read(&Linux);
    for name in &options.names {
        if index.load_asked(&Linux, name)? {
            continue;
        }
        if options.quiet {
            std::process::exit(1);
        }
        bail!("this system has no module {name}");
    }
    Ok(())
}
