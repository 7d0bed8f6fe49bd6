//! Telling the kernel of a partition that was added to a disk in use.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `BLKPG` with `BLKPG_ADD_PARTITION`, from the kernel's `linux/blkpg.h`.
const BLKPG: libc::c_ulong = 0x1269;
const ADD_PARTITION: libc::c_int = 1;
const NAME_BYTES: usize = 64;

#[repr(C)]
struct Partition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    device_name: [u8; NAME_BYTES],
    volume_name: [u8; NAME_BYTES],
}

#[repr(C)]
struct Argument {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut libc::c_void,
}

/// Makes a partition known. The other partitions may be mounted; reading the whole table again would not work then.
pub(crate) fn add(disk: &Path, number: u32, start: u64, bytes: u64) -> io::Result<()> {
    let wide = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let mut partition = Partition {
        start: wide(start)?,
        length: wide(bytes)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        device_name: [0; NAME_BYTES],
        volume_name: [0; NAME_BYTES],
    };
    let mut argument = Argument {
        operation: ADD_PARTITION,
        flags: 0,
        length: i32::try_from(size_of::<Partition>()).map_err(io::Error::other)?,
        data: (&raw mut partition).cast(),
    };
    let file = File::open(disk)?;
    // SAFETY: the descriptor is open for the whole call, and the argument and what it points to are of the layouts that
    // this request reads, alive and not shared until it returns. No safe wrapper knows this request.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKPG, &raw mut argument) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
