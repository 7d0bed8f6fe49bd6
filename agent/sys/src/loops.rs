//! A part of a file as a block device that is only read: the kernel's loop devices.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::Error;

const CONTROL: &str = "/dev/loop-control";
/// From the kernel's `linux/loop.h`.
const GET_FREE: libc::c_ulong = 0x4c82;
const CONFIGURE: libc::c_ulong = 0x4c0a;
const READ_ONLY: u32 = 1;
/// It goes when nobody has it open any more.
const AUTOCLEAR: u32 = 4;
const NAME_BYTES: usize = 64;
/// Somebody else may take a free one first.
const TRIES: usize = 16;

/// Alike in the kernel, with what is set here by name.
#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    file: u32,
    block_bytes: u32,
    /// Its device, file and device node, which the kernel tells.
    told: [u64; 3],
    offset: u64,
    bytes: u64,
    number: u32,
    /// Of encryption, which there is none of any more.
    cipher: [u32; 2],
    flags: u32,
    name: [u8; NAME_BYTES],
    cipher_name: [u8; NAME_BYTES],
    key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A loop device that stays as long as this, or somebody else, has it open.
pub(crate) struct LoopDevice {
    _open: File,
    pub(crate) path: PathBuf,
}

/// Makes a device of the `bytes` bytes of a file from `offset` on.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn attach(path: &Path, (offset, bytes): (u64, u64)) -> Result<LoopDevice, Error> {
    let failed = |source: io::Error| Error::new(format!("make a device of {}", path.display()), source);
    let file = File::open(path).map_err(failed)?;
    let control = File::options().read(true).write(true).open(CONTROL).map_err(failed)?;
    let mut refused = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..TRIES {
        match take(&control, &file, (offset, bytes)) {
            Ok(device) => return Ok(device),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => refused = error,
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(refused))
}

fn take(control: &File, file: &File, (offset, bytes): (u64, u64)) -> io::Result<LoopDevice> {
    // SAFETY: the descriptor is open for the whole call, which takes no argument. No safe wrapper knows it.
    #[allow(unsafe_code)]
    let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    let path = Path::new("/dev").join(format!("loop{number}"));
    let open = File::open(&path)?;
    let config = Config {
        file: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
        block_bytes: 0,
        told: [0; 3],
        offset,
        bytes,
        number: 0,
        cipher: [0; 2],
        flags: READ_ONLY | AUTOCLEAR,
        name: [0; NAME_BYTES],
        cipher_name: [0; NAME_BYTES],
        key: [0; 32],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: both descriptors are open for the whole call, and the configuration is of the layout that the loop driver
    // reads, alive until it returns. No safe wrapper knows it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(open.as_raw_fd(), CONFIGURE, std::ptr::from_ref(&config)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(LoopDevice { _open: open, path }) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_part_of_a_file_is_a_device_that_goes_with_its_last_user() {
        assert_eq!((size_of::<Config>(), std::mem::offset_of!(Config, flags)), (304, 60));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [vec![1; 4096], vec![2; 8192], vec![3; 4096]].concat()).unwrap();
        let device = match attach(&path, (4096, 8192)) {
            Ok(device) => device,
            // Nobody but root makes one, and not everywhere.
            Err(error) => return println!("SKIPPED: {error}"),
        };
        let mut content = Vec::new();
        File::open(&device.path).unwrap().read_to_end(&mut content).unwrap();
        assert!(content == [2; 8192]);
        assert!(std::fs::write(&device.path, "x").is_err());
        let backing = Path::new("/sys/class/block").join(device.path.file_name().unwrap()).join("loop/backing_file");
        assert!(backing.exists());
        drop(device);
        let is_ours = std::fs::read_to_string(backing).is_ok_and(|found| found.trim() == path.display().to_string());
        assert!(!is_ours);
        assert!(attach(&folder.path().join("absent"), (0, 4096)).is_err());
    }
}
