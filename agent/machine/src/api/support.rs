//! Everything that helps to find out what is wrong with a machine, as one archive, without secrets.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use lifecycle::Shutdown;
use machine_api::{Chunk, View};
use stdx::chain;
use sys::{Linux, System};
use tokio::sync::mpsc;
use tonic::Status;

use super::refusal::busy;
use super::{Messages, Server, chunk, streamed};
use crate::logs::{self, Part, Wanted};
use crate::redact::Secrets;
use crate::views;

/// The folder that everything is in.
const FOLDER: &str = "support";
/// How much of each log.
const LINES: usize = 20_000;
/// How much waits for a slow caller.
const QUEUE_LEN: usize = 8;
const PART_BYTES: usize = 64 << 10;

/// A file of the archive.
type Entry = (String, Vec<u8>);

/// Streams the archive.
pub(super) async fn bundle(server: &Server) -> Result<Messages<Chunk>, Status> {
    let Ok(turn) = server.readers.clone().try_acquire_owned() else {
        return Err(busy("as many read logs already as this machine serves at once"));
    };
    let mut entries = Vec::new();
    for (name, view) in View::ALL {
        entries.push(match views::json(server, view).await {
            Ok(content) => (format!("{name}.json"), content),
            Err(reason) => (format!("{name}.error"), reason.into_bytes()),
        });
    }
    if let Some(etcd) = &server.etcd {
        let status = etcd.status().await.map_err(|error| chain(&error).to_string());
        let content = status.and_then(|status| serde_json::to_vec_pretty(&status).map_err(|error| error.to_string()));
        entries.push(("etcd.json".to_owned(), content.unwrap_or_else(String::into_bytes)));
    }
    let read = |path: PathBuf| Linux.read(&path).unwrap_or_default();
    let shown = read(server.run.join("manifest.toml"));
    entries
        .push(("manifest.toml".to_owned(), manifest::without_secrets(&String::from_utf8_lossy(&shown)).into_bytes()));
    entries.push(("network.json".to_owned(), read(server.run.join("network.json"))));
    entries.push(("diagnostics.txt".to_owned(), read(server.run.join("diagnostics"))));
    entries.push(("crash.txt".to_owned(), read(server.crash.clone())));
    let (folder, secrets, shutdown) = (server.logs.clone(), server.secrets.clone(), server.shutdown.clone());
    let (sender, parts) = mpsc::channel(QUEUE_LEN);
    drop(tokio::task::spawn_blocking(move || {
        let source = Source { folder, secrets, shutdown };
        if let Err(error) = write(Parts { sender, part: Vec::new() }, entries, &source) {
            tracing::info!(%error, "the support archive was not taken to its end");
        }
    }));
    Ok(streamed(parts, turn, chunk))
}

/// Where logs come from.
struct Source {
    folder: PathBuf,
    secrets: Secrets,
    shutdown: Shutdown,
}

impl Source {
    fn log(&self, name: String) -> Entry {
        let wanted = Wanted { service: name.clone(), part: Part { tail: Some(LINES), ..Part::default() } };
        let mut parts = logs::read(&self.folder, wanted, self.secrets.clone(), self.shutdown.clone());
        let mut text = String::new();
        while let Some(part) = parts.blocking_recv() {
            for line in part.lines {
                text += &line.to_text();
                text.push('\n');
            }
        }
        (format!("logs/{name}.log"), text.into_bytes())
    }
}

fn write(out: Parts, entries: Vec<Entry>, source: &Source) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    let logs = logs::names(&source.folder).into_iter().map(|name| source.log(name));
    for (name, content) in entries.into_iter().chain(logs) {
        // What holds a secret by accident is cleaned as well as what is known to.
        let content = source.secrets.redact_all(&content);
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(Linux.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), content.as_slice())?;
    }
    archive.into_inner()?.flush()
}

/// The way to the caller, which waits for them.
struct Parts {
    sender: mpsc::Sender<Bytes>,
    part: Vec<u8>,
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let part = Bytes::from(std::mem::take(&mut self.part));
        self.sender.blocking_send(part).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures::TryStreamExt;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn the_archive_holds_logs_and_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let secret = "abcdef.0123456789abcdef";
        let text =
            format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\ntoken = \"{secret}\"\n");
        // Another one is not in the manifest at all.
        let text = format!(
            "{text}[outbound.proxy]\nurl = \"http://p:1\"\nusername = \"u\"\npassword = {{ file = \"/state/secrets/p\" }}\n"
        );
        let found = secrets::Found {
            key: "outbound.proxy.password".to_owned(),
            reference: manifest::Reference::File("/state/secrets/p".to_owned()),
            outcome: Ok(manifest::SecretText::new("open-sesame".to_owned())),
        };
        secrets::publish(&Linux, folder.path(), &[found], &[]).unwrap();
        std::fs::write(folder.path().join("manifest.toml"), &text).unwrap();
        std::fs::write(folder.path().join("status.json"), "{\"hostname\":\"m1\"}").unwrap();
        std::fs::write(folder.path().join("node.log"), format!("joins with {secret} by open-sesame\n")).unwrap();
        let config = Config {
            run: folder.path().to_owned(),
            logs: folder.path().to_owned(),
            crash: folder.path().join("crash"),
            boots: folder.path().join("boots"),
            pki: folder.path().join("pki"),
            containerd: folder.path().join("containerd.sock"),
            ..Config::new(secrets::in_force(&Linux, folder.path()).ok(), UNIX_EPOCH)
        };
        let parts: Vec<Chunk> = bundle(&Server::alone(&config)).await.unwrap().try_collect().await.unwrap();
        let body: Vec<u8> = parts.into_iter().flat_map(|part| part.data).collect();
        assert!(!body.windows(16).any(|part| part == b"0123456789abcdef"));
        let mut archive = tar::Archive::new(body.as_slice());
        let mut found = std::collections::BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            found.insert(entry.path().unwrap().to_string_lossy().into_owned(), content);
        }
        assert!(found["support/logs/node.log"].contains("joins with abcdef.<redacted> by <redacted>"), "{found:?}");
        assert!(found["support/manifest.toml"].contains("/state/secrets/p"));
        assert!(!found.values().any(|content| content.contains("open-sesame")));
        assert!(found["support/manifest.toml"].contains("token = \"***\""));
        assert!(found["support/services.json"].contains("m1") && found.contains_key("support/images.error"));
        assert!(found.contains_key("support/logs/kernel.log") && found.contains_key("support/processes.json"));
    }
}
