//! Kernel modules by name and by the devices that want them, from tables in depmod's form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::Error;
use crate::system::System;

/// Where extensions have the tables of theirs, in a folder of their name.
const EXTENSIONS: &str = "/usr/lib/keelson/extensions";

/// The tables of one kernel, and which modules were loaded through them.
#[derive(Debug, Default)]
pub struct ModuleIndex {
    folder: PathBuf,
    /// Name to file and the files it needs, all relative to the folder.
    files: BTreeMap<String, (String, Vec<String>)>,
    /// Patterns of devices and whose they are, by what stands before their first wildcard: there are thousands, and so
    /// only the few that a device may match are compared with it.
    aliases: BTreeMap<String, Vec<(String, String)>>,
    builtin: BTreeSet<String>,
    loaded: BTreeSet<String>,
    /// What devices were looked at already.
    seen: BTreeSet<String>,
}

impl ModuleIndex {
    /// Reads the tables of the running kernel. Without tables the index is empty.
    #[must_use]
    pub fn read(system: &dyn System) -> Self {
        let folder = Path::new("/lib/modules").join(system.kernel_release());
        let text = |file: PathBuf| String::from_utf8_lossy(&system.read(&file).unwrap_or_default()).into_owned();
        let mut index = Self { folder: folder.clone(), ..Self::default() };
        index.builtin = text(folder.join("modules.builtin")).lines().map(name_of).collect();
        index.add(&text(folder.join("modules.dep")), &text(folder.join("modules.alias")));
        for name in system.list(Path::new(EXTENSIONS)).unwrap_or_default() {
            let tables = Path::new(EXTENSIONS).join(name);
            index.add(&text(tables.join("modules.dep")), &text(tables.join("modules.alias")));
        }
        let loaded = system.read(Path::new("/proc/modules")).unwrap_or_default();
        let loaded = String::from_utf8_lossy(&loaded);
        index.loaded = loaded.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        index
    }

    /// Takes tables in. What is there already stays what it is.
    fn add(&mut self, dependencies: &str, aliases: &str) {
        for line in dependencies.lines() {
            if let Some((file, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().flat_map(|need| self.files_of(need)).collect();
                self.files.entry(name_of(file)).or_insert_with(|| (file.to_owned(), needs));
            }
        }
        for line in aliases.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) = (words.next(), words.next(), words.next()) {
                let row = (pattern.to_owned(), name.replace('-', "_"));
                self.aliases.entry(start_of(pattern).to_owned()).or_default().push(row);
            }
        }
    }

    /// The files of something needed. Whoever made an extension did not know where the system's own modules lie, and names
    /// them without a folder.
    fn files_of(&self, need: &str) -> Vec<String> {
        if need.contains('/') {
            return vec![need.to_owned()];
        }
        let name = name_of(need);
        match self.files.get(&name) {
            Some((file, needs)) => std::iter::once(file).chain(needs).cloned().collect(),
            None if self.builtin.contains(&name) => Vec::new(),
            // Nothing loads that; whoever tries is told.
            None => vec![need.to_owned()],
        }
    }

    /// Whether the kernel has this module, as a file or built in.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let name = name.replace('-', "_");
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }

    /// Loads a module and, first, what it needs. Loaded and built-in ones are fine. Returns false if the kernel has
    /// no such module.
    ///
    /// # Errors
    /// When the kernel refuses a file.
    pub fn load(&mut self, system: &dyn System, name: &str, parameters: &str) -> Result<bool, Error> {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) || self.loaded.contains(&name) {
            return Ok(true);
        }
        let Some((file, needs)) = self.files.get(&name).cloned() else {
            return Ok(false);
        };
        // depmod lists the farthest dependency last.
        for need in needs.iter().rev() {
            let dependency = name_of(need);
            if !self.loaded.contains(&dependency) {
                system.load_module(&self.folder.join(need), "")?;
                self.loaded.insert(dependency);
            }
        }
        system.load_module(&self.folder.join(file), parameters)?;
        self.loaded.insert(name);
        Ok(true)
    }

    /// Loads the modules that a list names, one a line, in their order. Answers what failed.
    pub fn load_listed(&mut self, system: &dyn System, list: &Path) -> Vec<Error> {
        let list = match system.read(list) {
            Ok(list) => String::from_utf8_lossy(&list).into_owned(),
            Err(error) => return vec![error],
        };
        let names = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let loaded: Vec<_> = names.map(|name| self.load(system, name, "")).collect();
        loaded.into_iter().filter_map(Result::err).filter(is_told).collect()
    }

    /// Loads what somebody asks for by the name of a module or by an alias, such as `fs-vfat`. Returns false if there is no
    /// such module.
    ///
    /// # Errors
    /// When the kernel refuses a file.
    pub fn load_asked(&mut self, system: &dyn System, asked: &str) -> Result<bool, Error> {
        if self.load(system, asked, "")? {
            return Ok(true);
        }
        let names = self.for_alias(asked);
        names.iter().try_for_each(|name| self.load(system, name, "").map(drop))?;
        Ok(!names.is_empty())
    }

    /// Names of the modules that say they drive a device with this alias.
    #[must_use]
    pub fn for_alias(&self, modalias: &str) -> Vec<String> {
        let starts = (0..=modalias.len()).filter_map(|end| self.aliases.get(modalias.get(..end)?));
        let matching = starts.flatten().filter(|(pattern, _)| matches(pattern.as_bytes(), modalias.as_bytes()));
        let names: BTreeSet<&String> = matching.map(|(_, name)| name).collect();
        names.into_iter().cloned().collect()
    }

    /// Loads what the present devices want, again while that brings new devices to light. Answers what failed.
    pub fn load_for_devices(&mut self, system: &dyn System) -> Vec<Error> {
        /// How deep devices hide behind each other (PCI, virtio, the device itself), with room to spare.
        const ROUNDS: usize = 5;
        let mut failures = Vec::new();
        for _ in 0..ROUNDS {
            let (loaded, refused) = self.load_for(system, device_aliases(system));
            failures.extend(refused);
            if loaded == 0 {
                break;
            }
        }
        failures
    }

    /// Loads what devices with these aliases want, unless that was done before. Answers how many modules were loaded,
    /// and what failed.
    pub fn load_for(&mut self, system: &dyn System, aliases: impl IntoIterator<Item = String>) -> (usize, Vec<Error>) {
        let fresh: Vec<String> = aliases.into_iter().filter(|alias| self.seen.insert(alias.clone())).collect();
        let wanted: BTreeSet<String> = fresh.iter().flat_map(|alias| self.for_alias(alias)).collect();
        let wanted: Vec<String> = wanted.into_iter().filter(|name| !self.loaded.contains(name)).collect();
        let (mut count, mut failures) = (0, Vec::new());
        for name in wanted {
            match self.load(system, &name, "") {
                Ok(true) => count += 1,
                Ok(false) => {}
                Err(error) => failures.extend(Some(error).filter(is_told)),
            }
        }
        (count, failures)
    }
}

/// A driver that finds nothing to drive says so; that is no failure of a machine that asked for no driver by name.
fn is_told(error: &Error) -> bool {
    error.errno() != Some(Errno::ENODEV as i32)
}

/// What of a pattern stands before its first wildcard.
fn start_of(pattern: &str) -> &str {
    pattern.split(['*', '?', '[']).next().unwrap_or(pattern)
}

fn device_aliases(system: &dyn System) -> BTreeSet<String> {
    let buses = Path::new("/sys/bus");
    let mut aliases = BTreeSet::new();
    for bus in system.list(buses).unwrap_or_default() {
        let devices = buses.join(bus).join("devices");
        for device in system.list(&devices).unwrap_or_default() {
            if let Ok(alias) = system.read(&devices.join(device).join("modalias")) {
                aliases.insert(String::from_utf8_lossy(&alias).trim().to_owned());
            }
        }
    }
    aliases.remove("");
    aliases
}

/// `kernel/net/8021q.ko.xz` is module `8021q`; dashes and underscores are the same.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// Shell patterns as in modules.alias: `*`, `?` and `[a-z]`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((b'?', rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((b'[', rest)) => {
            let (Some(end), Some((first, tail))) = (rest.iter().position(|byte| *byte == b']'), text.split_first())
            else {
                return false;
            };
            in_class(&rest[..end], *first) && matches(&rest[end + 1..], tail)
        }
        Some((byte, rest)) => text.split_first().is_some_and(|(first, tail)| first == byte && matches(rest, tail)),
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    match class {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&byte) || in_class(rest, byte),
        [one, rest @ ..] => *one == byte || in_class(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Call, FakeSystem};

    fn machine() -> FakeSystem {
        let system = FakeSystem::new();
        let dep = "kernel/virtio_net.ko.xz: kernel/net_failover.ko.xz kernel/failover.ko.xz\n\
                   kernel/net_failover.ko.xz: kernel/failover.ko.xz\nkernel/failover.ko.xz:\nkernel/virtio-pci.ko:\n";
        system.file("/lib/modules/6.12-fake/modules.dep", dep);
        let alias = "# Aliases\nalias virtio:d00000001v* virtio_net\nalias pci:v00001AF4d*sv*sd*bc*sc*i* virtio-pci\n";
        system.file("/lib/modules/6.12-fake/modules.alias", alias);
        system.file("/lib/modules/6.12-fake/modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        system
    }

    fn loaded(system: &FakeSystem) -> Vec<String> {
        let calls = system.calls().into_iter();
        let files = calls.filter_map(|call| match call {
            Call::LoadModule(file, _) => Some(name_of(&file.to_string_lossy())),
            _ => None,
        });
        files.collect()
    }

    #[test]
    fn dependencies_come_first_and_only_once() {
        let system = machine();
        let mut index = ModuleIndex::read(&system);
        assert!(index.load(&system, "net-failover", "").unwrap());
        assert!(index.load(&system, "virtio_net", "").unwrap());
        assert!(index.load(&system, "ext4", "").unwrap());
        assert!(!index.load(&system, "absent", "").unwrap());
        assert_eq!(loaded(&system), ["failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn whoever_asks_names_a_module_or_what_it_is_for() {
        let system = machine();
        let mut index = ModuleIndex::read(&system);
        assert!(index.load_asked(&system, "net_failover").unwrap());
        assert!(index.load_asked(&system, "virtio:d00000001v00001AF4").unwrap());
        assert_eq!(loaded(&system), ["failover", "net_failover", "virtio_net"]);
        assert!(!index.load_asked(&system, "fs-vfat").unwrap());
        system.fail("virtio-pci", Errno::ENODEV as i32);
        assert!(index.load_asked(&system, "virtio-pci").is_err());
    }

    #[test]
    fn modules_of_extensions_are_loaded_after_the_systems_own_that_they_need() {
        let system = machine();
        let tables = "/usr/lib/keelson/extensions/gpu";
        let dep = "extra/gpu.ko: extra/gpu-base.ko virtio_net ext4 absent\nkernel/other/failover.ko: nothing\n";
        system.file(format!("{tables}/modules.dep"), dep);
        system.file(format!("{tables}/modules.alias"), "alias pci:v000010DE* gpu\n");
        system.fail("6.12-fake/absent", Errno::ENOENT as i32);
        let mut index = ModuleIndex::read(&system);
        let gpu = "pci:v000010DEd1".to_owned();
        assert_eq!(index.for_alias(&gpu), ["gpu"]);
        let told = index.load_for(&system, [gpu]).1;
        assert!(told.len() == 1 && told[0].to_string().contains("absent"), "{told:?}");
        let system = machine();
        system.file(format!("{tables}/modules.dep"), dep.replace(" absent", ""));
        assert!(ModuleIndex::read(&system).load(&system, "gpu", "").unwrap());
        assert_eq!(loaded(&system), ["failover", "net_failover", "virtio_net", "gpu_base", "gpu"]);
        let first = system.calls().into_iter().next().unwrap();
        assert!(matches!(&first, Call::LoadModule(file, _) if file.ends_with("kernel/failover.ko.xz")), "{first:?}");
    }

    #[test]
    fn devices_get_their_drivers() {
        let system = machine();
        system.file("/sys/bus/pci/devices/0/modalias", "pci:v00001AF4d00001000sv0sd0bc02sc00i00\n");
        system.file("/sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n");
        let mut index = ModuleIndex::read(&system);
        assert!(index.load_for_devices(&system).is_empty());
        assert_eq!(loaded(&system), ["failover", "net_failover", "virtio_net", "virtio_pci"]);
        let again = index.load_for(&system, ["virtio:d00000001v00001AF5".to_owned()]);
        assert_eq!((again.0, loaded(&system).len()), (0, 4));
    }

    #[test]
    fn what_is_loaded_already_stays_and_what_drives_nothing_is_no_failure() {
        let system = machine();
        system.file("/proc/modules", "failover 16384 1 net_failover, Live 0x0\n");
        system.file("/list", "# by name\nnet_failover\nvirtio-pci\n");
        system.fail("virtio-pci", Errno::ENODEV as i32);
        system.fail("virtio_net", Errno::ENOEXEC as i32);
        let mut index = ModuleIndex::read(&system);
        assert!(index.load_listed(&system, Path::new("/list")).is_empty());
        assert_eq!(loaded(&system), ["net_failover", "virtio_pci"]);
        assert_eq!(index.load_for(&system, ["virtio:d00000001v00001AF4".to_owned()]).1.len(), 1);
        assert_eq!(index.load_listed(&system, Path::new("/none")).len(), 1);
    }

    #[test]
    fn patterns_know_classes() {
        assert!(matches(b"cpu:type:x86,ven*fam*mod*:feature:*00[0-9A]F*", b"cpu:type:x86,ven0fam6mod1:feature:x009Fy"));
        assert!(!matches(b"a[b-d]?", b"aex"));
    }
}
