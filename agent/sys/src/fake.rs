//! A machine made of a map: files in memory, every effect recorded.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::mapper::FileMapping;
use crate::spawn::{Ended, Spawn, Spawned};
use crate::system::{Mount, Power, Signal, System, UnmountFlags};

/// One effect, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A mount.
    Mount(Mount),
    /// An unmount.
    Unmount(PathBuf, UnmountFlags),
    /// A folder.
    MakeDir(PathBuf),
    /// A link: target, link.
    Symlink(PathBuf, PathBuf),
    /// A device node.
    MakeDevice(PathBuf),
    /// A write in place.
    Write(PathBuf, Vec<u8>),
    /// A file put in place.
    Replace(PathBuf, Vec<u8>),
    /// A file that got another name: before, after.
    Rename(PathBuf, PathBuf),
    /// A file that got a second name: the first, the second.
    HardLink(PathBuf, PathBuf),
    /// A file or folder removed.
    Remove(PathBuf),
    /// The host name.
    SetHostname(String),
    /// The clock.
    SetClock(SystemTime),
    /// The clock's speed.
    SlewClock(i64),
    /// A module: file, parameters.
    LoadModule(PathBuf, String),
    /// A partition made known: disk, number, start and size.
    AddPartition(PathBuf, u32, (u64, u64)),
    /// The partitions of a disk made known.
    ReadPartitions(PathBuf),
    /// A device made of a file: its name, what its kind was told.
    MapFile(String, String),
    /// Such a device taken away.
    Unmap(String),
    /// A child.
    Spawn(Spawn),
    /// A program run to its end.
    Run(Vec<String>),
    /// A signal.
    Kill(u32, Signal),
    /// A signal to everybody.
    KillAll(Signal),
    /// Everything written to the disks.
    Sync,
    /// The end.
    Power(Power),
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    links: BTreeMap<PathBuf, PathBuf>,
    folders: BTreeSet<PathBuf>,
    calls: Vec<Call>,
    fail: Vec<(String, i32)>,
    stall: Vec<String>,
    cut: Option<usize>,
    answers: Vec<(String, String)>,
    next_pid: u32,
    ended: VecDeque<(u32, Ended)>,
    uptime: Duration,
}

/// The recording fake. Paths that were given content exist, with their parents; everything else does not.
#[derive(Debug, Default)]
pub struct FakeSystem(Mutex<State>);

impl FakeSystem {
    /// An empty machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a file content.
    pub fn file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        self.state().files.insert(path.as_ref().to_owned(), content.as_ref().to_owned());
    }

    /// Makes a link.
    pub fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        self.state().links.insert(path.as_ref().to_owned(), target.as_ref().to_owned());
    }

    /// Lets every operation whose description contains `part` fail with this error number.
    pub fn fail(&self, part: impl Into<String>, errno: i32) {
        self.state().fail.push((part.into(), errno));
    }

    /// Lets every program whose words contain `part` print this.
    pub fn answer(&self, part: impl Into<String>, text: impl Into<String>) {
        self.state().answers.push((part.into(), text.into()));
    }

    /// Lets every operation whose description contains `part` never return.
    pub fn stall(&self, part: impl Into<String>) {
        self.state().stall.push(part.into());
    }

    /// Cuts the power after so many more effects: every later one fails. `None` restores it.
    pub fn cut_after(&self, effects: Option<usize>) {
        self.state().cut = effects;
    }

    /// Lets a child end.
    pub fn end(&self, pid: u32, ended: Ended) {
        self.state().ended.push_back((pid, ended));
    }

    /// Sets the time since boot.
    pub fn set_uptime(&self, uptime: Duration) {
        self.state().uptime = uptime;
    }

    /// Everything that was asked for, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// A file's content as text; empty if there is none.
    #[must_use]
    pub fn text(&self, path: impl AsRef<Path>) -> String {
        self.state()
            .files
            .get(path.as_ref())
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn effect(&self, call: Call) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.state();
        let words = format!("{call:?}");
        match state.cut.as_mut() {
            Some(0) => return Err(Error::new(words, io::Error::other("the power is cut"))),
            Some(left) => *left -= 1,
            None => {}
        }
        state.calls.push(call);
        if state.stall.iter().any(|part| words.contains(part.as_str())) {
            drop(state);
            loop {
                std::thread::park();
            }
        }
        if let Some((_, errno)) = state.fail.iter().find(|(part, _)| words.contains(part.as_str())) {
            return Err(Error::new(words, io::Error::from_raw_os_error(*errno)));
        }
        Ok(state)
    }
}

fn missing(path: &Path) -> Error {
    Error::new(format!("read {}", path.display()), io::Error::from(io::ErrorKind::NotFound))
}

impl System for FakeSystem {
    fn mount(&self, mount: &Mount) -> Result<(), Error> {
        self.effect(Call::Mount(mount.clone())).map(drop)
    }
    fn unmount(&self, target: &Path, flags: UnmountFlags) -> Result<(), Error> {
        self.effect(Call::Unmount(target.to_owned(), flags)).map(drop)
    }
    fn make_dir(&self, path: &Path, _mode: u32) -> Result<(), Error> {
        if !self.exists(path) {
            self.effect(Call::MakeDir(path.to_owned()))?.folders.insert(path.to_owned());
        }
        Ok(())
    }
    fn symlink(&self, target: &Path, link: &Path) -> Result<(), Error> {
        let mut state = self.effect(Call::Symlink(target.to_owned(), link.to_owned()))?;
        state.links.insert(link.to_owned(), target.to_owned());
        Ok(())
    }
    fn make_char_device(&self, path: &Path, _mode: u32, _number: (u64, u64)) -> Result<(), Error> {
        self.effect(Call::MakeDevice(path.to_owned())).map(drop)
    }
    fn exists(&self, path: &Path) -> bool {
        let state = self.state();
        let mut known = state.files.keys().chain(state.links.keys()).chain(&state.folders);
        known.any(|known| known.starts_with(path))
    }
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let state = self.state();
        let words = format!("read {}", path.display());
        if let Some((_, errno)) = state.fail.iter().find(|(part, _)| *part == words) {
            return Err(Error::new(words, io::Error::from_raw_os_error(*errno)));
        }
        state.files.get(path).cloned().ok_or_else(|| missing(path))
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let bytes = self.read(path)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[start..bytes.len().min(start.saturating_add(len))].to_vec())
    }
    fn list(&self, path: &Path) -> Result<Vec<String>, Error> {
        if !self.exists(path) {
            return Err(missing(path));
        }
        let state = self.state();
        let known = state.files.keys().chain(state.links.keys()).chain(&state.folders);
        let below = known.filter_map(|known| known.strip_prefix(path).ok());
        let names: BTreeSet<String> = below
            .filter_map(|rest| Some(rest.components().next()?.as_os_str().to_string_lossy().into_owned()))
            .collect();
        Ok(names.into_iter().collect())
    }
    fn read_link(&self, path: &Path) -> Result<PathBuf, Error> {
        self.state().links.get(path).cloned().ok_or_else(|| missing(path))
    }
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        self.effect(Call::Write(path.to_owned(), content.to_owned())).map(drop)
    }
    fn replace(&self, path: &Path, content: &[u8], _mode: u32) -> Result<(), Error> {
        let mut state = self.effect(Call::Replace(path.to_owned(), content.to_owned()))?;
        state.files.insert(path.to_owned(), content.to_owned());
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let mut state = self.effect(Call::Rename(from.to_owned(), to.to_owned()))?;
        let content = state.files.remove(from).ok_or_else(|| missing(from))?;
        state.files.insert(to.to_owned(), content);
        Ok(())
    }
    fn hard_link(&self, file: &Path, name: &Path) -> Result<(), Error> {
        let mut state = self.effect(Call::HardLink(file.to_owned(), name.to_owned()))?;
        let content = state.files.get(file).cloned().ok_or_else(|| missing(file))?;
        match state.files.entry(name.to_owned()) {
            Entry::Occupied(_) => {
                let taken = io::Error::from(io::ErrorKind::AlreadyExists);
                Err(Error::new(format!("link {}", name.display()), taken))
            }
            Entry::Vacant(place) => {
                place.insert(content);
                Ok(())
            }
        }
    }
    fn remove_file(&self, path: &Path) -> Result<(), Error> {
        self.effect(Call::Remove(path.to_owned()))?.files.remove(path);
        Ok(())
    }
    fn remove_dir(&self, path: &Path) -> Result<(), Error> {
        self.effect(Call::Remove(path.to_owned()))?.folders.remove(path);
        Ok(())
    }
    fn set_hostname(&self, name: &str) -> Result<(), Error> {
        self.effect(Call::SetHostname(name.to_owned())).map(drop)
    }
    fn set_clock(&self, now: SystemTime) -> Result<(), Error> {
        self.effect(Call::SetClock(now)).map(drop)
    }
    fn slew_clock(&self, offset_micros: i64) -> Result<(), Error> {
        self.effect(Call::SlewClock(offset_micros)).map(drop)
    }
    fn set_open_files_limit(&self, _limit: u64) -> Result<(), Error> {
        Ok(())
    }
    fn load_module(&self, file: &Path, parameters: &str) -> Result<(), Error> {
        self.effect(Call::LoadModule(file.to_owned(), parameters.to_owned())).map(drop)
    }
    fn add_partition(&self, disk: &Path, number: u32, place: (u64, u64)) -> Result<(), Error> {
        self.effect(Call::AddPartition(disk.to_owned(), number, place)).map(drop)
    }
    fn read_partitions(&self, disk: &Path) -> Result<(), Error> {
        self.effect(Call::ReadPartitions(disk.to_owned())).map(drop)
    }
    fn map_file(&self, mapping: &FileMapping<'_>) -> Result<PathBuf, Error> {
        self.read(mapping.file)?;
        let parameters = (mapping.parameters)(Path::new("/dev/loop0"));
        self.effect(Call::MapFile(mapping.name.to_owned(), parameters)).map(drop)?;
        Ok(Path::new("/dev/mapper").join(mapping.name))
    }
    fn unmap(&self, name: &str) -> Result<(), Error> {
        self.effect(Call::Unmap(name.to_owned())).map(drop)
    }
    fn kernel_release(&self) -> String {
        "6.12-fake".to_owned()
    }
    fn spawn(&self, spawn: &Spawn) -> Result<Spawned, Error> {
        let mut state = self.effect(Call::Spawn(spawn.clone()))?;
        state.next_pid += 1;
        Ok(Spawned { pid: 100 + state.next_pid, output: None })
    }
    fn run(&self, argv: &[&str], _deadline: Duration) -> Result<(Ended, String), Error> {
        let state = self.effect(Call::Run(argv.iter().map(|&word| word.to_owned()).collect()))?;
        let answer = state.answers.iter().find(|(part, _)| argv.iter().any(|word| word.contains(part.as_str())));
        Ok((Ended::Code(0), answer.map(|(_, text)| text.clone()).unwrap_or_default()))
    }
    fn reap(&self) -> Option<(u32, Ended)> {
        self.state().ended.pop_front()
    }
    fn kill(&self, pid: u32, signal: Signal) -> Result<(), Error> {
        self.effect(Call::Kill(pid, signal)).map(drop)
    }
    fn kill_all(&self, signal: Signal) {
        self.state().calls.push(Call::KillAll(signal));
    }
    fn session_of(&self, pid: u32) -> Option<u32> {
        Some(pid)
    }
    fn sync(&self) {
        drop(self.effect(Call::Sync));
    }
    fn power(&self, power: Power) -> Error {
        self.state().calls.push(Call::Power(power));
        Error::new("end a fake machine", io::Error::from(io::ErrorKind::Unsupported))
    }
    fn uptime(&self) -> Duration {
        self.state().uptime
    }
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.state().uptime
    }
}
