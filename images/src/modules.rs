//! Kernel modules: which to keep, and in which order to load them. What depmod would find out is read from the modules
//! themselves, for the kept ones only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use goblin::elf::Elf;

use crate::recipe::modules::{
    BOOT_MODULES, DRIVERS, FILESYSTEM_MODULES, NETWORK_MODULES, ROOT_DRIVERS, ROOT_MODULES, SPARE_MODULES,
};
use crate::tools;
use crate::tree::make_folder;

/// The names of what is loaded at the start, whatever the devices, in this order; one a line.
const LIST: &str = "usr/lib/keelson/modules.list";

/// What the kept modules ask for beside modules.
pub(crate) struct Chosen {
    /// Names of files with firmware for devices.
    pub(crate) firmware: BTreeSet<String>,
}

/// Puts the kept modules into `root`, and those of the first stage into `first_stage` as well: uncompressed (the root
/// file system compresses, and better), with `modules.dep` and `modules.alias` in the usual form for loading them by
/// name or device, and the list for the start.
pub(crate) fn choose(unpacked: &Path, root: &Path, first_stage: &Path) -> Result<Chosen> {
    let mut set = ModuleSet::open(unpacked)?;
    let later = [DRIVERS, FILESYSTEM_MODULES, NETWORK_MODULES, SPARE_MODULES].concat();
    set.unpack(&[&[ROOT_MODULES, ROOT_DRIVERS, BOOT_MODULES].concat()[..], &later].concat(), root)?;
    let all: Vec<&str> = set.kept.keys().map(String::as_str).collect();
    set.describe(root, &all, BOOT_MODULES)?;
    let early = set.order(&[ROOT_MODULES, ROOT_DRIVERS].concat());
    for name in &early {
        let path = &set.kept[name].path;
        let target = first_stage.join(path);
        make_folder(target.parent().unwrap_or(first_stage))?;
        fs::hard_link(root.join(path), target).with_context(|| format!("link {path}"))?;
    }
    let early: Vec<&str> = early.iter().map(String::as_str).collect();
    set.describe(first_stage, &early, ROOT_MODULES)?;
    Ok(Chosen { firmware: set.kept.into_values().flat_map(|module| module.firmware).collect() })
}

struct Module {
    /// In the image.
    path: String,
    depends: Vec<String>,
    /// Patterns of the devices, file systems and the like that it is for.
    aliases: Vec<String>,
    /// Files that its devices may want to be given.
    firmware: Vec<String>,
}

struct ModuleSet {
    /// Of the unpacked packages, with the kernel's version as its name.
    folder: PathBuf,
    available: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    kept: BTreeMap<String, Module>,
}

impl ModuleSet {
    fn open(unpacked: &Path) -> Result<Self> {
        let folders = fs::read_dir(unpacked.join("usr/lib/modules"))
            .context("the kernel's package holds no modules")?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        let [folder] = folders.as_slice() else { bail!("{} kernels were unpacked, not one", folders.len()) };
        let mut available = BTreeMap::new();
        collect(&folder.join("kernel"), &mut available)?;
        let builtin =
            fs::read_to_string(folder.join("modules.builtin")).context("read the kernel's built-in modules")?;
        let builtin = builtin.lines().map(name_of).collect();
        Ok(Self { folder: folder.clone(), available, builtin, kept: BTreeMap::new() })
    }

    /// Decompresses the modules `wanted` and all that they need into the image, one generation of needs at a time.
    fn unpack(&mut self, wanted: &[&str], root: &Path) -> Result<()> {
        let mut queue: BTreeSet<String> = wanted.iter().map(|name| name_of(name)).collect();
        while !queue.is_empty() {
            let mut added = Vec::new();
            for name in std::mem::take(&mut queue) {
                if self.kept.contains_key(&name) || self.builtin.contains(&name) {
                    continue;
                }
                match self.available.get(&name) {
                    Some(path) => added.push((name, path.clone())),
                    None if SPARE_MODULES.contains(&name.as_str()) => {}
                    None => bail!("the kernel has no module {name}"),
                }
            }
            let unpacked = self.decompress(&added, root)?;
            for ((name, _), path) in added.into_iter().zip(unpacked) {
                let bytes = fs::read(root.join(&path))?;
                let entries = information(&bytes).with_context(|| format!("read module {name}"))?;
                let module = self.module(path, &entries);
                queue.extend(module.depends.iter().cloned());
                self.kept.insert(name, module);
            }
        }
        Ok(())
    }

    /// What a module says about itself. Of those that it would only like to have before it, those count that are modules.
    fn module(&self, path: String, entries: &[&str]) -> Module {
        let depends = values(entries, "depends").flat_map(|names| names.split(',')).map(name_of);
        let liked = values(entries, "softdep").filter_map(|text| text.strip_prefix("pre:"));
        let liked = liked.flat_map(str::split_whitespace).map(name_of).filter(|name| self.available.contains_key(name));
        let depends = depends.chain(liked).filter(|name| !name.is_empty()).collect();
        let owned = |key| values(entries, key).map(str::to_owned).collect();
        Module { path, depends, aliases: owned("alias"), firmware: owned("firmware") }
    }

    /// Writes the tables of the modules `names` into `root`, and which of them are loaded at the start.
    fn describe(&self, root: &Path, names: &[&str], start: &[&str]) -> Result<()> {
        let unpacked = self.folder.ancestors().nth(4).context("the kernel's folder is not below usr/lib/modules")?;
        let folder = self.folder.strip_prefix(unpacked)?;
        let put = |name: &str, text: String| {
            let path = root.join(folder).join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        put("modules.dep", self.dependencies(names, folder)?)?;
        put("modules.alias", self.aliases(names))?;
        put("modules.builtin", fs::read_to_string(self.folder.join("modules.builtin"))?)?;
        let list = root.join(LIST);
        make_folder(list.parent().unwrap_or(root))?;
        let start: String = start.iter().map(|name| format!("{name}\n")).collect();
        fs::write(&list, start).with_context(|| format!("write {}", list.display()))
    }

    fn decompress(&self, modules: &[(String, PathBuf)], root: &Path) -> Result<Vec<String>> {
        let unpacked = self.folder.ancestors().nth(4).context("the kernel's folder is not below usr/lib/modules")?;
        let mut paths = Vec::new();
        let mut packed = Vec::new();
        for (_, source) in modules {
            let path = source.strip_prefix(unpacked)?;
            let target = root.join(path);
            make_folder(target.parent().unwrap_or(root))?;
            fs::copy(source, &target).with_context(|| format!("copy {}", source.display()))?;
            let path = path.display().to_string();
            match path.strip_suffix(".xz") {
                Some(plain) => {
                    packed.push(target);
                    paths.push(plain.to_owned());
                }
                None => paths.push(path),
            }
        }
        if !packed.is_empty() {
            tools::run(tools::command("xz").args(["--decompress", "--force"]).args(&packed))?;
        }
        Ok(paths)
    }

    /// `names` and what they need, each after all that it needs.
    fn order(&self, names: &[&str]) -> Vec<String> {
        let mut ordered = Vec::new();
        for name in names {
            self.visit(&name_of(name), &mut ordered);
        }
        ordered
    }

    /// Each module's file and those it needs, the nearest first.
    fn dependencies(&self, names: &[&str], folder: &Path) -> Result<String> {
        let mut text = String::new();
        for name in names {
            let mut needed = self.order(&[name]);
            needed.retain(|other| other != name);
            text.push_str(&format!("{}:", Path::new(&self.kept[*name].path).strip_prefix(folder)?.display()));
            for name in needed.iter().rev() {
                text.push_str(&format!(" {}", Path::new(&self.kept[name].path).strip_prefix(folder)?.display()));
            }
            text.push('\n');
        }
        Ok(text)
    }

    fn aliases(&self, names: &[&str]) -> String {
        let rows = names.iter().flat_map(|name| self.kept[*name].aliases.iter().map(move |alias| (alias, name)));
        rows.map(|(alias, name)| format!("alias {alias} {name}\n")).collect()
    }

    fn visit(&self, name: &str, ordered: &mut Vec<String>) {
        let Some(module) = self.kept.get(name) else { return };
        if ordered.iter().any(|done| done == name) {
            return;
        }
        for needed in &module.depends {
            self.visit(needed, ordered);
        }
        ordered.push(name.to_owned());
    }
}

/// The tables of the modules of an extension, `modules.dep` and `modules.alias`. `files` are their paths below `tree`; the
/// system's own modules are named without their folder, which is not known here.
pub(crate) fn tables(tree: &Path, files: &[&String], release: &str) -> Result<(String, String)> {
    let folder = format!("usr/lib/modules/{release}/");
    let mut modules = BTreeMap::new();
    for path in files {
        let bytes = fs::read(tree.join(path)).with_context(|| format!("read {path}"))?;
        let entries =
            information(&bytes).with_context(|| format!("{path} is no module as it is; unpacked, it ends in .ko"))?;
        let made_for = values(&entries, "vermagic").find_map(|text| text.split(' ').next()).unwrap_or_default();
        if made_for != release {
            bail!("{path} is made for the kernel {made_for:?}, and lies among the modules of {release}");
        }
        let own = |key| values(&entries, key).map(str::to_owned).collect::<Vec<String>>();
        let depends: Vec<String> =
            own("depends").iter().flat_map(|names| names.split(',')).map(name_of).filter(|it| !it.is_empty()).collect();
        let below = path.strip_prefix(&folder).unwrap_or(path).to_owned();
        let module = Brought { file: below, depends, aliases: own("alias") };
        if modules.insert(name_of(path), module).is_some() {
            bail!("there are two modules {}", name_of(path));
        }
    }
    let line = |(name, module): (&String, &Brought)| {
        let (mut seen, mut needed) = (BTreeSet::from([name.clone()]), Vec::new());
        module.depends.iter().for_each(|other| need(other, &modules, &mut seen, &mut needed));
        // The nearest first.
        let needed: String = needed.iter().rev().map(|file| format!(" {file}")).collect();
        format!("{}:{needed}\n", module.file)
    };
    let alias = |(name, module): (&String, &Brought)| -> String {
        module.aliases.iter().map(|alias| format!("alias {alias} {name}\n")).collect()
    };
    Ok((modules.iter().map(line).collect(), modules.iter().map(alias).collect()))
}

/// A module that an extension brings.
struct Brought {
    /// Below the folder of the kernel's modules.
    file: String,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// What is needed for a module, and it, each after all that it needs itself.
fn need(name: &str, modules: &BTreeMap<String, Brought>, seen: &mut BTreeSet<String>, needed: &mut Vec<String>) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    let own = modules.get(name);
    own.iter().flat_map(|module| &module.depends).for_each(|other| need(other, modules, seen, needed));
    needed.push(own.map_or_else(|| name.to_owned(), |module| module.file.clone()));
}

fn collect(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else {
            found.insert(name_of(&path.display().to_string()), path);
        }
    }
    Ok(())
}

/// A module's name from its path. The kernel writes the dashes of file names as underscores.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// What a module says about itself, as `key=value`.
fn information(bytes: &[u8]) -> Result<Vec<&str>> {
    let elf = Elf::parse(bytes)?;
    let section = elf
        .section_headers
        .iter()
        .find(|header| elf.shdr_strtab.get_at(header.sh_name) == Some(".modinfo"))
        .and_then(goblin::elf::SectionHeader::file_range)
        .and_then(|range| bytes.get(range))
        .context("no .modinfo section")?;
    Ok(section.split(|&byte| byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()).collect())
}

fn values<'a>(entries: &'a [&str], key: &'a str) -> impl Iterator<Item = &'a str> {
    entries.iter().filter_map(move |entry| entry.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_come_from_paths() {
        assert_eq!(name_of("kernel/net/netfilter/nf-tables.ko.xz"), "nf_tables");
        assert_eq!(name_of("veth"), "veth");
    }

    #[test]
    fn modules_are_ordered_after_what_they_need() {
        let module = |depends: &[&str]| Module {
            path: String::new(),
            depends: depends.iter().map(|&name| name.to_owned()).collect(),
            aliases: Vec::new(),
            firmware: Vec::new(),
        };
        let kept = [("a", module(&["b", "c"])), ("b", module(&["c"])), ("c", module(&[]))];
        let set = ModuleSet {
            folder: PathBuf::new(),
            available: [("realtek".to_owned(), PathBuf::new())].into(),
            builtin: BTreeSet::new(),
            kept: kept.into_iter().map(|(name, module)| (name.to_owned(), module)).collect(),
        };
        let entries =
            ["depends=mii,libphy", "softdep=pre: realtek crypto-crc32c", "softdep=post: other", "firmware=a.fw"];
        let found = set.module("r8169.ko".to_owned(), &entries);
        assert_eq!(
            (found.depends, found.firmware),
            (vec!["mii".into(), "libphy".into(), "realtek".into()], vec!["a.fw".into()])
        );
        assert_eq!(set.order(&["a", "b"]), ["c", "b", "a"]);
    }
}
