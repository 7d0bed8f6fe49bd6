//! Content hashes, and build stages that are skipped while their inputs stay the same.

use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, umask};
use sha2::{Digest, Sha256};

/// A hash over everything that a build stage's result depends on.
#[derive(Clone, Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    pub(crate) fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update(part.len().to_le_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn add_file(&mut self, path: &Path) -> Result<&mut Self> {
        self.0.update(sha256_file(path)?);
        Ok(self)
    }

    pub(crate) fn hex(&self) -> String {
        stdx::hex(&self.0.clone().finalize())
    }
}

pub(crate) fn sha256_file(path: &Path) -> Result<[u8; 32]> {
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if count == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..count]);
    }
}

/// Makes the folder `folder` anew with `make`, unless it was made from the same inputs before. Returns whether it
/// was made.
pub(crate) fn stage(folder: &Path, inputs: &Fingerprint, make: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
    let stamp = folder.with_extension("stamp");
    if folder.is_dir() && fs::read_to_string(&stamp).is_ok_and(|made| made == inputs.hex()) {
        return Ok(false);
    }
    remove(&stamp)?;
    remove(folder)?;
    let _open = Umask::open();
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    make(folder)?;
    fs::write(&stamp, inputs.hex()).with_context(|| format!("write {}", stamp.display()))?;
    Ok(true)
}

/// While it is there, what is made is the same whatever its maker keeps from others otherwise.
struct Umask(Mode);

impl Umask {
    fn open() -> Self {
        Self(umask(Mode::from_bits_truncate(0o022)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_is_made_once_for_the_same_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("stage");
        let mut inputs = Fingerprint::default();
        inputs.add("one");
        assert!(stage(&target, &inputs, |at| Ok(fs::write(at.join("file"), "1")?)).unwrap());
        assert!(!stage(&target, &inputs, |_| panic!("made twice")).unwrap());
        inputs.add("two");
        assert!(stage(&target, &inputs, |_| Ok(())).unwrap());
        assert!(!target.join("file").exists());
    }

    #[test]
    fn failed_stage_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("stage");
        let inputs = Fingerprint::default();
        assert!(stage(&target, &inputs, |_| anyhow::bail!("no")).is_err());
        assert!(stage(&target, &inputs, |_| Ok(())).unwrap());
    }
}
