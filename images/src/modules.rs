//! Kernel modules: which to keep, and in which order to load them. What depmod would find out is read from the modules
//! themselves, for the kept ones only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use goblin::elf::Elf;

use crate::recipe::{BOOT_MODULES, NETWORK_MODULES, ROOT_MODULES, SPARE_MODULES};
use crate::tools;
use crate::tree::make_folder;

/// What the agent loads at boot, in this order; one path a line.
const BOOT_LIST: &str = "usr/lib/keelson/modules.list";

/// Copies the kept modules, uncompressed (the root file system compresses, and better), with `modules.dep` and
/// `modules.alias` in the usual form for loading others by name or device, and the list for boot.
pub(crate) fn choose(unpacked: &Path, root: &Path) -> Result<()> {
    let mut set = ModuleSet::open(unpacked)?;
    let lists = [ROOT_MODULES, BOOT_MODULES, NETWORK_MODULES, SPARE_MODULES];
    let wanted: Vec<&str> = lists.into_iter().flatten().copied().collect();
    set.unpack(&wanted, root)?;
    let loaded = set.order(ROOT_MODULES);
    let boot = set.order(BOOT_MODULES).into_iter().filter(|name| !loaded.contains(name));
    let boot: String = boot.map(|name| format!("/{}\n", set.kept[&name].path)).collect();
    make_folder(&root.join("usr/lib/keelson"))?;
    fs::write(root.join(BOOT_LIST), boot).context("write the list of modules")?;
    let folder = set.folder.strip_prefix(unpacked)?.to_owned();
    fs::write(root.join(&folder).join("modules.dep"), set.dependencies(&folder)?).context("write modules.dep")?;
    fs::write(root.join(&folder).join("modules.alias"), set.aliases()).context("write modules.alias")?;
    let builtin = "modules.builtin";
    fs::copy(set.folder.join(builtin), root.join(&folder).join(builtin)).context("copy modules.builtin")?;
    Ok(())
}

/// The first stage's modules in the order to load them, as paths within `root`.
pub(crate) fn first_stage(root: &Path) -> Result<Vec<PathBuf>> {
    let versions = fs::read_dir(root.join("usr/lib/modules"))?.collect::<Result<Vec<_>, _>>()?;
    let [version] = versions.as_slice() else { bail!("{} kernels in the image, not one", versions.len()) };
    let table = fs::read_to_string(version.path().join("modules.dep"))?;
    let mut ordered: Vec<PathBuf> = Vec::new();
    for wanted in ROOT_MODULES {
        let Some((own, needed)) =
            table.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| name_of(path) == *wanted)
        else {
            continue; // built in
        };
        for path in needed.split_whitespace().rev().chain([own]) {
            let path = version.path().join(path);
            if !ordered.contains(&path) {
                ordered.push(path);
            }
        }
    }
    Ok(ordered)
}

struct Module {
    /// In the image.
    path: String,
    depends: Vec<String>,
    /// Patterns of the devices, file systems and the like that it is for.
    aliases: Vec<String>,
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
                let depends: Vec<String> =
                    values(&entries, "depends").flat_map(|names| names.split(',')).map(name_of).collect();
                let depends: Vec<String> = depends.into_iter().filter(|name| !name.is_empty()).collect();
                queue.extend(depends.iter().cloned());
                let aliases = values(&entries, "alias").map(str::to_owned).collect();
                self.kept.insert(name, Module { path, depends, aliases });
            }
        }
        Ok(())
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
    fn dependencies(&self, folder: &Path) -> Result<String> {
        let mut text = String::new();
        for (name, module) in &self.kept {
            let mut needed = self.order(&[name]);
            needed.retain(|other| other != name);
            text.push_str(&format!("{}:", Path::new(&module.path).strip_prefix(folder)?.display()));
            for name in needed.iter().rev() {
                text.push_str(&format!(" {}", Path::new(&self.kept[name].path).strip_prefix(folder)?.display()));
            }
            text.push('\n');
        }
        Ok(text)
    }

    fn aliases(&self) -> String {
        let rows = self.kept.iter().flat_map(|(name, module)| module.aliases.iter().map(move |alias| (alias, name)));
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
        };
        let kept = [("a", module(&["b", "c"])), ("b", module(&["c"])), ("c", module(&[]))];
        let set = ModuleSet {
            folder: PathBuf::new(),
            available: BTreeMap::new(),
            builtin: BTreeSet::new(),
            kept: kept.into_iter().map(|(name, module)| (name.to_owned(), module)).collect(),
        };
        assert_eq!(set.order(&["a", "b"]), ["c", "b", "a"]);
    }
}
