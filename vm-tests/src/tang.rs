//! A key server for virtual machines: Debian's Tang, a process for each connection, at the host's end of their uplinks.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use images::tools;

const TOOLS: &[tools::Tool] = &[("jose", "jose"), ("tang-show-keys", "tang")];
const SERVER: &str = "/usr/libexec/tangd";
const KEYGEN: &str = "/usr/libexec/tangd-keygen";
/// The host, as QEMU's user network has it.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// A server, for as long as the process lives.
pub(crate) struct Tang {
    /// Where machines find it.
    pub(crate) url: String,
    /// The thumbprint of the key that it signs with.
    pub(crate) thumbprint: String,
    is_up: Arc<AtomicBool>,
}

impl Tang {
    /// Starts one that does not answer yet, with new keys in this folder.
    ///
    /// # Errors
    /// It cannot be had, or makes no keys.
    pub(crate) fn start(folder: PathBuf) -> Result<Self> {
        tools::require(TOOLS)?;
        fs::create_dir_all(&folder).context("make room for the key server")?;
        tools::run(Command::new(KEYGEN).arg(&folder))?;
        let thumbprint = thumbprint(&folder)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen for the key server")?;
        let url = format!("http://{HOST}:{}", listener.local_addr().context("the key server's port")?.port());
        let is_up = Arc::new(AtomicBool::new(false));
        let answers = Arc::clone(&is_up);
        thread::spawn(move || {
            for stream in listener.incoming().flatten().filter(|_| answers.load(Ordering::SeqCst)) {
                let folder = folder.clone();
                thread::spawn(move || serve(&folder, stream).inspect_err(|error| eprintln!("tangd: {error}")).ok());
            }
        });
        Ok(Self { url, thumbprint, is_up })
    }

    /// Lets it answer, or end every connection at once.
    pub(crate) fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::SeqCst);
    }
}

/// That of the key that signs, as the server's own tools tell it.
fn thumbprint(folder: &Path) -> Result<String> {
    for entry in fs::read_dir(folder).context("read the keys")? {
        let path = entry.context("read the keys")?.path();
        if fs::read_to_string(&path).is_ok_and(|key| key.contains("verify")) {
            let mut command = tools::command("jose");
            return Ok(tools::run(command.args(["jwk", "thp", "-a", "S256", "-i"]).arg(path))?.trim().to_owned());
        }
    }
    anyhow::bail!("the key server made no key that signs")
}

fn serve(folder: &Path, stream: TcpStream) -> std::io::Result<()> {
    let answers = OwnedFd::from(stream.try_clone()?);
    let mut command = Command::new(SERVER);
    command.arg(folder).stdin(OwnedFd::from(stream)).stdout(answers).stderr(Stdio::null());
    command.spawn()?.wait().map(drop)
}
