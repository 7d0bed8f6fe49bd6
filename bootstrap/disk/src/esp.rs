//! The EFI system partition: a FAT file system that the firmware and the loader read.
//!
//! Every operation opens the file system, changes one thing, and returns once it is kept, so that the order of
//! operations is the order on the disk. A file only gets its final name when it is whole ([`Esp::put`]).

use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use crate::device::{Device, Window};
use crate::entry::Entry;
use crate::gather::Gather;

/// Where the loader looks for kernel images.
pub const ENTRIES: &str = "EFI/Linux";
const DRAFT: &str = "keelson.new";
const LABEL: [u8; 11] = *b"KEELSON-ESP";

/// What failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("EFI system partition: {step} {path}")]
pub struct EspError {
    step: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

/// Files have no times: the same files make the same bytes.
#[derive(Debug)]
struct NoTime;

const NEVER: Date = Date { year: 1980, month: 1, day: 1 };

impl TimeProvider for NoTime {
    fn get_current_date(&self) -> Date {
        NEVER
    }
    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: NEVER, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

static NO_TIME: NoTime = NoTime;

type Files<'a, 'b, D> = FileSystem<Window<&'a mut Gather<&'b mut D>>>;

/// The EFI system partition on a device that is nothing else.
#[derive(Debug)]
pub struct Esp<D> {
    device: D,
}

impl<D: Device> Esp<D> {
    /// Makes an empty one.
    ///
    /// # Errors
    /// The device fails or is too small.
    pub fn format(mut device: D, id: u32) -> Result<Self, EspError> {
        let length = device.bytes();
        let failed = |source| EspError { step: "make", path: "the file system".to_owned(), source };
        let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).volume_id(id).volume_label(LABEL);
        fatfs::format_volume(Window::new(&mut device, 0, length), options).map_err(failed)?;
        device.sync().map_err(failed)?;
        Ok(Self { device })
    }

    /// Takes the one that is there.
    pub fn open(device: D) -> Self {
        Self { device }
    }

    /// The device back.
    pub fn into_device(self) -> D {
        self.device
    }

    /// Does something with the files and keeps it.
    fn with<T>(
        &mut self,
        step: &'static str,
        path: &str,
        work: impl FnOnce(&Files<'_, '_, D>) -> io::Result<T>,
    ) -> Result<T, EspError> {
        let failed = |source| EspError { step, path: path.to_owned(), source };
        let length = self.device.bytes();
        let options = FsOptions::new().update_accessed_date(false).time_provider(&NO_TIME);
        let mut gather = Gather::new(&mut self.device);
        let files = FileSystem::new(Window::new(&mut gather, 0, length), options).map_err(failed)?;
        let result = work(&files).map_err(failed)?;
        files.unmount().map_err(failed)?;
        gather.keep().map_err(failed)?;
        Ok(result)
    }

    /// A whole file; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, EspError> {
        self.with("read", path, |files| {
            let mut content = Vec::new();
            match files.root_dir().open_file(path) {
                Ok(mut file) => file.read_to_end(&mut content).map(|_| Some(content)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// The names of the files in a folder; none if there is no folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(&mut self, folder: &str) -> Result<Vec<String>, EspError> {
        self.with("list", folder, |files| match files.root_dir().open_dir(folder) {
            Ok(folder) => {
                let entries = folder.iter().collect::<io::Result<Vec<_>>>()?;
                Ok(entries.iter().filter(|entry| entry.is_file()).map(fatfs::DirEntry::file_name).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        })
    }

    /// The boot entries.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn entries(&mut self) -> Result<Vec<Entry>, EspError> {
        Ok(self.list(ENTRIES)?.iter().filter_map(|name| Entry::parse(name)).collect())
    }

    /// Writes a file, replacing one of its name, and its folders. It has its name only once it is whole.
    ///
    /// # Errors
    /// It cannot be written, or what is read back is something else.
    pub fn put(&mut self, path: &str, content: &[u8]) -> Result<(), EspError> {
        let draft = path.rsplit_once('/').map_or(DRAFT.to_owned(), |(folder, _)| format!("{folder}/{DRAFT}"));
        self.with("write", &draft, |files| {
            let mut folder = files.root_dir();
            let mut parts: Vec<&str> = path.split('/').collect();
            parts.pop();
            for part in parts {
                folder = folder.create_dir(part)?;
            }
            let mut file = folder.create_file(DRAFT)?;
            file.seek(SeekFrom::Start(0))?;
            file.truncate()?;
            file.write_all(content)?;
            file.flush()
        })?;
        if self.read(&draft)?.as_deref() != Some(content) {
            let source = io::Error::other("what is read back is not what was written");
            return Err(EspError { step: "write", path: path.to_owned(), source });
        }
        self.remove(path)?;
        self.rename(&draft, path)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// There is no such file, or one of the new name.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), EspError> {
        self.with("rename", from, |files| files.root_dir().rename(from, &files.root_dir(), to))
    }

    /// Removes a file; fine if there is none.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&mut self, path: &str) -> Result<(), EspError> {
        self.with("remove", path, |files| match files.root_dir().remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Memory;

    fn esp() -> Esp<Memory> {
        Esp::format(Memory::new(40 << 20), 7).unwrap()
    }

    #[test]
    fn files_are_kept_and_named_when_they_are_whole() {
        let mut esp = esp();
        let large = vec![7; 3_000_000];
        esp.put("EFI/Linux/keelson-1-a.efi", &large).unwrap();
        esp.put("EFI/Linux/keelson-2-b+3.efi", b"two").unwrap();
        esp.put("loader/loader.conf", b"timeout 0\n").unwrap();
        esp.put("loader/loader.conf", b"timeout 1\n").unwrap();
        assert_eq!(esp.read("loader/loader.conf").unwrap().unwrap(), b"timeout 1\n");
        assert_eq!(esp.read("EFI/Linux/keelson-1-a.efi").unwrap().unwrap(), large);
        assert_eq!(esp.read("absent").unwrap(), None);
        assert_eq!(esp.entries().unwrap().len(), 2);
        esp.rename("EFI/Linux/keelson-2-b+3.efi", "EFI/Linux/keelson-2-b.efi").unwrap();
        esp.remove("EFI/Linux/keelson-1-a.efi").unwrap();
        esp.remove("EFI/Linux/keelson-1-a.efi").unwrap();
        assert_eq!(esp.list(ENTRIES).unwrap(), ["keelson-2-b.efi"]);
        let mut again = Esp::open(esp.into_device());
        assert_eq!(again.read("EFI/Linux/keelson-2-b.efi").unwrap().unwrap(), b"two");
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let make = || {
            let mut esp = esp();
            esp.put("EFI/BOOT/BOOTX64.EFI", b"loader").unwrap();
            esp.into_device().content()
        };
        assert!(make() == make());
    }
}
