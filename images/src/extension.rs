//! Extension files: further files of a system, as one file that machines are given beside their image; and the same files
//! as a part of an image.

use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ::disk::{About, EXTENSION_BYTES, EXTENSION_HEAD_BYTES, Extension, ExtensionHead, Verity};
use anyhow::{Context, Result, bail, ensure};
use install::extension::{OWN_FOLDER, Survey, survey};

use crate::fingerprint::{Fingerprint, remove, sha256_file};
use crate::{Compression, make_root, modules, release, sbom, tools, tree};

const TOOLS: &[tools::Tool] = &[("mkfs.erofs", "erofs-utils")];
/// Where an extension tells of itself, in its folder.
const ABOUT: &str = "about.json";

/// Makes the extension file `output` of the files below `folder`. Steps between are below `work`. Answers the list of what
/// it holds: CycloneDX.
///
/// # Errors
/// Something may not be in an extension, or the file not be written.
pub fn make(
    (folder, about): (&Path, About),
    (work, output): (&Path, &Path),
    sign: impl FnOnce(&[u8]) -> String,
) -> Result<String> {
    tools::require(TOOLS)?;
    let found = survey(folder, None).with_context(|| folder.display().to_string())?;
    let about = About { kernel: found.kernel.clone(), ..about };
    about.check()?;
    let (staged, files) = (work.join("tree"), work.join("files.erofs"));
    remove(&staged)?;
    copy(folder, &found.files, &staged)?;
    let list = describe(&about, &found, &staged)?;
    open_folders(&staged)?;
    let id = identifier(&staged)?;
    make_root(&staged, &files, &id, Compression::Small)?;
    write(output, &files, (about, &id), sign)?;
    for path in [staged, files] {
        remove(&path)?;
    }
    Ok(list)
}

/// Files and links, with the modes that those of a system have; nothing else is taken along.
fn copy(from: &Path, files: &[String], to: &Path) -> Result<()> {
    for path in files {
        let (source, target) = (from.join(path), to.join(path));
        tree::make_folder(target.parent().unwrap_or(to))?;
        let metadata = fs::symlink_metadata(&source).with_context(|| format!("look at {}", source.display()))?;
        if metadata.is_symlink() {
            symlink(fs::read_link(&source)?, &target).with_context(|| format!("link {}", target.display()))?;
            continue;
        }
        let is_program = metadata.permissions().mode() & 0o111 != 0;
        let content = fs::read(&source).with_context(|| format!("read {}", source.display()))?;
        fs::write(&target, content).with_context(|| format!("write {}", target.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(if is_program { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

/// Everybody may look into folders, whatever whoever makes the extension gives to new ones.
fn open_folders(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            open_folders(&path)?;
        }
    }
    Ok(())
}

/// Writes what an extension tells of itself: its name, its modules' tables, the list of its files.
fn describe(about: &About, found: &Survey, staged: &Path) -> Result<String> {
    let own = staged.join(OWN_FOLDER).join(&about.name);
    tree::make_folder(&own)?;
    let put = |name: &str, text: &str| fs::write(own.join(name), text).with_context(|| format!("write {name}"));
    if let Some(release) = &found.kernel {
        let folder = format!("usr/lib/modules/{release}/");
        let is_module = |path: &&String| path.starts_with(&folder) && path.contains(".ko");
        let all: Vec<&String> = found.files.iter().filter(is_module).collect();
        let (dependencies, aliases) = modules::tables(staged, &all, release)?;
        put("modules.dep", &dependencies)?;
        put("modules.alias", &aliases)?;
    }
    put(ABOUT, &serde_json::to_string(about)?)?;
    let plain = found.files.iter().filter(|path| !staged.join(path).is_symlink());
    let files = plain
        .map(|path| Ok((path.clone(), stdx::hex(&sha256_file(&staged.join(path))?))))
        .collect::<Result<Vec<_>>>()?;
    let list = sbom::of_files(about, &files)?;
    put("sbom.json", &list)?;
    Ok(list)
}

/// What the content comes to.
fn identifier(staged: &Path) -> Result<String> {
    let mut inputs = Fingerprint::default();
    let mut add = |path: &String| -> Result<()> {
        let place = staged.join(path);
        inputs.add(path);
        if place.is_symlink() {
            inputs.add(fs::read_link(&place)?.as_os_str().as_encoded_bytes());
        } else {
            inputs.add(fs::metadata(&place)?.permissions().mode().to_le_bytes()).add_file(&place)?;
        }
        Ok(())
    };
    let own = fs::read_dir(staged.join(OWN_FOLDER))?.next().context("the extension's own folder is gone")??;
    let all = survey(staged, own.file_name().to_str())?;
    all.files.iter().try_for_each(&mut add)?;
    Ok(inputs.hex()[..32].to_owned())
}

fn write(output: &Path, files: &Path, (about, id): (About, &str), sign: impl FnOnce(&[u8]) -> String) -> Result<()> {
    let salt = u128::from_str_radix(id, 16).context("the identifier")?.to_be_bytes();
    let data = fs::read(files).context("read the extension's files")?;
    let (verity, tree) = Verity::build(BufReader::new(data.as_slice()), &salt).context("make the hash tree")?;
    let head = Extension::new(about, id, &verity).head(sign)?;
    let bytes = (head.len() + data.len() + tree.len()) as u64;
    ensure!(bytes <= EXTENSION_BYTES, "the extension has {bytes} bytes, and {EXTENSION_BYTES} are the most");
    let mut file = fs::File::create(output).with_context(|| format!("make {}", output.display()))?;
    for part in [head, data, tree] {
        file.write_all(&part).with_context(|| format!("write {}", output.display()))?;
    }
    Ok(())
}

/// Makes what these extension files hold a part of the root `root`. With a key they must be signed by it.
///
/// # Errors
/// One is damaged, is not signed, does not go with the root, or holds what the root has.
pub(crate) fn merge(extensions: &[PathBuf], root: &Path, key: Option<&[u8]>) -> Result<Vec<About>> {
    let scratch = root.with_extension("extension");
    let mut merged = Vec::new();
    for path in extensions {
        remove(&scratch)?;
        let about = merge_one(path, (root, &scratch), key).with_context(|| path.display().to_string())?;
        merged.push(about);
    }
    remove(&scratch)?;
    Ok(merged)
}

fn merge_one(path: &Path, (root, scratch): (&Path, &Path), key: Option<&[u8]>) -> Result<About> {
    let file = fs::read(path).context("read it")?;
    let head = ExtensionHead::parse(&file)?;
    if let Some(Err(why)) = key.map(|key| install::extension::check_signature(key, &head)) {
        bail!("its signature {why}");
    }
    let data = usize::try_from(head.verity.bytes()).ok().and_then(|bytes| file[EXTENSION_HEAD_BYTES..].get(..bytes));
    let data = data.filter(|_| file.len() as u64 == head.bytes()).context("it is cut short, or too long")?;
    ensure!(Verity::build(data, &head.id)?.0 == head.verity, "it is damaged: its content is not what its head says");
    head.about.fits(&release(root)?, crate::VERSION)?;
    tree::make_folder(scratch)?;
    let (files, unpacked) = (scratch.join("files.erofs"), scratch.join("tree"));
    fs::write(&files, data).context("write its files")?;
    let mut command = tools::command("fsck.erofs");
    tools::run(command.arg(format!("--extract={}", unpacked.display())).arg("--no-preserve").arg(&files))?;
    let found = survey(&unpacked, Some(&head.about.name))?;
    if let Some(path) = found.files.iter().find(|path| root.join(path).symlink_metadata().is_ok()) {
        bail!("the image has {path} already");
    }
    copy(&unpacked, &found.files, root)?;
    Ok(head.about)
}

#[cfg(test)]
mod tests;
