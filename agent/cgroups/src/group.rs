//! One group: making it, limiting it, what runs in it, taking it away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sys::{Signal, System};

use crate::error::Error;
use crate::hierarchy::Controller;
use crate::limits::Limits;
use crate::usage::{Usage, keyed};

/// A group by its path. It is only a name until [`Group::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    path: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Unified(PathBuf),
    Legacy(BTreeMap<Controller, PathBuf>),
}

/// What v2 groups hand down to their children, where the kernel has it.
const HANDED_DOWN: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

impl Group {
    pub(crate) fn unified(path: String, folder: PathBuf) -> Self {
        Self { path, place: Place::Unified(folder) }
    }

    pub(crate) fn legacy(path: String, folders: BTreeMap<Controller, PathBuf>) -> Self {
        Self { path, place: Place::Legacy(folders) }
    }

    /// The group's path within the hierarchy, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The group `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        let place = match &self.place {
            Place::Unified(folder) => Place::Unified(folder.join(name)),
            Place::Legacy(folders) => {
                Place::Legacy(folders.iter().map(|(controller, folder)| (*controller, folder.join(name))).collect())
            }
        };
        Self { path, place }
    }

    /// The folder of the controller (in v2 the same for all).
    #[must_use]
    pub fn folder(&self, controller: Controller) -> Option<&PathBuf> {
        match &self.place {
            Place::Unified(folder) => Some(folder),
            Place::Legacy(folders) => folders.get(&controller),
        }
    }

    fn folders(&self) -> BTreeSet<&PathBuf> {
        match &self.place {
            Place::Unified(folder) => BTreeSet::from([folder]),
            Place::Legacy(folders) => folders.values().collect(),
        }
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self, system: &dyn System) -> bool {
        self.folders().iter().any(|folder| system.exists(folder))
    }

    /// Makes the group, and those above it. Fine if it exists.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(&self, system: &dyn System) -> Result<(), Error> {
        for folder in self.folders() {
            let made = system.make_dir(folder, 0o755);
            made.map_err(|source| Error::Create { group: self.path.clone(), source })?;
        }
        if let Some(folder) = self.cpuset_folder() {
            self.inherit_cpuset(system, folder);
        }
        Ok(())
    }

    fn cpuset_folder(&self) -> Option<&PathBuf> {
        match &self.place {
            Place::Unified(_) => None,
            Place::Legacy(folders) => folders.get(&Controller::CpuSet),
        }
    }

    /// A v1 cpuset starts empty and refuses processes until it names processors; each level copies its parent's.
    fn inherit_cpuset(&self, system: &dyn System, folder: &std::path::Path) {
        let levels = self.path.split('/').filter(|part| !part.is_empty()).count();
        let mut chain: Vec<&std::path::Path> = folder.ancestors().take(levels + 1).collect();
        chain.reverse();
        for pair in chain.windows(2) {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = system.read(&pair[1].join(file)).unwrap_or_default();
                if own.iter().all(u8::is_ascii_whitespace) {
                    let parent = system.read(&pair[0].join(file)).unwrap_or_default();
                    if let Err(error) = system.write(&pair[1].join(file), &parent) {
                        tracing::debug!(group = self.path, %error, "cpuset not inherited");
                    }
                }
            }
        }
    }

    /// Hands the controllers down, so that groups below can have limits (v2; nothing to do in v1). A controller that
    /// the kernel lacks is left out.
    ///
    /// # Errors
    /// When the kernel refuses one that it has.
    pub fn enable_controllers(&self, system: &dyn System) -> Result<(), Error> {
        let Place::Unified(folder) = &self.place else {
            return Ok(());
        };
        let words = |file: &'static str| -> Result<BTreeSet<String>, Error> {
            let text = self.read_text(system, &folder.join(file), file)?;
            Ok(text.split_whitespace().map(str::to_owned).collect())
        };
        let available = words("cgroup.controllers")?;
        let enabled = words("cgroup.subtree_control")?;
        for controller in HANDED_DOWN {
            if available.contains(controller) && !enabled.contains(controller) {
                let written = system.write(&folder.join("cgroup.subtree_control"), format!("+{controller}").as_bytes());
                written.map_err(|source| Error::Enable { group: self.path.clone(), controller, source })?;
            }
        }
        Ok(())
    }

    /// Sets limits. What the kernel has no file for (an absent controller) is left out.
    ///
    /// # Errors
    /// When the kernel refuses a value.
    pub fn set(&self, system: &dyn System, limits: &Limits) -> Result<(), Error> {
        let settings = match &self.place {
            Place::Unified(_) => limits.unified(),
            Place::Legacy(_) => limits.legacy(),
        };
        for setting in settings {
            let Some(folder) = self.folder(setting.controller) else { continue };
            match system.write(&folder.join(setting.file), setting.value.as_bytes()) {
                Err(error) if !error.is_not_found() => {
                    return Err(Error::Set { group: self.path.clone(), file: setting.file, source: error });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The files a process writes its id (or 0 for itself) into to join.
    #[must_use]
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.folders().into_iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, system: &dyn System, pid: u32) -> Result<(), Error> {
        for file in self.procs_files() {
            system.write(&file, pid.to_string().as_bytes()).map_err(|source| Error::Set {
                group: self.path.clone(),
                file: "cgroup.procs",
                source,
            })?;
        }
        Ok(())
    }

    /// The processes in the group itself, not in those below.
    #[must_use]
    pub fn pids(&self, system: &dyn System) -> Vec<u32> {
        let mut pids = BTreeSet::new();
        for file in self.procs_files() {
            let text = String::from_utf8_lossy(&system.read(&file).unwrap_or_default()).into_owned();
            pids.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
        }
        pids.into_iter().collect()
    }

    /// The groups directly below.
    #[must_use]
    pub fn children(&self, system: &dyn System) -> Vec<Self> {
        let mut names = BTreeSet::new();
        for folder in self.folders() {
            for name in system.list(folder).unwrap_or_default() {
                if system.exists(&folder.join(&name).join("cgroup.procs")) {
                    names.insert(name);
                }
            }
        }
        names.iter().map(|name| self.child(name)).collect()
    }

    /// Ends every process in the group and below.
    pub fn kill(&self, system: &dyn System) {
        if let Place::Unified(folder) = &self.place
            && system.write(&folder.join("cgroup.kill"), b"1").is_ok()
        {
            return;
        }
        for child in self.children(system) {
            child.kill(system);
        }
        for pid in self.pids(system) {
            if let Err(error) = system.kill(pid, Signal::Kill) {
                tracing::warn!(group = self.path, pid, %error, "process not killed");
            }
        }
    }

    /// Stops (or lets go on) every process in the group and below.
    ///
    /// # Errors
    /// When the kernel refuses or, in v1, has no freezer.
    pub fn freeze(&self, system: &dyn System, frozen: bool) -> Result<(), Error> {
        let (file, value) = match (&self.place, frozen) {
            (Place::Unified(_), true) => ("cgroup.freeze", "1"),
            (Place::Unified(_), false) => ("cgroup.freeze", "0"),
            (Place::Legacy(_), true) => ("freezer.state", "FROZEN"),
            (Place::Legacy(_), false) => ("freezer.state", "THAWED"),
        };
        let Some(folder) = self.folder(Controller::Freezer) else {
            return Err(Error::NotMounted);
        };
        let written = system.write(&folder.join(file), value.as_bytes());
        written.map_err(|source| Error::Set { group: self.path.clone(), file, source })
    }

    /// Takes the group and those below away. They must be without processes. Fine if it does not exist.
    ///
    /// # Errors
    /// When a process is left.
    pub fn remove(&self, system: &dyn System) -> Result<(), Error> {
        for child in self.children(system) {
            child.remove(system)?;
        }
        for folder in self.folders() {
            system.remove_dir(folder).map_err(|source| Error::Remove { group: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Reads the counters.
    #[must_use]
    pub fn usage(&self, system: &dyn System) -> Usage {
        let text = |controller: Controller, file: &'static str| {
            let folder = self.folder(controller).cloned().unwrap_or_default();
            self.read_text(system, &folder.join(file), file).unwrap_or_default()
        };
        let number = |controller, file| text(controller, file).trim().parse::<u64>().unwrap_or(0);
        match &self.place {
            Place::Unified(_) => {
                let memory = text(Controller::Memory, "memory.stat");
                let memory_bytes = number(Controller::Memory, "memory.current");
                Usage {
                    memory_bytes,
                    working_set_bytes: memory_bytes.saturating_sub(keyed(&memory, "inactive_file").unwrap_or(0)),
                    rss_bytes: keyed(&memory, "anon").unwrap_or(0),
                    cpu_nanos: keyed(&text(Controller::Cpu, "cpu.stat"), "usage_usec").unwrap_or(0) * 1000,
                    pids: number(Controller::Pids, "pids.current"),
                }
            }
            Place::Legacy(_) => {
                let memory = text(Controller::Memory, "memory.stat");
                let memory_bytes = number(Controller::Memory, "memory.usage_in_bytes");
                let inactive = keyed(&memory, "total_inactive_file").unwrap_or(0);
                Usage {
                    memory_bytes,
                    working_set_bytes: memory_bytes.saturating_sub(inactive),
                    rss_bytes: keyed(&memory, "total_rss").unwrap_or(0),
                    cpu_nanos: number(Controller::CpuAccounting, "cpuacct.usage"),
                    pids: number(Controller::Pids, "pids.current"),
                }
            }
        }
    }

    fn read_text(&self, system: &dyn System, path: &std::path::Path, file: &'static str) -> Result<String, Error> {
        let bytes = system.read(path);
        let bytes = bytes.map_err(|source| Error::Read { group: self.path.clone(), file, source })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hierarchy::Hierarchy;
    use sys::{Call, FakeSystem};

    fn unified() -> (FakeSystem, Hierarchy) {
        let system = FakeSystem::new();
        system.file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        let hierarchy = Hierarchy::detect(&system).unwrap();
        (system, hierarchy)
    }

    #[test]
    fn only_missing_controllers_are_enabled() {
        let (system, hierarchy) = unified();
        system.file("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids rdma\n");
        system.file("/sys/fs/cgroup/cgroup.subtree_control", "memory\n");
        hierarchy.group("").enable_controllers(&system).unwrap();
        let file = PathBuf::from("/sys/fs/cgroup/cgroup.subtree_control");
        assert_eq!(system.calls(), [Call::Write(file.clone(), b"+cpu".into()), Call::Write(file, b"+pids".into())]);
    }

    #[test]
    fn a_legacy_group_lives_in_every_tree_and_gets_its_processors() {
        let system = FakeSystem::new();
        let table = "c /cg/cpuset cgroup rw,cpuset 0 0\nc /cg/memory cgroup rw,memory 0 0\n";
        system.file("/proc/self/mounts", table);
        system.file("/cg/cpuset/cpuset.cpus", "0-1\n");
        system.file("/cg/cpuset/cpuset.mems", "0\n");
        let group = Hierarchy::detect(&system).unwrap().group("/services/etcd");
        group.create(&system).unwrap();
        let calls = system.calls();
        assert!(calls.contains(&Call::MakeDir("/cg/memory/services/etcd".into())));
        assert!(calls.contains(&Call::Write("/cg/cpuset/services/cpuset.mems".into(), b"0\n".into())));
        assert_eq!(group.procs_files().len(), 2);
    }

    #[test]
    fn usage_leaves_out_what_can_be_dropped() {
        let (system, hierarchy) = unified();
        system.file("/sys/fs/cgroup/a/memory.current", "1000\n");
        system.file("/sys/fs/cgroup/a/memory.stat", "anon 300\ninactive_file 400\n");
        system.file("/sys/fs/cgroup/a/cpu.stat", "usage_usec 7\n");
        let usage = hierarchy.group("a").usage(&system);
        let expected = Usage { memory_bytes: 1000, working_set_bytes: 600, rss_bytes: 300, cpu_nanos: 7000, pids: 0 };
        assert_eq!(usage, expected);
    }
}
