//! Reads and writes the files.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use manifest::ClusterSecret;

use crate::Error;
use crate::authority::Authority;
use crate::key::{Key, Random};
use crate::kubeconfig::{Identity, kubeconfig};
use crate::plan::{Action, Observed, Plan};

const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;
const ENDINGS: [&str; 4] = ["crt", "key", "pub", "conf"];

/// Reads the folder of all certificates and its folder `etcd`. A folder that is not there is empty.
///
/// # Errors
/// If a file cannot be read.
pub fn observe(dir: &Path) -> Result<Observed, Error> {
    let mut files = BTreeMap::new();
    for (folder, prefix) in [(dir.to_owned(), ""), (dir.join("etcd"), "etcd/")] {
        let failed = |source| Error::Read { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            let name = path.file_name().and_then(|name| name.to_str());
            if let (Some(ending), Some(name)) = (ending, name)
                && ENDINGS.contains(&ending)
            {
                // A file that is no text is damaged, and what that means depends on which file it is.
                let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
                files.insert(format!("{prefix}{name}"), String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    Ok(Observed(files))
}

/// Does the steps of a plan. A step that was interrupted is found by the next plan and done again.
///
/// # Errors
/// At the first step that fails; those before it are done.
pub fn apply(dir: &Path, plan: &Plan, now: SystemTime, random: Random<'_>) -> Result<(), Error> {
    for action in &plan.actions {
        apply_action(dir, action, now, random)?;
    }
    Ok(())
}

fn apply_action(dir: &Path, action: &Action, now: SystemTime, random: Random<'_>) -> Result<(), Error> {
    match action {
        Action::MakeAuthority { name, common_name, keep_key } => {
            let key = if *keep_key { Key::from_pem(name, &read(dir, name, "key")?)? } else { Key::generate(random)? };
            let authority = Authority::with_key(common_name, key, now, random)?;
            write_authority(dir, name, authority.key(), authority.pem())
        }
        Action::DeriveAuthority { name, common_name, secret, bundle } => {
            write_authority(dir, name, &Key::derive(secret.bytes(), common_name)?, bundle)
        }
        Action::WriteTrusted { name, bundle } => write(dir, name, "crt", bundle),
        Action::MakeKeyPair { name, secret, accepted } => {
            let key = match secret {
                Some(secret) => Key::derive(secret.bytes(), name)?,
                None => Key::generate(random)?,
            };
            write(dir, name, "key", &key.to_pem()?)?;
            write_public(dir, name, &key, accepted.as_ref())
        }
        Action::WritePublicKey { name, accepted } => {
            let key = Key::from_pem(name, &read(dir, name, "key")?)?;
            write_public(dir, name, &key, accepted.as_ref())
        }
        Action::Issue { name, signer, leaf, .. } => {
            let signer = Authority::from_pem(signer, &read(dir, signer, "crt")?, &read(dir, signer, "key")?)?;
            let key = Key::generate(random)?;
            let certificate = signer.issue(leaf, &key, now, random)?;
            write(dir, name, "key", &key.to_pem()?)?;
            write(dir, name, "crt", &certificate)
        }
        Action::WriteKubeconfig { name, cluster, server, user } => {
            let (cert, key) = (read(dir, name, "crt")?, read(dir, name, "key")?);
            let identity = Identity::Certificate { cert_pem: &cert, key_pem: &key };
            write(dir, name, "conf", &kubeconfig(cluster, server, &read(dir, "ca", "crt")?, user, identity))
        }
    }
}

/// The key first: a key without certificate can be completed, a certificate without key cannot.
fn write_authority(dir: &Path, name: &str, key: &Key, bundle: &str) -> Result<(), Error> {
    write(dir, name, "key", &key.to_pem()?)?;
    write(dir, name, "crt", bundle)
}

/// The public half of a key, and of the one that is believed beside it.
fn write_public(dir: &Path, name: &str, key: &Key, accepted: Option<&ClusterSecret>) -> Result<(), Error> {
    let accepted = accepted.map(|secret| Key::derive(secret.bytes(), name)?.public_pem()).transpose()?;
    write(dir, name, "pub", &(key.public_pem()? + accepted.as_deref().unwrap_or_default()))
}

fn read(dir: &Path, name: &str, ending: &str) -> Result<String, Error> {
    let path = dir.join(format!("{name}.{ending}"));
    fs::read_to_string(&path).map_err(|source| Error::Read { path, source })
}

fn write(dir: &Path, name: &str, ending: &str, text: &str) -> Result<(), Error> {
    let mode = if matches!(ending, "key" | "conf") { SECRET_MODE } else { PUBLIC_MODE };
    write_file(&dir.join(format!("{name}.{ending}")), text.as_bytes(), mode)
}

/// Writes a file so that after a crash either the old or the new contents are there, and makes its folder if needed.
///
/// # Errors
/// If the file system refuses.
pub fn write_file(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    write_atomically(path, contents, mode).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn write_atomically(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder_of(path).ok_or(io::ErrorKind::InvalidInput)?;
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // What an earlier crash left behind may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Where a file lies: one that is only named, in the folder that the process is in.
fn folder_of(path: &Path) -> Option<&Path> {
    let folder = path.parent()?;
    Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_lies_here() {
        assert_eq!(folder_of(Path::new("kubeconfig")), Some(Path::new(".")));
        assert_eq!(folder_of(Path::new("/run/kubeconfig")), Some(Path::new("/run")));
        assert_eq!(folder_of(Path::new("/")), None);
    }
}
