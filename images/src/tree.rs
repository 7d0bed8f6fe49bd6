//! The root's files, chosen from unpacked packages: what the recipe names, the libraries that those need, the kernel
//! modules, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use goblin::elf::Elf;

use crate::modules::{self, Chosen};
use crate::packages::Packages;
use crate::recipe::{FILES, FOLDERS, LINKS, TEXTS, TREES};
use crate::tools;

/// Where the loader looks, in the packages' layout.
const LIBRARY_FOLDERS: &[&str] = &["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"];

/// Unpacks the packages into `unpacked`.
pub(crate) fn unpack(packages: &Packages, unpacked: &Path) -> Result<()> {
    for file in &packages.files {
        tools::run(tools::command("dpkg-deb").arg("--extract").arg(file).arg(unpacked))?;
    }
    Ok(())
}

/// Fills `root` from the unpacked packages, and `first_stage` with the modules of the initramfs. The agent itself is not
/// among them.
pub(crate) fn fill(unpacked: &Path, root: &Path, first_stage: &Path) -> Result<Chosen> {
    for folder in FOLDERS {
        make_folder(&root.join(folder))?;
    }
    set_mode(&root.join("tmp"), 0o1777)?;
    set_mode(&root.join("root"), 0o700)?;
    for (path, target) in LINKS {
        make_folder(root.join(path).parent().unwrap_or(root))?;
        symlink(target, root.join(path)).with_context(|| format!("link {path}"))?;
    }
    for (path, text) in TEXTS {
        make_folder(root.join(path).parent().unwrap_or(root))?;
        fs::write(root.join(path), text).with_context(|| format!("write {path}"))?;
    }
    for path in FILES {
        copy(unpacked, root, path)?;
    }
    for path in TREES {
        copy_tree(unpacked, root, path)?;
    }
    for path in libraries(unpacked, FILES)? {
        copy(unpacked, root, &path)?;
    }
    certificates(unpacked, root)?;
    modules::choose(unpacked, root, first_stage)
}

/// Copies a file with its mode; a symbolic link's target is copied under the link's name.
pub(crate) fn copy(from: &Path, to: &Path, path: &str) -> Result<()> {
    let target = to.join(path);
    make_folder(target.parent().unwrap_or(to))?;
    let source = resolve(from, path)?;
    fs::copy(&source, &target).with_context(|| format!("copy {}", source.display()))?;
    Ok(())
}

/// Copies a folder with all that is in it; symbolic links stay links.
fn copy_tree(from: &Path, to: &Path, path: &str) -> Result<()> {
    let (source, target) = (from.join(path), to.join(path));
    make_folder(&target)?;
    for entry in fs::read_dir(&source).with_context(|| format!("no package of the recipe has {path}"))? {
        let entry = entry.with_context(|| format!("list {path}"))?;
        let below = format!("{path}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().with_context(|| format!("look at {below}"))?;
        if kind.is_dir() {
            copy_tree(from, to, &below)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(entry.path()).with_context(|| format!("read {below}"))?;
            symlink(link, to.join(&below)).with_context(|| format!("link {below}"))?;
        } else {
            fs::copy(entry.path(), to.join(&below)).with_context(|| format!("copy {below}"))?;
        }
    }
    Ok(())
}

/// Follows links as they are meant, with `root` as the root; on the building machine an absolute link leads elsewhere.
fn resolve(root: &Path, path: &str) -> Result<PathBuf> {
    const DEPTH: usize = 8;
    let mut at = root.join(path);
    for _ in 0..DEPTH {
        let metadata = fs::symlink_metadata(&at).with_context(|| format!("no package of the recipe has {path}"))?;
        if !metadata.is_symlink() {
            return Ok(at);
        }
        let link = fs::read_link(&at)?;
        at = match link.strip_prefix("/") {
            Ok(absolute) => root.join(absolute),
            Err(_) => at.parent().unwrap_or(root).join(link),
        };
    }
    bail!("{path} is a link that leads to links without end");
}

/// The shared libraries that `files` need, directly or through others, and their loader.
fn libraries(root: &Path, files: &[&str]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut queue: Vec<String> = files.iter().map(|&path| path.to_owned()).collect();
    while let Some(path) = queue.pop() {
        let bytes = fs::read(resolve(root, &path)?)?;
        if !bytes.starts_with(goblin::elf::header::ELFMAG) {
            continue;
        }
        let elf = Elf::parse(&bytes).with_context(|| format!("parse {path}"))?;
        let loader = elf.interpreter.map(|loader| format!("usr{loader}"));
        for name in elf.libraries.iter().copied() {
            let library = locate(root, name).with_context(|| format!("{path} needs {name}; add its package"))?;
            if found.insert(library.clone()) {
                queue.push(library);
            }
        }
        found.extend(loader);
    }
    Ok(found)
}

fn locate(root: &Path, name: &str) -> Option<String> {
    let places = LIBRARY_FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
    places.into_iter().find(|path| root.join(path).symlink_metadata().is_ok())
}

/// One file of all trusted authorities, as `update-ca-certificates` would make it.
fn certificates(unpacked: &Path, root: &Path) -> Result<()> {
    let folder = unpacked.join("usr/share/ca-certificates/mozilla");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>().context("list authorities")?;
    paths.sort();
    let mut bundle = Vec::new();
    for path in paths {
        bundle.extend(fs::read(path)?);
    }
    fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), bundle).context("write the authorities")
}

pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| format!("chmod {}", path.display()))
}

/// Copies a tree by hard links, which costs no space and next to no time.
pub(crate) fn link_tree(from: &Path, to: &Path) -> Result<()> {
    make_folder(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let (source, target) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        let metadata = fs::symlink_metadata(&source)?;
        if metadata.is_dir() {
            link_tree(&source, &target)?;
        } else if metadata.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::hard_link(&source, &target).with_context(|| format!("link {}", target.display()))?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}
