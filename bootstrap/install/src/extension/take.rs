//! Taking an extension in as it comes. It has its name once all of it is there and is what its head says.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use disk::{About, EXTENSION_HEAD_BYTES, ExtensionError, ExtensionHead, Verity};
use sys::{Linux, System};

use super::held::{MOST, forget_trial, held};
use crate::signature;

/// One that is not whole.
const DRAFT: &str = "draft";

/// What is asked of an extension.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Where extensions are kept.
    pub folder: PathBuf,
    /// The Ed25519 key that they must be signed with; without one they need no signature.
    pub key: Option<Vec<u8>>,
    /// How large it may be: what it takes is etcd's, too.
    pub room: u64,
}

/// Why one is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It is none.
    #[error(transparent)]
    Head(#[from] ExtensionError),
    /// Its signature is wrong or not there.
    #[error("its signature {0}")]
    Signature(&'static str),
    /// There are too many.
    #[error("the machine has {MOST} files of extensions, and takes no more")]
    Many,
    /// There is no room.
    #[error("it has {bytes} bytes, and no more than half of what is free on STATE is given to it: {room}")]
    Room {
        /// Its size.
        bytes: u64,
        /// What is left for it.
        room: u64,
    },
    /// It ends too early or too late.
    #[error("it has {found} bytes, not {wanted}")]
    Length {
        /// What came.
        found: u64,
        /// What its head says.
        wanted: u64,
    },
    /// Its content is not what its head says.
    #[error("it is damaged: its content is not what its head says")]
    Damaged,
    /// STATE cannot be written.
    #[error("write {path}")]
    Write {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses.
    #[error(transparent)]
    System(#[from] sys::Error),
}

/// Takes an extension in. One that is given up leaves nothing that counts.
#[derive(Debug)]
pub struct Taker {
    admission: Admission,
    head: Option<ExtensionHead>,
    start: Vec<u8>,
    file: File,
    written: u64,
}

impl Taker {
    /// Ready to take one.
    ///
    /// # Errors
    /// STATE cannot be written.
    pub fn new(admission: Admission) -> Result<Self, TakeError> {
        Linux.make_dir(&admission.folder, 0o700)?;
        let path = admission.folder.join(DRAFT);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|source| TakeError::Write { path: path.display().to_string(), source })?;
        Ok(Self { admission, head: None, start: Vec::new(), file, written: 0 })
    }

    fn draft(&self) -> PathBuf {
        self.admission.folder.join(DRAFT)
    }

    fn failed(&self, source: io::Error) -> TakeError {
        TakeError::Write { path: self.draft().display().to_string(), source }
    }

    /// Takes some more of the file.
    ///
    /// # Errors
    /// It is refused, or STATE fails.
    pub fn add(&mut self, content: &[u8]) -> Result<(), TakeError> {
        if let Some(head) = &self.head {
            let (found, wanted) = (self.written + content.len() as u64, head.bytes());
            if found > wanted {
                return Err(TakeError::Length { found, wanted });
            }
            self.file.write_all(content).map_err(|source| self.failed(source))?;
            self.written = found;
            return Ok(());
        }
        self.start.extend_from_slice(content);
        if self.start.len() < EXTENSION_HEAD_BYTES {
            return Ok(());
        }
        let head = ExtensionHead::parse(&self.start)?;
        self.check(&head)?;
        self.head = Some(head);
        let start = std::mem::take(&mut self.start);
        self.add(&start)
    }

    fn check(&self, head: &ExtensionHead) -> Result<(), TakeError> {
        let Admission { folder, key, room } = &self.admission;
        signature::check(key.as_deref(), &head.signed, &head.signature).map_err(TakeError::Signature)?;
        let others = held(&Linux, folder, None);
        let others = others.iter().filter(|held| held.path != folder.join(head.about.file_name()));
        if others.count() >= MOST {
            return Err(TakeError::Many);
        }
        match head.bytes() {
            bytes if bytes > *room => Err(TakeError::Room { bytes, room: *room }),
            _ => Ok(()),
        }
    }

    /// The file has ended: all of it must be there, and right. It counts from the next start.
    ///
    /// # Errors
    /// Something is missing or damaged, or STATE fails.
    pub fn finish(mut self) -> Result<About, TakeError> {
        let Some(head) = self.head.take() else {
            // Whatever it is, it is told as what is wrong with it.
            ExtensionHead::parse(&self.start)?;
            return Err(TakeError::Damaged);
        };
        if self.written != head.bytes() {
            return Err(TakeError::Length { found: self.written, wanted: head.bytes() });
        }
        let is_whole = is_whole(&mut self.file, &head).map_err(|source| self.failed(source))?;
        if !is_whole {
            return Err(TakeError::Damaged);
        }
        self.file.sync_all().map_err(|source| self.failed(source))?;
        let path = self.admission.folder.join(head.about.file_name());
        // It may be the same again, for another try.
        forget_trial(&Linux, &path)?;
        std::fs::rename(self.draft(), &path).map_err(|source| self.failed(source))?;
        keep_folder(&self.admission.folder).map_err(|source| self.failed(source))?;
        Ok(head.about)
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        // Where it was taken there is none any more.
        Linux.remove_file(&self.draft()).ok();
    }
}

/// Whether data and hash tree are those that the head tells.
fn is_whole(file: &mut File, head: &ExtensionHead) -> io::Result<bool> {
    file.seek(SeekFrom::Start(EXTENSION_HEAD_BYTES as u64))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (verity, tree) = Verity::build((&mut reader).take(head.verity.bytes()), &head.id)?;
    if verity != head.verity {
        return Ok(false);
    }
    let mut found = Vec::new();
    reader.take(tree.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(found == tree)
}

fn keep_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use disk::Extension;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn file(sign: impl FnOnce(&[u8]) -> String) -> Vec<u8> {
        let data = vec![3; 300 * 4096];
        let (verity, tree) = Verity::build(data.as_slice(), &[0x0f; 16]).unwrap();
        let about = About { name: "gpu".to_owned(), version: "1".to_owned(), ..About::default() };
        let head = Extension::new(about, &"0f".repeat(16), &verity).head(sign).unwrap();
        [head, data, tree].concat()
    }

    fn sign(line: &[u8]) -> String {
        key().sign(line).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn take(folder: &Path, file: &[u8], room: u64, key: Option<Vec<u8>>) -> Result<About, TakeError> {
        let mut taker = Taker::new(Admission { folder: folder.to_owned(), key, room })?;
        file.chunks(10_000).try_for_each(|part| taker.add(part))?;
        taker.finish()
    }

    #[test]
    fn one_that_is_whole_is_kept_and_tried_anew() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("extensions");
        let trusted = Some(key().public_key().as_ref().to_vec());
        assert_eq!(take(&folder, &file(sign), 1 << 30, trusted.clone()).unwrap().name, "gpu");
        let names = || -> Vec<String> {
            let mut names: Vec<String> =
                fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["gpu.extension"]);
        assert!(fs::read(folder.join("gpu.extension")).unwrap() == file(sign));
        fs::write(folder.join("gpu.extension.tried"), "2").unwrap();
        take(&folder, &file(sign), 1 << 30, trusted).unwrap();
        assert_eq!(names(), ["gpu.extension"]);
    }

    #[test]
    fn what_is_not_right_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let trusted = Some(key().public_key().as_ref().to_vec());
        let foreign = Some(Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap().public_key().as_ref().to_vec());
        let refused = |file: &[u8], room, key: &Option<Vec<u8>>| {
            take(folder.path(), file, room, key.clone()).unwrap_err().to_string()
        };
        let (whole, unsigned) = (file(sign), file(|_line| String::new()));
        let changed = |at: usize| {
            let mut file = whole.clone();
            file[at] ^= 1;
            file
        };
        assert!(refused(&unsigned, 1 << 30, &trusted).contains("signature is missing"));
        assert!(refused(&whole, 1 << 30, &foreign).contains("not by the key"));
        assert!(refused(&file(|_line| sign(b"of another")), 1 << 30, &trusted).contains("not by the key"));
        assert!(refused(&whole, 100, &trusted).contains("half of what is free"));
        assert!(refused(&changed(EXTENSION_HEAD_BYTES + 5000), 1 << 30, &trusted).contains("is damaged"));
        assert!(refused(&changed(whole.len() - 5000), 1 << 30, &trusted).contains("is damaged"));
        assert!(refused(&whole[..whole.len() - 1], 1 << 30, &trusted).contains("bytes, not"));
        assert!(refused(&[whole.as_slice(), b"x"].concat(), 1 << 30, &trusted).contains("bytes, not"));
        assert!(refused(b"", 1 << 30, &trusted).contains("no extension file"));
        assert!(refused(&vec![7; 100_000], 1 << 30, &None).contains("does not begin with"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
