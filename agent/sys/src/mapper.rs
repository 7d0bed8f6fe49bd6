//! Devices made of other devices: the device mapper.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::loops;

const CONTROL: &str = "/dev/mapper/control";
/// From the kernel's `linux/dm-ioctl.h`.
const VERSION: [u32; 3] = [4, 0, 0];
const READ_ONLY: u32 = 1;
const NAME_BYTES: usize = 128;
const UUID_BYTES: usize = 129;
/// Room for one target and its parameters.
const TARGET_BYTES: usize = 1024;
const PARAMETERS_BYTES: usize = TARGET_BYTES - size_of::<Target>();

/// One device as a part of another kind: what becomes of its sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// The name of the new device.
    pub name: &'a str,
    /// How many sectors of 512 bytes it has.
    pub sectors: u64,
    /// The kind of target, such as `linear`.
    pub kind: &'a str,
    /// What that kind needs to know.
    pub parameters: &'a str,
}

/// A part of a file as a device of another kind.
pub struct FileMapping<'a> {
    /// The name of the new device.
    pub name: &'a str,
    /// The file.
    pub file: &'a Path,
    /// Where the part begins in it, and its size in bytes.
    pub place: (u64, u64),
    /// How many sectors of 512 bytes the new device has.
    pub sectors: u64,
    /// The kind of target.
    pub kind: &'a str,
    /// What that kind needs to know, of the device that the part of the file is.
    pub parameters: &'a dyn Fn(&Path) -> String,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version: [u32; 3],
    data_bytes: u32,
    data_start: u32,
    targets: u32,
    open_count: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; NAME_BYTES],
    uuid: [u8; UUID_BYTES],
    data: [u8; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Target {
    start: u64,
    sectors: u64,
    status: i32,
    next: u32,
    kind: [u8; 16],
}

#[repr(C)]
struct Request {
    header: Header,
    target: Target,
    parameters: [u8; PARAMETERS_BYTES],
}

#[derive(Clone, Copy)]
enum Command {
    Create = 3,
    Remove = 4,
    Resume = 6,
    Load = 9,
}

/// Makes a device that can only be read, and answers its node.
///
/// # Errors
/// When the kernel refuses: it lacks the kind of target, or a device is not what the parameters say.
pub fn map_read_only(mapping: &Mapping<'_>) -> Result<PathBuf, Error> {
    let failed = |step: &'static str| {
        let what = format!("{step} the {} device {}", mapping.kind, mapping.name);
        move |source: io::Error| Error::new(what, source)
    };
    let control = File::open(CONTROL).map_err(failed("reach the device mapper for"))?;
    let mut request = Request::new(mapping).map_err(failed("describe"))?;
    let device = request.call(&control, Command::Create).map_err(failed("make"))?;
    let filled = request.call(&control, Command::Load).map_err(failed("fill"));
    let started = filled.and_then(|_| request.call(&control, Command::Resume).map_err(failed("start")));
    if let Err(error) = started {
        // Without a table it is of no use to anybody.
        request.call(&control, Command::Remove).ok();
        return Err(error);
    }
    Ok(Path::new("/dev").join(format!("dm-{}", libc::minor(device))))
}

/// Makes a device of a part of a file that can only be read, and answers its node.
pub(crate) fn map_file(mapping: &FileMapping<'_>) -> Result<PathBuf, Error> {
    let FileMapping { name, sectors, kind, .. } = *mapping;
    // Whatever is made of it keeps it open.
    let part = loops::attach(mapping.file, mapping.place)?;
    map_read_only(&Mapping { name, sectors, kind, parameters: &(mapping.parameters)(&part.path) })
}

/// Takes a device away that was made.
pub(crate) fn unmap(name: &str) -> Result<(), Error> {
    let failed = |source: io::Error| Error::new(format!("take away the device {name}"), source);
    let control = File::open(CONTROL).map_err(failed)?;
    let mapping = Mapping { name, sectors: 0, kind: "", parameters: "" };
    let mut request = Request::new(&mapping).map_err(failed)?;
    request.call(&control, Command::Remove).map(drop).map_err(failed)
}

impl Request {
    fn new(mapping: &Mapping<'_>) -> io::Result<Self> {
        let mut request = Self {
            header: Header {
                version: VERSION,
                data_bytes: length(size_of::<Self>())?,
                data_start: length(size_of::<Header>())?,
                targets: 1,
                open_count: 0,
                flags: READ_ONLY,
                event: 0,
                padding: 0,
                device: 0,
                name: [0; NAME_BYTES],
                uuid: [0; UUID_BYTES],
                data: [0; 7],
            },
            target: Target { start: 0, sectors: mapping.sectors, status: 0, next: 0, kind: [0; 16] },
            parameters: [0; PARAMETERS_BYTES],
        };
        put(&mut request.header.name, mapping.name)?;
        put(&mut request.target.kind, mapping.kind)?;
        put(&mut request.parameters, mapping.parameters)?;
        Ok(request)
    }

    /// Answers the device's number. The kernel writes its answer over the request, which is made good again: a device is
    /// asked for by its name or by its number, never by both.
    fn call(&mut self, control: &File, command: Command) -> io::Result<u64> {
        let asked = self.header;
        let number = number(command)?;
        // SAFETY: the descriptor is open for the whole call, and the request is of the layout that the device mapper
        // reads and writes, as long as its header says, alive and not shared until it returns. No safe wrapper knows it.
        #[allow(unsafe_code)]
        let result = unsafe { libc::ioctl(control.as_raw_fd(), number, std::ptr::from_mut(self)) };
        let outcome = if result == 0 { Ok(self.header.device) } else { Err(io::Error::last_os_error()) };
        self.header = asked;
        outcome
    }
}

/// `_IOWR(0xfd, command, struct dm_ioctl)`.
fn number(command: Command) -> io::Result<libc::c_ulong> {
    let bytes = length(size_of::<Header>())?;
    Ok(libc::c_ulong::from(3_u32 << 30 | bytes << 16 | 0xfd << 8 | command as u32))
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(io::Error::other)
}

/// Text with a zero after it.
fn put(field: &mut [u8], text: &str) -> io::Result<()> {
    if text.len() >= field.len() || text.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is too long")));
    }
    field[..text.len()].copy_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernel_s_layout() {
        assert_eq!(
            (size_of::<Header>(), size_of::<Target>(), std::mem::offset_of!(Request, parameters)),
            (312, 40, 352)
        );
        assert_eq!(number(Command::Create).unwrap(), 0xc138_fd03);
        let mapping = Mapping { name: "root", sectors: 8, kind: "linear", parameters: "8:0 2048" };
        let request = Request::new(&mapping).unwrap();
        assert_eq!(&request.parameters[..9], b"8:0 2048\0");
        let long = "x".repeat(PARAMETERS_BYTES);
        assert!(Request::new(&Mapping { parameters: &long, ..mapping.clone() }).is_err());
        assert!(Request::new(&Mapping { kind: "a kind of target", ..mapping }).is_err());
    }
}
