//! Disks and partitions that nobody else has, and what only their owner may ask of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::Error;

/// `BLKDISCARD` and `BLKRRPART`, from the kernel's `linux/fs.h`.
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKRRPART: libc::c_ulong = 0x125f;

/// Opens a disk or a partition for reading and writing. The kernel refuses one that is mounted anywhere, or that is a part
/// of something else, and lets nobody mount it meanwhile.
///
/// # Errors
/// When the kernel refuses; [`Error::is_busy`] where it is in use.
pub fn claim(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(path);
    file.map_err(|source| Error::new(format!("take {} over", path.display()), source))
}

/// Tells a device that nobody needs these bytes any more. Whole sectors only.
///
/// # Errors
/// When the device cannot do so, or fails.
pub fn discard(device: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let mut range = [offset, bytes];
    // SAFETY: the descriptor is open for the whole call, and the two numbers that this request reads are alive and not
    // shared until it returns. No safe wrapper knows this request.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD, range.as_mut_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads the partition table of a disk again, of which nothing is in use.
pub(crate) fn read_partitions(disk: &Path) -> io::Result<()> {
    let file = File::open(disk)?;
    // SAFETY: the descriptor is open for the whole call, and this request has no argument. No safe wrapper knows it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKRRPART) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_takes_no_discards_and_has_no_partitions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0; 4096]).unwrap();
        let file = claim(&path).unwrap();
        assert!(discard(&file, 0, 4096).is_err());
        assert!(read_partitions(&path).is_err());
        assert!(claim(&folder.path().join("none")).unwrap_err().is_not_found());
    }
}
