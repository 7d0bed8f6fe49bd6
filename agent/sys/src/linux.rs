//! [`System`] on the running kernel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::reboot::RebootMode;
use nix::sys::resource::Resource;
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::children;
use crate::error::Error;
use crate::mapper::{self, FileMapping};
use crate::replace::{replace, sync_folder};
use crate::spawn::{Ended, Spawn, Spawned};
use crate::system::{Mount, MountFlags, Power, Signal, System, UnmountFlags};

/// The kernel this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux;

impl System for Linux {
    fn mount(&self, mount: &Mount) -> Result<(), Error> {
        let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        nix::mount::mount(
            text(&mount.source).as_deref(),
            &mount.target,
            text(&mount.kind).as_deref(),
            mount_flags(mount.flags),
            text(&mount.options).as_deref(),
        )
        .map_err(|error| Error::new(format!("mount {} on {}", describe(mount), mount.target.display()), error))
    }

    fn unmount(&self, target: &Path, flags: UnmountFlags) -> Result<(), Error> {
        let flags = match flags {
            UnmountFlags::Plain => MntFlags::UMOUNT_NOFOLLOW,
            UnmountFlags::Lazy => MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
        };
        nix::mount::umount2(target, flags).map_err(|error| Error::new(format!("unmount {}", target.display()), error))
    }

    fn make_dir(&self, path: &Path, mode: u32) -> Result<(), Error> {
        if path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .map_err(|error| Error::new(format!("make folder {}", path.display()), error))
    }

    fn symlink(&self, target: &Path, link: &Path) -> Result<(), Error> {
        let step = || format!("link {} to {}", link.display(), target.display());
        if fs::read_link(link).is_ok_and(|present| present == target) {
            return Ok(());
        }
        self.remove_file(link)?;
        std::os::unix::fs::symlink(target, link).map_err(|error| Error::new(step(), error))
    }

    fn make_char_device(&self, path: &Path, mode: u32, number: (u64, u64)) -> Result<(), Error> {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        let step = || format!("make device {}", path.display());
        match mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(mode), makedev(number.0, number.1)) {
            Ok(()) => {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| Error::new(step(), error))
            }
            Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(Error::new(step(), error)),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        fs::read(path).map_err(|error| Error::new(format!("read {}", path.display()), error))
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        read_at(path, offset, len).map_err(|error| Error::new(format!("read {}", path.display()), error))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, Error> {
        list(path).map_err(|error| Error::new(format!("list {}", path.display()), error))
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, Error> {
        fs::read_link(path).map_err(|error| Error::new(format!("read link {}", path.display()), error))
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(content))
            .map_err(|error| Error::new(format!("write {}", path.display()), error))
    }

    fn replace(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
        replace(path, content, mode).map_err(|error| Error::new(format!("write {}", path.display()), error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let renamed = fs::rename(from, to).and_then(|()| sync_folder(to));
        renamed.map_err(|error| Error::new(format!("rename {} to {}", from.display(), to.display()), error))
    }

    fn hard_link(&self, file: &Path, name: &Path) -> Result<(), Error> {
        let linked = fs::hard_link(file, name).and_then(|()| sync_folder(name));
        linked.map_err(|error| Error::new(format!("link {} as {}", file.display(), name.display()), error))
    }

    fn remove_file(&self, path: &Path) -> Result<(), Error> {
        ignore_missing(fs::remove_file(path)).map_err(|error| Error::new(format!("remove {}", path.display()), error))
    }

    fn remove_dir(&self, path: &Path) -> Result<(), Error> {
        ignore_missing(fs::remove_dir(path)).map_err(|error| Error::new(format!("remove {}", path.display()), error))
    }

    fn set_hostname(&self, name: &str) -> Result<(), Error> {
        nix::unistd::sethostname(name).map_err(|error| Error::new(format!("set the host name to {name}"), error))
    }

    fn set_clock(&self, now: SystemTime) -> Result<(), Error> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        nix::time::clock_settime(ClockId::CLOCK_REALTIME, since.into())
            .map_err(|error| Error::new("set the clock", error))
    }

    fn slew_clock(&self, offset_micros: i64) -> Result<(), Error> {
        const SECOND: i64 = 1_000_000;
        let delta =
            libc::timeval { tv_sec: offset_micros.div_euclid(SECOND), tv_usec: offset_micros.rem_euclid(SECOND) };
        // SAFETY: `delta` outlives the call, and a null second argument asks for no answer. nix has no adjtime.
        #[allow(unsafe_code)]
        let done = unsafe { libc::adjtime(&raw const delta, std::ptr::null_mut()) };
        if done < 0 { Err(Error::new("slew the clock", io::Error::last_os_error())) } else { Ok(()) }
    }

    fn set_open_files_limit(&self, limit: u64) -> Result<(), Error> {
        nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, limit, limit)
            .map_err(|error| Error::new(format!("raise the limit of open files to {limit}"), error))
    }

    fn load_module(&self, file: &Path, parameters: &str) -> Result<(), Error> {
        load_module(file, parameters).map_err(|error| Error::new(format!("load module {}", file.display()), error))
    }

    fn add_partition(&self, disk: &Path, number: u32, (start, bytes): (u64, u64)) -> Result<(), Error> {
        crate::partition::add(disk, number, start, bytes)
            .map_err(|error| Error::new(format!("make partition {number} of {} known", disk.display()), error))
    }

    fn read_partitions(&self, disk: &Path) -> Result<(), Error> {
        crate::claim::read_partitions(disk)
            .map_err(|error| Error::new(format!("read the partitions of {}", disk.display()), error))
    }

    fn map_file(&self, mapping: &FileMapping<'_>) -> Result<PathBuf, Error> {
        mapper::map_file(mapping)
    }

    fn unmap(&self, name: &str) -> Result<(), Error> {
        mapper::unmap(name)
    }

    fn kernel_release(&self) -> String {
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn spawn(&self, spawn: &Spawn) -> Result<Spawned, Error> {
        crate::spawn::spawn(spawn)
    }

    fn run(&self, argv: &[&str], deadline: Duration) -> Result<(Ended, String), Error> {
        let spawn = Spawn {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
            ..Spawn::default()
        };
        let child = children::begin(&spawn)?;
        child.run_to_end(deadline).map_err(|error| Error::new(format!("run {}", argv.first().unwrap_or(&"")), error))
    }

    fn reap(&self) -> Option<(u32, Ended)> {
        children::reap()
    }

    fn kill(&self, pid: u32, signal: Signal) -> Result<(), Error> {
        match nix::sys::signal::kill(pid_of(pid), signal_of(signal)) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(Error::new(format!("signal process {pid}"), error)),
        }
    }

    fn kill_all(&self, signal: Signal) {
        // It fails when there is nobody left, which is what is wanted.
        nix::sys::signal::kill(Pid::from_raw(-1), signal_of(signal)).ok();
    }

    fn session_of(&self, pid: u32) -> Option<u32> {
        nix::unistd::getsid(Some(pid_of(pid))).ok().and_then(|session| u32::try_from(session.as_raw()).ok())
    }

    fn sync(&self) {
        nix::unistd::sync();
    }

    fn power(&self, power: Power) -> Error {
        let (mode, step) = match power {
            Power::Off => (RebootMode::RB_POWER_OFF, "power off"),
            Power::Reboot => (RebootMode::RB_AUTOBOOT, "reboot"),
            Power::Halt => (RebootMode::RB_HALT_SYSTEM, "halt"),
        };
        match nix::sys::reboot::reboot(mode) {
            Ok(never) => match never {},
            Err(error) => Error::new(step, error),
        }
    }

    fn uptime(&self) -> Duration {
        nix::time::clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

fn describe(mount: &Mount) -> String {
    if mount.kind.is_empty() { mount.source.clone() } else { format!("{} ({})", mount.source, mount.kind) }
}

fn mount_flags(flags: MountFlags) -> MsFlags {
    let table = [
        (MountFlags::NOSUID, MsFlags::MS_NOSUID),
        (MountFlags::NODEV, MsFlags::MS_NODEV),
        (MountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (MountFlags::READ_ONLY, MsFlags::MS_RDONLY),
        (MountFlags::BIND, MsFlags::MS_BIND),
        (MountFlags::RECURSIVE, MsFlags::MS_REC),
        (MountFlags::REMOUNT, MsFlags::MS_REMOUNT),
        (MountFlags::SHARED, MsFlags::MS_SHARED),
        (MountFlags::PRIVATE, MsFlags::MS_PRIVATE),
        (MountFlags::RELATIME, MsFlags::MS_RELATIME),
        (MountFlags::SLAVE, MsFlags::MS_SLAVE),
    ];
    table.iter().filter(|(ours, _)| flags.contains(*ours)).fold(MsFlags::empty(), |all, (_, theirs)| all | *theirs)
}

fn signal_of(signal: Signal) -> nix::sys::signal::Signal {
    match signal {
        Signal::Terminate => nix::sys::signal::Signal::SIGTERM,
        Signal::Kill => nix::sys::signal::Signal::SIGKILL,
        Signal::Hangup => nix::sys::signal::Signal::SIGHUP,
    }
}

/// A process id as the kernel takes it. Ids fit 22 bits, so the fallback (0, ourselves) is never reached; 1 cannot be
/// hit by it either.
pub(crate) fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_at(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn load_module(file: &Path, parameters: &str) -> io::Result<()> {
    /// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks the file itself.
    const COMPRESSED: u32 = 4;
    let module = File::open(file)?;
    let parameters = std::ffi::CString::new(parameters)?;
    let compressed = file.extension().is_some_and(|extension| extension != "ko");
    let flags = nix::kmod::ModuleInitFlags::from_bits_retain(if compressed { COMPRESSED } else { 0 });
    match nix::kmod::finit_module(&module, &parameters, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_run_to_its_end() {
        let (ended, text) = Linux.run(&["/bin/sh", "-c", "echo out; exit 3"], Duration::from_secs(10)).unwrap();
        assert_eq!((ended, text.as_str()), (Ended::Code(3), "out\n"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_at_its_deadline() {
        let error = Linux.run(&["/bin/sleep", "1000"], Duration::from_millis(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn replace_leaves_no_draft_behind() {
        let folder = std::env::temp_dir().join(format!("sys-replace-{}", std::process::id()));
        Linux.make_dir(&folder, 0o700).unwrap();
        let file = folder.join("a");
        Linux.replace(&file, b"1", 0o600).unwrap();
        Linux.replace(&file, b"2", 0o644).unwrap();
        assert_eq!(Linux.list(&folder).unwrap(), ["a"]);
        assert_eq!(Linux.read(&file).unwrap(), b"2");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        let (kept, other) = (folder.join("kept"), folder.join("b"));
        Linux.hard_link(&file, &kept).unwrap();
        Linux.replace(&other, b"3", 0o600).unwrap();
        Linux.rename(&other, &file).unwrap();
        assert_eq!(Linux.list(&folder).unwrap(), ["a", "kept"]);
        assert_eq!((Linux.read(&file).unwrap(), Linux.read(&kept).unwrap()), (b"3".to_vec(), b"2".to_vec()));
        assert!(Linux.hard_link(&file, &kept).is_err() && Linux.rename(&other, &file).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
