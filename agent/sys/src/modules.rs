//! Kernel modules by name and by the devices that want them, from the tables that depmod wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::system::System;

/// The tables of one kernel, and which modules were loaded through them.
#[derive(Debug, Default)]
pub struct ModuleIndex {
    folder: PathBuf,
    /// Name to file and the files it needs, all relative to the folder.
    files: BTreeMap<String, (String, Vec<String>)>,
    aliases: Vec<(String, String)>,
    builtin: BTreeSet<String>,
    loaded: BTreeSet<String>,
}

impl ModuleIndex {
    /// Reads the tables of the running kernel. Without tables the index is empty.
    #[must_use]
    pub fn read(system: &dyn System) -> Self {
        let folder = Path::new("/lib/modules").join(system.kernel_release());
        let text =
            |file: &str| String::from_utf8_lossy(&system.read(&folder.join(file)).unwrap_or_default()).into_owned();
        let mut index = Self { folder: folder.clone(), ..Self::default() };
        for line in text("modules.dep").lines() {
            if let Some((file, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                index.files.insert(name_of(file), (file.to_owned(), needs));
            }
        }
        for line in text("modules.alias").lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) = (words.next(), words.next(), words.next()) {
                index.aliases.push((pattern.to_owned(), name.replace('-', "_")));
            }
        }
        index.builtin = text("modules.builtin").lines().map(name_of).collect();
        index
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

    /// Names of the modules that say they drive a device with this alias.
    #[must_use]
    pub fn for_alias(&self, modalias: &str) -> Vec<String> {
        let matching = self.aliases.iter().filter(|(pattern, _)| matches(pattern.as_bytes(), modalias.as_bytes()));
        let names: BTreeSet<&String> = matching.map(|(_, name)| name).collect();
        names.into_iter().cloned().collect()
    }

    /// Loads what the present devices want, again while that brings new devices to light. Returns names that were
    /// loaded and failures in words.
    pub fn load_for_devices(&mut self, system: &dyn System) -> (Vec<String>, Vec<Error>) {
        /// How deep devices hide behind each other (PCI, virtio, the device itself), with room to spare.
        const ROUNDS: usize = 5;
        let (mut names, mut failures, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for _ in 0..ROUNDS {
            let fresh: Vec<String> =
                device_aliases(system).into_iter().filter(|alias| seen.insert(alias.clone())).collect();
            let wanted: BTreeSet<String> = fresh.iter().flat_map(|alias| self.for_alias(alias)).collect();
            let wanted: Vec<String> = wanted.into_iter().filter(|name| !self.loaded.contains(name)).collect();
            if wanted.is_empty() {
                break;
            }
            for name in wanted {
                match self.load(system, &name, "") {
                    Ok(true) => names.push(name),
                    Ok(false) => {}
                    Err(error) => failures.push(error),
                }
            }
        }
        (names, failures)
    }
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
    fn devices_get_their_drivers() {
        let system = machine();
        system.file("/sys/bus/pci/devices/0/modalias", "pci:v00001AF4d00001000sv0sd0bc02sc00i00\n");
        system.file("/sys/bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n");
        let mut index = ModuleIndex::read(&system);
        let (names, failures) = index.load_for_devices(&system);
        assert_eq!(names, ["virtio_net", "virtio_pci"]);
        assert!(failures.is_empty());
    }

    #[test]
    fn patterns_know_classes() {
        assert!(matches(b"cpu:type:x86,ven*fam*mod*:feature:*00[0-9A]F*", b"cpu:type:x86,ven0fam6mod1:feature:x009Fy"));
        assert!(!matches(b"a[b-d]?", b"aex"));
    }
}
