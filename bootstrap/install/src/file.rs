//! A device that is a file: a disk, a partition, an image.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use disk::Device;

use crate::error::Error;
use crate::wipe::Wipeable;

/// A device that is a file of fixed size.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    bytes: u64,
}

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To tell what would be done.
    Look,
    /// To do it.
    Write,
}

impl Purpose {
    /// Opens a device for it.
    ///
    /// # Errors
    /// It cannot be opened or has no size.
    pub fn open(self, path: &Path) -> Result<FileDevice, Error> {
        let device = match self {
            Self::Look => FileDevice::open_read_only(path),
            Self::Write => FileDevice::open(path),
        };
        device.map_err(|source| Error::Open { path: path.to_owned(), source })
    }
}

impl FileDevice {
    /// Opens a device or a file for reading and writing.
    ///
    /// # Errors
    /// It cannot be opened or has no size.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Opens a device for reading and writing that nobody else has.
    ///
    /// # Errors
    /// It cannot be opened, is in use, or has no size.
    pub fn claim(path: &Path) -> Result<Self, Error> {
        Self::new(sys::claim(path)?).map_err(|source| Error::Open { path: path.to_owned(), source })
    }

    /// Opens a device or a file for reading.
    ///
    /// # Errors
    /// It cannot be opened or has no size.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }

    /// Makes a file of so many zeros that take no space.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path, bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(bytes)?;
        Self::new(file)
    }

    fn new(mut file: File) -> io::Result<Self> {
        // A device's metadata say nothing about its size.
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, bytes })
    }
}

impl Device for FileDevice {
    fn bytes(&self) -> u64 {
        self.bytes
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        if offset.checked_add(content.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the device"));
        }
        self.file.write_all_at(content, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Wipeable for FileDevice {
    fn discard(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        sys::discard(&self.file, offset, bytes)
    }
}
