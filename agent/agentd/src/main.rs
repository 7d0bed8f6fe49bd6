//! The `keelson` binary: one file, many roles.
//!
//! A role is chosen by the first argument (`keelson kubelet …`) or by the name of the file (`kubelet …` through a
//! link). This crate reads arguments, environment and files, builds the components' configurations and connects
//! them; it decides nothing itself.

mod arguments;
mod features;
mod flags;
mod host;
mod logs;
mod node;
mod paths;
mod process;
mod roles;
mod settings;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use mimalloc::MiMalloc;

/// A third of the processor time of writes went into the C library's allocator.
/// Without huge pages: they make each process 10 MB larger.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A node operating system agent that turns machines into Kubernetes masters and workers.
#[derive(Parser)]
#[command(name = "keelson", version, about)]
struct Arguments {
    #[command(subcommand)]
    role: roles::Role,
}

fn main() -> ExitCode {
    let words = arguments::by_file_name(std::env::args_os());
    let command = Arguments::command();
    let role = words.get(1).and_then(|role| command.find_subcommand(role));
    let arguments = Arguments::parse_from(match role {
        Some(role) => arguments::without_empty_paths(role, words.clone()),
        None => words,
    });
    match arguments.role.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("keelson: {error:#}");
            ExitCode::FAILURE
        }
    }
}
