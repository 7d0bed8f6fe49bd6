//! Snapshots: a database with its SHA-256 behind it, as etcd sends it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, bolt};

/// Length of the digest at the end.
const DIGEST: usize = 32;
/// Sizes of databases are multiples of this.
const BLOCK: u64 = 512;
/// They hold every secret of the cluster.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A snapshot on its way to a file. What is not finished leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    digest: Sha256,
    /// The last bytes, which may be the digest.
    tail: Vec<u8>,
    bytes: u64,
}

impl Incoming {
    /// Begins a file beside `path`, which nothing but a whole snapshot will become.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().ok_or(Error::Snapshot("its path has no file name"))?;
        let partial = path.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        // Of a process that was cut short.
        fs::remove_file(&partial).ok();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(MODE);
        let file = options.open(&partial).map_err(Error::file("make", &partial))?;
        let (digest, tail) = (Sha256::new(), Vec::new());
        Ok(Self { path: path.to_owned(), partial, file, digest, tail, bytes: 0 })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, part: &[u8]) -> Result<(), Error> {
        self.file.write_all(part).map_err(Error::file("write", &self.partial))?;
        self.bytes += part.len() as u64;
        self.tail.extend_from_slice(part);
        let settled = self.tail.len().saturating_sub(DIGEST);
        self.digest.update(&self.tail[..settled]);
        self.tail.drain(..settled);
        Ok(())
    }

    /// Compares the digest and gives the file its name; answers the size.
    ///
    /// # Errors
    /// When the snapshot is damaged or not whole, or the disk fails.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.verify()?;
        self.settle()?;
        Ok(self.bytes)
    }

    /// Compares the digest and makes the file the database of a new cluster.
    fn finish_database(mut self) -> Result<(), Error> {
        self.verify()?;
        self.file.set_len(self.bytes - DIGEST as u64).map_err(Error::file("shorten", &self.partial))?;
        bolt::forget_cluster(&self.file)?;
        self.settle()
    }

    fn verify(&mut self) -> Result<(), Error> {
        if self.bytes % BLOCK != DIGEST as u64 || self.bytes < BLOCK {
            return Err(Error::Snapshot("it is cut short, or has no digest at its end as copied databases have none"));
        }
        if self.digest.finalize_reset().as_slice() != self.tail {
            return Err(Error::Snapshot("its digest is another one: it is damaged"));
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::file("write", &self.partial))?;
        fs::rename(&self.partial, &self.path).map_err(Error::file("rename", &self.partial))?;
        sync_parent(&self.path)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After the file has got its name there is nothing to remove.
        fs::remove_file(&self.partial).ok();
    }
}

/// A snapshot on its way to become etcd's data.
#[derive(Debug)]
pub struct Restore {
    place: PathBuf,
    folder: PathBuf,
    incoming: Incoming,
}

impl Restore {
    /// Begins; `state` is the folder of STATE.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(state: &Path) -> Result<Self, Error> {
        let folder = state.join("etcd.new.partial");
        remove_folder(&folder)?;
        let database = folder.join("member/snap");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(FOLDER_MODE);
        builder.create(&database).map_err(Error::file("make", &database))?;
        let incoming = Incoming::create(&database.join("db"))?;
        Ok(Self { place: state.join(NEW), folder, incoming })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, part: &[u8]) -> Result<(), Error> {
        self.incoming.add(part)
    }

    /// Verifies all of it and puts it where the next start of etcd takes it.
    ///
    /// # Errors
    /// When the snapshot is damaged, or the disk fails.
    pub fn finish(self) -> Result<(), Error> {
        let marker = self.folder.join("member").join(RESTORED);
        self.incoming.finish_database()?;
        File::create(&marker).and_then(|file| file.sync_all()).map_err(Error::file("write", &marker))?;
        sync_parent(&marker)?;
        remove_folder(&self.place)?;
        fs::rename(&self.folder, &self.place).map_err(Error::file("rename", &self.folder))?;
        sync_parent(&self.place)
    }
}

/// Data that the next start of etcd takes.
pub(crate) const NEW: &str = "etcd.new";
/// Beside a restored database: that it is no leftover of a first start that was cut short.
pub(crate) const RESTORED: &str = "restored";

pub(crate) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file("write", folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn snapshot() -> Vec<u8> {
        let database: Vec<u8> = (0..2048_u32).map(|n| n.to_le_bytes()[0]).collect();
        let digest = Sha256::digest(&database);
        [&database[..], digest.as_slice()].concat()
    }

    fn receive(path: &Path, content: &[u8]) -> Result<u64, Error> {
        let mut incoming = Incoming::create(path)?;
        content.chunks(37).try_for_each(|part| incoming.add(part))?;
        incoming.finish()
    }

    #[test]
    fn only_a_whole_snapshot_becomes_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.db");
        let good = snapshot();
        let mut damaged = good.clone();
        damaged[100] ^= 1;
        for bad in [&good[..good.len() - 1], &good[..good.len() - DIGEST], &good[..512 + DIGEST], &damaged, &[]] {
            assert!(matches!(receive(&path, bad), Err(Error::Snapshot(_))));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        assert_eq!(receive(&path, &good).unwrap(), good.len() as u64);
        assert_eq!(fs::read(&path).unwrap(), good);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_database_is_not_restored() {
        let state = tempfile::tempdir().unwrap();
        let mut restore = Restore::create(state.path()).unwrap();
        restore.add(&snapshot()).unwrap();
        assert!(matches!(restore.finish(), Err(Error::Database(_))));
        assert!(!state.path().join(NEW).exists());
    }
}
